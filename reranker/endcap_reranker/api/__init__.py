"""Endcap's own JSON API under ``/v1``: search and events. One error format throughout (RFC 9457)."""

from endcap_reranker.api.blueprint import create_api

__all__ = ["create_api"]
