"""``_search`` through the hook against a real Elasticsearch: window, pages, and what stays as it was."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.reranker.hook_support import (
    Backwards,
    Shop,
    engine_call,
    expected_order,
    ids,
    make_index,
    whole_hits,
    without_hits,
)

QUERY: dict[str, Any] = {"query": {"match": {"title": "red shoe"}}}
ALL: dict[str, Any] = {"query": {"match_all": {}}}


def engine_order(shop: Shop, body: dict[str, Any], count: int = 180) -> list[str]:
    return ids(shop.direct({**body, "from": 0, "size": count}))


def test_the_window_is_reordered_and_cut(shop: Shop) -> None:
    found = engine_order(shop, QUERY)
    assert len(found) > 60
    assert ids(shop.search({**QUERY, "size": 8})) == expected_order(found)[:8]
    assert ids(shop.search({**QUERY, "from": 8, "size": 8})) == expected_order(found)[8:16]
    assert shop.wire.bodies()[0].items() >= {**QUERY, "from": 0, "size": 50}.items()


@pytest.mark.parametrize("size", [1, 7, 10, 33, 50, 64])
def test_pages_neither_repeat_nor_lose_hits(shop: Shop, size: int) -> None:
    """Elasticsearch #75363, #104318, ragflow #15433: also across the window's edge, with pages larger than the window
    and with sizes that do not divide it."""
    found = engine_order(shop, ALL)
    pages = [ids(shop.search({**ALL, "from": start, "size": size})) for start in range(0, 200, size)]
    assert [one for page in pages for one in page] == expected_order(found)


def test_beyond_the_window_the_search_passes_as_it_is(shop: Shop) -> None:
    body = {**ALL, "from": 50, "size": 20}
    answer = shop.post(body)
    assert shop.wire.bodies() == [body]
    assert ids(answer.json) == ids(shop.direct(body))
    assert answer.headers["X-Endcap-Personalized"] == "0"


def test_default_size_is_ten(shop: Shop) -> None:
    assert ids(shop.search(None)) == expected_order(engine_order(shop, ALL))[:10]
    assert ids(shop.search({})) == expected_order(engine_order(shop, ALL))[:10]


def test_size_zero_is_left_alone(shop: Shop) -> None:
    body = {"size": 0, "aggs": {"brands": {"terms": {"field": "brand"}}}}
    answer = shop.search(body)
    assert shop.wire.bodies() == [body]
    assert answer["aggregations"] == shop.direct(body)["aggregations"]
    assert answer["hits"]["hits"] == []


@pytest.mark.parametrize(
    "sort",
    [
        "_score",
        ["_score"],
        {"_score": "desc"},
        {"_score": {"order": "desc"}},
        [{"_score": "desc"}],
        [{"_score": {"order": "desc"}}],
        [],
        {"_score": {}},
    ],
)
def test_score_order_in_all_its_spellings_is_reordered(shop: Shop, sort: Any) -> None:
    body = {**QUERY, "sort": sort}
    answer = shop.search(body)
    assert ids(answer) == expected_order(engine_order(shop, body))[:10]
    assert "sort" not in answer["hits"]["hits"][0]


@pytest.mark.parametrize(
    "sort",
    ["price", [{"price": "asc"}], {"_score": "asc"}, ["_score", "price"], [{"brand": "desc"}, "_score"], "_doc"],
)
def test_other_orders_pass(shop: Shop, sort: Any) -> None:
    body = {**QUERY, "sort": sort, "size": 30}
    answer = shop.search(body)
    assert shop.wire.bodies() == [body]
    assert answer["hits"] == shop.direct(body)["hits"]


def test_search_after_passes(shop: Shop) -> None:
    first = shop.direct({**ALL, "sort": [{"price": "asc"}], "size": 5})
    body = {**ALL, "sort": [{"price": "asc"}], "size": 5, "search_after": first["hits"]["hits"][-1]["sort"]}
    assert shop.search(body)["hits"] == shop.direct(body)["hits"]
    by_score = {**QUERY, "sort": "_score", "size": 5, "search_after": [1.0]}
    assert shop.post(by_score).json == shop.direct(by_score)  # an error: Elasticsearch wants a tie-breaker


def test_cursors_are_refused_unless_callers_are_trusted(shop: Shop, shop_engine: str) -> None:
    pit = engine_call("POST", f"{shop_engine}/secret/_pit?keep_alive=1m").json()["id"]
    by_pit = {"pit": {"id": pit}, **ALL}
    assert shop.post(by_pit, "/shop/_search").status_code == 403
    assert shop.post(by_pit, "/_search").status_code == 403
    assert shop.post(ALL, "/shop/_search?scroll=1m").status_code == 403
    assert shop.post({"scroll": "1m", "scroll_id": "x"}, "/_search/scroll").status_code == 403
    assert shop.wire.sent == []


def test_cursors_pass_unchanged_where_they_may(shop_engine: str) -> None:
    trusting = Shop(shop_engine, hook_cursors=True)
    body = {**QUERY, "size": 20}
    first = trusting.search(body, "/shop/_search?scroll=1m")
    assert ids(first) == engine_order(trusting, QUERY)[:20]
    second = trusting.search({"scroll": "1m", "scroll_id": first["_scroll_id"]}, "/_search/scroll")
    assert ids(second) == engine_order(trusting, QUERY)[20:40]
    pit = engine_call("POST", f"{shop_engine}/shop/_pit?keep_alive=1m").json()["id"]
    assert ids(trusting.search({"pit": {"id": pit}, **QUERY}, "/_search")) == engine_order(trusting, QUERY)[:10]


def test_rescore_passes(shop: Shop) -> None:
    """Elasticsearch #75363, #120670: beyond the rescored hits scores are of another kind."""
    rescore = {"window_size": 20, "query": {"rescore_query": {"match_phrase": {"title": "red shoe"}}}}
    body = {**QUERY, "rescore": rescore, "size": 15}
    assert shop.search(body)["hits"] == shop.direct(body)["hits"]


