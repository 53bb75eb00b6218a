"""Placements on a small shop: what each list shows, what it never does, and what comes behind."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.engines import Filter
from endcap.errors import InvalidInput
from endcap.personalizer import Personalizer, WarmingUp
from endcap.popularity import Popularity
from endcap.recommend import PLACEMENTS, Discovery, Recommender
from endcap.recommend.behaviour import Behaviour, shopper_key
from endcap.recommend.shelves import NEVER_DAYS, Shelves
from endcap.scoring.baseline import BaselineScorer
from tests.plugin.recommend_support import NOW, Profiles, Shop, shop

__all__ = ["shop"]


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
@pytest.mark.parametrize("shopper", ["", "ann", "new", "broken"])
def test_every_list_keeps_the_rules(shop: Shop, placement: str, shopper: str) -> None:
    seeds, excluded = ["c0p0"], ["c1p0", "gone"]
    made = shop.recommend(placement, shopper, size=10, seeds=seeds, exclude=excluded)
    assert len(made.ids) == len(made.sources) == len(made.scores) == len(set(made.ids))
    assert not {"c0p0", "c1p0"} & set(made.ids)
    assert not any(one.endswith("p11") for one in made.ids), "sold out"
    assert all(made.sources)
    if placement != "buy-again":
        assert len(made.ids) == 10
    if PLACEMENTS[placement].complements:
        assert not any(one.startswith("c0") for one in made.ids)
    if shopper == "broken" and PLACEMENTS[placement].personal:
        assert made.ranking.degraded == "internal_error"


def test_bought_together_leads(shop: Shop) -> None:
    made = shop.recommend("cross-sell", seeds=["c0p0"], size=4)
    assert made.ids[0] == "c1p0"
    assert made.sources[0] == ["bought_together"]
    assert "c0p1" not in made.ids, "a substitute"
    assert made.fallback[0] == "near_kinds"
    assert len(made.ids) == 4
    assert all(one.startswith(("c2", "c4")) for one in made.ids[2:]), "of the same aisle"


def test_fallbacks_come_behind_and_are_named(shop: Shop) -> None:
    made = shop.recommend("cross-sell", seeds=["c4p9"], size=60)
    assert made.fallback == ("near_kinds", "popular")
    kinds = [sources[0] for sources in made.sources]
    assert kinds == sorted(kinds), "near kinds, then what is popular"
    assert len(made.ids) == 4 * 11


def test_buy_again_is_what_was_bought_and_can_be_had(shop: Shop) -> None:
    assert sorted(shop.ids("buy-again", "ann")) == ["c0p0", "c1p0"]
    assert shop.ids("buy-again", "new") == []
    assert shop.ids("buy-again", "") == []


def test_what_nobody_buys_twice_is_not_shown_again_at_home(shop: Shop) -> None:
    row = shop.table.rows(["c4p3"])
    assert shop.shelves.cycle_days[row][0] == pytest.approx(NEVER_DAYS, rel=0.01)
    assert "c4p3" not in shop.ids("home", "one0", size=50)
    assert "c4p3" in shop.ids("home", "two0", size=50)
    assert shop.shelves.cycle_days[shop.table.rows(["c0p0"])][0] == pytest.approx(7, rel=0.3)


def test_one_kind_does_not_fill_a_list(shop: Shop) -> None:
    ids = shop.ids("home", "bob", size=9)
    assert max(Counter(one[:2] for one in ids).values()) <= 4
    brands = Counter(shop.products[shop.table.rows([one])[0]].brand for one in ids)
    assert max(brands.values()) <= 4


@pytest.mark.parametrize(
    "filters",
    [
        (Filter("brand", ("Brand 1", "Brand 2")),),
        (Filter("category", ("Shop > Aisle 0",)),),
        (Filter("category", ("Shop > Aisle 0 > Kind 2", "Shop > Aisle 1")), Filter("price", gte=3, lte=5)),
        (Filter("id", ("c0p3", "gone")),),
        (Filter("brand", ("none",)),),
        (Filter("price", (4.0,)),),
    ],
)
def test_filters_pass_what_they_should(shop: Shop, filters: tuple[Filter, ...]) -> None:
    def passes(product: Product, one: Filter) -> bool:
        if one.field == "category":
            return any(path in one.values for path in product.to_document()["category"])
        value = getattr(product, one.field)
        if one.values:
            return value in one.values
        return bool(one.gte <= value <= one.lte)  # type: ignore[operator]

    mask = shop.shelves.allowed(filters)
    expected = [p.stock is None and all(passes(p, one) for one in filters) for p in shop.products]
    assert mask.tolist() == expected


def test_a_filter_that_cannot_be_kept_is_refused(shop: Shop) -> None:
    with pytest.raises(InvalidInput, match="recommendations filter by"):
        shop.ids("home", filters=(Filter("attributes.size", ("x",)),))
    with pytest.raises(InvalidInput, match="cellar"):
        shop.ids("cellar")


def test_vectors_lead_to_what_is_alike_and_their_failure_to_the_rest(shop: Shop) -> None:
    vectors = np.eye(60, 8, dtype=np.float32)
    table = ProductTable(shop.products, vectors)
    shelves = Shelves(table, Popularity(), shop.behaviour, NOW)
    personalizer = Personalizer(BaselineScorer(), Profiles({}), Popularity(), table, deadline_ms=60_000)

    def broken(vector: np.ndarray, count: int, filters: object) -> None:
        raise RuntimeError("no vectors today")

    made = Recommender(Discovery.of(shelves), personalizer, Profiles({}), broken).recommend("similar", seeds=["c0p0"])
    assert len(made.ids) == 12
    assert not any("alike" in sources for sources in made.sources)


def test_an_empty_shop_and_one_that_is_not_loaded(shop: Shop) -> None:
    table = ProductTable([])
    personalizer = Personalizer(BaselineScorer(), Profiles({}), Popularity(), table, deadline_ms=60_000)
    empty = Discovery.of(Shelves(table, Popularity(), Behaviour(), NOW))
    for placement in PLACEMENTS:
        assert Recommender(empty, personalizer, Profiles({})).recommend(placement, "ann", seeds=["x"]).ids == []
    empty.shelves = None
    with pytest.raises(WarmingUp):
        Recommender(empty, personalizer, Profiles({})).recommend("home")
    assert shopper_key("ann") == shopper_key("ann") < 2**32
