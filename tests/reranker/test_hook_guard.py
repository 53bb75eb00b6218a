"""The allow-list, tried as an attacker would: nothing but searches of the named indices reaches the engine."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from endcap_reranker.errors import Forbidden
from endcap_reranker.hook.guard import Guard
from tests.reranker.hook_support import SHOPPER, Shop, engine_call, ids

RED: dict[str, Any] = {"query": {"match": {"title": "red"}}}


@pytest.fixture
def shop(shop_engine: str) -> Shop:
    """What is refused is refused before anyone thinks of phases."""
    return Shop(shop_engine, searchable_indices=["shop", "articles"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_bulk"),
        ("POST", "/shop/_bulk"),
        ("PUT", "/shop/_doc/1"),
        ("GET", "/shop/_doc/p1"),
        ("DELETE", "/shop/_doc/p1"),
        ("POST", "/shop/_update/p1"),
        ("POST", "/shop/_delete_by_query"),
        ("POST", "/shop/_update_by_query"),
        ("POST", "/_reindex"),
        ("GET", "/shop/_mapping"),
        ("PUT", "/shop/_settings"),
        ("GET", "/_cat/indices"),
        ("GET", "/_cluster/health"),
        ("GET", "/_nodes"),
        ("POST", "/_search/scroll"),
        ("DELETE", "/_search/scroll"),
        ("POST", "/_search/template"),
        ("POST", "/shop/_search/template"),
        ("POST", "/_msearch/template"),
        ("POST", "/shop/_async_search"),
        ("POST", "/shop/_pit"),
        ("POST", "/_sql"),
        ("POST", "/_query"),
        ("POST", "/shop/_count"),
        ("POST", "/shop/_explain/p1"),
        ("GET", "/shop/_termvectors/p1"),
        ("POST", "/shop/_terms_enum"),
        ("POST", "/shop/_validate/query"),
        ("POST", "/shop/_rank_eval"),
        ("GET", "/shop/_mvt/price/1/1/1"),
        ("POST", "/shop/_field_caps"),
        ("POST", "/_mget"),
        ("GET", "/_security/user"),
        ("POST", "/shop/_close"),
        ("DELETE", "/shop"),
        ("PUT", "/shop"),
        ("HEAD", "/shop"),
        ("GET", "/shop"),
    ],
)
def test_everything_but_searches_is_refused(shop: Shop, method: str, path: str) -> None:
    answer = shop.client.open(path, method=method, headers=SHOPPER)
    assert answer.status_code == 403
    if method != "HEAD":
        assert answer.json["status"] == 403
        assert answer.json["error"]["root_cause"][0]["type"] == "security_exception"
    assert shop.wire.sent == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/shop/_search", "/_search", "/_msearch", "/shop/_msearch"])
def test_other_methods_are_refused_as_elasticsearch_does(shop: Shop, method: str, path: str) -> None:
    answer = shop.client.open(path, method=method)
    direct = engine_call(method, f"{shop.url}{path}")
    assert answer.status_code == direct.status == 405
    assert answer.headers["Allow"] == "GET,POST"
    assert f"Incorrect HTTP method for uri [{path}] and method [{method}]" in answer.json["error"]
    assert shop.wire.sent == []


@pytest.mark.parametrize(
    "index",
    ["secret", "shop,secret", "secret,shop", "*", "_all", "sh*", "shop,*", "-articles", "shop,-secret", "%2A",
     "shop%2Csecret", "shop%2csecret", "%3Cshop-%7Bnow%2Fd%7D%3E", "remote:shop", ".security", "shop,", ",shop", "SHOP",
     "shop%20", "shop%00", "%73ecret", "shop%2Fsecret", "..%2Fsecret", "shop;secret", "shop%3Fq"],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", ["_search", "_msearch"])
def test_other_indices_are_refused(shop: Shop, index: str, endpoint: str) -> None:
    answer = shop.client.post(f"/{index}/{endpoint}", data="{}\n{}\n", headers={"Content-Type": "application/json"})
    assert answer.status_code in {403, 404}
    assert shop.wire.sent == []


@pytest.mark.parametrize(
    "path",
    ["//shop/_search", "/shop//_search", "/./shop/_search", "/shop/../secret/_search", "/shop/%2e%2e/secret/_search",
     "/secret/..%2fshop/_search", "/shop/_search/", "/shop/_search/..", "/shop/_search%2F..%2F..%2Fsecret%2F_search",
     "/%2e%2e/secret/_search", "/secret%3f/_search", "/shop/_search%00", "/shop\\secret/_search", "/shop/_doc/_search"],
)  # fmt: skip
def test_path_tricks_never_reach_the_engine(shop: Shop, path: str) -> None:
    answer = shop.client.post(path, json=RED, headers=SHOPPER)
    # Flask redirects doubled slashes where the application leaves it to it; nothing is forwarded then either.
    assert answer.status_code in {308, 403, 404}
    assert shop.wire.sent == []


@pytest.mark.parametrize("path", ["/%73hop/_search", "/shop%2Carticles/_search", "/shop,shop/_search"])
def test_encoded_names_of_allowed_indices(shop: Shop, path: str) -> None:
    assert ids(shop.search(RED, path))


@pytest.mark.parametrize(
    "query",
    ["index=secret", "a=b;index=secret", "a=b&index=secret", "ind%65x=secret", "scroll=1m", "pretty;scroll=1m",
     "type=x", "id=1"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/shop/_search", "/_search", "/_msearch", "/shop/_msearch"])
def test_parameters_cannot_widen_a_search(shop: Shop, query: str, path: str) -> None:
    answer = shop.client.post(
        f"{path}?{query}", data='{"index":"shop"}\n{}\n', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 403
    assert shop.wire.sent == []


def test_searches_of_everything_are_refused(shop: Shop) -> None:
    assert shop.post(RED, "/_search").status_code == 403
    assert shop.client.get("/_search?q=red").status_code == 403
    assert shop.wire.sent == []


LOOKUP = {"index": "secret", "id": "p1", "path": "title"}
REACHING: list[dict[str, Any]] = [
    {"query": {"terms": {"title": LOOKUP}}},
    {"query": {"bool": {"must_not": [{"bool": {"filter": {"terms": {"title": LOOKUP}}}}]}}},
    {"query": {"terms": {"title": {"index": "secret", "path": "title", "query": {"match_all": {}}}}}},
    {"query": {"terms": {"title": {**LOOKUP, "index": ["secret"]}}}},
    {"query": {"more_like_this": {"like": [{"_index": "secret", "_id": "p1"}], "min_term_freq": 1}}},
    {"query": {"more_like_this": {"like": {"_index": "secret", "_id": "p1"}}}},
    {"query": {"more_like_this": {"like": "x", "unlike": [{"_index": "secret", "doc": {"title": "red"}}]}}},
    {"query": {"percolate": {"field": "q", "index": "secret", "id": "p1"}}},
    {"query": {"geo_shape": {"place": {"indexed_shape": {"index": "secret", "id": "p1", "path": "shape"}}}}},
    {"query": {"geo_shape": {"place": {"indexed_shape": {"id": "p1"}}}}},
    {"query": {"pinned": {"docs": [{"_index": "secret", "_id": "p1"}], "organic": {"match_all": {}}}}},
    {"query": {"wrapper": {"query": base64.b64encode(json.dumps({"terms": {"title": LOOKUP}}).encode()).decode()}}},
    {"suggest": {"x": {"text": "red", "phrase": {"field": "title", "collate": {
        "query": {"source": json.dumps({"terms": {"title": LOOKUP}})}, "prune": True}}}}},
    {"query": {"match_all": {}}, "post_filter": {"terms": {"title": LOOKUP}}},
    {"query": {"match_all": {}}, "rescore": {"query": {"rescore_query": {"terms": {"title": LOOKUP}}}}},
    {"aggs": {"x": {"filter": {"terms": {"title": LOOKUP}}}}},
    {"aggs": {"x": {"filters": {"filters": {"y": {"terms": {"title": LOOKUP}}}}}}},
    {"highlight": {"fields": {"title": {"highlight_query": {"terms": {"title": LOOKUP}}}}}},
    {"collapse": {"field": "brand", "inner_hits": {"name": "x", "sort": [{"_score": {"nested_filter": LOOKUP}}]}}},
    {"knn": {"field": "vector", "query_vector": [1, 2, 3, 4], "k": 5, "filter": [{"terms": {"title": LOOKUP}}]}},
    {"knn": {"field": "vector", "k": 5, "query_vector_builder": {"lookup": LOOKUP}}},
    {"retriever": {"standard": {"query": {"terms": {"title": LOOKUP}}}}},
    {"runtime_mappings": {"x": {"type": "lookup", "target_index": "secret", "input_field": "brand",
                                "target_field": "brand", "fetch_fields": ["title"]}}, "fields": ["x"]},
    {"indices_boost": [{"secret": 2.0}]},
    {"indices_boost": {"*": 2.0}},
    {"pit": {"id": "x"}},
    {"pit": None},
]  # fmt: skip


@pytest.mark.parametrize("body", REACHING, ids=lambda body: json.dumps(body)[:60])
@pytest.mark.parametrize("shopper", ["ann", ""])
def test_bodies_cannot_reach_other_indices(shop: Shop, body: dict[str, Any], shopper: str) -> None:
    answer = shop.post(body, shopper=shopper)
    assert answer.status_code == 403
    assert answer.json["error"]["type"] == "security_exception"
    several = shop.post(f'{{"index":"shop"}}\n{json.dumps(body)}\n', "/_msearch", shopper=shopper)
    assert several.json["responses"][0]["status"] == 403
    off = shop.post(body, shopper=shopper, headers={"X-Endcap-Personalize": "off"})
    assert off.status_code == 403
    assert shop.wire.sent == []


def test_the_attacks_would_work_without_the_guard(shop_engine: str) -> None:
    """Or else the tests above prove nothing: Elasticsearch does follow these into another index."""
    open_shop = Shop(shop_engine, searchable_indices=["shop", "secret"])
    source = engine_call("GET", f"{shop_engine}/secret/_source/p1").json()
    body = {"query": {"terms": {"brand": {"index": "secret", "id": "p1", "path": "brand"}}}, "size": 50}
    found = open_shop.search(body)["hits"]["hits"]
    assert found
    assert {hit["_source"]["brand"] for hit in found} == {source["brand"]}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"query":{"terms":{"brand":{"index":"secret","index":"shop","id":"p1","path":"brand"}}}}',
        b'{"query":{"terms":{"brand":{"\\u0069ndex":"secret","index":"shop","id":"p1","path":"brand"}}}}',
        b'{"query":{"terms":{"brand":{"index":"secret","id":"p1","path":"brand"}}},"query":{"match_all":{}}}',
    ],
)
@pytest.mark.parametrize("shopper", ["ann", ""])
def test_doubled_names_are_read_as_the_guard_read_them(shop: Shop, raw: bytes, shopper: str) -> None:
    shop.post(raw, shopper=shopper)
    assert all(b"secret" not in sent for *_, sent in shop.wire.sent)


@pytest.mark.parametrize(
    "body",
    [
        {"query": {"match": {"index": "red"}}},
        {"query": {"term": {"_index": "shop"}}},
        {"query": {"bool": {"filter": [{"terms": {"path": ["a"]}}, {"term": {"id": "x"}}]}}},
        {"query": {"terms": {"brand": {"index": "shop", "id": "p1", "path": "brand"}}}},
        {"query": {"more_like_this": {"like": [{"_id": "p1"}], "fields": ["title"], "min_term_freq": 1}}},
        {"runtime_mappings": {"cheap": {"type": "keyword"}}, "fields": ["cheap"]},
        {"indices_boost": [{"shop": 2.0}]},
    ],
)
def test_what_stays_inside_passes(shop: Shop, body: dict[str, Any]) -> None:
    assert shop.post(body).status_code == 200


def test_scripts_are_the_engines_business(shop: Shop) -> None:
    body = {"query": {"script_score": {"query": {"match_all": {}}, "script": {"source": "1"}}}}
    answer = shop.post(body)
    assert answer.status_code == 400  # this Elasticsearch has no Painless, and says so itself
    assert answer.json == shop.direct(body)


@pytest.mark.parametrize("expression", [None, 3, [], "", [""], ["shop", 3], {"shop": 1}, "shop\n", " shop"])
def test_expressions_that_name_nothing_allowed(expression: Any) -> None:
    with pytest.raises(Forbidden):
        Guard(["shop"]).indices(expression)


def test_names_are_given_once() -> None:
    assert Guard(["a", "b"]).indices(["a,b", "b"]) == ("a", "b")
