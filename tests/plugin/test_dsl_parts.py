"""What the embedded DSL does where Elasticsearch leaves it open, or where its own index differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.catalog.product import Product
from endcap.engines.embedded import EmbeddedEngine
from endcap.engines.embedded.dsl.errors import DslError
from endcap.engines.embedded.dsl.fuzzy import Vocabulary
from endcap.engines.embedded.dsl.minimum import minimum_should_match
from endcap.engines.embedded.dsl.source import FilterPath
from endcap.engines.embedded.wire import EmbeddedWireEngine

PRODUCTS = [
    Product("a1", "Red Shoe", "A shoe. It is red! " + "Many words stand here. " * 20 + "The last shoe.", "Acme Shoes"),
    Product("a2", "red shoe", brand="acme shoes", categories=("Clothing", "Shoes", "Running")),
    Product("a3", "Red Shoes", categories=("Clothing", "Shoes"), price=5.0),
    Product("a4", "Shoo Fly", price=3.0),
    Product("a5", "Straße nach Öland", attributes={"Größe in cm": 12.5, "a.b": "x", "plain": "5", "many": ["x", "y"]}),
    Product("a6", "红色手机壳", attributes={"plain": 5, "Größe in cm": 20}),
    Product("a7", "手表机", attributes={"plain": True}),
    Product("b1", "zebra"),
    Product("b2", "Zebra"),
    Product("b3", "apple"),
    *(Product(f"c{number:02d}", "common shoe") for number in range(40)),
]


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedWireEngine]:
    engine = EmbeddedEngine(tmp_path_factory.mktemp("dsl"), "shop")
    engine.ensure(None, "")
    # Newest first and in several commits: the order in the index is not that of the ids.
    for start in range(0, len(PRODUCTS), 9):
        engine.upsert((one, None, "") for one in PRODUCTS[::-1][start : start + 9])
        engine.refresh()
    yield EmbeddedWireEngine(engine, "shop")
    engine.close()


def ask(wire: EmbeddedWireEngine, body: dict[str, Any], query: str = "") -> Any:
    raw = json.dumps({"size": 100, **body}).encode()
    answer = wire.send("POST", "/shop/_search", query, {"Content-Type": "application/json"}, raw, 5.0)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def ids(wire: EmbeddedWireEngine, query: dict[str, Any], **more: Any) -> list[str]:
    return [hit["_id"] for hit in ask(wire, {"query": query, **more})["hits"]["hits"]]


def test_equal_scores_come_by_id(wire: EmbeddedWireEngine) -> None:
    assert ids(wire, {"match_all": {}}) == [one.id for one in PRODUCTS]
    assert ids(wire, {"match": {"title": "common"}}) == [f"c{number:02d}" for number in range(40)]
    assert ids(wire, {"match": {"title": "common"}}, size=3, **{"from": 10}) == ["c10", "c11", "c12"]


def test_the_exact_title_is_exact_to_the_letter(wire: EmbeddedWireEngine) -> None:
    assert ids(wire, {"term": {"title.keyword": "Red Shoe"}}) == ["a1"]
    assert ids(wire, {"terms": {"title.keyword": ["red shoe", "Red Shoes", "nothing"]}}) == ["a2", "a3"]
    assert ids(wire, {"prefix": {"title.keyword": "Red"}}) == ["a1", "a3"]
    assert ids(wire, {"term": {"title.sort": "RED SHOE"}}) == ["a1", "a2"]
    assert ids(wire, {"ids": {"values": ["b1", "b2", "b3"]}}, sort=["title.keyword", "id"]) == ["b3", "b1", "b2"]


def test_keyword_names_are_the_plain_names(wire: EmbeddedWireEngine) -> None:
    assert (
        ids(wire, {"term": {"brand.keyword": "Acme Shoes"}}) == ["a1"] == ids(wire, {"term": {"brand": "Acme Shoes"}})
    )
    assert ids(wire, {"term": {"category.keyword": "Clothing > Shoes"}}) == ["a2", "a3"]
    buckets = ask(wire, {"aggs": {"c": {"terms": {"field": "category.keyword"}}}})["aggregations"]["c"]["buckets"]
    assert [(one["key"], one["doc_count"]) for one in buckets] == [
        ("Clothing", 2),
        ("Clothing > Shoes", 2),
        ("Clothing > Shoes > Running", 1),
    ]


def test_brand_and_category_are_words_to_a_text_query(wire: EmbeddedWireEngine) -> None:
    assert ids(wire, {"match": {"brand": "acme"}}) == ["a1", "a2"]
    assert ids(wire, {"multi_match": {"query": "running", "fields": ["title", "category"]}}) == ["a2"]


def test_a_group_of_a_category_is_its_leaf(wire: EmbeddedWireEngine) -> None:
    query = {"ids": {"values": ["a2", "a3", "b1"]}}
    hits = ask(wire, {"query": query, "collapse": {"field": "category"}})["hits"]["hits"]
    assert [hit.get("fields", {}).get("category") for hit in hits] == [
        ["Clothing > Shoes > Running"],
        ["Clothing > Shoes"],
        None,
    ]


def test_the_word_as_typed_comes_before_words_near_it(wire: EmbeddedWireEngine) -> None:
    found = ids(wire, {"match": {"title": {"query": "shoo", "fuzziness": "AUTO"}}})
    assert found[0] == "a4"
    assert {"a1", "a2"} < set(found)
    # A rare spelling does not beat the common one that was asked for.
    typed = ids(wire, {"match": {"title": {"query": "shoe", "fuzziness": "AUTO"}}}, size=5)
    assert "a4" not in typed


def test_attributes_of_any_name_and_of_mixed_types(wire: EmbeddedWireEngine) -> None:
    name = "attributes.Größe in cm"
    assert ids(wire, {"range": {name: {"gte": 12.5, "lt": 20}}}) == ["a5"]
    assert ids(wire, {"range": {f"{name}.number": {"gt": 12.5}}}) == ["a6"]
    assert ids(wire, {"term": {"attributes.a.b": "x"}}) == ["a5"]
    for value in (5, "5"):
        assert ids(wire, {"term": {"attributes.plain": value}}) == ["a5", "a6"]
    for value in (True, "true"):
        assert ids(wire, {"term": {"attributes.plain": value}}) == ["a7"]
    assert ids(wire, {"term": {"attributes.many": "y"}}) == ["a5"]
    body = {"aggs": {"p": {"terms": {"field": "attributes.plain"}}}, "size": 0}
    buckets = ask(wire, body)["aggregations"]["p"]["buckets"]
    assert [(one["key"], one["doc_count"]) for one in buckets] == [("5", 2), ("true", 1)]
    assert ids(wire, {"exists": {"field": name}}, sort=[{name: "desc"}]) == ["a6", "a5"]
    assert ids(wire, {"exists": {"field": "attributes.plain"}}, sort=["attributes.plain", "id"]) == ["a5", "a6", "a7"]


def test_words_of_scripts_without_spaces_are_neighbours(wire: EmbeddedWireEngine) -> None:
    assert ids(wire, {"match": {"title": "手机"}}) == ["a6"]
    hit = ask(wire, {"query": {"match": {"title": "手机壳"}}, "highlight": {"fields": {"title": {}}}})["hits"]["hits"][
        0
    ]
    assert hit["highlight"]["title"] == ["红色<em>手机壳</em>"]
    assert ids(wire, {"match": {"title": "strasse ÖLAND"}}, size=1) == ["a5"]


def test_long_texts_are_cut_into_fragments_around_what_matched(wire: EmbeddedWireEngine) -> None:
    query = {"query": {"match": {"description": "shoe"}}}

    def fragments(**options: Any) -> list[str]:
        body = {**query, "highlight": {"fields": {"description": options}}}
        return ask(wire, body)["hits"]["hits"][0]["highlight"]["description"]

    assert fragments() == ["A <em>shoe</em>.", "The last <em>shoe</em>."]
    assert fragments(number_of_fragments=1) == ["A <em>shoe</em>."]
    whole = fragments(number_of_fragments=0)
    assert len(whole) == 1
    assert whole[0].replace("<em>", "").replace("</em>", "") == PRODUCTS[0].description


def test_highlight_query_replaces_what_is_marked(wire: EmbeddedWireEngine) -> None:
    query = {"bool": {"must": [{"match": {"title": "red"}}], "filter": [{"match": {"title": "shoe"}}]}}
    highlight = {"highlight_query": {"match": {"title": "red"}}, "fields": {"title": {}}}
    hit = ask(wire, {"query": query, "highlight": highlight})["hits"]["hits"][0]
    assert hit["highlight"]["title"] == ["<em>Red</em> Shoe"]


@pytest.mark.parametrize(
    ("spec", "clauses", "needed"),
    [
        (2, 5, 2),
        ("-1", 5, 4),
        ("75%", 4, 3),
        ("75%", 3, 2),
        ("-25%", 4, 3),
        ("-30%", 3, 3),
        ("2<75%", 2, 2),
        ("2<75%", 4, 3),
        ("2<-25% 9<-3", 9, 7),
        ("2<-25% 9<-3", 12, 9),
        ("2 < 50%", 4, 2),
        ("-9", 3, 0),
        (7, 3, 7),
    ],
)
def test_minimum_should_match(spec: Any, clauses: int, needed: int) -> None:
    assert minimum_should_match(spec, clauses) == needed


@pytest.mark.parametrize("spec", ["", "x", "2<", "<2", "50%<2", "2<3<4", 1.5, True, [], "9" * 30])
def test_a_minimum_that_is_none_is_refused(spec: Any) -> None:
    with pytest.raises(DslError):
        minimum_should_match(spec, 3)


def _edits(one: str, other: str) -> int:
    """Optimal string alignment, by the book."""
    table = [
        [row + column if not row * column else 0 for column in range(len(other) + 1)] for row in range(len(one) + 1)
    ]
    for row in range(1, len(one) + 1):
        for column in range(1, len(other) + 1):
            best = min(table[row - 1][column], table[row][column - 1]) + 1
            best = min(best, table[row - 1][column - 1] + (one[row - 1] != other[column - 1]))
            if row > 1 and column > 1 and one[row - 1] == other[column - 2] and one[row - 2] == other[column - 1]:
                best = min(best, table[row - 2][column - 2] + 1)
            table[row][column] = best
    return table[-1][-1]


_word = st.text(alphabet="abcé手", min_size=1, max_size=7)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(words=st.lists(_word, max_size=30, unique=True), word=_word, edits=st.integers(1, 2), prefix=st.integers(0, 2))
def test_words_near_a_word_are_those_within_so_many_edits(words: list[str], word: str, edits: int, prefix: int) -> None:
    found = Vocabulary([(one, 1) for one in words]).near(word, edits, prefix, 100)
    want = {
        one: _edits(word, one)
        for one in words
        if _edits(word, one) <= edits and one.startswith(word[: min(prefix, len(word))])
    }
    assert {one: away for one, away, _ in found} == want
    assert [away for _, away, _ in found] == sorted(want.values())


def test_filter_path_takes_levels_wildcards_and_exclusions() -> None:
    answer = {"took": 1, "hits": {"total": {"value": 2}, "hits": [{"_id": "a", "_source": {"x": 1}}, {"_id": "b"}]}}

    def kept(paths: str) -> Any:
        return FilterPath(paths).apply(answer)

    assert kept("hits.hits._id") == {"hits": {"hits": [{"_id": "a"}, {"_id": "b"}]}}
    assert kept("hits.hits._source.x") == {"hits": {"hits": [{"_source": {"x": 1}}]}}
    assert kept("*.total") == {"hits": {"total": {"value": 2}}}
    assert kept("**._id") == {"hits": {"hits": [{"_id": "a"}, {"_id": "b"}]}}
    assert kept("took,nothing") == {"took": 1}
    assert kept("nothing") == {}
    assert kept("hits.hits,-hits.hits._source") == {"hits": {"hits": [{"_id": "a"}, {"_id": "b"}]}}
