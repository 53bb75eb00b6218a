"""Products in an Elasticsearch that is down, silent, refusing, or someone else's."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from endcap.catalog.product import Product
from endcap.engines.base import SearchRequest
from endcap.engines.elasticsearch import ElasticsearchEngine
from endcap.errors import (
    ConfigurationError,
    EngineError,
    EngineUnavailable,
)
from tests.plugin.elasticsearch_support import (
    Make,
    concrete,
    every_write,
    ids,
    index,
    make,
    no_drain,
    pass_on,
    unit,
)
from tests.services.elasticsearch import Secured
from tests.services.process import free_port
from tests.services.raw_http import RawServer, answer, header
from tests.serving import eventually

__all__ = ["index", "make", "no_drain"]


def every_call(engine: ElasticsearchEngine) -> list[Callable[[], Any]]:
    return [
        *every_write(engine),
        engine.refresh,
        engine.count,
        engine.version,
        lambda: engine.get(["1"]),
        lambda: engine.digests(["1"]),
        lambda: list(engine.scan()),
        lambda: engine.search(SearchRequest("a")),
        lambda: engine.nearest(unit(1, 0), 1),
    ]


def test_an_engine_that_is_down(make: Make) -> None:
    for attempt in every_call(make(engine_url=f"http://127.0.0.1:{free_port()}")):
        with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
            attempt()
        assert caught.value.status == 503


def test_an_engine_that_is_silent(make: Make) -> None:
    over = threading.Event()

    def nothing(_: bytes, connection: socket.socket) -> bool:
        over.wait(60)
        return False

    with RawServer(nothing) as server:
        with pytest.raises(EngineUnavailable, match="in time"):
            make(engine_url=server.url, engine_timeout_s=0.2).search(SearchRequest("a"))
        assert eventually(lambda: server.requests)
        over.set()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [("503 Service Unavailable", EngineUnavailable), ("500 Oops", EngineError)]
)
def test_an_engine_that_cannot(make: Make, status: str, kind: type[EngineError]) -> None:
    body = b'{"error":{"root_cause":[{"type":"t","reason":"no master"}],"type":"t","reason":"r"},"status":1}'

    def fault(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(answer(body, status, content_type="application/json"))
        return True

    with RawServer(fault) as server, pytest.raises(EngineError, match="no master") as caught:
        make(engine_url=server.url).search(SearchRequest("a"))
    assert type(caught.value) is kind
    assert caught.value.status == int(status[:3])
    assert caught.value.body == json.loads(body)


def test_nothing_is_made_on_another_product(make: Make, opensearch: str, index: str) -> None:
    for attempt in every_write(make(engine_url=opensearch)):
        with pytest.raises(ConfigurationError, match="not an Elasticsearch"):
            attempt()
    assert concrete(opensearch, index) == []


def test_the_engine_comes_back(make: Make, elasticsearch: str) -> None:
    make().ensure(None, "")
    port = free_port()
    engine = make(engine_url=f"http://127.0.0.1:{port}")
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            engine.search(SearchRequest())

    def relay(connection: socket.socket, target: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                target.sendall(data)
        except OSError:
            pass

    host, real_port = elasticsearch.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            upstream = socket.create_connection((host, int(real_port)))
            threading.Thread(target=relay, args=(connection, upstream), daemon=True).start()
            relay(upstream, connection)

        threading.Thread(target=accept, daemon=True).start()
        assert engine.search(SearchRequest()).total == 0


def test_credentials(make: Make, secured_elasticsearch: Secured, index: str) -> None:
    secured = secured_elasticsearch
    address: dict[str, Any] = {"engine_url": secured.url, "engine_ca_file": secured.ca_file}
    for wrong in ({}, {"engine_username": secured.username, "engine_password": "guess"}, {"engine_api_key": "a:b"}):
        with pytest.raises(EngineError, match="refuses access") as caught:
            make(**address, **wrong).ensure(None, "")
        assert caught.value.status == 401
        assert "guess" not in str(caught.value)
    with pytest.raises(EngineUnavailable, match="certificate"):
        make(engine_url=secured.url).count()

    # All over the products and nothing in the cluster: no more rights than that are needed.
    engine = make(**address, engine_username=secured.restricted, engine_password=secured.password)
    engine.ensure(2, "e")
    engine.upsert([(Product("1", title="Tea"), unit(1, 1), "")])
    engine.refresh()
    assert ids(engine, "tea") == ["1"]
    with engine.rebuild(2, "e") as rebuild:
        rebuild.upsert([(Product("1", title="Coffee"), unit(1, 1), "")])
    assert ids(engine, "coffee") == ["1"]
    assert engine.version()
    assert [len(batch) for batch in engine.scan()] == [1]
    in_url = secured.url.replace("https://", f"https://{secured.restricted}:a%20long%20p%3Assword@")
    assert make(engine_url=in_url, engine_ca_file=secured.ca_file).count() == 1
    elsewhere = make(engine_url=in_url, engine_ca_file=secured.ca_file, index="others")
    with pytest.raises(EngineError, match="refuses access") as caught:
        elsewhere.ensure(None, "")
    assert caught.value.status == 403


@pytest.mark.parametrize("key", ["id:secret", "aWQ6c2VjcmV0"])
def test_an_api_key_is_sent_in_either_form(make: Make, elasticsearch: str, key: str) -> None:
    with RawServer(lambda request, connection: pass_on(request, connection, elasticsearch)) as server:
        make(engine_url=server.url, engine_api_key=SecretStr(key), engine_username="ignored").count()
    assert header(server.requests[0], "authorization") == "ApiKey aWQ6c2VjcmV0"
