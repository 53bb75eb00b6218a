"""Fixtures of the server's tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, expect, sync_playwright

from endcap.runtime import Runtime
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app
from tests.reranker.demo_support import serving
from tests.reranker.hook_support import Shop, make_index
from tests.reranker.pages import PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def shop_engine(elasticsearch: str) -> str:
    """Elasticsearch with the index ``shop`` (three shards), ``articles`` and ``secret``."""
    make_index(elasticsearch, "shop", shards=3)
    make_index(elasticsearch, "articles")
    make_index(elasticsearch, "secret")
    return elasticsearch


@pytest.fixture(params=["never", "always"])
def shop(shop_engine: str, request: pytest.FixtureRequest) -> Shop:
    """The hook over it: window 50, an order by hash; what holds in one phase must hold in two."""
    return Shop(shop_engine, two_phase=request.param, searchable_indices=["shop", "articles"])


@pytest.fixture(scope="module")
def url(runtime: Runtime) -> Iterator[str]:
    """Where the test file's own ``runtime`` is served."""
    with serving(runtime) as address:
        yield address


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> FlaskClient:
    """Calls of the test file's own ``runtime``."""
    return create_app(runtime).test_client()


@pytest.fixture(scope="module")
def operator(runtime: Runtime) -> dict[str, str]:
    """The headers of an operator's call of it."""
    text, _ = Tokens(runtime.database).create("shopkeeper", "operator")
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def regular(runtime: Runtime) -> str:
    """The household with most purchases."""
    with sqlite3.connect(runtime.settings.data_dir / "endcap.sqlite") as database:
        row = database.execute("SELECT shopper FROM events GROUP BY shopper ORDER BY count(*) DESC LIMIT 1").fetchone()
    return str(row[0])


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
