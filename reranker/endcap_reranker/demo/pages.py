"""Mounts the storefront where a shop was set up for it."""

from __future__ import annotations

from flask import Blueprint

from endcap.runtime import Runtime
from endcap_reranker.storefront import create_storefront, load_showcase


def create_demo(runtime: Runtime) -> Blueprint:
    """The storefront of the runtime's data folder; nothing where ``endcap demo`` never set one up there."""
    showcase = load_showcase(runtime.settings.data_dir)
    return Blueprint("endcap_no_storefront", __name__) if showcase is None else create_storefront(runtime, showcase)
