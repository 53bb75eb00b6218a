"""Business rules: what each does to a list, that it says so, and that bad ones are refused with a reason."""

import time
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.errors import ConfigurationError, InvalidInput
from endcap.features import RankingInputs, ranking_inputs
from endcap.policy import NO_VISIT, Blend, FixedPolicy, Visit, members
from endcap.policy.arrange import Arrangement, Arranger
from endcap.policy.live import Exposure, LivePolicy
from endcap.policy.rule import KINDS, Rule, rule_of
from endcap.policy.rules import RuleBook
from endcap.policy.sponsored import Auction, hold
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.stores.database import Database
from endcap.stores.rules import Rules, UnknownRule

#: Friday, 27 November 2026, 16:00 UTC.
NOW = 1_795_795_200.0
COUNT = 10
IDS = [f"p{number}" for number in range(COUNT)]
TABLE = ProductTable(
    [
        Product(
            one,
            f"Honey {one}",
            brand="Acme" if number < 6 else f"Maker {number}",
            categories=("Grocery", "Honey") if number != 9 else ("Toys",),
            stock=0.0 if number in (0, 3) else 5.0 if number < 8 else None,
        )
        for number, one in enumerate(IDS)
    ]
)
SCORES = np.linspace(2.0, 1.0, COUNT, dtype=np.float32)
INTEREST = np.linspace(1.0, -1.0, COUNT, dtype=np.float32)


def inputs(query: str = "honey") -> RankingInputs:
    return ranking_inputs(Profile(), query, IDS, SCORES, TABLE, Popularity(), NOW)


def arranged(
    *rules: dict[str, object], query: str = "honey", visit: Visit = NO_VISIT, auction: Auction | None = None,
    shown: object = None, shopper: str = "ann",
) -> Arrangement:  # fmt: skip
    book = RuleBook(
        {number: rule_of({"name": f"r{number}", **rule}) for number, rule in enumerate(rules)}, auction, shown
    )  # type: ignore[arg-type]
    arranger = Arranger(FixedPolicy(), book)
    if not shopper:
        return arranger.arrange_anonymous(inputs(query), IDS, visit)
    return arranger.arrange(inputs(query), INTEREST, IDS, shopper, visit)


def test_without_rules_the_scorers_order_stands() -> None:
    found = arranged()
    assert found.order.tolist() == list(range(COUNT))
    assert (found.arm, found.propensity, found.notes, found.labels) == ("interest", 1.0, {}, {})


def test_boost_and_bury_move_by_standard_deviations() -> None:
    found = arranged({"kind": "boost", "target": {"products": ["p9"]}, "amount": 10})
    assert found.order[0] == 9
    assert found.notes[9] == ["Raised by the rule “r0”"]
    found = arranged({"kind": "bury", "target": {"brands": ["ACME"]}, "amount": 10})
    assert found.order.tolist() == [6, 7, 8, 9, 0, 1, 2, 3, 4, 5]
    assert set(found.notes) == set(range(6))


def test_a_category_covers_what_lies_below_it() -> None:
    assert set(arranged({"kind": "hide", "target": {"categories": ["Grocery"]}}).order.tolist()) == {9}
    assert len(arranged({"kind": "hide", "target": {"categories": ["Grocery > Honey"]}}).order) == 1
    assert len(arranged({"kind": "hide", "target": {"categories": ["Groc"]}}).order) == COUNT


def test_a_pin_holds_its_place_against_a_boost() -> None:
    found = arranged(
        {"kind": "pin", "target": {"products": ["p7"]}, "position": 2},
        {"kind": "boost", "target": {"products": ["p5"]}, "amount": 10},
    )
    assert found.order.tolist() == [5, 7, 0, 1, 2, 3, 4, 6, 8, 9]
    assert "place 2" in found.notes[7][0]


def test_of_two_pins_of_one_place_the_higher_priority_wins() -> None:
    pins = [{"kind": "pin", "target": {"products": [f"p{n}"]}, "position": 1, "priority": n} for n in (4, 6)]
    assert arranged(*pins).order[0] == 6


