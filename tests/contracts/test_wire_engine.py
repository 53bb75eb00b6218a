"""What every wire engine promises: Elasticsearch's answers to what storefront clients send, over the same products."""

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
from hypothesis import HealthCheck, given
from hypothesis import settings as examples

from tests.contracts.wire_shop import BY_ID, DIMS, ENCODER, PRODUCTS, QUERIES, VECTORS, items, matched

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
        with Elasticsearch(url) as client:
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


# --- queries -----------------------------------------------------------------------------------------------------


@examples(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(query=QUERIES)
def test_a_query_tree_matches_what_reading_every_product_finds(send: Send, query: dict[str, Any]) -> None:
    status, body = send({**ALL, "query": query, "track_total_hits": True})
    assert status == 200, body
    assert [hit["_id"] for hit in body["hits"]["hits"]] == sorted(matched(query))
    assert body["hits"]["total"] == {"value": len(matched(query)), "relation": "eq"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"match": {"title": {"query": "shoo", "fuzziness": "AUTO"}}}, {"shoe", "shoes"} - {"shoes"}),
        ({"match": {"title": {"query": "shoo", "fuzziness": 2}}}, {"shoe", "shoes"}),
        ({"match": {"title": {"query": "hoe", "fuzziness": "AUTO", "prefix_length": 1}}}, set()),
        ({"match": {"title": {"query": "hoe", "fuzziness": "AUTO:3,6"}}}, {"shoe"}),
        ({"match": {"title": {"query": "bleu", "fuzziness": "AUTO"}}}, {"blue"}),
        ({"match": {"title": {"query": "hoe", "fuzziness": "AUTO:4,8"}}}, set()),
        ({"fuzzy": {"title": {"value": "honeey"}}}, {"honey"}),
        ({"match_phrase_prefix": {"title": "sh"}}, {"shoe", "shoes", "shirt"}),
        ({"match_bool_prefix": {"title": "honey sw"}}, {"honey", "sweet"}),
        ({"multi_match": {"query": "honey sw", "fields": ["title"], "type": "bool_prefix"}}, {"honey", "sweet"}),
        ({"prefix": {"title": "sh"}}, {"shoe", "shoes", "shirt"}),
        ({"simple_query_string": {"query": "honey | swee*", "fields": ["title"]}}, {"honey", "sweet"}),
        ({"query_string": {"query": "title:honey OR title:swee*"}}, {"honey", "sweet"}),
    ],
)
def test_one_word_stands_for_those_near_it(send: Send, query: dict[str, Any], words: set[str]) -> None:
    want = having(lambda one: bool(words & set(one.title.lower().split())))
    assert found(send({**ALL, "query": query})) == want


def test_a_phrase_may_have_gaps_and_an_unfinished_last_word(send: Send) -> None:
    def between(title: str, gap: int, ending: str = "shoe") -> bool:
        words = title.lower().split()
        return any(
            words[at] == "red" and any(word.startswith(ending) for word in words[at + 1 : at + 2 + gap])
            for at in range(len(words))
        )

    unfinished = send({**ALL, "query": {"match_phrase_prefix": {"title": "red sh"}}})
    assert found(unfinished) == having(lambda one: between(one.title, 0, "sh"))
    apart = send({**ALL, "query": {"match_phrase": {"title": {"query": "light sweet", "slop": 3}}}})
    assert set(found(send({**ALL, "query": {"match_phrase": {"title": "light sweet"}}}))) <= set(found(apart))
    assert set(found(apart)) <= set(having(lambda one: {"light", "sweet"} <= set(one.title.lower().split())))


def test_lucene_syntax_joins_as_lucene_does(send: Send) -> None:
    titles = {one.id: set(one.title.lower().split()) for one in PRODUCTS}

    def lucene(text: str, **more: Any) -> list[str]:
        return found(send({**ALL, "query": {"query_string": {"query": text, "default_field": "title", **more}}}))

    assert lucene("+red shoe -blue") == having(lambda one: "red" in titles[one.id] and "blue" not in titles[one.id])
    assert lucene("red shoe", default_operator="AND") == having(lambda one: {"red", "shoe"} <= titles[one.id])
    assert lucene("(red OR blue) AND shoe") == having(
        lambda one: "shoe" in titles[one.id] and bool({"red", "blue"} & titles[one.id])
    )
    assert lucene('"red shoe"') == found(send({**ALL, "query": {"match_phrase": {"title": "red shoe"}}}))
    status, body = send({"query": {"query_string": {"query": "red AND"}}})
    assert (status, body["error"]["root_cause"][0]["type"]) == (400, "query_shard_exception")