def test_collapse_with_rescore_passes(shop: Shop) -> None:
    """Elasticsearch #27243."""
    rescore = {"window_size": 20, "query": {"rescore_query": {"match_phrase": {"title": "red shoe"}}}}
    body = {**QUERY, "rescore": rescore, "collapse": {"field": "brand"}}
    assert shop.search(body)["hits"] == shop.direct(body)["hits"]


def test_what_is_not_hits_is_untouched(shop: Shop) -> None:
    body = {
        **QUERY,
        "size": 5,
        "aggs": {
            "brands": {"terms": {"field": "brand"}, "aggs": {"best": {"top_hits": {"size": 2}}}},
            "prices": {"stats": {"field": "price"}},
        },
        "suggest": {"words": {"text": "runing shoo", "term": {"field": "title"}}},
        "post_filter": {"term": {"brand": "a"}},
    }
    assert without_hits(shop.search(body)) == without_hits(shop.direct(body))


@pytest.mark.parametrize("track", [True, False, 5, 40, 10_000])
def test_totals_are_untouched(shop: Shop, track: Any) -> None:
    body = {**QUERY, "size": 3, "track_total_hits": track}
    assert without_hits(shop.search(body)) == without_hits(shop.direct(body))


def test_totals_as_numbers(shop: Shop) -> None:
    path = "/shop/_search?rest_total_hits_as_int=true"
    answer = shop.search(QUERY, path)
    assert isinstance(answer["hits"]["total"], int)
    assert without_hits(answer) == without_hits(shop.direct(QUERY, path))


def test_profile_and_explain_travel_along(shop: Shop) -> None:
    body = {**QUERY, "profile": True, "explain": True, "size": 5}
    answer = shop.search(body)
    assert answer["profile"]["shards"]
    assert ids(answer) == expected_order(engine_order(shop, QUERY))[:5]
    assert all("_explanation" in hit for hit in answer["hits"]["hits"])


def test_whole_hits_move(shop: Shop) -> None:
    """Also Elasticsearch #116397: inner hits stay with their group."""
    body = {
        **QUERY,
        "size": 50,
        "highlight": {"fields": {"title": {}}},
        "fields": ["brand", "price"],
        "docvalue_fields": ["color"],
        "_source": ["title"],
        "version": True,
        "seq_no_primary_term": True,
    }
    assert whole_hits(shop.search(body)) == whole_hits(shop.direct(body))


