"""Experiments as they are run: defined, started beside others, changed, assigned, measured, judged."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert

from endcap.catalog import Product, ProductTable
from endcap.errors import InvalidInput
from endcap.events import Action, Event
from endcap.experiments.definition import Definition, definition_of
from endcap.experiments.looking import look
from endcap.experiments.measuring import Measured, report_of
from endcap.experiments.power import detectable_effect
from endcap.experiments.service import Experiments, LiveExperiments
from endcap.features import ranking_inputs
from endcap.policy import DEFAULT_BLENDS, Visit
from endcap.policy.arrange import Arranger, Treatment
from endcap.policy.rule import rule_of
from endcap.policy.rules import RuleBook
from endcap.policy.sponsored import Auction
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.stores.aliases import aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.experiments import ExperimentConflict, UnknownExperiment
from endcap.stores.flags import Flags, Suspicion
from endcap.stores.outcomes import Outcome, Outcomes, Reaction
from endcap.stores.rankings import Rankings, Served

PROFILES = {one.name: one for one in DEFAULT_BLENDS}
NO_VISIT = Visit()


def raw(name: str = "order", **more: Any) -> dict[str, Any]:
    arms = [{"name": "old", "weight": 0.5}, {"name": "new", "weight": 0.5, "profile": "engine"}]
    return {"name": name, "arms": arms, **more}


@pytest.fixture
def experiments(database: Database) -> Experiments:
    return Experiments(database, profiles=PROFILES)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.4, "profile": "engine"}]}, "sum to 0.9"),
        ({"arms": [{"name": "a", "weight": 1.0}]}, "arms"),
        ({"arms": [{"name": "a", "weight": 0.5}, {"name": "a", "weight": 0.5, "profile": "engine"}]}, "differ"),
        ({"arms": [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5}]}, "same ranking profile"),
        ({"arms": [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5, "profile": "magic"}]}, "magic"),
        ({"start": 0.5, "end": 0.4}, "no range"),
        ({"metric": "happiness"}, "metric"),
        ({"name": "with space"}, "name"),
        ({"name": "control"}, "control group"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused_with_the_reason(
    experiments: Experiments, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        experiments.define({**raw(), **change})


def test_from_draft_to_stopped(experiments: Experiments) -> None:
    assert experiments.define(raw()).state == "draft"
    with pytest.raises(ExperimentConflict, match="already"):
        experiments.define(raw())
    with pytest.raises(ExperimentConflict, match="only a running"):
        experiments.stop("order")
    assert experiments.start("order").started > 0
    with pytest.raises(ExperimentConflict, match="only a draft"):
        experiments.start("order")
    assert experiments.stop("order").state == "stopped"
    with pytest.raises(ExperimentConflict, match="stopped"):
        experiments.change("order", raw())
    with pytest.raises(UnknownExperiment):
        experiments.start("nothing")


def test_experiments_of_a_layer_share_no_shopper(experiments: Experiments) -> None:
    experiments.define(raw("first", start=0.0, end=0.6))
    experiments.define(raw("second", start=0.5, end=1.0))
    experiments.define(raw("third", start=0.6, end=1.0))
    experiments.define(raw("elsewhere", layer="texts"))
    experiments.start("first")
    with pytest.raises(ExperimentConflict, match="overlap"):
        experiments.start("second")
    experiments.start("third")
    experiments.start("elsewhere")
    experiments.define(raw("salted", layer="other", salt="experiment first"))
    with pytest.raises(ExperimentConflict, match="salts"):
        experiments.start("salted")


def test_a_running_experiment_may_only_grow(experiments: Experiments) -> None:
    experiments.define(raw(end=0.4))
    experiments.start("order")
    experiments.change("order", raw(end=0.8, hypothesis="wider"))
    for change, says in (
        ({"salt": "another"}, "salt"),
        ({"end": 0.2}, "grow"),
        ({"metric": "ctr"}, "metric"),
        ({"layer": "other"}, "layer"),
        ({"arms": [*raw()["arms"][:1], {"name": "newer", "weight": 0.5, "profile": "engine"}]}, "new"),
        ({"arms": [raw()["arms"][0], {"name": "new", "weight": 0.5, "profile": "popular"}]}, "profiles"),
    ):
        with pytest.raises(InvalidInput, match=says):
            experiments.change("order", {**raw(end=0.8), **change})


def test_two_people_cannot_overwrite_each_other(experiments: Experiments) -> None:
    before = experiments.define(raw())
    experiments.change("order", raw(hypothesis="mine"))
    with pytest.raises(ExperimentConflict, match="somebody else"):
        experiments.store.change(before, definition=raw(hypothesis="yours"))


def test_shoppers_are_dealt_sticky_and_as_the_weights_say(experiments: Experiments) -> None:
    experiments.define(raw())
    live = LiveExperiments(experiments, PROFILES, frozenset({"fragile"}))
    live.look()
    assert live.treatment("ann", NO_VISIT) is None
    experiments.start("order")
    live.look()
    found = [live.treatment(f"s{number}", NO_VISIT) for number in range(2_000)]
    assert [live.treatment(f"s{number}", NO_VISIT) for number in range(2_000)] == found
    new = [one for one in found if one is not None and one.noted == {"order": "new"}]
    assert 900 < len(new) < 1_100
    assert all(one.arm == PROFILES["engine"] for one in new)
    assert all(one.arm is None for one in found if one is not None and one.noted == {"order": "old"})
    assert live.treatment("s1", Visit(segment="fragile")) is None


def test_the_control_group_takes_part_in_nothing(database: Database) -> None:
    experiments = Experiments(database, control_share=0.2, profiles=PROFILES)
    experiments.define(raw())
    experiments.start("order")
    live = LiveExperiments(experiments, PROFILES)
    live.look()
    found = [live.treatment(f"s{number}", NO_VISIT) for number in range(1_000)]
    control = [one for one in found if one is not None and one.noted == {"control": "control"}]
    assert 150 < len(control) < 250
    assert all(one.arm is None for one in control)


def test_an_arm_whose_profile_is_gone_ends_the_experiment_here_not_the_search(experiments: Experiments) -> None:
    """The shop removed a ranking profile from its settings while an experiment runs on it."""
    experiments.define(raw())
    arms = [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5, "profile": "popular"}]
    experiments.define(raw("fine", layer="other", arms=arms))
    experiments.start("order")
    experiments.start("fine")
    live = LiveExperiments(experiments, {name: one for name, one in PROFILES.items() if name != "engine"})
    live.look()
    assert "engine" in live.problems["order"]
    treatment = live.treatment("ann", NO_VISIT)
    assert treatment is not None
    assert set(treatment.noted) == {"fine"}


IDS = [f"p{number}" for number in range(6)]
TABLE = ProductTable([Product(one, f"Honey {one}") for one in IDS])


def test_an_arm_decides_the_profile_and_is_logged() -> None:
    inputs = ranking_inputs(Profile(), "honey", IDS, np.linspace(2, 1, 6, dtype=np.float32), TABLE, Popularity(), 1e9)
    interest = np.arange(6, dtype=np.float32)
    plain = Arranger().arrange(inputs, interest, IDS, "ann")
    assert plain.order.tolist() == [5, 4, 3, 2, 1, 0]
    treatment = Treatment(PROFILES["engine"], None, {"order": "new"})
    found = Arranger().arrange(inputs, interest, IDS, "ann", NO_VISIT, treatment)
    assert found.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert (found.arm, found.propensity) == ("engine", 1.0)
    assert found.context["experiments"] == {"order": "new"}
    assert found.context["explored"] is False, "an experiment's ranking teaches no policy"
    treatment = Treatment(PROFILES["interest"], PROFILES["engine"], {"order": "interleaved"}, 7)
    found = Arranger().arrange(inputs, interest, IDS, "ann", NO_VISIT, treatment)
    assert sorted(found.order.tolist()) == list(range(6))
    assert {found.order[0], found.order[1]} == {0, 5}
    assert sorted(found.context["teams"][:2]) == [-1, 1]


def test_rules_have_the_last_word_on_interleaved_rankings() -> None:
    inputs = ranking_inputs(Profile(), "honey", IDS, np.linspace(2, 1, 6, dtype=np.float32), TABLE, Popularity(), 1e9)
    interest = np.arange(6, dtype=np.float32)
    rules = [
        {"name": "pin", "kind": "pin", "target": {"products": ["p2"]}, "position": 3},
        {"name": "hide", "kind": "hide", "target": {"products": ["p0", "p5"]}},
        *({"name": f"ad {one}", "kind": "sponsor", "target": {"products": [one]}, "bid": bid, "floor": 0.0}
          for one, bid in (("p1", 2.0), ("p4", 2.1))),
    ]  # fmt: skip
    for seed in range(20):
        book = RuleBook({n: rule_of(one) for n, one in enumerate(rules)}, Auction((1,)))
        treatment = Treatment(PROFILES["interest"], PROFILES["engine"], {"order": "interleaved"}, seed)
        found = Arranger(rules=book).arrange(inputs, interest, IDS, "ann", NO_VISIT, treatment)
        order, teams = found.order.tolist(), found.context["teams"]
        assert sorted(order) == [1, 2, 3, 4]
        assert order[2] == 2
        (sale,) = found.context["sponsored"]
        assert [IDS[order[0]], 1] == [sale["product"], sale["position"]]
        assert found.labels == {order[0]: ["sponsored"]}, "what is paid for is labelled, and nothing else"
        assert (teams[0], teams[2]) == (0, 0), "a place that a rule gave speaks for neither ranking"
        assert len(teams) == 4
        assert {teams[1], teams[3]} <= {1, -1}


def outcome(number: int, arm: str, *actions: Action, shopper: str = "", **context: Any) -> Outcome:
    noted = {"experiments": {"order": arm}, **context}
    ranking = Served(f"r{number}", 1e9 + number, shopper or f"s{number}", ("a", "b", "c"), context=noted)
    return Outcome(ranking, tuple(Reaction("b", 2, one, 1e9 + number + 1, 2.0, 5.0, True) for one in actions))


def test_metrics_of_a_shopper() -> None:
    measured = Measured(definition_of(raw()))
    measured.add(
        [
            outcome(1, "old", Action.CLICK, Action.PURCHASE, shopper="ann", took_ms=4.0),
            outcome(2, "old", shopper="ann", took_ms=6.0),
            outcome(3, "old", shopper="bob"),
            outcome(4, "new", shopper="ann"),  # comes back in another arm
            outcome(5, "new", shopper="bot"),
            outcome(6, "new", shopper="eve", internal=True),
            outcome(7, "gone", shopper="cid"),
        ],
        excluded=frozenset({"bot"}),
    )
    means = {
        metric: measured.sample(metric, "old").mean for metric in ("conversion", "ctr", "revenue", "ndcg", "latency_ms")
    }
    assert means == pytest.approx(
        {"conversion": 0.5, "ctr": 0.25, "revenue": 1.25, "ndcg": 0.25 / np.log2(3), "latency_ms": 2.5}
    )
    back = Measured(definition_of(raw()))
    (shown,) = [outcome(1, "old", Action.PURCHASE, Action.RETURN)]
    for worth in (2.0, -2.0):
        returned = replace(shown.reactions[1], value=worth)
        back.add([replace(shown, reactions=(shown.reactions[0], returned))])
    assert back.sample("revenue", "old").mean == 3.0, "5 less 2, whichever sign the refund has"
    assert measured.sample("conversion", "new").count == 0
    assert measured.moved == {"ann"}
    nothing = Served("r8", 1e9 + 8, "bob", ())
    measured.add([Outcome(nothing, ()), Outcome(Served("r9", 1e9 + 9, "stranger", ()), ())])
    assert measured.sample("zero_results", "old").mean == 0.25, "one of bob's two searches found nothing"
    with pytest.raises(InvalidInput, match="no metric"):
        measured.sample("luck", "old")


def fill(database: Database, count: int, chance: dict[str, float], skew: float = 0.5) -> None:
    random = np.random.default_rng(0)
    now = time.time() + 1
    logged, events = [], []
    for number in range(count):
        arm = "new" if random.random() < skew else "old"
        context = {"experiments": {"order": arm}}
        logged.append(Served(f"r{number}", now, f"s{number}", ("a", "b"), context=context))
        if random.random() < chance[arm]:
            events.append(
                Event(f"e{number}", now + 1, f"s{number}", Action.PURCHASE, "a", query_id=f"r{number}", value=3)
            )
    Rankings(database).append(logged)
    EventLog(database).append(events)


def test_a_look_judges_from_the_logs_and_keeps_what_it_said(experiments: Experiments, database: Database) -> None:
    experiments.define(raw())
    experiments.start("order")
    assert "too early" in look(database)["order"]["words"].lower()
    fill(database, 4_000, {"old": 0.1, "new": 0.2})
    report = look(database)["order"]
    assert "new is better than old: conversion" in report["words"]
    assert report["metrics"]["conversion"]["comparisons"][0]["outcome"] == "better"
    assert not report["split_wrong"]
    assert len(report["curve"]) == 2
    assert experiments.store.get("order").report == report


def test_what_was_bought_before_makes_the_interval_narrower(experiments: Experiments, database: Database) -> None:
    """Who bought much goes on to: allowing for it, the same rankings decide more."""
    experiments.define(raw(metric="revenue"))
    experiments.start("order")
    started = experiments.store.get("order").started
    random = np.random.default_rng(1)
    logged, events = [], []
    for number in range(1_500):
        arm = "new" if random.random() < 0.5 else "old"
        who, usual = f"s{number}", float(random.gamma(2.0, 10.0))
        context = {"experiments": {"order": arm}}
        logged.append(Served(f"r{number}", started + 1, who, ("a", "b"), context=context))
        spent = usual + float(random.normal(1.0 if arm == "new" else 0.0, 2.0))
        events += [
            # Half of them were anonymous then.
            Event(f"x{number}", started - 86_400.0, who if number % 2 else f"anonymous {who}", Action.PURCHASE, "a",
                  quantity=1.0 + number % 3, value=usual),
            Event(f"o{number}", started - 60 * 86_400.0, who, Action.PURCHASE, "a", value=float(random.gamma(2, 900))),
            Event(f"e{number}", started + 2, who, Action.PURCHASE, "a", query_id=f"r{number}", value=max(spent, 0.0)),
        ]  # fmt: skip
    Rankings(database).append(logged)
    EventLog(database).append(events)
    with database.transaction() as connection:
        joined = [
            {"alias": f"anonymous s{number}", "shopper": f"s{number}", "time": started - 60.0}
            for number in range(0, 1_500, 2)
        ]
        connection.execute(insert(aliases), joined)
    report = look(database)["order"]
    revenue = report["metrics"]["revenue"]
    estimate, low, high = revenue["comparisons"][0]["difference"]
    assert 0.8 < revenue["cuped"]["variance_cut"] < 1
    assert low <= 1.0 <= high
    plain = Measured(definition_of(raw(metric="revenue")))
    plain.add(Outcomes(database).since(0, 5_000))
    before = report_of(plain, 0.0, 0)["metrics"]["revenue"]
    assert before["cuped"] is None
    assert before["arms"] == revenue["arms"], "the means that are shown are the plain ones"
    wide = before["comparisons"][0]["difference"]
    assert high - low < 0.5 * (wide[2] - wide[1])
    assert before["comparisons"][0]["outcome"] == "undecided"
    assert revenue["comparisons"][0]["outcome"] == "better"
    assert "CUPED" in report["words"]
    assert estimate == pytest.approx(1.0, abs=0.4)


def test_what_can_be_seen_hangs_on_the_smallest_arm() -> None:
    def least(*weights: float) -> float:
        arms = [
            {"name": f"a{n}", "weight": one, "profile": name} for n, (one, name) in enumerate(zip(weights, PROFILES))
        ]
        measured = Measured(definition_of(raw(arms=arms)))
        measured.add(outcome(n, "a0", *([Action.PURCHASE] if n % 20 == 0 else [])) for n in range(400))
        found: float = report_of(measured, 0.0, 400)["detectable"]
        return found

    assert least(0.95, 0.05) == pytest.approx(detectable_effect(10_000, 0.05 * 0.95 * 400 / 399, 0.05))
    assert least(0.95, 0.05) > 2 * least(0.5, 0.5)
    assert least(0.4, 0.3, 0.3) > least(0.5, 0.5), "several arms share the error"


def test_a_look_at_a_draft_reads_no_log(
    experiments: Experiments, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments.define(raw())
    Rankings(database).append([Served("r1", 1e9, "ann", ("a",))])
    monkeypatch.setattr(Outcomes, "since", lambda *given: pytest.fail("the log was read"))
    assert "too early" in look(database, name="order")["order"]["words"]


def test_a_wrong_split_is_not_believed(experiments: Experiments, database: Database) -> None:
    experiments.define(raw())
    experiments.start("order")
    fill(database, 3_000, {"old": 0.1, "new": 0.3}, skew=0.4)
    report = look(database, name="order")["order"]
    assert report["split_wrong"]
    assert report["words"].startswith("Do not believe order")


def test_flagged_shoppers_do_not_count(experiments: Experiments, database: Database) -> None:
    experiments.define(raw())
    experiments.start("order")
    fill(database, 400, {"old": 0.1, "new": 0.2})
    Flags(database).suspect([Suspicion("shopper", f"s{n}", 0.9, ["too many"]) for n in range(100)], source="test")
    assert sum(look(database)["order"]["shoppers"].values()) == 300


def test_interleaving_counts_whose_products_were_clicked(experiments: Experiments, database: Database) -> None:
    experiments.define(raw(design="interleaving"))
    experiments.start("order")
    live = LiveExperiments(experiments, PROFILES)
    live.look()
    treatment = live.treatment("ann", NO_VISIT)
    assert treatment is not None
    assert (treatment.arm, treatment.versus) == (PROFILES["interest"], PROFILES["engine"])
    measured = Measured(Definition.model_validate(raw(design="interleaving")))
    measured.add(outcome(n, "interleaved", Action.CLICK, teams=[1, -1 if n % 4 else 1, 0]) for n in range(400))
    assert measured.wins == [100, 300, 0]
    keen = Measured(Definition.model_validate(raw(design="interleaving")))
    keen.add(
        outcome(n, "interleaved", Action.CLICK, shopper=f"s{n % 5}", teams=[1, 1 if n % 5 < 3 else -1, 0])
        for n in range(2_000)
    )
    assert keen.wins == [3, 2, 0], "four hundred searches of a shopper are his one opinion"
    assert report_of(keen, 0.0, 2_000)["words"].startswith("Too early: 5 of 5 shoppers")
