"""What the embedded engine makes of words, attributes and texts of any kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endcap.catalog.product import Product
from endcap.engines import Filter, SearchRequest
from endcap.engines.embedded import EmbeddedEngine, schema
from endcap.errors import InvalidInput


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedEngine:
    made = EmbeddedEngine(tmp_path_factory.mktemp("words"), "products")
    made.ensure(None, "")
    titles = {
        "s1": "Scented Candles",
        "s2": "Candle Holder",
        "f1": "Crème Brûlée",
        "j1": "コーヒー豆",
        "k1": "한국어 교재",
        "c1": "Chocolate Cake",
        "i1": "Ice Cream",
        "n1": "Battery 2032",
    }
    made.upsert([(Product(key, title), None, "") for key, title in titles.items()])
    made.upsert([(Product("a1", "Rug", attributes={"Screen size": 5.5, "a.b": "x", "größe": "XL", "n": -3}), None, "")])
    made.refresh()
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("candle", ["s2", "s1"]),
        ("candles", ["s1", "s2"]),
        ("creme brulee", ["f1"]),
        ("CRÈME BRÛLÉE", ["f1"]),
        ("cre\u0300me", ["f1"]),
        ("ＣＲＥＭＥ", ["f1"]),
        ("コーヒー", ["j1"]),
        ("한국", ["k1"]),
        ("choc", ["c1"]),
        ("chocolate cak", ["c1"]),
        ("icecream", ["i1"]),
        ("2033", []),
        ("candle for the holder", ["s2"]),
        ("of", []),
        ("chocolate ice unicorn cream", ["i1"]),
    ],
)
def test_forms_of_a_word(words: EmbeddedEngine, text: str, expected: list[str]) -> None:
    assert [hit.id for hit in words.search(SearchRequest(text)).hits] == expected


@pytest.mark.parametrize(
    "condition",
    [
        Filter("attributes.Screen size", (5.5,)),
        Filter("attributes.Screen size", gte=5.25, lte=6),
        Filter("attributes.a.b", ("x",)),
        Filter("attributes.größe", ("XL",)),
        Filter("attributes.n", lte=-2.5),
        Filter("attributes.n", gte=-3, lte=-3),
    ],
)
def test_attributes_of_any_name(words: EmbeddedEngine, condition: Filter) -> None:
    assert [hit.id for hit in words.search(SearchRequest("", filters=(condition,))).hits] == ["a1"]
    assert words.search(SearchRequest("", facets={condition.field: 3})).facets[condition.field]


@given(st.text(st.sampled_from("aÉßﬁ ½²手コー.'-_\U00010400K\u0301") | st.characters(codec="utf-8"), max_size=40))
def test_tokens_and_their_places_do_not_depend_on_the_version_of_tantivy(text: str) -> None:
    text = schema.normalize(text + " Crème " + "x" * 300 + " brûlées")
    for analyzer in (schema.words_analyzer(), schema.stems_analyzer("german")):
        found = schema.tokens_one_by_one(analyzer, text)
        assert [token.text for token in found] == analyzer.analyze(text)
        assert [tuple(token) for token in found] == [
            (token.text, token.char_offset_from, token.char_offset_to) for token in schema.tokens(analyzer, text)
        ]


def test_highlights_mark_other_forms_and_neighbouring_characters(words: EmbeddedEngine) -> None:
    def title(text: str) -> list[str]:
        return [hit.highlights["title"][0] for hit in words.search(SearchRequest(text, highlight=True)).hits]

    assert title("candle") == ["<em>Candle</em> Holder", "Scented <em>Candles</em>"]
    assert title("コーヒー") == ["<em>コーヒー</em>豆"]
    assert title("creme") == ["<em>Crème</em> Brûlée"]


def test_pages_out_of_bounds_are_refused(words: EmbeddedEngine) -> None:
    for offset, size in [(-1, 10), (0, -1), (10**9, 10)]:
        with pytest.raises(InvalidInput):
            words.search(SearchRequest("", offset=offset, size=size))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUE = st.one_of(TEXT, st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
PRODUCT = st.builds(
    Product,
    id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    title=TEXT,
    description=TEXT,
    brand=TEXT,
    price=st.none() | st.floats(0, 1e9),
    stock=st.none() | st.floats(0, 1e6),
    attributes=st.dictionaries(TEXT, VALUE | st.lists(TEXT.filter(bool), min_size=1, max_size=3), max_size=4),
)


@pytest.fixture(scope="module")
def anything(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedEngine:
    made = EmbeddedEngine(tmp_path_factory.mktemp("anything"), "ünï/code *?")
    made.ensure(None, "")
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(products=st.lists(PRODUCT, min_size=1, max_size=8, unique_by=lambda one: one.id))
def test_any_product_comes_back_and_is_found(anything: EmbeddedEngine, products: list[Product]) -> None:
    report = anything.upsert([(one, None, "d") for one in products])
    assert report.errors == []
    anything.refresh()
    ids = [one.id for one in products]
    assert anything.get(ids) == [one.to_document() for one in products]
    for one in products:
        by_id = Filter("id", (one.id,))
        if one.brand:
            found = anything.search(SearchRequest("", filters=(by_id, Filter("brand", (one.brand,)))))
            assert [hit.id for hit in found.hits] == [one.id]
        if one.price is not None:
            found = anything.search(SearchRequest("", filters=(by_id, Filter("price", (one.price,)))))
            assert found.total == 1
        hit_ids = [hit.id for hit in anything.search(SearchRequest(one.title, size=1000, highlight=True)).hits]
        assert one.id in hit_ids
        assert len(hit_ids) == len(set(hit_ids))
        for name, value in one.attributes.items():
            if name and value not in ("", [], {}) and not isinstance(value, list):
                found = anything.search(SearchRequest("", filters=(by_id, Filter(f"attributes.{name}", (value,)))))
                assert found.total == 1, (name, value)
    anything.delete(ids)
    anything.refresh()
    assert anything.count() == 0