def test_hide_leaves_out_and_beats_a_pin() -> None:
    found = arranged(
        {"kind": "hide", "target": {"products": ["p0", "unknown"]}},
        {"kind": "pin", "target": {"products": ["p0"]}, "position": 1},
    )
    assert found.order.tolist() == list(range(1, COUNT))


def test_out_of_stock_comes_last_and_unknown_stock_does_not() -> None:
    found = arranged({"kind": "out_of_stock_last"})
    assert found.order.tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 0, 3]
    assert found.notes[3] == ["Out of stock"]


def test_a_brand_cap_lets_others_come_first() -> None:
    found = arranged({"kind": "brand_cap", "most": 2})
    assert found.order.tolist() == [0, 1, 6, 7, 8, 9, 2, 3, 4, 5]
    assert set(found.notes) == {2, 3, 4, 5}


def test_diversity_brings_another_brand_up() -> None:
    order = arranged({"kind": "diversity", "share": 0.6}).order.tolist()
    assert sorted(order) == list(range(COUNT))
    assert min(order.index(other) for other in (6, 7, 8, 9)) < 3


def test_a_frequency_cap_moves_what_was_shown_too_often() -> None:
    def shown(shopper: str, ids: list[str], hours: float) -> np.ndarray:
        assert (shopper, hours) == ("ann", 24.0)
        return np.array([5 if one == "p1" else 1 for one in ids])

    assert arranged({"kind": "frequency_cap", "most": 3}, shown=shown).order[-1] == 1
    assert arranged({"kind": "frequency_cap", "most": 3}, shown=shown, shopper="").order[-1] == 9


@pytest.mark.parametrize(
    ("when", "query", "visit", "holds"),
    [
        ({"queries": ["Raw  Honey"]}, "raw honey", Visit(), True),
        ({"queries": ["honey"]}, "raw honey", Visit(), False),
        ({"words": ["RAW"]}, "raw honey", Visit(), True),
        ({"segments": ["vip"]}, "honey", Visit(segment="vip"), True),
        ({"segments": ["vip"]}, "honey", Visit(), False),
        ({"categories": ["Grocery"]}, "honey", Visit(), True),
        ({"categories": ["Toys"]}, "honey", Visit(), False),
        ({"since": NOW - 1, "until": NOW + 1}, "honey", Visit(), True),
        ({"until": NOW}, "honey", Visit(), False),
        ({"hours": [16], "weekdays": [4]}, "honey", Visit(), True),
        ({"weekdays": [5, 6]}, "honey", Visit(), False),
    ],
)
def test_conditions(when: dict[str, object], query: str, visit: Visit, holds: bool) -> None:
    found = arranged({"kind": "hide", "target": {"products": ["p0"]}, "when": when}, query=query, visit=visit)
    assert (len(found.order) == COUNT - 1) is holds


def test_rules_hold_for_anonymous_shoppers_too() -> None:
    found = arranged({"kind": "out_of_stock_last"}, shopper="")
    assert found.order.tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 0, 3]
    assert found.arm == ""


def sponsor(product: str, bid: float, floor: float = 0.0) -> dict[str, object]:
    return {"kind": "sponsor", "target": {"products": [product]}, "bid": bid, "floor": floor}


def test_sponsored_products_are_labelled_and_pay_the_runner_ups_price() -> None:
    found = arranged(sponsor("p4", 2.0), sponsor("p5", 1.0), auction=Auction((1, 3)))
    assert found.order[[0, 2]].tolist() == [4, 5]
    assert found.labels == {4: ["sponsored"], 5: ["sponsored"]}
    sold = found.context["sponsored"]
    assert [one["product"] for one in sold] == ["p4", "p5"]
    relevance, standing = SCORES / SCORES[0], 1 - np.arange(COUNT) / COUNT
    quality = relevance * standing
    assert sold[0]["price"] == pytest.approx(1.0 * quality[5] / quality[4], rel=1e-3)
    assert sold[1]["price"] == 0, "nobody came after it, and there is no reserve"


def test_money_does_not_buy_a_place_that_shoppers_would_not_click() -> None:
    found = arranged(sponsor("p9", 100.0, floor=0.8), auction=Auction((1,)))
    assert found.labels == {}, "p9 is half as relevant as the best match"
    found = arranged(sponsor("p9", 1.0), sponsor("p1", 0.5), auction=Auction((1,)))
    assert found.order[0] == 1, "the lower bid wins by its quality"