def test_attributes_compare_as_text_and_their_numbers_as_numbers(send: Send) -> None:
    size = {one.id: one.attributes.get("size") for one in PRODUCTS}
    for value in (38, "38"):
        assert found(send({**ALL, "query": {"term": {"attributes.size": value}}})) == having(lambda o: size[o.id] == 38)
    between = {"range": {"attributes.size.number": {"gt": 36, "lte": 40.5}}}
    assert found(send({**ALL, "query": between})) == having(lambda one: (size[one.id] or 0) > 36)
    organic = {"term": {"attributes.organic": True}}
    assert found(send({**ALL, "query": organic})) == having(lambda one: one.attributes.get("organic") is True)


def test_named_queries_tell_which_of_them_matched(send: Send) -> None:
    red = {"match": {"title": {"query": "red", "_name": "red"}}}
    acme = {"term": {"brand": {"value": "Acme", "_name": "acme"}}}
    _, body = send({**ALL, "query": {"bool": {"should": [red, acme]}}})
    for hit in body["hits"]["hits"]:
        product = BY_ID[hit["_id"]]
        want = {"red"} if "red" in product.title.lower().split() else set()
        assert set(hit["matched_queries"]) == want | ({"acme"} if product.brand == "Acme" else set())


# --- scores and order --------------------------------------------------------------------------------------------


def test_hits_come_by_falling_score_and_say_it(send: Send) -> None:
    _, body = send({"query": {"multi_match": {"query": "red shoe", "fields": ["title^3", "description"]}}, "size": 100})
    scores = [hit["_score"] for hit in body["hits"]["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert body["hits"]["max_score"] == scores[0]
    assert scores[0] > scores[-1] > 0
    assert "sort" not in body["hits"]["hits"][0]


def test_boosts_and_constant_scores_are_what_they_say(send: Send) -> None:
    _, body = send({"query": {"constant_score": {"filter": {"term": {"brand": "Loom"}}, "boost": 2.5}}})
    assert {hit["_score"] for hit in body["hits"]["hits"]} == {2.5}
    _, body = send({"query": {"bool": {"filter": [{"term": {"brand": "Loom"}}]}}})
    assert {hit["_score"] for hit in body["hits"]["hits"]} == {0.0}
    _, body = send({"query": {"match_all": {"boost": 3}}})
    assert body["hits"]["max_score"] == 3.0
    two = [{"constant_score": {"filter": {"match_all": {}}}}, {"constant_score": {"filter": {"term": {"id": "p07"}}}}]
    _, body = send({"query": {"bool": {"should": two}}})
    assert (body["hits"]["hits"][0]["_id"], body["hits"]["hits"][0]["_score"]) == ("p07", 2.0)
    _, body = send({"query": {"dis_max": {"queries": two, "tie_breaker": 0.5}}})
    assert (body["hits"]["hits"][0]["_id"], body["hits"]["hits"][0]["_score"]) == ("p07", 1.5)


def test_a_minimal_score_cuts_hits_total_and_facets(send: Send) -> None:
    two = [
        {"constant_score": {"filter": {"match_all": {}}}},
        {"constant_score": {"filter": {"term": {"brand": "Loom"}}}},
    ]
    _, body = send(
        {**ALL, "query": {"bool": {"should": two}}, "min_score": 1.5, "aggs": {"b": {"terms": {"field": "brand"}}}}
    )
    loom = having(lambda one: one.brand == "Loom")
    assert [hit["_id"] for hit in body["hits"]["hits"]] == loom
    assert body["hits"]["total"]["value"] == len(loom)
    assert body["aggregations"]["b"]["buckets"] == [{"key": "Loom", "doc_count": len(loom)}]


def _price(one: Any) -> float:
    return float("inf") if one.price is None else one.price


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ([{"price": "asc"}, {"id": "asc"}], lambda one: (_price(one), one.id)),
        (
            [{"price": {"order": "desc"}}, "id"],
            lambda one: (one.price is None, -(one.price or 0), one.id),
        ),
        ([{"price": {"order": "asc", "missing": "_first"}}, "id"], lambda o: (o.price is not None, o.price or 0, o.id)),
        ([{"price": {"order": "asc", "missing": 10}}, "id"], lambda o: (10 if o.price is None else o.price, o.id)),
        (["brand", {"price": "asc"}, "id"], lambda o: (not o.brand, o.brand, _price(o), o.id)),
        (["title.sort", "id"], lambda one: (one.title.lower(), one.id)),
        (
            [{"attributes.color": "asc"}, "id"],
            lambda o: ("color" not in o.attributes, o.attributes.get("color", ""), o.id),
        ),
        ([{"stock": "desc"}, {"id": "desc"}], lambda one: (-(one.stock or 0), [-ord(char) for char in one.id])),
    ],
)
def test_fields_order_the_hits_and_pages_partition_them(send: Send, sort: Any, key: Callable[[Any], Any]) -> None:
    want = [one.id for one in sorted(PRODUCTS, key=key)]
    assert found(send({"sort": sort, "size": 100})) == want
    pages = [found(send({"sort": sort, "size": 7, "from": start, "_source": False})) for start in range(0, 70, 7)]
    assert [one for page in pages for one in page] == want
    after: list[Any] = []
    place: dict[str, Any] = {}
    while True:
        status, body = send({"sort": sort, "size": 11, "_source": False, **place})
        assert status == 200, body
        if not body["hits"]["hits"]:
            break
        after += [hit["_id"] for hit in body["hits"]["hits"]]
        place = {"search_after": body["hits"]["hits"][-1]["sort"]}
        assert body["hits"]["total"]["value"] == len(PRODUCTS)
    assert after == want


