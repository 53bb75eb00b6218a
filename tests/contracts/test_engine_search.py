"""What every engine promises: searching by words, filters, facets, pages, and by vectors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from html import unescape

import numpy as np
import pytest

from endcap.engines import Engine, Filter, SearchRequest
from endcap.errors import InvalidInput
from tests.contracts.catalogue import BY_ID, DIMS, ENCODER, PRODUCTS, VECTORS, items, vector_of
from tests.contracts.conftest import OpenEngine

GROCERY = ["b1", "b2", "b3", "h1", "h2", "h4", "x1"]


@pytest.fixture(scope="module")
def shop(open_engine: OpenEngine) -> Iterator[Engine]:
    """The shop, which no test here changes."""
    engine = open_engine(f"contract-{uuid.uuid4().hex[:12]}")
    engine.ensure(DIMS, ENCODER)
    engine.upsert(items())
    engine.refresh()
    yield engine
    engine.close()


def ids_of(engine: Engine, text: str = "", **wanted: object) -> list[str]:
    return [hit.id for hit in engine.search(SearchRequest(text, **{"size": 100, **wanted})).hits]  # type: ignore[arg-type]


def filtered(engine: Engine, *filters: Filter) -> list[str]:
    return sorted(ids_of(engine, filters=filters))


# --- words ---------------------------------------------------------------------------------------------------


def test_title_comes_before_brand_before_description(shop: Engine) -> None:
    found = ids_of(shop, "honey")
    assert set(found) == {"h1", "h2", "h3", "h4"}
    assert set(found[:2]) == {"h1", "h4"}
    assert found[2:] == ["h3", "h2"]


def test_words_may_be_spread_over_fields(shop: Engine) -> None:
    assert ids_of(shop, "bee acacia")[0] == "h4"
    assert ids_of(shop, "loom socks clothing")[0] == "t3"


def test_products_with_all_words_come_first(shop: Engine) -> None:
    assert ids_of(shop, "red cotton shirt")[0] == "t1"
    assert ids_of(shop, "cotton socks")[0] == "t3"


def test_words_next_to_each_other_count_more(shop: Engine) -> None:
    assert ids_of(shop, "peanut butter")[:2] == ["b1", "b2"]
    assert ids_of(shop, "butter with peanut")[0] == "b2"


def test_case_does_not_matter(shop: Engine) -> None:
    assert ids_of(shop, "HoNeY") == ids_of(shop, "honey")


def test_one_letter_off_from_four_letters_two_from_eight(shop: Engine) -> None:
    assert "h4" in ids_of(shop, "hony")
    assert "h4" in ids_of(shop, "hoeny")
    assert ids_of(shop, "detrgnt") == []
    assert {"c1", "c2"} <= set(ids_of(shop, "deterjemt"))
    assert ids_of(shop, "rad") == []
    assert ids_of(shop, "honqqy") == []


def test_typos_are_not_forgiven_where_that_is_not_wanted(shop: Engine) -> None:
    assert ids_of(shop, "hony", fuzzy=False) == []
    assert ids_of(shop, "honey", fuzzy=False) == ids_of(shop, "honey")


def test_a_mistyped_word_beside_a_right_one(shop: Engine) -> None:
    assert ids_of(shop, "acacia hony")[0] == "h4"


def test_some_of_the_words_are_better_than_nothing(shop: Engine) -> None:
    assert "c1" in ids_of(shop, "laundry xylophone")
    assert ids_of(shop, "xylophone zeppelin") == []


def test_the_corrected_spelling_is_suggested_where_it_finds_more(shop: Engine) -> None:
    assert shop.search(SearchRequest("hony")).suggestion.lower() == "honey"
    assert shop.search(SearchRequest("acacia hony")).suggestion.lower() == "acacia honey"
    assert shop.search(SearchRequest("honey")).suggestion == ""
    assert shop.search(SearchRequest("xylophone")).suggestion == ""
    assert shop.search(SearchRequest("")).suggestion == ""


@pytest.mark.parametrize(
    ("text", "expected"), [("手机壳", "m1"), ("手机", "m1"), ("红色手机", "m1"), ("水杯", "m2"), ("玻璃", "m2")]
)
def test_chinese_is_found_by_parts_of_what_is_written_together(shop: Engine, text: str, expected: str) -> None:
    assert ids_of(shop, text) == [expected]


def test_both_of_two_chinese_products_are_found_by_their_brand(shop: Engine) -> None:
    assert sorted(ids_of(shop, "小米")) == ["m1", "m2"]


@pytest.mark.parametrize(
    "text",
    [
        *("+honey", "-honey", '"honey', "honey*", "title:honey", "(honey", "honey~", "honey^9", "honey OR", "/honey/"),
        *("[honey TO *}", "honey\\"),
    ],
)
def test_query_syntax_is_only_text(shop: Engine, text: str) -> None:
    assert {"h1", "h4"} <= set(ids_of(shop, text))


def test_strange_texts_are_answered(shop: Engine) -> None:
    for text in [
        "\x00",
        "a" * 10_000,
        "honey " * 500,
        "😀",
        "\ud800 honey",
        "x" + "́" * 300,
        " ".join(map(str, range(2000))),
    ]:
        shop.search(SearchRequest(text, highlight=True))
    assert ids_of(shop, "   ") == ids_of(shop, "")


# --- filters and facets ----------------------------------------------------------------------------------------


def test_filters_are_exact(shop: Engine) -> None:
    assert filtered(shop, Filter("brand", ("Bee & Co",))) == ["h1", "h4"]
    assert filtered(shop, Filter("brand", ("bee & co",))) == []
    assert filtered(shop, Filter("brand", ("Bee",))) == []
    assert filtered(shop, Filter("brand", ("Bee & Co", "Sea"))) == ["h1", "h4", "x1"]
    assert filtered(shop, Filter("id", ("h1", "z1", "nope"))) == ["h1", "z1"]


def test_a_category_is_filtered_at_every_level(shop: Engine) -> None:
    assert filtered(shop, Filter("category", ("Grocery",))) == GROCERY
    assert filtered(shop, Filter("category", ("Grocery > Spreads",))) == ["b1", "h1", "h4"]
    assert filtered(shop, Filter("category", ("Spreads",))) == []


def test_numbers_are_filtered_by_value_and_by_range_with_both_ends(shop: Engine) -> None:
    assert filtered(shop, Filter("price", gte=19.0, lte=20.0)) == ["m1", "t1", "t2"]
    assert filtered(shop, Filter("price", lte=2.5)) == ["b3", "h3"]
    assert filtered(shop, Filter("price", (3.5,))) == ["b1", "b2"]
    assert filtered(shop, Filter("price", (3.5,), gte=29)) == ["b1", "b2", "m2"]
    assert filtered(shop, Filter("stock", gte=1, lte=1)) == ["t1", "t2", "x1"]
    assert filtered(shop, Filter("stock", (0,))) == ["h3"]


def test_attributes_are_filtered_whatever_their_type(shop: Engine) -> None:
    assert filtered(shop, Filter("attributes.color", ("Red",))) == ["t1", "t3"]
    assert filtered(shop, Filter("attributes.color", ("red",))) == []
    assert filtered(shop, Filter("attributes.size", (42,))) == ["t1"]
    assert filtered(shop, Filter("attributes.size", gte=43)) == ["t2"]
    assert filtered(shop, Filter("attributes.organic", (True,))) == ["t3"]
    assert filtered(shop, Filter("attributes.tags", ("winter",))) == ["t3"]
    assert filtered(shop, Filter("attributes.nope", ("Red",))) == []


def test_several_filters_must_all_hold(shop: Engine) -> None:
    assert filtered(shop, Filter("category", ("Clothing",)), Filter("attributes.color", ("Red",))) == ["t1", "t3"]
    assert filtered(shop, Filter("brand", ("Loom",)), Filter("price", gte=6)) == ["t1", "t2"]
    assert ids_of(shop, "honey", filters=(Filter("category", ("Beauty",)),)) == ["h3"]


def test_a_filter_of_nothing_matches_nothing(shop: Engine) -> None:
    assert filtered(shop, Filter("brand")) == []
    assert shop.nearest(VECTORS["h1"], 5, [Filter("brand")]).ids == []


def test_filters_narrow_and_never_loosen(shop: Engine) -> None:
    """There is honey, only not among detergents: then neither typos nor some of the words are what was asked for."""
    assert ids_of(shop, "honey", filters=(Filter("brand", ("Fresh",)),)) == []


@pytest.mark.parametrize("name", ["title", "nope", "attributes", "attributes.", ""])
def test_fields_that_cannot_be_filtered_are_refused(shop: Engine, name: str) -> None:
    with pytest.raises(InvalidInput):
        shop.search(SearchRequest("", filters=(Filter(name, ("x",)),)))


def test_facets_count_what_was_found_most_frequent_first(shop: Engine) -> None:
    facets = {"brand": 10, "category": 3, "attributes.color": 10}
    found = shop.search(SearchRequest("cotton", facets=facets, size=0))
    assert found.total == 3
    assert found.facets == {
        "brand": [("Loom", 3)],
        "category": [("Clothing", 3), ("Clothing > Shirts", 2), ("Clothing > Socks", 1)],
        "attributes.color": [("Red", 2), ("Blue", 1)],
    }
    shirts = (Filter("category", ("Clothing > Shirts",)),)
    assert shop.search(SearchRequest("cotton", filters=shirts, facets={"attributes.color": 9})).facets == {
        "attributes.color": [("Blue", 1), ("Red", 1)]
    }


def test_facets_are_cut_to_size_and_ties_go_by_value(shop: Engine) -> None:
    found = shop.search(SearchRequest("", facets={"brand": 4, "attributes.nope": 5})).facets
    assert found == {"brand": [("Loom", 3), ("Bee & Co", 2), ("Fresh", 2), ("Nutty", 2)], "attributes.nope": []}


# --- pages, order, highlights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["relevance", "price:asc", "price:desc", "title:asc"])
@pytest.mark.parametrize("text", ["", "honey", "cotton"])
def test_pages_partition_the_answer(shop: Engine, sort: str, text: str) -> None:
    whole = ids_of(shop, text, sort=sort)
    assert len(whole) == len(set(whole)) == shop.search(SearchRequest(text, size=0)).total
    pages = []
    for offset in range(0, len(whole) + 3, 3):
        page = shop.search(SearchRequest(text, sort=sort, offset=offset, size=3))
        assert page.total == len(whole)
        pages += [hit.id for hit in page.hits]
    assert pages == whole


def test_without_words_products_come_by_id(shop: Engine) -> None:
    assert ids_of(shop) == sorted(BY_ID)
    assert ids_of(shop, offset=len(PRODUCTS)) == []


def test_sorting_puts_unknown_values_last_and_ties_by_id(shop: Engine) -> None:
    known = [one for one in PRODUCTS if one.price is not None]
    up = [one.id for one in sorted(known, key=lambda one: (one.price, one.id))]
    down = [one.id for one in sorted(known, key=lambda one: (-(one.price or 0), one.id))]
    assert ids_of(shop, sort="price:asc") == [*up, "z1"]
    assert ids_of(shop, sort="price:desc") == [*down, "z1"]
    clothes = (Filter("brand", ("Loom",)),)
    assert ids_of(shop, filters=clothes, sort="title:asc") == ["t2", "t3", "t1"]
    with pytest.raises(InvalidInput, match="sort"):
        shop.search(SearchRequest("", sort="stock:asc"))


def test_scores_never_increase(shop: Engine) -> None:
    for text in ["honey", "peanut butter", "hony", "cotton xylophone"]:
        scores = [hit.score for hit in shop.search(SearchRequest(text, size=100)).hits]
        assert scores
        assert scores == sorted(scores, reverse=True)
        assert min(scores) > 0


def test_documents_come_along_where_they_are_wanted(shop: Engine) -> None:
    for hit in shop.search(SearchRequest("cotton")).hits:
        assert hit.document == BY_ID[hit.id].to_document()
        assert hit.highlights == {}
    assert all(hit.document is None for hit in shop.search(SearchRequest("cotton", documents=False)).hits)


def _shown(fragment: str) -> str:
    """The text of a fragment; fails where anything but the marks is markup."""
    bare = fragment.replace("<em>", "").replace("</em>", "")
    assert "<" not in bare
    assert ">" not in bare
    return unescape(bare)


def test_highlights_mark_the_matches_and_escape_everything_else(shop: Engine) -> None:
    (hit,) = shop.search(SearchRequest("fish chips", highlight=True)).hits
    (title,) = hit.highlights["title"]
    assert "<em>Fish</em>" in title
    assert "<em>Chips</em>" in title
    assert _shown(title) == BY_ID["x1"].title
    assert "<em>fish</em>" in " ".join(hit.highlights["description"])
    assert all(_shown(one) in BY_ID["x1"].description for one in hit.highlights["description"])


def test_highlights_mark_what_a_typo_meant_and_come_without_documents(shop: Engine) -> None:
    hits = shop.search(SearchRequest("hony", highlight=True, documents=False)).hits
    by_id = {hit.id: hit for hit in hits}
    assert by_id["h4"].document is None
    assert list(by_id["h4"].highlights["title"]) == ["Acacia <em>Honey</em>"]
    assert "title" not in by_id["h2"].highlights


# --- vectors -----------------------------------------------------------------------------------------------------


def test_nearest_agrees_with_the_cosines(shop: Engine) -> None:
    asked = vector_of(1234)
    found = shop.nearest(asked, 100)
    cosines = {key: float(vector @ asked) for key, vector in VECTORS.items()}
    assert found.ids == sorted(cosines, key=lambda key: -cosines[key])
    assert found.scores.dtype == np.float32
    np.testing.assert_allclose(found.scores, [cosines[key] for key in found.ids], atol=2e-3)
    assert np.all(np.diff(found.scores) <= 0)
    assert shop.nearest(asked, 3).ids == found.ids[:3]
    assert shop.nearest(asked, 0).ids == []


def test_filters_apply_before_the_nearest_are_chosen(shop: Engine) -> None:
    for asked in (VECTORS["m1"], vector_of(7)):
        found = shop.nearest(asked, 2, [Filter("category", ("Clothing",))])
        expected = sorted(("t1", "t2", "t3"), key=lambda key: -float(VECTORS[key] @ asked))
        assert found.ids == expected[:2]
    assert shop.nearest(VECTORS["h1"], 5, [Filter("brand", ("Loom",)), Filter("price", lte=6)]).ids == ["t3"]


def test_a_vector_that_does_not_fit_is_refused(shop: Engine) -> None:
    for crooked in (vector_of(1, DIMS + 1), np.full(DIMS, np.nan, dtype=np.float32)):
        with pytest.raises(InvalidInput):
            shop.nearest(crooked, 3)
