"""The wire engines that the contract suites run against, over the same products, and how they are asked."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from endcap.engines import WireEngine
from endcap.engines.embedded import EmbeddedEngine
from endcap.engines.embedded.wire import EmbeddedWireEngine
from endcap.settings import Settings
from tests.contracts.wire_shop import DIMS, ENCODER, PRODUCTS, items

Answer = tuple[int, dict[str, Any]]
#: path, body (or NDJSON lines), query string -> status, answer
Send = Callable[..., Answer]

INDEX = f"wire-{uuid.uuid4().hex[:10]}"


def _embedded(request: pytest.FixtureRequest) -> WireEngine:
    folder = request.getfixturevalue("tmp_path_factory").mktemp("wire")
    engine = EmbeddedEngine(folder, INDEX)
    engine.ensure(DIMS, ENCODER)
    # Written in several commits, so that what is asked spans segments.
    for start in range(0, len(PRODUCTS), 17):
        assert engine.upsert(items()[start : start + 17]).errors == []
        engine.refresh()
    request.addfinalizer(engine.close)
    return EmbeddedWireEngine(engine, INDEX)


def _elasticsearch(request: pytest.FixtureRequest) -> WireEngine:
    from elasticsearch import Elasticsearch

    from endcap.engines.elasticsearch import ElasticsearchEngine
    from endcap.engines.forward import HttpWireEngine

    url = request.getfixturevalue("elasticsearch")
    settings = Settings(engine_url=url, index=INDEX)
    engine = ElasticsearchEngine(settings)
    engine.ensure(DIMS, ENCODER)
    assert engine.upsert(items()).errors == []
    engine.refresh()

    def remove() -> None:
        with Elasticsearch(url, request_timeout=60) as client:
            client.indices.delete(index=",".join(client.indices.get(index=INDEX)))

    request.addfinalizer(remove)
    return HttpWireEngine(settings)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(_embedded, id="embedded"),
        pytest.param(_elasticsearch, id="elasticsearch", marks=pytest.mark.elasticsearch),
    ],
)
def wire(request: pytest.FixtureRequest) -> Iterator[WireEngine]:
    made: WireEngine = request.param(request)
    yield made
    made.close()


@pytest.fixture(scope="module")
def send(wire: WireEngine) -> Send:
    def ask(body: Any, path: str = f"/{INDEX}/_search", query: str = "", **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = wire.send("POST", path, query, {"Content-Type": "application/json", **headers}, raw, 30.0)
        return answer.status, json.loads(answer.body)

    return ask


def found(answer: Answer) -> list[str]:
    """Ids of the hits, in order."""
    status, body = answer
    assert status == 200, body
    return [hit["_id"] for hit in body["hits"]["hits"]]


def having(test: Callable[[Any], bool]) -> list[str]:
    """Ids of the products that pass, in order."""
    return [one.id for one in PRODUCTS if test(one)]


ALL = {"size": 100, "_source": False, "sort": [{"id": "asc"}]}


def price_or_last(product: Any) -> float:
    """The price; products without one come last."""
    return float("inf") if product.price is None else float(product.price)