def test_pages_by_relevance_partition_the_matches(send: Send) -> None:
    query = {"query": {"match": {"title": "red blue shoe"}}, "_source": False}
    whole = found(send({**query, "size": 100}))
    pages = [found(send({**query, "size": 4, "from": start})) for start in range(0, len(whole) + 4, 4)]
    assert [one for page in pages for one in page] == whole
    assert len(set(whole)) == len(whole)


# --- what is shown -----------------------------------------------------------------------------------------------


def test_source_is_the_document_or_the_part_asked_for(send: Send) -> None:
    one = BY_ID["p01"]

    def source(spec: Any) -> Any:
        _, body = send({"query": {"ids": {"values": ["p01"]}}, "_source": spec})
        (hit,) = body["hits"]["hits"]
        return hit.get("_source")

    assert source({"excludes": ["endcap_*"]}) == one.to_document()
    assert source(False) is None
    assert source("title") == {"title": one.title} == source(["title", "nothing"])
    assert source({"includes": ["t*", "attributes.color"]}) == {
        "title": one.title,
        "attributes": {"color": one.attributes["color"]},
    }
    assert "size" not in source({"includes": ["attributes"], "excludes": ["*.size"]})["attributes"]
    _, body = send({"query": {"ids": {"values": ["p01"]}}, "_source": False, "fields": ["title", "pri*", "category"]})
    document = one.to_document()
    assert body["hits"]["hits"][0]["fields"] == {
        name: document[name] if isinstance(document[name], list) else [document[name]]
        for name in ("title", "price", "category")
        if name in document
    }


def test_highlights_mark_the_words_that_matched(send: Send) -> None:
    _, body = send(
        {
            "query": {"multi_match": {"query": "red sho", "fields": ["title", "description"], "type": "bool_prefix"}},
            "highlight": {"pre_tags": ["<b>"], "post_tags": ["</b>"], "fields": {"title": {"number_of_fragments": 0}}},
            "size": 100,
        }
    )
    seen = 0
    for hit in body["hits"]["hits"]:
        title = BY_ID[hit["_id"]].title
        marked = [f"<b>{word}</b>" if word.lower() in ("red", "shoe", "shoes") else word for word in title.split()]
        if any(word.startswith("<b>") for word in marked):
            assert hit["highlight"] == {"title": [" ".join(marked)]}
            seen += 1
        else:
            assert "highlight" not in hit
    assert seen > 3


def test_highlighted_html_is_escaped(send: Send) -> None:
    query = {"query": {"term": {"brand": "Bee & Co"}}, "size": 1}
    _, body = send({**query, "highlight": {"encoder": "html", "fields": {"brand": {}}}})
    assert body["hits"]["hits"][0]["highlight"]["brand"] == ["<em>Bee &amp; Co</em>"]


@pytest.mark.parametrize(
    ("track", "total"),
    [(True, {"value": 60, "relation": "eq"}), (3, {"value": 3, "relation": "gte"}), (False, None), (60, {"value": 60})],
)
def test_totals_are_counted_as_far_as_asked(send: Send, track: Any, total: dict[str, Any] | None) -> None:
    # Sorted, as Elasticsearch may count further than asked where it has to look at every match for another reason.
    _, body = send({"track_total_hits": track, "size": 2, "query": {"match": {"category.text": "food clothing"}}})
    _, everything = send({"track_total_hits": track, "size": 2, "sort": ["id"]})
    if total is None:
        assert "total" not in everything["hits"]
    else:
        assert everything["hits"]["total"].items() >= total.items()
        assert body["hits"]["total"]["value"] <= total["value"]


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
    best = sorted(cheap.items(), key=lambda item: (-item[1], item[0]))[0]
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
    ranked = sorted(PRODUCTS, key=lambda one: (_price(one), one.id))
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
