"""Endcap's own fields stay out of the documents that shoppers see, and another's index stays byte for byte."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from elasticsearch import Elasticsearch
from flask import Flask
from flask.testing import FlaskClient

from endcap.catalog import Product
from endcap.catalog.product import INTERNAL_FIELDS
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap_reranker.hook import hook_blueprint
from endcap_reranker.hook.hidden import hide_in_body, hide_in_params


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"excludes": ["v"]}),
        ({"_source": True}, {"excludes": ["v"]}),
        ({"_source": "title"}, {"includes": "title", "excludes": ["v"]}),
        ({"_source": ["title", "*"]}, {"includes": ["title", "*"], "excludes": ["v"]}),
        ({"_source": {"includes": ["a"], "excludes": "b"}}, {"includes": ["a"], "excludes": ["b", "v"]}),
        ({"_source": {"exclude": ["b"]}}, {"exclude": ["b", "v"]}),
        ({"_source": False}, False),
        ({"stored_fields": ["title"]}, None),
        ({"stored_fields": "_none_"}, None),
        ({"stored_fields": ["title"], "_source": True}, {"excludes": ["v"]}),
        ({"stored_fields": ["_source"]}, {"excludes": ["v"]}),
    ],
)
def test_every_way_to_ask_for_documents(given: dict[str, Any], sent: Any) -> None:
    hide_in_body(given, ("v",))
    assert given.get("_source") == sent


def test_parameters_that_go_before_the_body() -> None:
    assert hide_in_params([("q", "x")], ("v",)) == [("q", "x")]
    assert hide_in_params([("_source", "false")], ("v",)) == [("_source", "false")]
    assert hide_in_params([("_source", "title")], ("v",)) == [("_source", "title"), ("_source_excludes", "v")]
    assert hide_in_params([("_source_excludes", "a")], ("v",)) == [("_source_excludes", "a,v")]


@pytest.fixture(scope="module")
def shop(elasticsearch: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder: Path = tmp_path_factory.mktemp("shop")
    settings = load_settings(
        engine_url=elasticsearch, index=f"own-{uuid.uuid4().hex[:8]}", data_dir=folder, text_encoder="none"
    )
    runtime = open_runtime(settings, start=False)
    runtime.engine.ensure(4, "encoder")
    vector = np.array([1, 0, 0, 0], dtype=np.float32)
    runtime.engine.upsert((Product(f"p{n}", f"red shoe {n}", brand="Fleet"), vector, "digest") for n in range(6))
    runtime.engine.refresh()
    runtime.upkeep.start()
    assert runtime.upkeep.wait_ready(120.0)
    yield runtime
    runtime.close()
    with Elasticsearch(elasticsearch, request_timeout=60) as cluster:
        cluster.indices.delete(index=list(cluster.indices.get_alias(name=settings.index)))


@pytest.fixture
def client(shop: Runtime) -> FlaskClient:
    app = Flask(__name__)
    app.register_blueprint(hook_blueprint(shop))
    return app.test_client()


@pytest.mark.elasticsearch
@pytest.mark.parametrize("headers", [{}, {"X-Endcap-Shopper": "ann"}, {"X-Endcap-Personalize": "off"}])
@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("GET", "?q=shoe", None),
        ("GET", "?_source=title,endcap_vector", None),
        ("POST", "", {"query": {"match": {"title": "shoe"}}}),
        ("POST", "", {"query": {"match": {"title": "shoe"}}, "_source": ["*"]}),
        ("POST", "", {"size": 3, "sort": ["id"]}),
    ],
)
def test_no_answer_shows_them(
    client: FlaskClient, shop: Runtime, headers: dict[str, str], method: str, query: str, body: Any
) -> None:
    answer = client.open(f"/{shop.settings.index}/_search{query}", method=method, json=body, headers=headers)
    assert answer.status_code == 200
    hits = orjson.loads(answer.data)["hits"]["hits"]
    assert hits
    assert all("title" in hit["_source"] for hit in hits)
    assert not {name for hit in hits for name in hit["_source"]} & set(INTERNAL_FIELDS)


@pytest.mark.elasticsearch
@pytest.mark.parametrize("stored", ["_none_", "title"])
@pytest.mark.parametrize("in_url", [True, False])
def test_who_asks_for_no_documents_gets_none(client: FlaskClient, shop: Runtime, stored: str, in_url: bool) -> None:
    path, body = f"/{shop.settings.index}/_search", {} if in_url else {"stored_fields": [stored]}
    answer = client.post(f"{path}?stored_fields={stored}" if in_url else path, json=body)
    assert answer.status_code == 200, answer.text
    assert not any("_source" in hit for hit in answer.get_json()["hits"]["hits"])


@pytest.mark.elasticsearch
def test_nor_does_an_msearch(client: FlaskClient, shop: Runtime) -> None:
    lines = b'{"index":"%s"}\n{"query":{"match_all":{}}}\n' % shop.settings.index.encode()
    answer = client.post("/_msearch", data=lines * 2, content_type="application/x-ndjson")
    for one in orjson.loads(answer.data)["responses"]:
        assert not {name for hit in one["hits"]["hits"] for name in hit["_source"]} & set(INTERNAL_FIELDS)


@pytest.mark.elasticsearch
def test_what_is_hidden_follows_the_index(shop: Runtime) -> None:
    assert shop.hidden_fields == INTERNAL_FIELDS
    foreign = load_settings(
        engine_url=shop.settings.engine_url, index=f"{shop.settings.index}-none", data_dir=shop.settings.data_dir
    )
    from endcap.runtime import open_engine

    engine = open_engine(foreign)
    assert engine.hidden_fields() == ()
    engine.close()
