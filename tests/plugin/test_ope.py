"""Off-policy estimators against what a simulated policy really earns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.ope import (
    Decision,
    Gate,
    LoggedChoices,
    Terms,
    bootstrap_lower_bound,
    direct_method,
    doubly_robust,
    dr_shrunk,
    effective_sample_size,
    empirical_bernstein_lower_bound,
    ips,
    judge,
    self_normalised_dr,
    snips,
    switch_dr,
    tuned,
)
from endcap.ope.estimators import shrunk


@dataclass
class World:
    """Contexts, actions, and the chance of a reward of each; logging and evaluated policies are distributions."""

    chance: np.ndarray
    logging: np.ndarray
    candidate: np.ndarray

    @property
    def truth(self) -> float:
        return float((self.chance * self.candidate).sum(axis=1).mean())

    @property
    def live(self) -> float:
        return float((self.chance * self.logging).sum(axis=1).mean())

    def log(self, size: int, seed: int, model: np.ndarray | None = None, wrong: float = 1.0) -> LoggedChoices:
        random = np.random.default_rng(seed)
        context = random.integers(0, len(self.chance), size)
        odds = self.logging[context]
        action = (odds.cumsum(axis=1) < random.random((size, 1))).sum(axis=1)
        reward = (random.random(size) < self.chance[context, action]).astype(float)
        return LoggedChoices.from_distribution(
            reward,
            action,
            np.minimum(odds[np.arange(size), action] * wrong, 1.0),
            self.candidate[context],
            None if model is None else model[context],
        )


@pytest.fixture
def world() -> World:
    random = np.random.default_rng(5)
    chance = random.uniform(0.05, 0.5, (20, 6))
    logging = random.dirichlet(np.full(6, 2.0), 20) * 0.8 + 0.2 / 6
    best = np.eye(6)[chance.argmax(axis=1)]
    return World(chance, logging, 0.8 * best + 0.2 / 6)


ESTIMATORS: dict[str, Callable[[LoggedChoices], Terms]] = {
    "ips": ips,
    "snips": snips,
    "dr": doubly_robust,
    "sndr": self_normalised_dr,
    "switch": lambda log: switch_dr(log, 5.0),
    "shrunk": lambda log: dr_shrunk(log, 1_000.0),
    "dm": direct_method,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_find_the_truth_with_a_true_model(world: World, name: str) -> None:
    terms = ESTIMATORS[name](world.log(40_000, 1, world.chance))

    assert world.truth > 1.4 * world.live
    assert abs(terms.value - world.truth) < 4 * terms.standard_error + 1e-9
    assert terms.standard_error < 0.02


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "sndr"])
def test_a_wrong_model_does_not_bias_them(world: World, name: str) -> None:
    estimates = [ESTIMATORS[name](world.log(4_000, seed, 1 - world.chance)).value for seed in range(60)]

    error = np.std(estimates, ddof=1) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - world.truth) < 4 * error
    assert abs(direct_method(world.log(4_000, 0, 1 - world.chance)).value - world.truth) > 0.1


def test_dr_has_less_variance_than_ips_with_a_good_model(world: World) -> None:
    log = world.log(20_000, 2, world.chance)

    assert doubly_robust(log).standard_error < 0.8 * ips(log).standard_error


def test_dr_survives_wrong_propensities_with_a_true_model_and_ips_does_not(world: World) -> None:
    log = world.log(40_000, 3, world.chance, wrong=0.5)

    assert abs(doubly_robust(log).value - world.truth) < 0.02
    assert abs(ips(log).value - world.truth) > 0.2


def test_hand_made_figures() -> None:
    log = LoggedChoices.of([1, 0, 1], [0.5, 0.25, 0.1], [0.25, 0.5, 0.8], [0.5, 0.5, 0.5], [0.4, 0.4, 0.4])
    # weights .5, 2, 8
    assert ips(log).value == pytest.approx(8.5 / 3)
    assert ips(log, clip=4).value == pytest.approx(4.5 / 3)
    assert snips(log).value == pytest.approx(8.5 / 10.5)
    assert direct_method(log).value == pytest.approx(0.4)
    assert doubly_robust(log).value == pytest.approx(0.4 + (0.25 - 1 + 4) / 3)
    assert self_normalised_dr(log).value == pytest.approx(0.4 + 3.25 / 10.5)
    assert switch_dr(log, 2).value == pytest.approx(0.4 + (0.25 - 1) / 3)
    assert shrunk(log.weights, 4.0) == pytest.approx([2 / 4.25, 8 / 8, 32 / 68])
    assert dr_shrunk(log, 4).value == pytest.approx(0.4 + (2 / 4.25 - 1 + 32 / 68) * 0.5 / 3)
    assert effective_sample_size(log.weights) == pytest.approx(10.5**2 / (0.25 + 4 + 64))


def test_the_ends_of_switch_and_shrinkage_are_dm_and_dr(world: World) -> None:
    log = world.log(1_000, 4, world.chance + 0.1)

    for estimator in (switch_dr, dr_shrunk):
        assert estimator(log, 0.0).value == pytest.approx(direct_method(log).value)
        assert estimator(log, math.inf).value == pytest.approx(doubly_robust(log).value)


def test_tuning_takes_the_narrowest_that_agrees_with_the_wider_ones() -> None:
    random = np.random.default_rng(6)
    # An action that is rarely logged makes weights of up to 160; a good model makes them superfluous, a bad one not.
    chance, odds = np.array([0.1, 0.6]), np.array([0.995, 0.005])
    action = (random.random(50_000) < odds[1]).astype(int)
    reward = (random.random(50_000) < chance[action]).astype(float)

    def log(model: list[float]) -> LoggedChoices:
        predicted = np.tile(model, (50_000, 1))
        return LoggedChoices.from_distribution(reward, action, odds[action], [0.2, 0.8], predicted)

    assert tuned(dr_shrunk, log([0.1, 0.6]))[0] == 10.0
    chosen, terms = tuned(dr_shrunk, log([0.1, 0.0]))
    assert chosen > 1_000
    assert abs(terms.value - 0.5) < 0.08


def test_bounds_hold_at_their_level(world: World) -> None:
    bootstrap = bernstein = 0
    for seed in range(200):
        terms = snips(world.log(500, seed))
        bootstrap += bootstrap_lower_bound(terms, 0.9, 300, seed) > world.truth
        values = ips(world.log(500, seed), clip=10).influences
        bernstein += empirical_bernstein_lower_bound(values, 0.0, 10.0, 0.9) > world.truth

    assert 5 <= bootstrap <= 36  # 20 expected: a bound that always holds would be worthless too
    assert bernstein <= 20


def test_bounds_narrow_with_data(world: World) -> None:
    few, many = world.log(500, 7), world.log(50_000, 7)

    for bound in (
        lambda log: bootstrap_lower_bound(snips(log), resamples=200),
        lambda log: empirical_bernstein_lower_bound(ips(log, 10).influences, 0, 10),
    ):
        assert bound(few) < bound(many) < world.truth
        assert bound(many) > 0.9 * world.truth - 0.05


def test_the_bootstrap_agrees_with_the_delta_method_and_repeats(world: World) -> None:
    terms = self_normalised_dr(world.log(5_000, 8, world.chance))

    bound = bootstrap_lower_bound(terms, 0.95, 2_000, 1)
    assert bound == pytest.approx(terms.value - 1.645 * terms.standard_error, abs=0.15 * terms.standard_error)
    assert bound == bootstrap_lower_bound(terms, 0.95, 2_000, 1)
    assert terms.influences.mean() == pytest.approx(terms.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensity": [0.5, 0.0, 0.5]}, "not in (0, 1], the first at [1]"),
        ({"propensity": [0.5, -0.1, 0.5]}, "not in (0, 1]"),
        ({"propensity": [0.5, 1.5, 0.5]}, "not in (0, 1]"),
        ({"propensity": [0.5, math.nan, 0.5]}, "propensity has 1 missing"),
        ({"propensity": [0.5, None, 0.5]}, "propensity has 1 missing"),
        ({"propensity": [0.5, 0.5]}, "must have the shape (3,)"),
        ({"propensity": [[0.5], [0.5, 0.5], 0.5]}, "regular array"),
        ({"propensity": ["often", "rarely", "never"]}, "propensity must be numbers"),
        ({"target": [0.5, 1.2, 0.5]}, "target must be probabilities"),
        ({"target": [0.5, math.inf, 0.5]}, "target has 1 missing"),
        ({"reward": [1.0, math.nan, 0.0]}, "reward has 1 missing"),
        ({"reward": []}, "at least one"),
        ({"reward": [[1.0, 0.0, 1.0]]}, "one number per decision"),
        ({"predicted": [0.1, 0.1, 0.1]}, "belong together"),
        ({"predicted": [0.1, 0.1], "expected": [0.1, 0.1]}, "predicted must have the shape"),
    ],
)
def test_bad_logs_are_refused(change: dict[str, object], says: str) -> None:
    good: dict[str, object] = {"reward": [1, 0, 1], "propensity": [0.5] * 3, "target": [0.2] * 3}
    LoggedChoices.of(**good)  # type: ignore[arg-type]

    with pytest.raises(InvalidInput) as caught:
        LoggedChoices.of(**{**good, **change})  # type: ignore[arg-type]
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("action", "distribution", "says"),
    [
        ([0, 1], [0.5, 0.4], "row 0 sums to 0.9"),
        ([0, 1], [[0.5, 0.5], [0.9, 0.2]], "row 1 sums to 1.1"),
        ([0, 2], [0.5, 0.5], "index from 0 to 1"),
        ([0, -1], [0.5, 0.5], "index from 0 to 1"),
        ([0, 0.5], [0.5, 0.5], "whole number"),
        ([0, None], [0.5, 0.5], "whole number"),
        ([0, 1], [[0.5, 0.5]], "must be (2, actions)"),
        ([0, 1], [1.5, -0.5], "probabilities in [0, 1]"),
    ],
)
def test_bad_distributions_are_refused(action: list[object], distribution: list[float], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LoggedChoices.from_distribution([1, 0], action, [0.5, 0.5], distribution)
    assert says in str(caught.value)


def test_what_cannot_be_computed_says_so(world: World) -> None:
    log = world.log(100, 9)

    with pytest.raises(InvalidInput, match="needs a reward model"):
        doubly_robust(log)
    with pytest.raises(InvalidInput, match="clip must be above 0"):
        ips(log, clip=0)
    with pytest.raises(InvalidInput, match="outside"):
        empirical_bernstein_lower_bound(ips(log).influences, 0, 0.5)
    with pytest.raises(InvalidInput, match="level"):
        bootstrap_lower_bound(ips(log), 1.0)


def test_a_better_policy_is_promoted_and_a_worse_one_is_not(world: World) -> None:
    good = judge(world.log(20_000, 10, world.chance), world.live)
    worst = World(world.chance, world.logging, np.eye(6)[world.chance.argmin(axis=1)])
    bad = judge(worst.log(20_000, 10, world.chance), world.live)

    assert good.decision is Decision.PROMOTE
    assert set(good.lower) == {"SNIPS", "DR"}
    assert min(good.lower.values()) > good.live
    assert "Promote" in good.reason
    assert bad.decision is Decision.KEEP
    assert "live stays" in bad.reason


def test_the_same_policy_is_hardly_ever_promoted(world: World) -> None:
    same = World(world.chance, world.logging, world.logging)
    promoted = 0
    for seed in range(100):
        log = same.log(2_000, seed)
        promoted += judge(log, log, Gate(resamples=200), seed=seed).decision is Decision.PROMOTE

    assert promoted == 0  # against its own estimate on the same decisions it cannot win


def test_decisions_of_one_shopper_are_no_independent_evidence(world: World) -> None:
    terms = snips(world.log(400, 15))
    often = Terms(np.repeat(terms.numerator, 25, axis=0), np.repeat(terms.denominator, 25, axis=0))
    shopper = np.repeat(np.arange(400), 25)

    assert often.grouped(shopper).value == pytest.approx(terms.value)
    assert often.grouped(shopper).standard_error == pytest.approx(terms.standard_error)
    assert bootstrap_lower_bound(often) > terms.value - terms.standard_error
    assert bootstrap_lower_bound(often.grouped(shopper)) == pytest.approx(
        terms.value - 1.645 * terms.standard_error, abs=0.2 * terms.standard_error
    )
    log = world.log(20_000, 10, world.chance)
    all_alike = judge(log, world.live, shoppers=np.arange(20_000) % 2)
    assert min(all_alike.lower.values()) != min(judge(log, world.live).lower.values())
    with pytest.raises(InvalidInput, match="one per decision"):
        terms.grouped(shopper)


def test_too_little_data_says_so_and_keeps_live(world: World) -> None:
    few = judge(world.log(200, 11), world.live)
    unrewarded = world.log(20_000, 11)
    nothing = judge(LoggedChoices.of(unrewarded.reward * 0, unrewarded.propensity, unrewarded.target), 0.0)

    assert few.decision is Decision.TOO_LITTLE_DATA
    assert "1,000 wanted" in few.reason
    assert nothing.decision is Decision.TOO_LITTLE_DATA
    assert "earned anything" in nothing.reason


def test_wrong_propensities_are_noticed(world: World) -> None:
    verdict = judge(world.log(20_000, 12, wrong=0.5), world.live)

    assert verdict.decision is Decision.KEEP
    assert "average 2" in verdict.reason


def test_the_live_policy_may_be_another_than_the_logging_one(world: World) -> None:
    log = world.log(20_000, 13, world.chance)
    live = World(world.chance, world.logging, world.logging).log(20_000, 13, world.chance)

    assert judge(log, live).decision is Decision.PROMOTE
    with pytest.raises(InvalidInput, match="same decisions"):
        judge(log, world.log(20_000, 14, world.chance))
    with pytest.raises(InvalidInput, match="finite"):
        judge(log, math.nan)
