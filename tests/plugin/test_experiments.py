"""Who takes part in what, whether the split can be believed, and what an experiment needs before it starts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.experiments import (
    Arm,
    Experiment,
    Layer,
    Plan,
    Sample,
    adjust,
    check_change,
    detectable_effect,
    difference_sequence,
    position,
    sample_ratio,
    shoppers_needed,
)
from endcap.experiments.checks import chi_square_tail

HALVES = (Arm("old", 0.5), Arm("new", 0.5))
SHOPPERS = [f"shopper-{number}" for number in range(20_000)]


def test_assignment_is_sticky_and_as_weighted() -> None:
    experiment = Experiment("order", "salt-1", (Arm("old", 0.7), Arm("new", 0.2), Arm("newest", 0.1)))

    arms = [experiment.arm(shopper).name for shopper in SHOPPERS]

    assert arms == [Experiment("order", "salt-1", experiment.arms).arm(shopper).name for shopper in SHOPPERS]
    assert sample_ratio(experiment, Counter(arms)).probability > 0.001
    assert position("shopper-1", "salt-1") == 0.05997327910131334  # must never change: shoppers would move


def test_salts_deal_independently() -> None:
    one, two = Experiment("a", "salt-1", HALVES), Experiment("b", "salt-2", HALVES)

    both = Counter((one.arm(shopper).name, two.arm(shopper).name) for shopper in SHOPPERS)

    assert all(abs(count - 5_000) < 5 * math.sqrt(5_000) for count in both.values())
    assert len(both) == 4


def test_growing_an_experiment_moves_nobody() -> None:
    small = Experiment("order", "salt-1", HALVES, 0.0, 0.1)
    grown = replace(small, end=0.5)
    check_change(small, grown)

    before = {shopper: Plan((Layer("l", "layer", (small,)),)).assign(shopper) for shopper in SHOPPERS}
    after = {shopper: Plan((Layer("l", "layer", (grown,)),)).assign(shopper) for shopper in SHOPPERS}

    assert all(after[shopper] == found for shopper, found in before.items() if found)
    assert sum(map(bool, after.values())) == pytest.approx(5 * sum(map(bool, before.values())), rel=0.1)


def test_layers_are_exclusive_and_cross_and_the_control_group_sees_none() -> None:
    first, second = Experiment("a", "salt-1", HALVES, 0.0, 0.5), Experiment("b", "salt-2", HALVES, 0.5, 1.0)
    crossing = Experiment("c", "salt-3", HALVES)
    plan = Plan((Layer("order", "layer-1", (first, second)), Layer("page", "layer-2", (crossing,))), 0.05)

    taken = Counter(tuple(each.experiment for each in plan.assign(shopper)) for shopper in SHOPPERS)

    assert set(taken) == {(), ("a", "c"), ("b", "c")}
    assert taken[()] == sum(plan.in_control(shopper) for shopper in SHOPPERS)
    assert taken[()] == pytest.approx(1_000, abs=5 * math.sqrt(950))
    assert taken["a", "c"] == pytest.approx(9_500, abs=400)


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ((Arm("old", 0.5), Arm("new", 0.4)), "sum to 0.9, not 1"),
        ((Arm("old", 0.7), Arm("new", 0.7)), "sum to 1.4, not 1"),
        ((Arm("old", 1.0), Arm("new", 0.0)), "must be above 0"),
        ((Arm("old", math.nan), Arm("new", 0.5)), "must be above 0"),
        ((Arm("same", 0.5), Arm("same", 0.5)), "names that differ"),
        ((Arm("old", 1.0),), "at least two arms"),
    ],
)
def test_bad_arms_are_refused(arms: tuple[Arm, ...], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Experiment("order", "salt", arms)
    assert says in str(caught.value)


def test_bad_plans_are_refused() -> None:
    first, second = Experiment("a", "salt-1", HALVES, 0.0, 0.6), Experiment("b", "salt-2", HALVES, 0.5, 1.0)

    with pytest.raises(InvalidInput, match=r"a and b overlap from 0\.5 to 0\.6"):
        Layer("order", "layer", (second, first))
    with pytest.raises(InvalidInput, match="salts that all differ"):
        Layer("order", "layer", (first, replace(first, name="b", start=0.7, end=0.9)))
    with pytest.raises(InvalidInput, match="salts that all differ"):
        Plan((Layer("order", "layer", (first,)), Layer("page", "layer", ())))
    with pytest.raises(InvalidInput, match="name of its own"):
        Plan((Layer("order", "layer", (first,)), Layer("page", "l2", (replace(first, salt="other"),))))
    with pytest.raises(InvalidInput, match="control_share"):
        Plan((), 1.0)
    with pytest.raises(InvalidInput, match="without a key"):
        first.arm("")
    with pytest.raises(InvalidInput, match="no range"):
        replace(first, start=0.7)
    with pytest.raises(InvalidInput, match="a name and a salt"):
        replace(first, salt="")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"salt": "other"}, "deals all shoppers anew"),
        ({"arms": (Arm("old", 0.5), Arm("other", 0.5))}, "arm new was removed"),
        ({"arms": (Arm("old", 0.4), Arm("new", 0.4), Arm("third", 0.2))}, "arm third was added"),
        ({"arms": (Arm("old", 0.9), Arm("new", 0.1))}, "other weights"),
        ({"arms": HALVES[::-1]}, "another order"),
        ({"end": 0.4}, "not shrink or move"),
        ({"name": "another"}, "cannot be renamed"),
    ],
)
def test_a_running_experiment_cannot_be_bent(change: dict[str, object], says: str) -> None:
    running = Experiment("order", "salt", HALVES, 0.0, 0.5)

    with pytest.raises(InvalidInput) as caught:
        check_change(running, replace(running, **change))  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "start a new one" in str(caught.value)


def test_chi_square_tail_is_the_textbooks() -> None:
    # Critical values from the NIST handbook, table 1.3.6.7.4.
    for freedom, critical in ((1, 3.841), (2, 5.991), (3, 7.815), (4, 9.488), (7, 14.067), (10, 18.307)):
        assert chi_square_tail(critical, freedom) == pytest.approx(0.05, abs=2e-5)
    assert chi_square_tail(10.828, 1) == pytest.approx(0.001, abs=2e-6)
    assert chi_square_tail(0, 3) == 1.0
    assert chi_square_tail(5_000, 5) == pytest.approx(0.0, abs=1e-100)


def test_a_wrong_split_is_noticed_and_a_right_one_is_not() -> None:
    experiment = Experiment("order", "salt", (Arm("old", 0.5), Arm("new", 0.3), Arm("third", 0.2)))
    random = np.random.default_rng(1)

    alarms = sum(
        sample_ratio(experiment, dict(zip(("old", "new", "third"), counts.tolist()))).mismatch
        for counts in random.multinomial(20_000, [0.5, 0.3, 0.2], 2_000)
    )
    found = sum(
        sample_ratio(experiment, dict(zip(("old", "new", "third"), counts.tolist()))).mismatch
        for counts in random.multinomial(20_000, [0.52, 0.29, 0.19], 100)
    )

    assert alarms <= 6
    assert found >= 95
    with pytest.raises(InvalidInput, match="has the arms"):
        sample_ratio(experiment, {"old": 1, "new": 1})
    with pytest.raises(InvalidInput, match="negative"):
        sample_ratio(experiment, {"old": 1, "new": 1, "third": -1})


def test_cuped_keeps_the_effect_and_cuts_the_variance() -> None:
    random = np.random.default_rng(2)
    differences, plain = [], []
    for _ in range(300):
        before = {arm: random.gamma(2.0, 10.0, 500) for arm in ("old", "new")}
        metric = {arm: 0.8 * before[arm] + random.normal(0, 6, 500) + (2 if arm == "new" else 0) for arm in before}
        adjusted = adjust(metric, before)
        differences.append(adjusted.samples["new"].mean - adjusted.samples["old"].mean)
        plain.append(metric["new"].mean() - metric["old"].mean())

    assert np.mean(differences) == pytest.approx(2.0, abs=4 * np.std(differences) / math.sqrt(300))
    assert np.var(differences) < 0.35 * np.var(plain)
    assert adjusted.reduction == pytest.approx(0.78, abs=0.05)
    assert adjusted.slope == pytest.approx(0.8, abs=0.1)


def test_cuped_without_a_past_changes_nothing() -> None:
    metric = {"old": np.array([1.0, 2.0, 4.0]), "new": np.array([2.0, 3.0])}

    adjusted = adjust(metric, {arm: np.zeros(len(values)) for arm, values in metric.items()})

    assert adjusted.samples["old"] == Sample.of(metric["old"])
    assert adjusted.reduction == 0.0
    with pytest.raises(InvalidInput, match="same shoppers"):
        adjust(metric, {"old": np.zeros(2), "new": np.zeros(2)})
    with pytest.raises(InvalidInput, match="same arms"):
        adjust(metric, {"old": np.zeros(3)})
    with pytest.raises(InvalidInput, match="finite"):
        adjust(metric, {"old": np.array([0, math.nan, 0]), "new": np.zeros(2)})


def test_sample_size_is_the_textbooks_and_peeking_costs_more() -> None:
    # Conversion of 5 % against 6 % by two-sided z at 80 % power: 16 p (1 - p) / d² a group, Kohavi et al. 2020.
    variance = 0.05 * 0.95
    fixed = shoppers_needed(0.01, variance, peeking=False)

    assert fixed == pytest.approx(2 * 15.7 * variance / 0.01**2, rel=0.01)
    assert 1.5 * fixed < shoppers_needed(0.01, variance) < 3 * fixed
    assert detectable_effect(fixed, variance, peeking=False) == pytest.approx(0.01, rel=0.001)
    assert detectable_effect(shoppers_needed(0.01, variance), variance) == pytest.approx(0.01, rel=0.001)
    assert shoppers_needed(0.01, variance, share=0.1) > 2.7 * shoppers_needed(0.01, variance)


@pytest.mark.parametrize(
    "change", [{"effect": 0.0}, {"effect": math.nan}, {"variance": 0.0}, {"share": 1.0}, {"alpha": 0.0}, {"power": 1.5}]
)
def test_impossible_plans_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        shoppers_needed(**{"effect": 0.01, "variance": 0.05, **change})


def test_samples_from_values_conversions_and_streams_agree() -> None:
    values = np.array([1.0, 0, 0, 1, 1, 0, 0])

    whole = Sample.of(values)
    for other in (Sample.of_conversions(7, 3), Sample.of_sums(7, 3.0, 3.0)):
        assert (other.count, other.mean, other.variance) == pytest.approx((7, whole.mean, whole.variance))
    assert Sample.of(np.zeros(0)) == Sample(0, 0.0, 0.0)
    assert difference_sequence(Sample(1, 0.0, 0.0), whole).high == math.inf
    with pytest.raises(InvalidInput, match="cannot have converted"):
        Sample.of_conversions(2, 3)
    with pytest.raises(InvalidInput, match="finite"):
        Sample.of(np.array([1.0, math.inf]))


def test_an_effect_that_no_number_of_shoppers_shows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too small"):
        shoppers_needed(2e-279, 0.01)
