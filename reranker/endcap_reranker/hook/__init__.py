"""The hook: Elasticsearch's ``_search`` and ``_msearch``, answered by the engine, reordered for the shopper."""

from endcap_reranker.hook.blueprint import hook_blueprint

__all__ = ["hook_blueprint"]
