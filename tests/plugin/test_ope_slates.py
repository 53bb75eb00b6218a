"""Estimators for rankings: who is biased when, and who is how noisy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.ope import LoggedRankings, bootstrap_lower_bound, cascade_ips, independent_ips, slate_ips

POSITIONS, ACTIONS = 4, 3
LOGGING = np.full(ACTIONS, 1 / ACTIONS)
CANDIDATE = np.array([0.7, 0.2, 0.1])
CHANCE = np.array([0.5, 0.3, 0.1])


def simulate(size: int, seed: int, cascade: bool, policy: np.ndarray = LOGGING) -> LoggedRankings:
    """Each position draws one of three kinds of product; in a cascade, a click above ends the reading."""
    random = np.random.default_rng(seed)
    shown = random.choice(ACTIONS, (size, POSITIONS), p=policy)
    reward = (random.random((size, POSITIONS)) < CHANCE[shown]).astype(float)
    if cascade:
        reward *= np.cumsum(reward, axis=1) - reward == 0
    return LoggedRankings.of(reward, policy[shown], CANDIDATE[shown])


def truth(cascade: bool) -> float:
    click = float(CHANCE @ CANDIDATE)
    return sum(click * (1 - click) ** place for place in range(POSITIONS)) if cascade else POSITIONS * click


@pytest.mark.parametrize("normalised", [False, True])
def test_the_cascade_estimator_finds_the_truth_where_reading_stops(normalised: bool) -> None:
    log = simulate(100_000, 1, cascade=True)

    for estimator in (cascade_ips, slate_ips):
        terms = estimator(log, normalised=normalised)
        assert abs(terms.value - truth(True)) < 4 * terms.standard_error
    independent = independent_ips(log, normalised=normalised)
    assert abs(independent.value - truth(True)) > 10 * independent.standard_error


def test_where_positions_are_independent_fewer_factors_are_less_noise() -> None:
    log = simulate(20_000, 2, cascade=False)

    terms = [independent_ips(log), cascade_ips(log), slate_ips(log)]
    assert all(abs(each.value - truth(False)) < 4 * each.standard_error for each in terms)
    errors = [each.standard_error for each in terms]
    assert errors[0] < 0.75 * errors[1]
    assert errors[1] < 0.75 * errors[2]


def test_normalising_cuts_the_noise() -> None:
    log = simulate(20_000, 3, cascade=True)

    assert cascade_ips(log, normalised=True).standard_error < 0.75 * cascade_ips(log).standard_error


def test_the_policy_itself_has_weight_one() -> None:
    log = simulate(500, 4, cascade=True, policy=CANDIDATE)

    for estimator in (independent_ips, cascade_ips, slate_ips):
        assert estimator(log).value == pytest.approx(log.reward.sum(axis=1).mean())


def test_hand_made_figures_with_a_discount_and_a_clip() -> None:
    log = LoggedRankings.of([[1, 1], [0, 1]], [[0.5, 0.5], [0.25, 1]], [[1, 0.25], [0.5, 1]])
    # weights 2, .5 and 2, 1
    discount = np.array([1.0, 0.5])
    assert independent_ips(log, discount).value == pytest.approx((2 + 0.25 + 0.5) / 2)
    assert cascade_ips(log, discount).value == pytest.approx((2 + 0.5 + 1) / 2)
    assert slate_ips(log, discount).value == pytest.approx((1 + 0.5 + 1) / 2)
    assert cascade_ips(log, discount, clip=1.5).value == pytest.approx((1.5 + 0.5 + 0.75) / 2)
    assert independent_ips(log, discount, normalised=True).value == pytest.approx(2 / 4 + (0.25 + 0.5) / 1.5)


def test_bounds_work_on_rankings() -> None:
    held = [
        bootstrap_lower_bound(cascade_ips(simulate(1_000, seed, True), normalised=True), 0.9, 200, seed) < truth(True)
        for seed in range(100)
    ]

    assert 80 <= sum(held) < 100


@pytest.mark.parametrize(
    ("reward", "propensity", "says"),
    [
        ([[1, 0]], [[0.5, 0.0]], "not in (0, 1], the first at [0, 1]"),
        ([[1, 0]], [[0.5]], "must have the shape"),
        ([[1, math.nan]], [[0.5, 0.5]], "missing"),
        ([1, 0], [0.5, 0.5], "(rankings, positions)"),
    ],
)
def test_bad_logs_are_refused(reward: object, propensity: object, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LoggedRankings.of(reward, propensity, propensity)
    assert says in str(caught.value)


def test_a_discount_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one number per position"):
        cascade_ips(simulate(10, 5, True), np.ones(2))
