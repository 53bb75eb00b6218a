"""The wire engine in front of real engines, and of servers that misbehave."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from endcap.engines.base import WireAnswer
from endcap.engines.forward import HttpWireEngine
from endcap.errors import ConfigurationError, EngineUnavailable, InvalidInput
from endcap.settings import Settings
from tests.services import patient
from tests.services.elasticsearch import Secured
from tests.services.process import free_port
from tests.services.raw_http import RawServer, answer, header
from tests.serving import eventually

JSON = {"Content-Type": "application/json"}


def wire(url: str, **settings: Any) -> HttpWireEngine:
    return HttpWireEngine(Settings(engine_url=url, **settings))


def post(engine: HttpWireEngine, path: str, body: Any, timeout_s: float = 30.0, **headers: str) -> WireAnswer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return engine.send("POST", path, "", {**JSON, **headers}, data, timeout_s)


@pytest.fixture(params=["elasticsearch", "opensearch"])
def real(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def index(real: str) -> Iterator[str]:
    name = f"forward-{uuid.uuid4().hex[:8]}"
    lines = "".join(f'{{"index":{{"_id":"{n}"}}}}\n{{"title":"Honig {n} 蜂蜜"}}\n' for n in range(3))
    headers = {"content-type": "application/x-ndjson"}
    patient.request("POST", f"{real}/{name}/_bulk?refresh=true", body=lines.encode(), headers=headers)
    yield name
    patient.request("DELETE", f"{real}/{name}")


def without_took(body: bytes) -> Any:
    parsed = json.loads(body)
    for one in (parsed, *parsed.get("responses", ())):
        one.pop("took", None)
    return parsed


def test_a_search_is_answered_as_by_the_engine_itself(real: str, index: str) -> None:
    body = json.dumps({"query": {"match": {"title": "蜂蜜"}}, "sort": ["_doc"]}).encode()
    direct = patient.request("POST", f"{real}/{index}/_search?typed_keys=true", body=body, headers=JSON)
    engine = wire(real)
    forwarded = engine.send("POST", f"/{index}/_search", "typed_keys=true", JSON, body, 30.0)
    assert forwarded.status == 200
    assert without_took(forwarded.body) == without_took(direct.data)
    assert len(json.loads(forwarded.body)["hits"]["hits"]) == 3
    about_connection = {"content-length", "connection", "transfer-encoding"}
    expected = {key.lower(): value for key, value in direct.headers.items() if key.lower() not in about_connection}
    assert {key.lower(): value for key, value in forwarded.headers.items()} == expected
    assert forwarded.headers.get("CONTENT-TYPE", "").startswith("application/json")


def test_msearch_get_with_body_query_string_and_head(real: str, index: str) -> None:
    engine = wire(real)
    lines = f'{{"index":"{index}"}}\n{{"size":1}}\n{{"index":"nope"}}\n{{"size":1}}\n'.encode()
    several = engine.send("POST", "/_msearch", "", {"Content-Type": "application/x-ndjson"}, lines, 30.0)
    assert [one["status"] for one in json.loads(several.body)["responses"]] == [200, 404]
    by_get = engine.send("GET", f"/{index}/_search", "", JSON, b'{"query":{"ids":{"values":["2"]}}}', 30.0)
    assert [hit["_id"] for hit in json.loads(by_get.body)["hits"]["hits"]] == ["2"]
    by_query = engine.send("GET", f"/{index}/_search", "q=title:%E8%9C%82&size=2", {}, b"", 30.0)
    assert len(json.loads(by_query.body)["hits"]["hits"]) == 2
    head = engine.send("HEAD", f"/{index}", "", {}, b"", 30.0)
    assert (head.status, head.body) == (200, b"")
    assert engine.send("HEAD", "/nope", "", {}, b"", 30.0).status == 404


def test_errors_of_the_engine_are_answers_verbatim(real: str, index: str) -> None:
    engine = wire(real)
    direct = patient.request("POST", f"{real}/{index}/_search", body=b'{"query": {"no": {}}}', headers=JSON)
    refused = post(engine, f"/{index}/_search", {"query": {"no": {}}})
    assert refused.status == direct.status == 400
    assert json.loads(refused.body) == direct.json()
    missing = post(engine, "/nope/_search", {})
    assert missing.status == 404
    assert json.loads(missing.body)["error"]["type"] == "index_not_found_exception"
    assert post(engine, f"/{index}/_search", b"{").status == 400


def test_an_index_name_beyond_ascii_reaches_the_engine(real: str) -> None:
    name = f"käse-{uuid.uuid4().hex[:8]}"
    patient.request("PUT", f"{real}/{name}")
    try:
        assert post(wire(real), f"/{name}/_search", {}).status == 200
    finally:
        patient.request("DELETE", f"{real}/{name}")


def test_elasticsearch_says_which_product_it_is(elasticsearch: str) -> None:
    found = wire(elasticsearch).send("GET", "/_search", "size=0", {}, b"", 30.0)
    assert found.headers["X-Elastic-Product"] == "Elasticsearch"


def test_compatible_media_types_are_forwarded(elasticsearch: str) -> None:
    engine = wire(elasticsearch)
    compatible = "application/vnd.elasticsearch+json; compatible-with=8"
    found = engine.send("POST", "/_search", "", {"content-type": compatible, "accept": compatible}, b"{}", 30.0)
    assert found.status == 200
    assert found.headers["content-type"] == "application/vnd.elasticsearch+json;compatible-with=8"
    mixed = engine.send("POST", "/_search", "", {"content-type": compatible.replace("8", "9")}, b"{}", 30.0)
    assert mixed.status == 400


def test_many_threads_share_few_connections(elasticsearch: str) -> None:
    engine = wire(elasticsearch, engine_connections=2)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(engine, "/_search", {"size": 0}).status, range(64)))
    assert answers == [200] * 64
    engine.close()


def test_tls_and_credentials(secured_elasticsearch: Secured) -> None:
    url, ca = secured_elasticsearch.url, secured_elasticsearch.ca_file
    login = {
        "engine_username": secured_elasticsearch.username,
        "engine_password": secured_elasticsearch.password,
    }
    assert post(wire(url, engine_ca_file=ca), "/_search", {}).status == 401
    assert post(wire(url, engine_ca_file=ca, **login), "/_search", {}).status == 200
    # The client's own credentials win, even where they are wrong.
    wrong = "Basic " + base64.b64encode(b"mallory:guess").decode()
    assert post(wire(url, engine_ca_file=ca, **login), "/_search", {}, authorization=wrong).status == 401
    with pytest.raises(EngineUnavailable, match="cannot be reached") as refused:
        post(wire(url, **login), "/_search", {})
    assert "certificate" in str(refused.value.__cause__)
    assert url not in str(refused.value), "shoppers need not know where the engine stands"
    with pytest.raises(ConfigurationError, match="engine_ca_file"):
        wire(url, engine_ca_file="/nowhere/ca.pem")


# --- what no real engine does on demand -----------------------------------------------------------------------------


def ok(_: bytes, connection: socket.socket) -> bool:
    connection.sendall(answer(b"{}", content_type="application/json"))
    return True


def test_connections_are_kept() -> None:
    with RawServer(ok) as server:
        engine = wire(server.url)
        for _ in range(5):
            assert post(engine, "/_search", {}).body == b"{}"
        assert (len(server.requests), server.connections) == (5, 1)


def test_what_is_sent_on() -> None:
    with RawServer(ok) as server:
        engine = wire(f"{server.url}/es/", engine_api_key="id:secret")
        sent = {
            "Host": "shop.example",
            "Connection": "keep-alive, X-Private",
            "X-Private": "1",
            "Keep-Alive": "timeout=5",
            "TE": "trailers",
            "Transfer-Encoding": "chunked",
            "Content-Length": "999",
            "Accept-Encoding": "gzip, br",
            "Expect": "100-continue",
            "Cookie": "session=1",
            "X-Opaque-Id": "7",
            **JSON,
        }
        engine.send("POST", "/products/_search", "routing=a%2Fb", sent, b'{"size":1}', 30.0)
        engine.send("POST", "/products/_search", "", {"AUTHORIZATION": "Bearer theirs"}, b"{}", 30.0)
    first, second = server.requests
    assert first.startswith(b"POST /es/products/_search?routing=a%2Fb HTTP/1.1\r\n")
    assert first.endswith(b'\r\n\r\n{"size":1}')
    for gone in ("x-private", "keep-alive", "te", "transfer-encoding", "expect"):
        assert header(first, gone) is None
    assert header(first, "host") == server.url.removeprefix("http://")
    assert header(first, "content-length") == "10"
    assert header(first, "accept-encoding") == "identity"
    assert (header(first, "cookie"), header(first, "x-opaque-id")) == ("session=1", "7")
    assert header(first, "authorization") == "ApiKey " + base64.b64encode(b"id:secret").decode()
    assert header(second, "authorization") == "Bearer theirs"


def test_nothing_is_added_without_credentials_in_the_settings() -> None:
    with RawServer(ok) as server:
        post(wire(server.url), "/_search", {})
    assert header(server.requests[0], "authorization") is None


def test_a_packed_answer_is_unpacked() -> None:
    plain = json.dumps({"hits": list(range(50_000))}).encode()

    def packed(_: bytes, connection: socket.socket) -> bool:
        data = answer(gzip.compress(plain), content_encoding="gzip", connection="keep-alive", keep_alive="timeout=5")
        for start in range(0, len(data), 4000):
            connection.sendall(data[start : start + 4000])
        return True

    with RawServer(packed) as server:
        found = post(wire(server.url), "/_search", {})
    assert found.body == plain
    assert dict(found.headers) == {}


def test_a_chunked_answer_is_put_together() -> None:
    def chunked(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(
            b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{"\r\n3\r\na":\r\n2\r\n1}\r\n0\r\n\r\n'
        )
        return True

    with RawServer(chunked) as server:
        engine = wire(server.url)
        assert [post(engine, "/_search", {}).body for _ in range(2)] == [b'{"a":1}'] * 2
        assert server.connections == 1


def test_a_redirect_is_not_followed() -> None:
    def elsewhere(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(answer(b"", "302 Found", location="/other"))
        return True

    with RawServer(elsewhere) as server:
        found = post(wire(server.url), "/_search", {})
    assert (found.status, found.headers["location"], len(server.requests)) == (302, "/other", 1)


def test_a_connection_closed_while_idle_is_opened_again() -> None:
    served = 0

    def once(_: bytes, connection: socket.socket) -> bool:
        # The second request on a connection is met by its end, as when the engine's keep-alive has just run out.
        nonlocal served
        served += 1
        if served != 2:
            connection.sendall(answer(b"{}"))
        return served != 2

    with RawServer(once) as server:
        engine = wire(server.url)
        assert post(engine, "/_search", {}).status == 200
        assert post(engine, "/_search", {}).status == 200
        assert (len(server.requests), server.connections) == (3, 2)


def test_nobody_listens() -> None:
    with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
        post(wire(f"http://127.0.0.1:{free_port()}"), "/_search", {})
    assert caught.value.status == 503


def test_the_engine_says_nothing() -> None:
    silent = threading.Event()

    def nothing(_: bytes, connection: socket.socket) -> bool:
        silent.wait(60)
        return False

    with RawServer(nothing) as server:
        with pytest.raises(EngineUnavailable, match=r"did not answer within 0\.2 s") as caught:
            post(wire(server.url), "/_search", {}, timeout_s=0.2)
        assert eventually(lambda: server.requests)
        silent.set()
        assert caught.value.status == 504
        assert len(server.requests) == 1  # never asked twice: it would take twice as long


def test_the_engine_drips() -> None:
    stopped = threading.Event()

    def drip(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not stopped.wait(0.05):
            connection.sendall(b" ")
        return False

    with RawServer(drip) as server:
        engine = wire(server.url)
        # Each byte arrives in time: only the bound of the whole ends this, long before the answer would.
        with pytest.raises(EngineUnavailable) as caught:
            post(engine, "/_search", {}, timeout_s=0.5)
        stopped.set()
        assert caught.value.status == 504


def test_the_engine_breaks_off() -> None:
    def half(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(answer(b"{}" * 50)[:-20])
        return False

    with RawServer(half) as server:
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            post(wire(server.url), "/_search", {})
        assert len(server.requests) == 2


def test_it_is_no_http() -> None:
    def noise(_: bytes, connection: socket.socket) -> bool:
        connection.sendall(b"220 smtp.example ESMTP\r\n")
        return False

    with RawServer(noise) as server, pytest.raises(EngineUnavailable):
        post(wire(server.url), "/_search", {})


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "\ud800", "日本"])
def test_a_header_that_cannot_be_sent(value: str) -> None:
    with RawServer(ok) as server:
        engine = wire(server.url)
        with pytest.raises(InvalidInput):
            engine.send("POST", "/_search", "", {"X-Opaque-Id": value}, b"{}", 30.0)
        assert post(engine, "/_search", {}).status == 200
        assert all(b"Injected" not in one for one in server.requests)


@pytest.mark.parametrize("url", ["http://", "http://host:port", "http://host/?a=b"])
def test_an_address_that_cannot_be_read(url: str) -> None:
    with pytest.raises(ConfigurationError, match="engine_url"):
        wire(url)
