"""HTTP as the clients and the engine speak it: headers, media types, compression, parameters, faults."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from typing import Any

import numpy as np
import pytest
import urllib3

from tests.reranker.hook_support import (
    RED,
    SHOPPER,
    VENDOR,
    Broken,
    Shop,
    auto_shop,
    engine_call,
    expected,
    expected_order,
    hanging_engine,
    ids,
    make_index,
    serving,
    without_hits,
)

__all__ = ["auto_shop"]


def raw(shop: Shop, path: str, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    return engine_call("POST", f"{shop.url}{path}", body=body, headers=headers)


def test_the_product_header_and_warnings_are_forwarded(shop: Shop) -> None:
    answer = shop.post(RED)
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    deprecated = {**RED, "highlight": {"force_source": True, "fields": {"title": {}}}}
    assert "force_source" in shop.post(deprecated).headers["Warning"]


def test_media_types_go_through_as_received(shop: Shop) -> None:
    answer = shop.post(json.dumps(RED), headers={"Content-Type": VENDOR, "Accept": VENDOR})
    assert answer.headers["Content-Type"] == "application/vnd.elasticsearch+json;compatible-with=8"
    assert ids(json.loads(answer.data)) == expected(shop)
    sent = shop.wire.sent[0][3]
    assert (sent["Content-Type"], sent["Accept"]) == (VENDOR, VENDOR)


@pytest.mark.parametrize("version", ["9", "8"])
def test_media_types_that_do_not_go_together_are_the_engines_error(shop: Shop, version: str) -> None:
    """elasticsearch-py #2923, elasticsearch-ruby #2665: an 8.x server answers 400 to 9, and to one header alone."""
    headers = {"Content-Type": VENDOR.replace("8", version), "Accept": "application/json" if version == "8" else VENDOR}
    answer = shop.post(json.dumps(RED), headers=headers)
    direct = raw(shop, "/shop/_search", json.dumps(RED).encode(), headers)
    assert answer.status_code == direct.status
    assert answer.data == direct.data


def test_a_body_that_is_added_is_of_the_type_that_is_accepted(shop: Shop) -> None:
    answer = shop.client.get("/shop/_search?q=title:red&size=6", headers={**SHOPPER, "Accept": VENDOR})
    assert ids(json.loads(answer.data)) == expected_order(ids(shop.direct({**RED, "size": 180})))[:6]


@pytest.mark.parametrize("media", ["text/plain", "application/yaml", "application/cbor", ""])
@pytest.mark.parametrize("path", ["/shop/_search", "/_msearch"])
def test_other_media_types_are_refused_as_elasticsearch_does(shop: Shop, media: str, path: str) -> None:
    answer = shop.post(b'{"query":{}}\n', path, headers={"Content-Type": media})
    assert answer.status_code == 406
    assert answer.json == {"error": f"Content-Type header [{media}] is not supported", "status": 406}
    assert shop.wire.sent == []


def test_answers_that_are_not_json_pass(shop: Shop) -> None:
    for answer in (
        shop.post(RED, "/shop/_search?format=yaml"),
        shop.post(RED, headers={"Accept": "application/yaml"}),
    ):
        assert answer.headers["Content-Type"].startswith("application/yaml")
        assert answer.data.startswith(b"---")


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_compressed_requests(shop: Shop, encoding: str) -> None:
    data = json.dumps(RED).encode()
    packed = zlib.compress(data) if encoding == "deflate" else gzip.compress(data)
    answer = shop.post(packed, headers={"Content-Encoding": encoding})
    assert ids(answer.json) == expected(shop)
    assert "Content-Encoding" not in shop.wire.sent[0][3]


