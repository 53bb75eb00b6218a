"""What every wire engine promises: facets, groups, and nearest neighbours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts.wire_fixtures import Send, found, having, price_or_last, send, wire
from tests.contracts.wire_shop import BY_ID, PRODUCTS, VECTORS, matched

__all__ = ["send", "wire"]


# --- facets ------------------------------------------------------------------------------------------------------


def _counts(values: list[Any]) -> dict[Any, int]:
    return {one: values.count(one) for one in set(values)}


def _buckets(aggregation: dict[str, Any]) -> list[tuple[Any, int]]:
    return [(bucket["key"], bucket["doc_count"]) for bucket in aggregation["buckets"]]


def test_facets_count_the_matches_before_the_post_filter(send: Send) -> None:
    status, body = send(
        {
            "size": 100,
            "query": {"match": {"title": "red shoe"}},
            "post_filter": {"term": {"brand": "Loom"}},
            "aggs": {
                "brands": {"terms": {"field": "brand", "size": 50}},
                "two": {"terms": {"field": "category", "size": 2}},
                "colours": {"terms": {"field": "attributes.color"}},
                "prices": {"stats": {"field": "price"}},
                "known": {"value_count": {"field": "price"}},
                "distinct": {"cardinality": {"field": "brand"}},
                "loom": {"filter": {"term": {"brand": "Loom"}}, "aggs": {"dear": {"max": {"field": "price"}}}},
                "all": {"global": {}, "aggs": {"brands": {"terms": {"field": "brand"}}}},
                "nothing": {"terms": {"field": "unheard"}},
            },
        }
    )
    assert status == 200, body
    matches = [one for one in PRODUCTS if {"red", "shoe"} & set(one.title.lower().split())]
    assert sorted(found((status, body))) == [one.id for one in matches if one.brand == "Loom"]
    aggs = body["aggregations"]
    assert dict(_buckets(aggs["brands"])) == _counts([one.brand for one in matches if one.brand])
    paths = _counts([path for one in matches for path in one.to_document().get("category", [])])
    by_count = sorted(paths.items(), key=lambda item: (-item[1], item[0]))
    assert _buckets(aggs["two"]) == by_count[:2]
    assert aggs["two"]["sum_other_doc_count"] == sum(count for _, count in by_count[2:])
    colours = _counts([one.attributes["color"] for one in matches if "color" in one.attributes])
    assert dict(_buckets(aggs["colours"])) == colours
    prices = [one.price for one in matches if one.price is not None]
    assert aggs["prices"] == pytest.approx(
        {
            "count": len(prices),
            "min": min(prices),
            "max": max(prices),
            "avg": sum(prices) / len(prices),
            "sum": sum(prices),
        }
    )
    assert aggs["known"]["value"] == len(prices)
    assert aggs["distinct"]["value"] == len({one.brand for one in matches if one.brand})
    loom = [one for one in matches if one.brand == "Loom"]
    assert aggs["loom"]["doc_count"] == len(loom)
    assert aggs["loom"]["dear"]["value"] == max(one.price for one in loom if one.price is not None)
    assert aggs["all"]["doc_count"] == len(PRODUCTS)
    assert dict(_buckets(aggs["all"]["brands"])) == _counts([one.brand for one in PRODUCTS if one.brand])
    assert aggs["nothing"]["buckets"] == []


def test_facets_of_ranges_steps_and_named_filters(send: Send) -> None:
    ranges = [{"to": 5}, {"from": 5, "to": 30}, {"from": 20, "key": "dear"}]
    _, body = send(
        {
            "size": 0,
            "aggs": {
                "price": {
                    "range": {"field": "price", "ranges": ranges},
                    "aggs": {"brands": {"terms": {"field": "brand", "size": 1}}},
                },
                "steps": {"histogram": {"field": "price", "interval": 25}},
                "full": {"histogram": {"field": "price", "interval": 10, "min_doc_count": 1}},
                "named": {"filters": {"filters": {"red": {"match": {"title": "red"}}, "none": {"match_none": {}}}}},
                "without": {"missing": {"field": "price"}},
            },
        }
    )
    prices = [one.price for one in PRODUCTS if one.price is not None]
    aggs = body["aggregations"]
    assert [(bucket["key"], bucket.get("from"), bucket.get("to")) for bucket in aggs["price"]["buckets"]] == [
        ("*-5.0", None, 5.0),
        ("5.0-30.0", 5.0, 30.0),
        ("dear", 20.0, None),
    ]
    assert [bucket["doc_count"] for bucket in aggs["price"]["buckets"]] == [
        sum(one < 5 for one in prices),
        sum(5 <= one < 30 for one in prices),
        sum(one >= 20 for one in prices),
    ]
    cheap = _counts([one.brand for one in PRODUCTS if one.brand and one.price is not None and one.price < 5])
    best = min(cheap.items(), key=lambda item: (-item[1], item[0]))
    assert _buckets(aggs["price"]["buckets"][0]["brands"]) == [best]
    steps = {step: sum(step <= one < step + 25 for one in prices) for step in (0.0, 25.0, 50.0, 75.0, 100.0)}
    assert dict(_buckets(aggs["steps"])) == steps
    assert all(count for _, count in _buckets(aggs["full"]))
    assert aggs["named"]["buckets"]["none"]["doc_count"] == 0
    assert aggs["named"]["buckets"]["red"]["doc_count"] == len(matched({"match": {"title": {"query": "red"}}}))
    assert aggs["without"]["doc_count"] == len(PRODUCTS) - len(prices)


def test_facets_in_the_order_asked_for_with_only_the_values_asked_for(send: Send) -> None:
    inner = {"cheapest": {"min": {"field": "price"}}}
    _, body = send(
        {
            "size": 0,
            "aggs": {
                "names": {"terms": {"field": "brand", "order": {"_key": "desc"}}},
                "cheap": {"terms": {"field": "brand", "order": [{"cheapest": "asc"}, {"_key": "asc"}]}, "aggs": inner},
                "some": {"terms": {"field": "brand", "include": ["Acme", "Loom"]}},
                "food": {"terms": {"field": "category", "include": "Food.*"}},
                "others": {"terms": {"field": "brand", "exclude": ["Acme"]}},
                "none": {"terms": {"field": "brand", "missing": "no brand"}},
            },
        }
    )
    brands = _counts([one.brand for one in PRODUCTS if one.brand])
    aggs = body["aggregations"]
    assert [key for key, _ in _buckets(aggs["names"])] == sorted(brands, reverse=True)
    cheapest = {
        brand: min(one.price for one in PRODUCTS if one.brand == brand and one.price is not None) for brand in brands
    }
    assert [(bucket["key"], bucket["cheapest"]["value"]) for bucket in aggs["cheap"]["buckets"]] == sorted(
        cheapest.items(), key=lambda item: (item[1], item[0])
    )
    assert {key for key, _ in _buckets(aggs["some"])} == {"Acme", "Loom"}
    assert {key for key, _ in _buckets(aggs["food"])} == {"Food", "Food > Drinks"}
    assert {key for key, _ in _buckets(aggs["others"])} == set(brands) - {"Acme"}
    assert dict(_buckets(aggs["none"]))["no brand"] == sum(not one.brand for one in PRODUCTS)


def test_collapse_shows_the_best_of_each_group(send: Send) -> None:
    order = [{"price": "asc"}, {"id": "asc"}]
    inner = {"name": "more", "size": 2, "sort": ["id"], "_source": ["title"]}
    _, body = send({"collapse": {"field": "brand", "inner_hits": inner}, "sort": order, "size": 100})
    ranked = sorted(PRODUCTS, key=lambda one: (price_or_last(one), one.id))
    first = {}
    for one in ranked:
        first.setdefault(one.brand, one.id)
    assert [hit["_id"] for hit in body["hits"]["hits"]] == list(first.values())
    assert body["hits"]["total"]["value"] == len(PRODUCTS)
    for hit in body["hits"]["hits"]:
        brand = BY_ID[hit["_id"]].brand
        assert hit.get("fields") == ({"brand": [brand]} if brand else None)
        group = [one.id for one in PRODUCTS if one.brand == brand]
        more = hit["inner_hits"]["more"]["hits"]
        assert more["total"]["value"] == len(group)
        assert [one["_id"] for one in more["hits"]] == group[:2]
        assert set(more["hits"][0]["_source"]) == {"title"}
    assert (
        found(send({"collapse": {"field": "brand"}, "sort": order, "size": 2, "from": 1})) == list(first.values())[1:3]
    )


# --- vectors -----------------------------------------------------------------------------------------------------


def test_nearest_neighbours_alone_filtered_and_added_to_a_query(send: Send) -> None:
    vector = VECTORS["p11"]
    cosine = {one: float(vector @ other) for one, other in VECTORS.items()}
    clause = {"field": "endcap_vector", "query_vector": [float(x) for x in 2 * vector], "k": 5, "num_candidates": 60}
    _, body = send({"knn": clause, "_source": False})
    best = sorted(cosine, key=lambda one: -cosine[one])[:5]
    # Elasticsearch keeps vectors in 8 bits: near ties may come in another order.
    assert set(found((200, body))) == set(best)
    assert body["hits"]["hits"][0]["_id"] == "p11"
    assert body["hits"]["total"]["value"] == 5
    for hit in body["hits"]["hits"]:
        assert hit["_score"] == pytest.approx((1 + cosine[hit["_id"]]) / 2, abs=0.02)
    loom = having(lambda one: one.brand == "Loom")
    filtered = found(send({"knn": {**clause, "k": 3, "filter": {"term": {"brand": "Loom"}}}, "_source": False}))
    assert set(filtered) == set(sorted(loom, key=lambda one: -cosine[one])[:3])
    query = {"constant_score": {"filter": {"term": {"brand": "Loom"}}}}
    _, body = send({"query": query, "knn": {**clause, "boost": 2}, "size": 100, "_source": False})
    assert set(found((200, body))) == set(loom) | set(best)
    for hit in body["hits"]["hits"]:
        one = hit["_id"]
        want = (1.0 if one in loom else 0.0) + ((1 + cosine[one]) if one in best else 0.0)
        assert hit["_score"] == pytest.approx(want, abs=0.04)