def test_nobody_pays_more_than_the_bid_nor_less_than_the_reserve() -> None:
    (sold,) = arranged(sponsor("p1", 2.0), auction=Auction((1,), reserve=0.7)).context["sponsored"]
    assert sold["price"] == 0.7
    assert arranged(sponsor("p1", 0.5), auction=Auction((1,), reserve=0.7)).labels == {}
    (sold,) = arranged(sponsor("p1", 2.0), auction=Auction((1,), second_price=False)).context["sponsored"]
    assert sold["price"] == 2.0
    with pytest.raises(ConfigurationError):
        Auction((1, 1))


def test_positions_beyond_the_end_become_the_end() -> None:
    assert hold(np.array([3, 1, 2]), {50: 3, 1: 2}).tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"kind": "promote"}, "kind"),
        ({"kind": "boost"}, "needs a target"),
        ({"kind": "boost", "target": {"products": ["a"]}, "amount": 0}, "amount"),
        ({"kind": "boost", "target": {"products": ["a"]}, "amount": "nan"}, "amount"),
        ({"kind": "pin", "target": {"products": ["a"]}}, "needs position"),
        ({"kind": "pin", "target": {"products": ["a", "b"]}, "position": 1}, "exactly one"),
        ({"kind": "hide", "target": {"products": ["a"]}, "amount": 1}, "takes no amount"),
        ({"kind": "hide", "target": {"products": [" "]}}, "blank"),
        ({"kind": "diversity", "share": 1}, "share"),
        ({"kind": "out_of_stock_last", "target": {"brands": ["x"]}}, "no target"),
        ({"kind": "sponsor", "target": {"products": ["a"]}}, "needs bid"),
        ({"kind": "hide", "target": {"products": ["a"]}, "when": {"since": 5, "until": 4}}, "after since"),
        ({"kind": "hide", "target": {"products": ["a"]}, "when": {"hours": [24]}}, "0 to 23"),
        ({"kind": "hide", "target": {"products": ["a"]}, "wehn": {}}, "wehn"),
        ({"kind": "hide", "target": {"products": ["a"]}, "name": ""}, "name"),
        ("hide everything", "valid"),
    ],
)
def test_bad_rules_are_refused_with_the_reason(bad: object, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        rule_of({"name": "x", **bad} if isinstance(bad, dict) else bad)


def test_a_profile_whose_weights_do_not_sum_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"sum to 0\.9"):
        Blend("x", {"engine": 0.5, "interest": 0.4})
    with pytest.raises(InvalidInput, match="no signal novelty"):
        Blend("x", {"novelty": 1.0})
    with pytest.raises(InvalidInput, match="orders nothing"):
        Blend("x", {"diversity": 1.0})


def test_a_change_from_a_server_whose_clock_is_behind_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.in_folder(tmp_path)
    store = Rules(database)
    rule = rule_of({"name": "Own brand", "kind": "boost", "target": {"brands": ["Acme"]}, "amount": 1})
    first, second = store.add(rule), store.add(rule)
    store.replace(first.id, rule)
    seen, now = store.version(), time.time()
    monkeypatch.setattr("endcap.stores.rules.time.time", lambda: now - 60)
    store.replace(second.id, rule.model_copy(update={"enabled": False}))
    assert store.version() != seen
    database.close()


def test_stored_changed_removed_and_in_force(tmp_path: Path) -> None:
    store, arranger = Rules(Database.in_folder(tmp_path)), Arranger()
    live = LivePolicy(arranger, store, lambda: None)
    live.look()
    assert not arranger.rules
    rule = rule_of({"name": "no p0", "kind": "hide", "target": {"products": ["p0"]}})
    made = store.add(rule, by="eve")
    assert store.all() == [made]
    live.look()
    assert arranger.arrange(inputs(), INTEREST, IDS, "ann").order.tolist() == list(range(1, COUNT))
    store.replace(made.id, rule.model_copy(update={"enabled": False}))
    live.look()
    assert len(arranger.arrange(inputs(), INTEREST, IDS, "ann").order) == COUNT
    store.remove(made.id)
    for work in (lambda: store.get(made.id), lambda: store.remove(made.id), lambda: store.replace(made.id, rule)):
        with pytest.raises(UnknownRule):
            work()
    assert store.add(rule).id != made.id, "a number is never given again"


