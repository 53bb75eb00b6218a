"""What every wire engine promises: which products match, in which order, and what of them is shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples

from tests.contracts.wire_fixtures import ALL, Send, found, having, price_or_last, send, wire
from tests.contracts.wire_shop import BY_ID, PRODUCTS, QUERIES, matched

__all__ = ["send", "wire"]


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


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ([{"price": "asc"}, {"id": "asc"}], lambda one: (price_or_last(one), one.id)),
        (
            [{"price": {"order": "desc"}}, "id"],
            lambda one: (one.price is None, -(one.price or 0), one.id),
        ),
        ([{"price": {"order": "asc", "missing": "_first"}}, "id"], lambda o: (o.price is not None, o.price or 0, o.id)),
        ([{"price": {"order": "asc", "missing": 10}}, "id"], lambda o: (10 if o.price is None else o.price, o.id)),
        (["brand", {"price": "asc"}, "id"], lambda o: (not o.brand, o.brand, price_or_last(o), o.id)),
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


@pytest.mark.parametrize(
    ("function", "score"),
    [
        (
            {"field_value_factor": {"field": "stock", "factor": 2, "modifier": "ln1p"}},
            lambda o: math.log1p(2 * o.stock),
        ),
        ({"field_value_factor": {"field": "price", "missing": 4, "modifier": "sqrt"}}, lambda o: (o.price or 4) ** 0.5),
        ({"gauss": {"stock": {"origin": 3, "scale": 2, "decay": 0.5}}}, lambda o: 0.5 ** (((o.stock - 3) / 2) ** 2)),
        (
            {"functions": [{"filter": {"term": {"brand": "Loom"}}, "weight": 3}, {"weight": 2}], "score_mode": "sum"},
            lambda one: 5 if one.brand == "Loom" else 2,
        ),
        (
            {"functions": [{"filter": {"term": {"brand": "Loom"}}, "weight": 3}], "boost_mode": "replace"},
            lambda one: 3 if one.brand == "Loom" else 1,
        ),
    ],
)
def test_scores_can_follow_a_field_or_a_weight(send: Send, function: Any, score: Callable[[Any], float]) -> None:
    query = {"function_score": {"query": {"constant_score": {"filter": {"match_all": {}}}}, **function}}
    _, body = send({"query": query, "size": 100, "_source": False})
    want = {one.id: score(one) for one in PRODUCTS}
    assert {hit["_id"]: hit["_score"] for hit in body["hits"]["hits"]} == pytest.approx(want, rel=1e-4)
    scores = [hit["_score"] for hit in body["hits"]["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert body["hits"]["max_score"] == pytest.approx(max(want.values()), rel=1e-4)
    # The hook asks for the documents of a page with the same query under a filter: the scores must not change.
    page = {"bool": {"must": [query], "filter": [{"ids": {"values": ["p05", "p14"]}}]}}
    _, body = send({"query": page, "_source": False})
    found_scores = {hit["_id"]: hit["_score"] for hit in body["hits"]["hits"]}
    assert found_scores == pytest.approx({one: want[one] for one in ("p05", "p14")}, rel=1e-4)


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
