"""Engines over a real Elasticsearch, each on an index of its own."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from endcap.catalog.product import Product
from endcap.engines.base import Engine, SearchRequest
from endcap.engines.elasticsearch import ElasticsearchEngine, indices
from endcap.settings import Settings
from tests.services import patient
from tests.services.raw_http import answer, header

Make = Callable[..., ElasticsearchEngine]


@pytest.fixture(autouse=True)
def no_drain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "leaves_no_gap" not in request.node.name:
        monkeypatch.setattr(indices, "DRAIN_S", 0.0)


@pytest.fixture
def index(elasticsearch: str) -> Iterator[str]:
    """A name of its own; everything that begins with it is removed afterwards."""
    name = f"products-{uuid.uuid4().hex[:8]}"
    yield name
    for found in json.loads(patient.request("GET", f"{elasticsearch}/{name}*").data):
        patient.request("DELETE", f"{elasticsearch}/{found}")


@pytest.fixture
def make(elasticsearch: str, index: str) -> Iterator[Make]:
    made: list[ElasticsearchEngine] = []

    def build(**settings: Any) -> ElasticsearchEngine:
        made.append(ElasticsearchEngine(Settings(**{"engine_url": elasticsearch, "index": index, **settings})))
        return made[-1]

    yield build
    for one in made:
        one.close()


def call(method: str, url: str, body: Any = None) -> Any:
    found = patient.request(method, url, json=body) if body is not None else patient.request(method, url)
    assert found.status < 300, found.data
    return found.json() if found.data else None


def concrete(elasticsearch: str, index: str) -> list[str]:
    return sorted(json.loads(patient.request("GET", f"{elasticsearch}/{index}*").data))


def unit(*numbers: float) -> np.ndarray:
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def plain(*products: Product) -> list[tuple[Product, None, str]]:
    return [(one, None, "") for one in products]


def ids(engine: Engine, text: str, **more: Any) -> list[str]:
    return [hit.id for hit in engine.search(SearchRequest(text, **more)).hits]


def pass_on(request: bytes, connection: socket.socket, url: str) -> bool:
    """Forward a raw request to the real engine."""
    line, _, body = request.partition(b"\r\n\r\n")
    method, path = line.split(b" ", 2)[:2]
    kind = {name: header(request, name) or "" for name in ("content-type", "accept") if header(request, name)}
    real = patient.request(method.decode(), url + path.decode(), body=body, headers=kind)
    sent = {"x_elastic_product": "Elasticsearch", "content_type": real.headers["content-type"]}
    connection.sendall(answer(real.data, f"{real.status} {real.reason}", **sent))
    return True


def every_write(engine: ElasticsearchEngine) -> list[Callable[[], Any]]:
    return [
        lambda: engine.ensure(None, ""),
        lambda: engine.upsert(plain(Product("1"))),
        lambda: engine.update([("1", {"price": 1.0})]),
        lambda: engine.delete(["1"]),
        lambda: engine.rebuild(None, "").__enter__(),
    ]
