"""What every wire engine promises of the wire itself: many searches at once, parameters, media types, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from endcap.engines import WireEngine
from tests.contracts.wire_fixtures import INDEX, Send, send, wire
from tests.contracts.wire_shop import PRODUCTS, matched

__all__ = ["send", "wire"]


# --- the wire ----------------------------------------------------------------------------------------------------


def test_msearch_answers_each_in_order_with_a_status_of_its_own(send: Send) -> None:
    searches: list[Any] = [
        {"index": INDEX},
        {"size": 1, "query": {"ids": {"values": ["p03"]}}},
        {},
        {"size": 1, "query": {"ids": {"values": ["p04"]}}},
        {"index": "no-such-index"},
        {},
        {"index": [INDEX]},
        {"from": 9_999, "size": 2},
    ]
    body = "".join(json.dumps(line) + "\n" for line in searches).encode()
    for kind in ("application/json", "application/x-ndjson"):
        status, answer = send(body, f"/{INDEX}/_msearch", **{"Content-Type": kind})
        assert status == 200
        one, two, missing, deep = answer["responses"]
        assert [one["hits"]["hits"][0]["_id"], two["hits"]["hits"][0]["_id"]] == ["p03", "p04"]
        assert [each["status"] for each in answer["responses"]] == [200, 200, 404, 400]
        assert missing["error"]["type"] == "index_not_found_exception"
        assert deep["error"]["root_cause"][0]["type"] == "illegal_argument_exception"
    body = json.dumps({"index": INDEX}).encode() + b"\n" + json.dumps({"size": 0}).encode() + b"\n"
    assert send(body, "/_msearch")[1]["responses"][0]["hits"]["total"]["value"] == len(PRODUCTS)
    # The header may be an empty line, where the path names the index.
    assert send(b'\n{"size":0}\n', f"/{INDEX}/_msearch")[1]["responses"][0]["status"] == 200
    for broken in (body.rstrip(b"\n"), b"{}\n{not json\n", b""):
        status, answer = send(broken, f"/{INDEX}/_msearch")
        assert (status, set(answer)) == (400, {"error", "status"})


def test_parameters_of_the_url(send: Send) -> None:
    _, body = send({}, query="q=title:honey&size=100&sort=price:desc&_source_includes=title")
    honey = matched({"match": {"title": {"query": "honey"}}})
    assert {hit["_id"] for hit in body["hits"]["hits"]} == honey
    assert all(set(hit["_source"]) == {"title"} for hit in body["hits"]["hits"])
    prices = [hit["sort"][0] for hit in body["hits"]["hits"] if isinstance(hit["sort"][0], float)]
    assert prices == sorted(prices, reverse=True)
    _, body = send({"size": 1}, query="rest_total_hits_as_int=true&track_total_hits=true")
    assert body["hits"]["total"] == len(PRODUCTS)
    _, body = send({"size": 2}, query="filter_path=hits.hits._id,hits.total.value")
    assert set(body["hits"]) == {"hits", "total"}
    assert set(body["hits"]["hits"][0]) == {"_id"}
    assert body["hits"]["total"] == {"value": len(PRODUCTS)}
    _, body = send({"size": 2}, query="filter_path=-hits.hits._source,-_shards,-*.total")
    assert "_shards" not in body
    assert set(body["hits"]) == {"max_score", "hits"}
    assert all("_source" not in hit for hit in body["hits"]["hits"])
    facets = {"b": {"terms": {"field": "brand"}}, "p": {"avg": {"field": "price"}}, "f": {"filter": {"match_all": {}}}}
    _, body = send({"size": 0, "aggs": facets}, query="typed_keys=true")
    assert set(body["aggregations"]) == {"sterms#b", "avg#p", "filter#f"}
    status, body = send({}, query="nonsense=1")
    assert (status, body["error"]["type"]) == (400, "illegal_argument_exception")


def test_indices_that_are_not_there(send: Send) -> None:
    status, body = send({}, "/no-such-index/_search")
    assert status == 404 == body["status"]
    assert body["error"]["type"] == "index_not_found_exception"
    assert body["error"]["root_cause"][0]["index"] == "no-such-index"
    assert send({}, f"/{INDEX},no-such-index/_search")[0] == 404
    _, body = send({"size": 0}, f"/{INDEX},no-such-index/_search", "ignore_unavailable=true")
    assert body["hits"]["total"]["value"] == len(PRODUCTS)
    assert send({"size": 0}, "/no-such-*/_search")[1]["hits"]["total"]["value"] == 0
    assert send({"size": 0}, f"/{INDEX}*/_search")[1]["hits"]["total"]["value"] == len(PRODUCTS)


@pytest.mark.parametrize("version", ["8", ""])
def test_media_types_are_echoed_and_the_product_is_named(wire: WireEngine, version: str) -> None:
    kind = f"application/vnd.elasticsearch+json;compatible-with={version}" if version else "application/json"
    headers = {"Content-Type": kind, "Accept": kind}
    answer = wire.send("POST", f"/{INDEX}/_search", "", headers, b'{"size":0}', 30.0)
    assert answer.status == 200
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert answer.headers["Content-Type"].replace(" ", "") == kind
    answer = wire.send("GET", f"/{INDEX}/_search", "size=1", {}, b"", 30.0)
    assert json.loads(answer.body)["hits"]["total"]["value"] == len(PRODUCTS)


@pytest.mark.parametrize(
    ("body", "kind", "part"),
    [
        ({"query": {"unheard": {}}}, "parsing_exception", "unheard"),
        ({"unheard": 1}, "parsing_exception", "unheard"),
        ({"query": {"match": {"title": {"query": "x", "unheard": 1}}}}, "parsing_exception", "unheard"),
        ({"query": {"match": {"title": "x", "brand": "y"}}}, "parsing_exception", "multiple fields"),
        ({"query": {"bool": {"unheard": []}}}, "x_content_parse_exception", "unheard"),
        ({"query": {}}, "illegal_argument_exception", "empty clause"),
        ({"query": {"term": {"price": "cheap"}}}, "query_shard_exception", "cheap"),
        ({"query": {"range": {"price": {"gte": "cheap"}}}}, "query_shard_exception", "cheap"),
        ({"query": {"prefix": {"price": "1"}}}, "query_shard_exception", "prefix"),
        ({"query": {"term": {"url": "x"}}}, "query_shard_exception", "not indexed"),
        ({"query": {"match": {"title": {"query": "x", "boost": -1}}}}, "illegal_argument_exception", "negative"),
        ({"query": {"multi_match": {"query": "x", "fields": ["title"], "type": "odd"}}}, "parse_exception", "odd"),
        (
            {"query": {"multi_match": {"query": "x", "type": "phrase", "fields": ["title"], "fuzziness": 1}}},
            "parsing_exception",
            "Fuzziness",
        ),
        ({"from": 9_995, "size": 10}, "illegal_argument_exception", "10000"),
        ({"from": -1}, "illegal_argument_exception", "from"),
        ({"sort": ["unheard"]}, "query_shard_exception", "unheard"),
        ({"sort": ["title"]}, "illegal_argument_exception", "title"),
        ({"sort": ["price", "id"], "search_after": [1]}, "illegal_argument_exception", "search_after"),
        ({"aggs": {"a": {"terms": {"field": "title"}}}}, "illegal_argument_exception", "title"),
        ({"aggs": {"a": {"avg": {"field": "brand"}}}}, "illegal_argument_exception", "brand"),
        ({"aggs": {"a": {"unheard": {}}}}, "parsing_exception", "unheard"),
        ({"collapse": {"field": "unheard"}}, "illegal_argument_exception", "unheard"),
        (
            {"knn": {"field": "endcap_vector", "query_vector": [1, 2], "k": 1, "num_candidates": 5}},
            "query_shard_exception",
            "dimensions",
        ),
        (
            {"knn": {"field": "endcap_vector", "query_vector": [1, 2, 3, 4], "k": 9, "num_candidates": 5}},
            "illegal_argument_exception",
            "num_candidates",
        ),
    ],
)
def test_bad_requests_are_refused_as_elasticsearch_refuses_them(send: Send, body: Any, kind: str, part: str) -> None:
    status, answer = send(body)
    assert status == 400 == answer["status"]
    (cause,) = answer["error"]["root_cause"]
    assert cause["type"] == kind
    assert part in cause["reason"]


def test_bodies_that_are_not_json(send: Send) -> None:
    for broken in (b"{", b"[1]", b'{"query":}', b'{"size":1}}'):
        status, answer = send(broken)
        assert status == 400, broken
        assert set(answer["error"]) >= {"root_cause", "type", "reason"}
    status, answer = send(b"{}", **{"Content-Type": "text/plain"})
    assert (status, answer["status"]) == (406, 406)


def test_suggestions_are_words_of_the_index(send: Send) -> None:
    _, body = send({"size": 0, "suggest": {"text": "shos hony red", "fix": {"term": {"field": "title"}}}})
    first, second, third = body["suggest"]["fix"]
    assert {one["text"] for one in first["options"]} == {"shoe", "shoes"}
    assert [one["text"] for one in second["options"]] == ["honey"]
    assert (first["offset"], first["length"], second["offset"], third["options"]) == (0, 4, 5, [])
    assert body["hits"]["hits"] == []
