"""The console under ``/console``: pages for those who run the shop's search, made on the server."""

from endcap_reranker.console.blueprint import create_console

__all__ = ["create_console"]
