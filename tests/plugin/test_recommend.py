"""What is learned from the log, against counting by hand; and the rules of placements on a small shop."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.engines import Filter
from endcap.errors import EndcapError, InvalidInput
from endcap.events import Action
from endcap.personalizer import Personalizer, WarmingUp
from endcap.policy import Visit
from endcap.policy.rule import Rule
from endcap.policy.rules import RuleBook
from endcap.popularity import Popularity
from endcap.profiles import DAY_S, Profile, build_profiles, short_keys
from endcap.recommend import PLACEMENTS, Discovery, Recommended, Recommender
from endcap.recommend.behaviour import BASKET_GAP_S, BASKET_MOST, Behaviour, shopper_key
from endcap.recommend.counts import PairCounts, Repeats, pair
from endcap.recommend.generators import due
from endcap.recommend.shelves import NEVER_DAYS, Shelves
from endcap.scoring.baseline import BaselineScorer

NOW = 1_700_000_000.0


class Log:
    """Purchases as columns; any of them may be added to any behaviour."""

    def __init__(self, lines: list[tuple[str, str, str, float]]) -> None:
        """``lines``: (shopper, session, product, time)."""
        self.shoppers = [line[0] for line in lines]
        self.sessions = [line[1] for line in lines]
        self.keys = product_keys([line[2] for line in lines])
        self.times = np.array([line[3] for line in lines])
        self.actions = np.full(len(lines), Action.PURCHASE, dtype=np.uint8)

    def into(self, behaviour: Behaviour, start: int, stop: int) -> None:
        here = slice(start, stop)
        behaviour.add(
            self.keys[here], self.times[here], self.actions[here], self.shoppers[here], self.sessions[here], stop
        )

    def learned(self, cuts: list[int] | None = None) -> Behaviour:
        behaviour = Behaviour()
        edges = [0, *(cuts or []), len(self.shoppers)]
        for start, stop in pairwise(edges):
            self.into(behaviour, start, stop)
            behaviour.merge()
        return behaviour


def counted(behaviour: Behaviour, names: list[str]) -> dict[tuple[str, str], float]:
    name = dict(zip(short_keys(product_keys(names)).tolist(), names))
    keys, counts = behaviour.pairs.state
    return {(name[int(key) >> 32], name[int(key) & 0xFFFFFFFF]): float(count) for key, count in zip(keys, counts)}


@pytest.mark.parametrize("seed", range(5))
def test_baskets_are_counted_the_same_in_one_batch_and_in_many(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"p{number}" for number in range(12)]
    lines, expected = [], Counter[tuple[str, str]]()
    for number in range(40):
        shopper, session = f"s{random.integers(4)}", f"b{number}" if number % 2 else ""
        start = NOW + number * 10 * BASKET_GAP_S
        basket = [names[one] for one in random.integers(0, 12, random.integers(1, 8))]
        lines += [(shopper, session, one, start + 60.0 * place) for place, one in enumerate(basket)]
        expected.update((one, one) for one in set(basket))
        expected.update(permutations(sorted(set(basket)), 2))
    log = Log(lines)
    assert counted(log.learned(), names) == expected
    cuts = sorted(random.integers(1, len(lines), 15).tolist())
    assert counted(log.learned(cuts), names) == expected


def test_a_session_of_one_shopper_is_not_anothers() -> None:
    behaviour = Log([("ann", "1", "a", NOW), ("bob", "1", "b", NOW)]).learned()
    assert counted(behaviour, ["a", "b"]) == {("a", "a"): 1, ("b", "b"): 1}


def test_a_huge_basket_counts_up_to_a_bound() -> None:
    names = [f"p{number}" for number in range(500)]
    behaviour = Log([("ann", "1", one, NOW) for one in names]).learned()
    assert len(behaviour.pairs) == BASKET_MOST**2


def test_only_purchases_count() -> None:
    behaviour = Behaviour()
    keys = product_keys(["a", "b"])
    behaviour.add(keys, np.full(2, NOW), np.full(2, Action.CLICK, np.uint8), ["ann"] * 2, ["1"] * 2, 2)
    behaviour.merge()
    assert len(behaviour.pairs) == len(behaviour.repeats) == 0
    assert behaviour.sequence == 2


def test_pairs_are_bounded_and_the_frequent_ones_stay() -> None:
    random = np.random.default_rng(0)
    counts, frequent = PairCounts(1_000), pair(np.arange(50), np.arange(50))
    for _ in range(20):
        counts.add(np.concatenate([frequent, frequent, random.integers(0, 2**63, 500).astype(np.uint64)]))
        assert len(counts) <= 1_000
    assert (counts.read(frequent) == 40).all()
    assert (np.diff(counts.state[0].astype(object)) > 0).all()


def test_together_prefers_what_goes_together_over_what_goes_with_everything() -> None:
    lines = []
    for number in range(60):
        basket = ["bag"] + (["pasta", "sauce"] if number < 20 else [f"x{number}"])
        lines += [("s", str(number), one, NOW) for one in basket]
    behaviour = Log(lines).learned()
    pasta, sauce, bag = short_keys(product_keys(["pasta", "sauce", "bag"])).tolist()
    keys, strength = behaviour.together(pasta)
    found = dict(zip(keys.tolist(), strength.tolist()))
    assert set(found) == {sauce, bag}
    assert found[sauce] > 1.5 * found[bag]
    assert len(behaviour.together(12345)[0]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_repeats_are_counted_as_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    repeats, seen = Repeats.none(), defaultdict(list)
    moments = np.sort(random.uniform(NOW, NOW + 100 * DAY_S, 300))
    keys = random.integers(0, 20, 300).astype(np.uint64)
    for start in range(0, 300, 70):
        repeats = repeats.add(keys[start : start + 70], moments[start : start + 70], 1_000)
    for key, moment in zip(keys.tolist(), moments.tolist()):
        seen[key].append(moment)
    assert repeats.keys.tolist() == sorted(seen)
    for place, key in enumerate(repeats.keys.tolist()):
        times = seen[key]
        apart = 1 + sum(later - earlier > 12 * 3600 for earlier, later in pairwise(times))
        assert repeats.times[place] == pytest.approx(apart, abs=1)  # whole seconds are kept
        assert (repeats.first[place], repeats.last[place]) == (int(times[0]), int(times[-1]))


def test_repeats_are_bounded_and_the_latest_stay() -> None:
    repeats = Repeats.none()
    for step in range(10):
        keys = np.arange(step * 100, step * 100 + 100).astype(np.uint64)
        repeats = repeats.add(keys, np.full(100, NOW + step * DAY_S), 350)
        assert len(repeats) <= 350
        assert set(keys.tolist()) <= set(repeats.keys.tolist())


def test_cycles_are_the_mean_gap() -> None:
    keys = pair(np.array([1, 1, 1, 2, 2, 3]), np.array([7, 7, 7, 7, 7, 8]))
    moments = NOW + DAY_S * np.array([0, 10, 20, 0, 40, 5])
    products, days, gaps = Repeats.none().add(keys, moments, 100).cycles()
    assert products.tolist() == [7]
    assert gaps.tolist() == [3]
    assert days[0] == pytest.approx((10 * 10 * 40) ** (1 / 3), rel=1e-3)


def test_what_is_due_is_wanted_most() -> None:
    def wanted(times: int, first: float, last: float) -> float:
        moments = [np.array([NOW - days * DAY_S]).astype(np.uint32) for days in (first, last)]
        when = Repeats(np.zeros(1, np.uint64), *moments, np.array([times], np.uint16))
        return float(due(np.array([20.0]), when, NOW)[0])

    assert wanted(6, 120, 20) > wanted(2, 40, 20), "bought more often"
    assert wanted(6, 120, 20) > wanted(6, 420, 320), "long given up"
    assert wanted(1, 400, 400) > 0
    assert np.isfinite(wanted(1, 0, 0))


def test_a_snapshot_is_taken_up_and_a_basket_goes_on(tmp_path: Path) -> None:
    log = Log([("ann", "1", one, NOW + place) for place, one in enumerate("abcd")])
    whole = log.learned()
    half = Behaviour()
    log.into(half, 0, 2)
    half.save(tmp_path / "b.npz", b"beside")
    later = Behaviour()
    assert later.restore(tmp_path / "b.npz", newest=2) == b"beside"
    assert later.sequence == 2
    log.into(later, 2, 4)
    later.merge()
    assert counted(later, list("abcd")) == counted(whole, list("abcd"))
    assert later.repeats.times.tolist() == whole.repeats.times.tolist()
    fresh = Behaviour()
    assert fresh.restore(tmp_path / "b.npz", newest=1) is None, "of another log"
    (tmp_path / "b.npz").write_bytes(b"damaged")
    assert fresh.restore(tmp_path / "b.npz", newest=9) is None
    assert fresh.restore(tmp_path / "none.npz", newest=9) is None
    assert fresh.sequence == 0


class Profiles:
    """Profiles that are there already."""

    def __init__(self, profiles: dict[object, Profile]) -> None:
        self.profiles = profiles

    def get(self, shopper: str) -> Profile:
        if shopper == "broken":
            raise EndcapError("out of order")
        return self.profiles.get(shopper, Profile())

    def touched(self, shoppers: set[str]) -> None: ...


class Shop:
    """60 products: 5 categories of 12, under two parents, 3 brands; sold-out ones; purchases of a few shoppers."""

    def __init__(self) -> None:
        self.products = [
            Product(
                f"c{kind}p{number}",
                f"Thing {number}",
                brand=f"Brand {number % 3}",
                categories=("Shop", f"Aisle {kind % 2}", f"Kind {kind}"),
                price=float(number + 1),
                stock=0.0 if number == 11 else None,
            )
            for kind in range(5)
            for number in range(12)
        ]
        lines = []
        for week in range(12):
            start = NOW - (12 * 7 - 7 * week) * DAY_S
            lines += [("ann", f"a{week}", one, start) for one in ("c0p0", "c1p0", "c2p11")]
            lines += [("bob", f"b{week}", one, start) for one in ("c0p0", "c1p0", "c0p1", "c3p5")]
            lines += [(f"one{week}", f"o{week}", "c4p3", start)]
            lines += [(f"two{week}", f"t{week}", "c4p4", start)]
        lines.sort(key=lambda line: line[3])
        log = Log(lines)
        self.behaviour = log.learned()
        self.table = ProductTable(self.products)
        popularity = Popularity()
        popularity.add(log.keys, log.times, log.actions)
        self.shelves = Shelves(self.table, popularity, self.behaviour, NOW)
        profiles = Profiles(build_profiles(np.array(log.shoppers), log.keys, log.times, log.actions))
        self.personalizer = Personalizer(
            BaselineScorer(), profiles, popularity, self.table, deadline_ms=60_000, clock=lambda: NOW
        )
        self.recommender = Recommender(Discovery.of(self.shelves), self.personalizer, profiles, clock=lambda: NOW)

    def ids(self, placement: str, shopper: str = "", **more: object) -> list[str]:
        return self.recommend(placement, shopper, **more).ids

    def recommend(self, placement: str, shopper: str = "", **more: object) -> Recommended:
        return self.recommender.recommend(placement, shopper, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


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