def test_compressed_answers(shop: Shop) -> None:
    body = {**RED, "size": 40}
    answer = shop.post(body, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert json.loads(gzip.decompress(answer.data))["hits"] == shop.search(body)["hits"]
    plain = shop.post(body, headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in plain.headers


def test_a_gzip_bomb_is_stopped(shop: Shop) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    answer = shop.post(bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert answer.json["error"]["type"] == "content_too_long_exception"


@pytest.mark.parametrize("data", [b"not gzip", gzip.compress(b"{}" * 100)[:-9]])
def test_broken_gzip(shop: Shop, data: bytes) -> None:
    answer = shop.post(data, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert "not valid gzip" in answer.json["error"]["reason"]


def test_unknown_compression(shop: Shop) -> None:
    assert shop.post(b"xx", headers={"Content-Encoding": "br"}).status_code == 415


def test_an_oversize_body(shop: Shop) -> None:
    answer = shop.post({"query": {"match": {"title": "x" * 1_000_001}}})
    assert (answer.status_code, answer.json["status"]) == (413, 413)


@pytest.mark.parametrize("data", [b"{", b'{"size":}', b"[1]", b"3", b"\xff\xfe{}", b'{"a":1}{"b":2}', b"{'a':1}"])
def test_malformed_json(shop: Shop, data: bytes) -> None:
    answer = shop.post(data)
    assert answer.status_code == 400
    assert answer.json["error"]["type"] == "parsing_exception"
    assert answer.json["error"]["root_cause"]
    assert shop.wire.sent == []


@pytest.mark.parametrize("extra", ["", '"ext": {"endcap": {"shopper": "ann"}}, ', '"_name": "index", '])
def test_numbers_beyond_64_bits_reach_the_engine_as_they_were_sent(shop: Shop, extra: str) -> None:
    number = "98765432109876543210987"
    off = {"X-Endcap-Personalize": "off"} if "_name" in extra else {}
    body = f'{{{extra}"query": {{"term": {{"brand": {number}}}}}}}'
    assert shop.post(body.encode(), headers=off).status_code in {200, 400}  # no query has a _name out here
    assert shop.wire.sent
    assert all(number.encode() in sent for *_, sent in shop.wire.sent)


@pytest.mark.parametrize("data", [b'{"size": NaN, "x": 12345678901234567890}', b"[" * 5000 + b"1" * 20])
def test_malformed_json_with_long_numbers(shop: Shop, data: bytes) -> None:
    assert shop.post(data).status_code == 400


def test_nesting_without_end(shop: Shop) -> None:
    deep = b'{"query":' + b'{"bool":{"must":' * 400 + b"{}" + b"}}" * 400 + b"}"
    assert shop.post(deep).json["error"]["type"] == "illegal_argument_exception"
    assert shop.post(b"[" * 100_000).json["error"]["type"] == "parsing_exception"
    assert shop.wire.sent == []


def test_a_deeply_nested_document_comes_out(shop_engine: str) -> None:
    make_index(shop_engine, "deep")
    document = b'{"title":"red deep","ean":' + b'{"a":' * 500 + b"1" + b"}" * 501
    headers = {"Content-Type": "application/json"}
    put = engine_call("PUT", f"{shop_engine}/deep/_doc/deep?refresh=true", body=document, headers=headers)
    assert put.status == 201
    answer = Shop(shop_engine, index="deep", two_phase="auto").post(
        {"query": {"match": {"title": "red"}}, "size": 100}, "/deep/_search"
    )
    assert b'{"a":' * 400 in answer.data.replace(b" ", b"")


def test_credentials_and_cookies_are_forwarded_without_endcaps_own(shop: Shop) -> None:
    headers = {
        "Authorization": "ApiKey abc",
        "Cookie": "session=1; endcap_shopper=bob; theme=dark",
        "X-Opaque-Id": "42",
        "es-security-runas-user": "elastic",
        "X-Endcap-Personalize": "on",
    }
    answer = shop.post(RED, headers=headers)
    sent = shop.wire.sent[0][3]
    assert sent["Authorization"] == "ApiKey abc"
    assert sent["Cookie"] == "session=1; theme=dark"
    assert answer.headers["X-Opaque-Id"] == "42"
    assert not {name.lower() for name in sent} & {"x-endcap-shopper", "x-endcap-personalize", "es-security-runas-user"}


def test_shopper_by_header_cookie_or_ext(shop: Shop) -> None:
    by_ext = {**RED, "ext": {"endcap": {"shopper": "eve"}}}
    cookie = {"Cookie": "endcap_shopper=bob"}
    assert ids(shop.search(RED, shopper="", headers=cookie)) == expected(shop, "bob")
    assert ids(shop.search(by_ext, shopper="")) == expected(shop, "eve")
    assert ids(shop.search(by_ext, headers=cookie)) == expected(shop, "ann")
    assert ids(shop.search(by_ext, shopper="", headers=cookie)) == expected(shop, "bob")
    assert ids(shop.search({**RED, "ext": {"endcap": {"shopper": 42}}}, shopper="")) == expected(shop, "42")
    assert all("ext" not in body for body in shop.wire.bodies())


def test_other_ext_goes_on_to_the_engine(shop: Shop) -> None:
    answer = shop.post({**RED, "ext": {"other": {"a": 1}, "endcap": {}}})
    assert answer.status_code == 400
    assert b"SearchExtBuilder" in answer.data


def test_without_a_shopper_the_answer_is_the_engines(shop: Shop) -> None:
    answer = shop.post(RED, shopper="")
    assert answer.headers["X-Endcap-Personalized"] == "0"
    assert "X-Endcap-Degraded" not in answer.headers
    assert shop.wire.bodies() == [RED]
    assert answer.json["hits"] == shop.direct(RED)["hits"]


@pytest.mark.parametrize("value", ["off", "OFF", "false", "0"])
def test_personalisation_off_gives_the_engines_bytes(shop: Shop, value: str) -> None:
    body = b'{ "query": {"match": {"title": "red"}},\n "size": 6 }'
    answer = shop.post(body, headers={"X-Endcap-Personalize": value})
    assert shop.wire.sent[0][4] == body
    direct = raw(shop, "/shop/_search", body, {"Content-Type": "application/json"}).data

    def but_for_took(data: bytes) -> bytes:
        return data[data.index(b",") :]

    assert but_for_took(answer.data) == but_for_took(direct)
    assert answer.headers["X-Endcap-Personalized"] == "0"


@pytest.mark.parametrize("shopper", ["x" * 10_000, "a\x01b", "x" * 513, "\x7f", "a b", "a\u202eb"])
def test_bad_shopper_ids_are_anonymous_and_say_so(shop: Shop, shopper: str) -> None:
    answer = shop.post(RED, shopper="", headers={"X-Endcap-Shopper": shopper.encode().decode("latin-1")})
    if shopper == "a b":
        assert "X-Endcap-Degraded" not in answer.headers
        return
    assert answer.status_code == 200
    assert answer.headers["X-Endcap-Degraded"] == "shopper_id"
    assert answer.json["hits"] == shop.direct(RED)["hits"]
    in_body = {**RED, "ext": {"endcap": {"shopper": shopper}}}
    assert shop.post(in_body, shopper="").headers["X-Endcap-Degraded"] == "shopper_id"


def test_unicode_shopper_ids(shop: Shop) -> None:
    name = "張偉"
    answer = shop.search(RED, shopper="", headers={"X-Endcap-Shopper": name.encode().decode("latin-1")})
    assert ids(answer) == expected(shop, name)


def test_signed_shopper_ids(shop_engine: str) -> None:
    shop = Shop(shop_engine, shopper_secret="s3cret")
    from endcap_reranker.identity import Identifier

    signed = Identifier(shop.parts.settings).sign("ann")
    assert ids(shop.search(RED, shopper=signed)) == expected(shop)
    for forged in ("ann", signed[:-1] + "x", "bob" + signed[3:], "x" * 10_000):
        answer = shop.post(RED, shopper=forged)
        assert answer.status_code == 200
        assert answer.headers["X-Endcap-Degraded"] in {"shopper_signature", "shopper_id"}
        assert ids(answer.json) == ids(shop.direct(RED))


def test_answer_headers(shop: Shop) -> None:
    answer = shop.post(RED)
    assert answer.headers["X-Endcap-Personalized"] == "1"
    assert answer.headers["X-Endcap-Ranking"] == "r-ann"
    assert "X-Endcap-Degraded" not in answer.headers
    assert [part.split(";")[0] for part in answer.headers["Server-Timing"].split(",")] == ["engine", "endcap"]
    new = shop.post(RED, shopper="new")
    assert new.headers["X-Endcap-Personalized"] == "0"
    assert ids(new.json) == ids(shop.direct(RED))


def _raising(count: int) -> np.ndarray:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "order",
    [
        _raising,
        lambda n: np.zeros(n, dtype=int),
        lambda n: np.arange(n - 1),
        lambda n: np.arange(n) + 1,
        lambda n: None,
    ],
)
def test_a_broken_personalizer_never_breaks_a_search(
    shop_engine: str, order: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(shop_engine, Broken(order))
    with caplog.at_level(logging.ERROR):
        answer = shop.post(RED)
    assert answer.headers["X-Endcap-Degraded"] == "fault"
    assert answer.headers["X-Endcap-Personalized"] == "0"
    assert answer.json["hits"] == shop.direct(RED)["hits"]
    assert "ranking failed" in caplog.text


def test_unknown_index(shop_engine: str) -> None:
    shop = Shop(shop_engine, index="nowhere")
    answer = shop.post(RED, "/nowhere/_search")
    assert answer.status_code == 404
    assert answer.json == shop.direct(RED, "/nowhere/_search")


def test_engine_down() -> None:
    shop = Shop("http://127.0.0.1:9")
    for answer in (shop.post(RED), shop.post('{"index":"shop"}\n{}\n', "/_msearch"), shop.post(RED, shopper="")):
        assert answer.status_code == 503
        assert answer.json["status"] == 503
        assert answer.json["error"]["root_cause"][0]["type"] == answer.json["error"]["type"] == "engine_unavailable"


def test_engine_slow() -> None:
    with hanging_engine() as engine:
        answer = Shop(engine.url, engine_timeout_s=0.2).post(RED)
    assert answer.status_code in {503, 504}
    assert answer.json["error"]["reason"]


def test_an_engine_that_answers_nonsense(shop: Shop) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"<html>"]

    with serving(application) as url:
        strange = Shop(url)
        assert strange.post(RED).data == b"<html>"
        assert strange.post('{"index":"shop"}\n{}\n', "/_msearch").data == b"<html>"


@pytest.mark.parametrize("text", ["紅色", "鞋", "läufer 👟", "a\u0000b", "🎿" * 300, '") OR 1=1 --', "/.*/"])
def test_unicode_queries(shop: Shop, text: str) -> None:
    body = {"query": {"match": {"title": text}}, "size": 5}
    answer = shop.search(body)
    assert without_hits(answer) == without_hits(shop.direct(body))
    assert ids(answer) == expected_order(ids(shop.direct({**body, "size": 180})))[:5]