@pytest.mark.parametrize(
    "part",
    [
        {"_source": False},
        {"_source": ["price"]},
        {"_source": {"excludes": ["vector", "title"]}},
        {"_source": False, "fields": ["title"]},
        {"stored_fields": []},
        {"stored_fields": ["_source"]},
    ],
)
def test_filtered_sources_come_out_as_filtered(shop: Shop, part: dict[str, Any]) -> None:
    body = {**QUERY, "size": 50, **part}
    answer = shop.search(body)
    assert whole_hits(answer) == whole_hits(shop.direct(body))
    assert ids(answer) == expected_order(engine_order(shop, QUERY))[:50]


@pytest.mark.parametrize("none", ["_none_", ["_none_"]])
def test_hits_without_ids_are_left_alone(shop: Shop, none: Any) -> None:
    body = {**QUERY, "stored_fields": none, "_source": False}
    assert shop.search(body)["hits"] == shop.direct(body)["hits"]


def test_scores_never_increase(shop: Shop) -> None:
    direct = shop.direct({**QUERY, "size": 180})["hits"]
    pages = [shop.search({**QUERY, "from": start, "size": 25})["hits"] for start in range(0, 180, 25)]
    scores = [hit["_score"] for page in pages for hit in page["hits"]]
    assert scores == [hit["_score"] for hit in direct["hits"]]
    assert {page["max_score"] for page in pages} == {direct["max_score"]}
    assert scores[0] == direct["max_score"]


def test_groups_are_reordered_whole(shop: Shop) -> None:
    collapse = {"field": "brand", "inner_hits": {"name": "more", "size": 3, "_source": ["title"]}}
    body = {**QUERY, "collapse": collapse}
    direct, answer = shop.direct(body), shop.search(body)
    assert ids(answer) == expected_order(ids(direct))
    assert whole_hits(answer) == whole_hits(direct)
    assert without_hits(answer) == without_hits(direct)
    pages = [ids(shop.search({**body, "from": start, "size": 2})) for start in range(0, 8, 2)]
    assert [one for page in pages for one in page] == expected_order(ids(direct))


def test_no_hits_is_no_error(shop: Shop) -> None:
    """Elasticsearch #155099."""
    body = {"query": {"match": {"title": "zeppelin"}}}
    answer = shop.search(body)
    assert without_hits(answer) == without_hits(shop.direct(body))
    assert answer["hits"]["hits"] == []


def test_negative_and_equal_scores(shop: Shop) -> None:
    """Elasticsearch #120670: nothing from outside the window comes in, whatever its score."""
    body = {"query": {"constant_score": {"filter": {"exists": {"field": "brand"}}}}}
    found = engine_order(shop, body)
    assert sorted(ids(shop.search({**body, "size": 50}))) == sorted(found[:50])
    filtered = {"query": {"bool": {"filter": [{"term": {"brand": "b"}}]}}}
    assert ids(shop.search({**filtered, "size": 50})) == expected_order(engine_order(shop, filtered))


def test_an_integer_beyond_64_bits_survives(shop: Shop) -> None:
    body = {"query": {"ids": {"values": ["p6", "p7"]}}}
    answer = shop.post(body)
    assert b"123456789012345678901234567890" in answer.data
    assert "紅色 鞋 shoe" in answer.text


def test_knn_reorders_what_matched(shop: Shop) -> None:
    """``k`` says which products match; totals and facets follow from it, so it stays."""
    knn = {"field": "vector", "query_vector": [0.1, 0.2, 0.3, 0.4], "k": 12, "num_candidates": 180}
    body = {"knn": knn, "size": 5, "aggs": {"brands": {"terms": {"field": "brand"}}}}
    direct = shop.direct({**body, "size": 100})
    assert len(ids(direct)) == 12
    pages = [shop.search({**body, "from": start}) for start in range(0, 15, 5)]
    assert [one for page in pages for one in ids(page)] == expected_order(ids(direct))
    assert all(without_hits(page) == without_hits(direct) for page in pages)


NEAR = {"field": "vector", "query_vector": [0.1, 0.2, 0.3, 0.4]}


