"""What holds for any search: no hit lost, doubled or invented, pages that partition the answer, the rest untouched."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reranker.hook_support import Shop, expected_order, ids, whole_hits, without_hits

WINDOWS = [7, 50]

text = st.sampled_from(["red", "red shoe", "kids winter light", "紅色", "leather OR summer", "zeppelin", "läufer"])
brands = st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True)
leaf = st.one_of(
    text.map(lambda words: {"match": {"title": words}}),
    text.map(lambda words: {"match": {"title": {"query": words, "fuzziness": "AUTO", "_name": "named"}}}),
    text.map(lambda words: {"multi_match": {"query": words, "fields": ["title^3", "color", "brand"]}}),
    brands.map(lambda names: {"terms": {"brand": names}}),
    st.just({"match_all": {}}),
    st.just({"match_none": {}}),
    st.just({"exists": {"field": "color"}}),
    text.map(lambda words: {"constant_score": {"filter": {"match": {"title": words}}, "boost": 2.5}}),
    text.map(
        lambda words: {
            "function_score": {
                "query": {"match": {"title": words}},
                "field_value_factor": {"field": "price", "missing": 1, "modifier": "ln1p"},
            }
        }
    ),
)
query = st.one_of(
    leaf,
    st.builds(
        lambda must, should, filters, minimum: {
            "bool": {"must": must, "should": should, "filter": filters, "minimum_should_match": minimum}
        },
        st.lists(leaf, max_size=2),
        st.lists(leaf, min_size=1, max_size=2),
        st.lists(brands.map(lambda names: {"terms": {"brand": names}}), max_size=1),
        st.integers(0, 1),
    ),
)
parts = st.fixed_dictionaries(
    {},
    optional={
        "query": query,
        "aggs": st.sampled_from(
            [
                {"brands": {"terms": {"field": "brand"}}},
                {"dear": {"filter": {"range": {"price": {"gte": 40}}}, "aggs": {"top": {"top_hits": {"size": 1}}}}},
            ]
        ),
        "suggest": st.just({"fix": {"text": "rad shoo", "term": {"field": "title"}}}),
        "post_filter": brands.map(lambda names: {"terms": {"brand": names}}),
        "min_score": st.sampled_from([0.0, 0.5, 1.5]),
        "track_total_hits": st.sampled_from([True, False, 3, 60, 10_000]),
        "_source": st.sampled_from([True, False, ["title"], {"excludes": ["vector"]}, "price", []]),
        "fields": st.sampled_from([["brand"], ["*"]]),
        "highlight": st.sampled_from(
            [{"fields": {"title": {}}}, {"fields": {"*": {}}, "require_field_match": False, "encoder": "html"}]
        ),
        "sort": st.sampled_from(["_score", [{"_score": "desc"}]]),
        "collapse": st.just({"field": "brand", "inner_hits": {"name": "group", "size": 2}}),
        "version": st.booleans(),
        "track_scores": st.booleans(),
        "indices_boost": st.just([{"shop": 1.5}]),
        "timeout": st.just("5s"),
        "runtime_mappings": st.just({"extra": {"type": "keyword"}}),
    },
)
EXAMPLES = int(os.environ.get("ENDCAP_TEST_EXAMPLES", "30"))
typical = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture(scope="module", params=WINDOWS, ids=lambda window: f"window {window}")
def pair(shop_engine: str, request: pytest.FixtureRequest) -> tuple[Shop, Shop]:
    """The same hook in one phase and in two."""
    once = Shop(shop_engine, window=request.param, two_phase="never")
    return once, Shop(shop_engine, window=request.param, two_phase="always")


@typical
@given(body=parts, start=st.integers(0, 120), size=st.integers(1, 80))
def test_any_page(pair: tuple[Shop, Shop], body: dict[str, Any], start: int, size: int) -> None:
    whole = pair[0].direct({**body, "from": 0, "size": 200})
    page = pair[0].direct({**body, "from": start, "size": size})
    window = pair[0].parts.settings.window
    for shop in pair:
        answer = shop.search({**body, "from": start, "size": size})
        assert without_hits(answer) == without_hits(page)
        assert ids(answer) == expected_order(ids(whole), window=window)[start : start + size]
        found = whole_hits(whole)
        assert all(found[name] == hit for name, hit in whole_hits(answer).items())
        scores = [hit["_score"] for hit in answer["hits"]["hits"]]
        assert scores == [hit["_score"] for hit in page["hits"]["hits"]]
        assert scores == sorted(scores, reverse=True)


@typical
@given(body=parts, size=st.integers(15, 90))
def test_pages_partition_the_answer(pair: tuple[Shop, Shop], body: dict[str, Any], size: int) -> None:
    whole = ids(pair[0].direct({**body, "from": 0, "size": 200}))
    for shop in pair:
        pages = [ids(shop.search({**body, "from": start, "size": size})) for start in range(0, 200, size)]
        flat = [one for page in pages for one in page]
        assert len(flat) == len(set(flat))
        assert sorted(flat) == sorted(whole)


@typical
@given(bodies=st.lists(st.tuples(parts, st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=5))
def test_many_searches_are_as_good_as_one(pair: tuple[Shop, Shop], bodies: list[tuple[Any, int, int]]) -> None:
    import json

    searches = [{**body, "from": start, "size": size} for body, start, size in bodies]
    lines = "".join(f'{{"index":"shop"}}\n{json.dumps(body)}\n' for body in searches)
    for shop in pair:
        alone = [shop.search(body) for body in searches]
        together = shop.search(lines, "/_msearch")["responses"]
        for one, other in zip(together, alone, strict=True):
            assert one.pop("status") == 200
            assert {**one, "took": 0} == {**other, "took": 0}