def test_rules_are_looked_up_in_the_products_before_a_search_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither new rules nor a new table may leave that work to the next search, nor take the old one's away."""
    made: list[ProductTable] = []
    real = members.Members.__init__

    def counted(self: object, target: object, table: ProductTable) -> None:
        made.append(table)
        real(self, target, table)  # type: ignore[arg-type]

    monkeypatch.setattr(members.Members, "__init__", counted)
    store, arranger = Rules(Database.in_folder(tmp_path)), Arranger()
    live = LivePolicy(arranger, store, lambda: None)
    arranger.prepare(TABLE)
    store.add(rule_of({"name": "no p0", "kind": "hide", "target": {"products": ["p0"]}}))
    live.look()
    new = ProductTable([Product(one, "Honey") for one in IDS])
    arranger.prepare(new)
    ready = len(made)
    assert {id(one) for one in made} == {id(TABLE), id(new)}
    for table in (TABLE, new, TABLE):
        asked = ranking_inputs(Profile(), "honey", IDS, SCORES, table, Popularity(), NOW)
        assert "p0" not in [IDS[place] for place in arranger.arrange(asked, INTEREST, IDS, "ann").order.tolist()]
    assert len(made) == ready


def test_what_is_hidden_of_lists_that_nobody_ranks() -> None:
    book = RuleBook(
        {
            1: rule_of({"name": "id", "kind": "hide", "target": {"products": ["p1", "new"]}}),
            2: rule_of({"name": "brand", "kind": "hide", "target": {"brands": ["other"]}, "when": {"words": ["jam"]}}),
            3: rule_of(
                {"name": "toys", "kind": "hide", "target": {"products": ["p2"]}, "when": {"categories": ["Toys"]}}
            ),
        }
    )
    fresh = [None, None, {"id": "new2", "brand": "Other"}]
    ids = ["p1", "p2", "new2"]

    def hidden(*given: object, **more: object) -> list[bool]:
        return book.hidden_among(*given, **more).tolist()  # type: ignore[arg-type]

    assert hidden(ids, TABLE, NO_VISIT, NOW, "jam", fresh) == [True, False, True]
    assert hidden(ids, TABLE, NO_VISIT, NOW, "honey", fresh) == [True, False, False]
    assert hidden(ids, TABLE, NO_VISIT, NOW, "jam") == [True, False, False], "nothing is known of it"
    assert hidden(ids, None, NO_VISIT, NOW, "jam", fresh) == [True, False, True], "before the products are loaded"
    assert hidden(["new"], None, NO_VISIT, NOW) == [True]
    # Are these toys? Only a whole list says so, and only products that are known.
    assert hidden(["p9", "p2", "p9"], TABLE, NO_VISIT, NOW) == [False, True, False]
    assert hidden(["p9", "p2", "p9"], TABLE, NO_VISIT, NOW, whole=False) == [False, False, False]
    assert hidden(["p9", "p2", "p9"], None, NO_VISIT, NOW) == [False, False, False]
    assert hidden([], TABLE, NO_VISIT, NOW) == []


def test_what_was_shown_is_counted_from_the_log_once_in_a_while() -> None:
    asked: list[str] = []

    def impressions(shopper: str, since: float) -> list[str]:
        asked.append(shopper)
        assert time.time() - since == pytest.approx(3_600, abs=60)
        return ["p1", "p1", "p2"]

    exposure = Exposure(impressions)
    for _ in range(3):
        assert exposure.shown("ann", ["p0", "p1", "p2"], 1.0).tolist() == [0, 2, 1]
    assert asked == ["ann"]


def test_every_kind_is_tried_here() -> None:
    assert set(KINDS) == {
        "boost", "bury", "pin", "hide", "out_of_stock_last", "diversity", "brand_cap", "frequency_cap", "sponsor",
    }  # fmt: skip
    assert all(kind in str(Rule.__doc__) for kind in KINDS)