@pytest.mark.parametrize(
    "part",
    [
        {"knn": NEAR},
        {"knn": [{**NEAR, "num_candidates": 20}]},
        {"query": {"knn": NEAR}},
        {"query": {"bool": {"should": [{"knn": {**NEAR, "num_candidates": 20}}, {"match": {"title": "kids"}}]}}},
    ],
)
def test_knn_without_k_finds_as_many_as_the_client_asked_for(shop: Shop, part: dict[str, Any]) -> None:
    """Elasticsearch takes ``size`` for it: the window must not find more, nor ask for more than ``num_candidates``."""
    body = {**part, "size": 8, "aggs": {"brands": {"terms": {"field": "brand"}}}}
    direct, answer = shop.direct(body), shop.post(body)
    assert without_hits(answer.json) == without_hits(direct)
    assert answer.headers["X-Endcap-Personalized"] == "1"


def test_hybrid_search_reorders_the_window(shop: Shop) -> None:
    knn = {"field": "vector", "query_vector": [0.1, 0.2, 0.3, 0.4], "k": 30, "num_candidates": 180, "boost": 0.5}
    body = {**QUERY, "knn": knn, "size": 10}
    assert ids(shop.search(body)) == expected_order(engine_order(shop, {**QUERY, "knn": knn}))[:10]
    assert without_hits(shop.search(body)) == without_hits(shop.direct(body))


def test_retrievers(shop: Shop) -> None:
    standard = {"retriever": {"standard": QUERY}}
    assert ids(shop.search(standard)) == expected_order(ids(shop.direct({**standard, "size": 50})))[:10]
    knn = {"field": "vector", "query_vector": [0.1, 0.2, 0.3, 0.4], "k": 12, "num_candidates": 180}
    nearest = {"retriever": {"knn": knn}}
    assert ids(shop.search(nearest)) == expected_order(ids(shop.direct({**nearest, "size": 50})))[:10]
    by_price = {"retriever": {"standard": {**QUERY, "sort": ["price"]}}}
    assert ids(shop.search(by_price)) == ids(shop.direct(by_price))


def test_smaller_windows_of_the_index_win(shop_engine: str) -> None:
    """An index that allows less than the hook's window still answers: as if the hook were not there."""
    make_index(shop_engine, "narrow")
    engine_call("PUT", f"{shop_engine}/narrow/_settings", json={"index.max_result_window": 20})
    shop = Shop(shop_engine, index="narrow")
    assert ids(shop.search(QUERY, "/narrow/_search")) == ids(shop.direct(QUERY, "/narrow/_search"))
    refused = shop.post({**QUERY, "from": 15, "size": 10}, "/narrow/_search")
    assert refused.status_code == 400
    assert refused.json == shop.direct({**QUERY, "from": 15, "size": 10}, "/narrow/_search")


@pytest.mark.parametrize(
    "body",
    [
        {"query": {"match_all": {"what": 1}}},
        {"query": {"nope": {}}},
        {"size": -1},
        {"size": "ten"},
        {"from": 9_995, "size": 10},
        {"from": 0, "size": 20_000},
        {"aggs": {"x": {"terms": {"field": "title"}}}},
        {"unknown_part": 1},
    ],
)
def test_errors_come_out_verbatim(shop: Shop, body: dict[str, Any]) -> None:
    raw = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    answer = shop.post(raw)
    direct = engine_call("POST", f"{shop.url}/shop/_search", body=raw, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.data) == (direct.status, direct.data)
    assert direct.status == 400


def test_the_query_text_reaches_the_personalizer(shop_engine: str) -> None:
    personalizer = Backwards()
    shop = Shop(shop_engine, personalizer)
    bool_query = {
        "bool": {
            "filter": [{"term": {"brand": "a"}}],
            "must": [{"multi_match": {"query": "läufer 紅色", "fields": ["title"]}}],
        }
    }
    shop.search({"query": bool_query})
    shop.search({"query": {"match": {"title": "red"}}})
    shop.search({"query": {"match": {"title": {"query": "light", "operator": "and"}}}})
    shop.search({"query": {"function_score": {"query": {"query_string": {"query": "red OR shoe"}}}}})
    shop.search(None, "/shop/_search?q=title:shoe")
    shop.search({"query": {"match_all": {}}})
    queries = [query for _, query, _ in personalizer.asked]
    assert queries == ["läufer 紅色", "red", "light", "red OR shoe", "title:shoe", ""]
