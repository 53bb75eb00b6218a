"""The URL's say in a search: parameters, bodies and queries in the URL, ``filter_path``."""

from __future__ import annotations

import json

import pytest

from tests.reranker.hook_support import (
    RED,
    SHOPPER,
    Shop,
    auto_shop,
    engine_call,
    expected,
    expected_order,
    ids,
    whole_hits,
    without_hits,
)

__all__ = ["auto_shop"]


@pytest.mark.parametrize(
    "query",
    [
        "size=6",
        "size=3&size=6",
        "from=2&size=4",
        "_source=price,brand&size=8",
        "_source=false&size=6",
        "_source_excludes=vector&size=6",
        "typed_keys=true&size=6",
        "rest_total_hits_as_int=true",
        "track_total_hits=false",
        "sort=_score",
        "sort=_score:desc&size=4",
        "preference=_local&search_type=dfs_query_then_fetch",
        "stored_fields=_id",
        "pretty",
        "human&pretty=true",
        "version=true&seq_no_primary_term=true",
    ],
)
def test_url_parameters(shop: Shop, query: str) -> None:
    body = {
        "query": {"match": {"title": "red"}},
        "aggs": {"brands": {"terms": {"field": "brand"}}},
    }
    answer = shop.search(body, f"/shop/_search?{query}")
    direct = shop.direct(body, f"/shop/_search?{query}")
    assert without_hits(answer) == without_hits(direct)
    rest = "&".join(part for part in query.split("&") if not part.startswith(("from", "size")))
    whole = shop.direct(body, f"/shop/_search?{rest}&size=180")
    start = 2 if "from" in query else 0
    assert ids(answer) == expected_order(ids(whole))[start : start + len(ids(direct))]
    found = whole_hits(whole)
    assert all(found[name] == hit for name, hit in whole_hits(answer).items())


@pytest.mark.parametrize("query", ["sort=price:asc", "sort=price", "stored_fields=_none_&_source=false", "size=0"])
def test_url_parameters_that_leave_the_order_alone(shop: Shop, query: str) -> None:
    path = f"/shop/_search?{query}"
    assert shop.search(RED, path)["hits"] == shop.direct(RED, path)["hits"]


def test_a_query_in_the_url(shop: Shop) -> None:
    answer = shop.client.get("/shop/_search?q=title:red&size=6", headers=SHOPPER)
    assert ids(answer.json) == expected(shop)
    assert answer.json["hits"]["total"] == shop.direct(RED)["hits"]["total"]


def test_get_with_a_body(shop: Shop) -> None:
    answer = shop.client.get("/shop/_search", json=RED, headers=SHOPPER)
    assert ids(answer.json) == expected(shop)


def test_a_body_in_the_url(shop: Shop) -> None:
    query = {"source": json.dumps(RED), "source_content_type": "application/json"}
    answer = shop.client.get("/shop/_search", query_string=query, headers=SHOPPER)
    assert ids(answer.json) == expected(shop)
    lookup = {"query": {"terms": {"title": {"index": "secret", "id": "p1", "path": "title"}}}}
    hidden = {"source": json.dumps(lookup), "source_content_type": "application/json"}
    assert shop.client.get("/shop/_search", query_string=hidden).status_code == 403
    untyped = shop.client.get("/shop/_search", query_string={"source": json.dumps(RED)})
    assert untyped.status_code == 406


def test_head_is_as_the_engine_has_it(shop: Shop) -> None:
    answer = shop.client.head("/shop/_search", headers=SHOPPER)
    direct = engine_call("HEAD", f"{shop.url}/shop/_search")
    assert answer.status_code == direct.status
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert answer.data == b""


def test_root_is_the_engines(shop: Shop) -> None:
    answer = shop.client.get("/", headers={"Accept": "application/json"})
    direct = engine_call("GET", f"{shop.url}/")
    assert (answer.status_code, answer.data) == (direct.status, direct.data)
    assert shop.client.get("/", headers={"Accept": "text/html,*/*"}).status_code == 404


@pytest.mark.parametrize(
    "expression",
    [
        "hits.hits._id",
        "hits.hits._source",
        "hits.hits._source.title,took",
        "hits.hits._s*",
        "hits.hits._*o*r*",
        "h*s.h*s.*d",
        "hits.hits._s*o*e*e",
        "hits.total,hits.max_score",
        "**.title",
        "hits.**._id",
        "-hits.hits._source",
        "hits.hits,-hits.hits._source,-hits.hits._index",
        "-took,-_shards,-**.brand",
        "hits.hits.highlight",
        "aggregations",
        "aggregations.*.buckets.key",
        "nope",
        "hits.hits._source.color",
        "-hits.hits._id",
        "*",
        "**",
        "hits.hits._source.*,-**.vector",
    ],
)
def test_filter_path(shop: Shop, expression: str) -> None:
    """Applied here as Elasticsearch applies it: checked by asking for all hits, whose set no order changes."""
    body = {**RED, "size": 50, "aggs": {"brands": {"terms": {"field": "brand"}}}}
    path = f"/shop/_search?filter_path={expression}"
    answer, direct = shop.search(body, path), shop.direct(body, path)
    for one in (answer, direct):
        one.pop("took", None)
        hits = one.get("hits", {}).get("hits", [])
        for hit in hits:
            hit.pop("_score", None)
        hits.sort(key=lambda hit: json.dumps(hit, sort_keys=True))
    assert answer == direct
    if expression == "hits.hits._id":
        assert ids(shop.search(RED, path)) == expected(shop)


@pytest.mark.parametrize("expression", ["**.a" * 11, ",".join(["took"] * 101)])
def test_a_filter_path_that_costs_too_much_is_refused(shop: Shop, expression: str) -> None:
    answer = shop.post(RED, f"/shop/_search?filter_path={expression}")
    assert answer.status_code == 400
    assert "filter_path" in answer.json["error"]["reason"]


def test_wildcards_without_end_take_no_time(shop: Shop) -> None:
    """As a regular expression this one would not come to an end."""
    assert shop.search(RED, f"/shop/_search?filter_path=hits.hits._source.{'*i' * 60}x") == {}
