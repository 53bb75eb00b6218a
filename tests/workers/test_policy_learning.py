"""From the rankings log to a live policy: what counts, what is refused, and when the gate lets a candidate pass."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endcap.errors import InvalidInput, TooLittle
from endcap.events import Action, Event
from endcap.ope.verdict import Decision, Gate
from endcap.policy import Context, Exploration, FixedPolicy
from endcap.policy.arrange import Arranger
from endcap.policy.decisions import DecisionReader, Rewards
from endcap.policy.examination import assumed
from endcap.policy.live import LivePolicy
from endcap.policy.opening import POLICY, live_policy, profiles_of
from endcap.registry import open_registry
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.flags import Flags, Suspicion
from endcap.stores.outcomes import Outcome, Outcomes, Reaction
from endcap.stores.rankings import Rankings, Served
from endcap.stores.rules import Rules
from endcap_workers.policies.gate import compare
from endcap_workers.policies.learning import JUDGED_BY, _taught, learn, read_decisions
from endcap_workers.tasks.policy import run

NOW = time.time()
OLD = NOW - 3 * 86_400.0
ARMS = profiles_of(Settings())[:3]
CONTEXT = {**Context().as_json(), "explored": True, "policy": ""}


def served(number: int, arm: str = "interest", propensity: float = 0.5, **more: Any) -> Served:
    values: dict[str, Any] = {"context": CONTEXT, "time": OLD + number, "shopper": f"s{number % 50}", **more}
    return Served(id=f"r{number}", products=("a", "b"), arm=arm, propensity=propensity, **values)


def bought(ranking: Served, *actions: Action) -> Outcome:
    return Outcome(ranking, tuple(Reaction("a", 1, one, ranking.time + 5, 1.0, 9.0, True) for one in actions))


def reactions(*actions: Action) -> tuple[Reaction, ...]:
    return bought(served(1), *actions).reactions


def reader(**more: Any) -> DecisionReader:
    return DecisionReader([arm.name for arm in ARMS], Rewards(), NOW - 86_400, **more)


def test_rewards_weigh_clicks_carts_and_purchases() -> None:
    rewards = Rewards(0.1, 0.3, 1.0)
    assert rewards.of(()) == 0
    assert rewards.of(reactions(Action.CLICK, Action.CLICK)) == pytest.approx(0.1)
    assert rewards.of(reactions(Action.CLICK, Action.CART, Action.PURCHASE)) == pytest.approx(1.4)
    assert rewards.of(reactions(Action.CART, Action.UNCART)) == 0
    assert rewards.of(reactions(Action.PURCHASE, Action.RETURN)) == 0
    for bad in ((0, 0, 0), (-1, 0, 1), (float("nan"), 0, 1)):
        with pytest.raises(InvalidInput):
            Rewards(*bad)


def test_what_teaches_nothing_is_left_out_and_counted() -> None:
    found = reader(excluded=frozenset({"bot"}))
    found.add(
        bought(one)
        for one in (
            served(1),
            served(2, shopper="bot"),
            served(3, context={**CONTEXT, "internal": True}),
            served(4, context={**CONTEXT, "explored": False}),
            served(5, time=NOW - 60),
            served(6, arm="gone"),
            served(7, degraded="deadline"),
            served(8, start=10),
            served(9, shopper=""),
        )
    )
    decisions = found.decisions()
    assert len(decisions) == 1
    assert decisions.left_out == {
        "flagged shopper": 1,
        "internal shopper": 1,
        "nothing left to chance": 1,
        "too recent": 1,
        "profile that is gone": 1,
        "no decision": 3,
    }


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5, float("nan"), None])
def test_a_log_without_propensities_is_refused(propensity: Any) -> None:
    with pytest.raises(InvalidInput, match="propensity"):
        reader().add([bought(served(1, propensity=propensity))])


@dataclass
class Shop:
    """A shop whose rankings are made by three profiles alike; ``engine`` sells three times as much."""

    folder: Path
    settings: Settings = field(init=False)
    parameters: dict[str, Any] = field(default_factory=dict)
    run_id: str = "run1"
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        profiles = [one.as_json() for one in ARMS]
        self.settings = Settings(data_dir=self.folder, ranking_profiles=profiles, learn_policy=True)
        self.database = Database.in_folder(self.folder)

    def progress(self, done: float, total: float, phase: str = "") -> None:
        assert 0 <= done <= total

    def sells(self, count: int, chances: dict[str, float], shopper: str = "", first: int = 0) -> None:
        random = np.random.default_rng(first)
        names = [one.name for one in ARMS]
        logged, events = [], []
        for number in range(first, first + count):
            arm = names[random.integers(len(names))]
            who = shopper or f"s{number % 400}"
            ranking = served(number, arm, 1 / len(names), time=OLD + number / 100, shopper=who)
            logged.append(ranking)
            if random.random() < chances.get(arm, 0.0):
                events.append(
                    Event(f"e{number}", ranking.time + 1, who, Action.PURCHASE, "a", query_id=ranking.id, value=9.0)
                )
        Rankings(self.database).append(logged)
        EventLog(self.database).append(events)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.database.close()


def test_a_better_policy_goes_live_and_servers_take_it_up(shop: Shop) -> None:
    shop.sells(6_000, {"interest": 0.1, "engine": 0.3, "balanced": 0.1})
    said = run(shop)
    assert said["promoted"], said["reason"]
    registry = open_registry(shop.settings, shop.database)
    live = registry.live(POLICY)
    assert live is not None
    assert live.version == said["version"]
    arranger = Arranger()
    LivePolicy(arranger, Rules(shop.database), lambda: live_policy(registry)).look()
    assert arranger.policy.version == said["version"]
    assert arranger.policy.choose(Context(), 0.5).arm.name == "engine"
    assert arranger.policy.choose(Context(), 0.5).propensity >= 1 - shop.settings.policy_exploration
    # Once more, on the same data: the new one is no better than what is live now.
    shop.run_id = "run2"
    again = run(shop)
    assert not again["promoted"]
    live = registry.live(POLICY)
    assert live is not None
    assert live.version == said["version"]


def test_no_difference_keeps_the_live_policy(shop: Shop) -> None:
    shop.sells(4_000, {"interest": 0.2, "engine": 0.2, "balanced": 0.2})
    said = run(shop)
    assert not said["promoted"]
    assert open_registry(shop.settings, shop.database).live(POLICY) is None


def test_too_little_data_says_so(shop: Shop) -> None:
    shop.sells(150, {"interest": 0.2})
    with pytest.raises(TooLittle, match="too little data") as told:
        run(shop)
    assert told.value.numbers["decisions"] == 150


def test_all_zero_rewards_say_so(shop: Shop) -> None:
    shop.sells(1_000, {})
    with pytest.raises(TooLittle, match="no decision earned anything"):
        run(shop)


def test_what_a_flagged_shopper_buys_teaches_nothing(shop: Shop) -> None:
    shop.sells(600, {"interest": 0.2, "engine": 0.2, "balanced": 0.2})
    shop.sells(600, {"balanced": 1.0}, shopper="farm", first=600)
    Flags(shop.database).suspect([Suspicion("shopper", "farm", 0.99, ["far too many clicks"])], source="test")
    decisions = read_decisions(shop.settings, shop.database, ARMS)
    assert len(decisions) == 600
    assert decisions.left_out["flagged shopper"] == 600


def test_only_one_profile_ever_tried_cannot_teach(shop: Shop) -> None:
    Rankings(shop.database).append([served(number, propensity=1.0) for number in range(400)])
    decisions = read_decisions(shop.settings, shop.database, ARMS)
    decisions.reward[:] = 1.0
    with pytest.raises(TooLittle, match="only one ranking profile"):
        learn(decisions, ARMS, "thompson", Exploration(), "v")


def test_a_live_policy_with_other_profiles_is_not_replaced(shop: Shop) -> None:
    shop.sells(600, {"engine": 0.5})
    decisions = read_decisions(shop.settings, shop.database, ARMS)
    new = learn(decisions, ARMS, "linucb", Exploration(), "v")
    said = compare(new.policy, FixedPolicy(), decisions, new.judged_from, Gate(fewest_effective=10))
    assert said.decision is not Decision.TOO_LITTLE_DATA
    other = FixedPolicy((profiles_of(Settings())[4],))
    kept = compare(new.policy, other, decisions, new.judged_from, Gate(fewest_effective=10))
    assert kept.decision is Decision.KEEP
    assert "does not know" in kept.reason


def test_a_profile_is_not_paid_for_what_it_showed_where_nobody_looks(shop: Shop) -> None:
    """Milk is on many lists and bought in the shop next door anyway. ``balanced`` lists it at place 38 of every search,
    and buries what was looked for; ``engine`` shows that at place 2."""
    random = np.random.default_rng(4)
    fillers = [f"f{number}" for number in range(40)]
    logged, events = [], []
    for number in range(3_000):
        arm = ("engine", "balanced")[int(random.integers(2))]
        rest = [fillers[place] for place in random.permutation(40)]
        wanted = 1 if arm == "engine" else 11
        page = [*rest[:wanted], "honey", *rest[wanted:38]]
        if arm == "balanced":
            page[37] = "milk"
        ranking = Served(
            f"r{number}", OLD + 20.0 * number, f"s{number}", tuple(page), query="honey", endpoint="search", arm=arm,
            propensity=0.5, context=CONTEXT,
        )  # fmt: skip
        logged.append(ranking)
        for place, product in enumerate(page):
            if random.random() < (0.7 if product == "honey" else 0.1) / (place + 1):
                clicked = f"c{number}-{place}", ranking.time + 2, ranking.shopper, Action.CLICK, product
                events.append(Event(*clicked, query_id=ranking.id))
                if product == "honey":
                    events.append(Event(f"h{number}", ranking.time + 4, ranking.shopper, Action.PURCHASE, product))
        if random.random() < 0.3:
            events.append(Event(f"m{number}", ranking.time + 9, ranking.shopper, Action.PURCHASE, "milk"))
    Rankings(shop.database).append(logged)
    EventLog(shop.database).append(events)
    decisions = read_decisions(shop.settings, shop.database, ARMS)
    assert decisions.examination is not None
    looked = decisions.examination.propensity
    assert looked[0] == 1
    assert looked[9] < 0.3
    assert looked[37] < 0.1
    names = [arm.name for arm in ARMS]
    assert learn(decisions, ARMS, "softmax", Exploration(), "v").policy.greedy(decisions.contexts[:1]) == names.index(
        "engine"
    )
    unweighed = reader()
    unweighed.add(Outcomes(shop.database).of(logged))
    fooled = learn(unweighed.decisions(), ARMS, "softmax", Exploration(), "v").policy
    assert fooled.greedy(decisions.contexts[:1]) == names.index("balanced"), "the log would not fool anyone"


def test_what_names_its_ranking_counts_in_full(shop: Shop) -> None:
    ranking = served(1)
    looked = assumed(40)
    reaction = Reaction("a", 40, Action.PURCHASE, ranking.time + 5, 1.0, 9.0, True)
    assert Rewards().of([reaction], looked) == 1.0
    assert Rewards().of([replace(reaction, named=False)], looked) == pytest.approx(float(looked.propensity[39]))


def test_the_gate_keeps_no_more_back_than_it_needs() -> None:
    random = np.random.default_rng(0)
    few = random.integers(3, size=3_000)
    assert _taught(few) == 1_500, "too few to judge by: half"
    many = random.choice(3, size=100_000, p=[0.9, 0.05, 0.05])
    taught = _taught(many)
    assert 65_000 < taught < 72_000
    assert np.bincount(many[taught:]).min() == JUDGED_BY
    rare = random.choice(3, size=20_000, p=[0.98, 0.01, 0.01])
    assert _taught(rare) == 10_000
