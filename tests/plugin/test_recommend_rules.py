"""Business rules in recommendations: what they hide, raise, pin, cap and sell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from endcap.engines import Filter
from endcap.policy import Visit
from endcap.policy.rule import Rule
from endcap.policy.rules import RuleBook
from endcap.recommend import PLACEMENTS
from tests.plugin.recommend_support import NOW, Shop, shop

__all__ = ["shop"]


def under(*rules: dict[str, object]) -> RuleBook:
    made = {number: Rule.model_validate({"name": f"rule {number}", **one}) for number, one in enumerate(rules)}
    return RuleBook(made)


@pytest.fixture
def ruled(shop: Shop) -> Iterator[Callable[..., None]]:
    """Puts rules in force, for one test."""
    arranger = shop.personalizer.arranger

    def put(*rules: dict[str, object]) -> None:
        arranger.rules = under(*rules)

    yield put
    arranger.rules = RuleBook()


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
@pytest.mark.parametrize("shopper", ["", "ann", "broken"])
def test_what_a_rule_hides_is_shown_nowhere(
    shop: Shop, ruled: Callable[..., None], placement: str, shopper: str
) -> None:
    before = shop.ids(placement, shopper, seeds=["c0p0"], size=10)
    targets = {"products": [*before[:3], "c1p1"]}, {"brands": ["brand 2"]}, {"categories": ["Shop > Aisle 0 > Kind 2"]}
    ruled({"kind": "out_of_stock_last"}, *({"kind": "hide", "target": one} for one in targets))
    made = shop.recommend(placement, shopper, seeds=["c0p0"], size=10)
    brands = {one.id: one.brand for one in shop.products}
    assert not set(before[:3]) & set(made.ids)
    assert not any(brands[one] == "Brand 2" or one.startswith("c2") or one.endswith("p11") for one in made.ids)
    if placement != "buy-again":
        assert len(made.ids) == 10, "others take their places"
    # Rules of searches only, and of other shoppers, hide nothing here.
    when = [{"words": ["thing"]}, {"queries": ["thing 1"]}, {"segments": ["club"]}, {"until": NOW - 1.0}]
    ruled(*({"kind": "hide", "target": {"brands": ["Brand 2"]}, "when": one} for one in when))
    assert shop.ids(placement, shopper, seeds=["c0p0"], size=10) == before
    if placement != "buy-again":
        club = shop.recommend(placement, shopper, seeds=["c0p0"], size=10, visit=Visit(segment="club"))
        assert not any(brands[one] == "Brand 2" for one in club.ids)


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
def test_rules_raise_and_lower_what_is_recommended(shop: Shop, ruled: Callable[..., None], placement: str) -> None:
    before = shop.ids(placement, "ann", seeds=["c0p1"], size=50)
    assert before, "it shows something"
    top, low = before[0], before[-1]
    ruled({"kind": "bury", "amount": 10.0, "target": {"products": [top]}})
    made = shop.recommend(placement, "ann", seeds=["c0p1"], size=50)
    assert set(before) - {top} <= set(made.ids), "only others' places change"
    if top in made.ids:  # of a list that was longer than what is shown, the last is not
        assert made.ids.index(top) > 0 or len(before) == 1
        assert made.notes[made.ids.index(top)] == ["Lowered by the rule “rule 0”"]
        assert sum(map(len, made.notes)) == 1
    ruled({"kind": "boost", "amount": 10.0, "target": {"products": [low]}})
    made = shop.recommend(placement, "ann", seeds=["c0p1"], size=50)
    assert made.ids.index(low) < before.index(low) or len(before) == 1
    assert made.notes[made.ids.index(low)] == ["Raised by the rule “rule 0”"]
    assert np.isfinite(made.scores).all()
    assert made.scores.min() >= 0
    assert made.scores.max() <= 1


SOLD = sorted(name for name, one in PLACEMENTS.items() if one.sells)


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
def test_sponsored_products_are_shown_labelled_and_priced(
    shop: Shop, ruled: Callable[..., None], placement: str
) -> None:
    plain = shop.recommend(placement, "ann", seeds=["c0p1"], size=6)
    before = plain.ids
    # Only what is proposed competes, as only what a search finds does.
    proposed = [one for one, place in zip(before, plain.places, strict=True) if place >= 0]
    sold = (proposed or before)[-1]
    bids = [{"kind": "sponsor", "target": {"products": [one]}, "bid": 2.0, "floor": 0.0} for one in (sold, "nothing")]
    ruled(*bids)
    made = shop.recommend(placement, "ann", seeds=["c0p1"], size=6)
    assert len(made.labels) == len(made.ids) == len(set(made.ids))
    if placement not in SOLD or not proposed:
        assert not any(made.labels), "a shopper's own list is not for sale"
        return
    assert made.ids[0] == sold
    assert made.labels == [["sponsored"], *[[]] * (len(made.ids) - 1)]
    assert "Sponsored (“rule 0”)" in made.notes[0]
    assert set(made.ids[1:]) == set(before) - {sold}
    assert made.ranking.context is not None
    [entry] = made.ranking.context["sponsored"]
    assert (entry["product"], entry["position"]) == (sold, 1)
    # The second place that is sold lies beyond such a short list: nobody pays for it, nothing is marked.
    ruled(*bids, {"kind": "sponsor", "target": {"products": [before[0]]}, "bid": 1.0, "floor": 0.0})
    short = shop.recommend(placement, "ann", seeds=["c0p1"], size=2)
    assert sum(map(len, short.labels)) == 1
    assert len(short.ids) <= 2


def test_irrelevant_products_buy_no_recommended_place(shop: Shop, ruled: Callable[..., None]) -> None:
    last = shop.ids("similar", "ann", seeds=["c0p1"], size=50)[-1]
    ruled({"kind": "sponsor", "target": {"products": [last]}, "bid": 1000.0, "floor": 0.9})
    made = shop.recommend("similar", "ann", seeds=["c0p1"], size=50)
    assert not any(made.labels)
    assert made.ids[0] != last


def test_a_pin_holds_where_a_category_is_browsed_and_not_elsewhere(shop: Shop, ruled: Callable[..., None]) -> None:
    kind = [Filter("category", ("Shop > Aisle 0 > Kind 0",))]
    low = shop.ids("category", size=8, filters=kind)[5]
    ruled({"kind": "pin", "target": {"products": [low]}, "position": 2})
    made = shop.recommend("category", size=8, filters=kind)
    assert made.ids[1] == low
    assert made.notes[1] == ["Pinned to place 2 by the rule “rule 0”"]
    seeded = shop.ids("trending", "ann", size=8)
    ruled({"kind": "pin", "target": {"products": [seeded[5]]}, "position": 1})
    assert shop.ids("trending", "ann", size=8) == seeded


@pytest.mark.parametrize("placement", ["home", "similar", "trending", "buy-again"])
def test_what_was_shown_often_enough_comes_last(shop: Shop, placement: str) -> None:
    arranger = shop.personalizer.arranger
    before = shop.ids(placement, "ann", seeds=["c0p1"], size=10)
    top, asked = before[0], []

    def shown(shopper: str, ids: Sequence[str], hours: float) -> np.ndarray:
        asked.append((shopper, hours))
        return np.array([5 if one == top else 0 for one in ids])

    rule = Rule.model_validate({"name": "enough", "kind": "frequency_cap", "most": 5, "hours": 12})
    try:
        arranger.rules = RuleBook({1: rule}, shown=shown)
        made = shop.recommend(placement, "ann", seeds=["c0p1"], size=10)
        assert ("ann", 12.0) in asked
        assert set(before) - {top} <= set(made.ids)
        if len(before) > 1:
            assert made.ids[0] != top
        if top in made.ids and len(before) > 1:
            assert made.notes[made.ids.index(top)] == ["Shown often enough by the rule “enough”"]
    finally:
        arranger.rules = RuleBook()


def test_a_rule_about_a_category_asks_what_was_found(shop: Shop, ruled: Callable[..., None]) -> None:
    rule = {"kind": "hide", "target": {"products": ["c0p1", "c0p2"]}, "when": {"categories": ["Shop > Aisle 0"]}}
    ruled(rule)
    kind = [Filter("category", ("Shop > Aisle 0 > Kind 0",))]
    assert not {"c0p1", "c0p2"} & set(shop.ids("category", size=12, filters=kind))
    ruled({**rule, "when": {"categories": ["Shop > Aisle 1"]}})
    assert {"c0p1", "c0p2"} <= set(shop.ids("category", size=12, filters=kind))
