"""Is the traffic split as planned? If not, something loses shoppers of one arm, and no result can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from endcap.errors import InvalidInput
from endcap.experiments.assignment import Experiment

#: Below this probability the split is no coincidence; low, as every look is one more chance to cry wolf.
MISMATCH = 0.0005


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """``probability`` of a split as uneven as this one, were everything right."""

    probability: float
    expected: dict[str, float]
    observed: dict[str, int]

    @property
    def mismatch(self) -> bool:
        """Must the experiment be thrown away?"""
        return self.probability < MISMATCH


def sample_ratio(experiment: Experiment, shoppers: Mapping[str, int]) -> SampleRatio:
    """Pearson's chi-square test of the number of shoppers in each arm against its weight (Fabijan et al. 2019).

    Raises:
        InvalidInput: counts of other arms than the experiment's, or a negative one.
    """
    names = {arm.name for arm in experiment.arms}
    if set(shoppers) != names:
        raise InvalidInput(f"experiment {experiment.name} has the arms {sorted(names)}, not {sorted(shoppers)}")
    if min(shoppers.values()) < 0:
        raise InvalidInput("a number of shoppers cannot be negative")
    total = sum(shoppers.values())
    expected = {arm.name: total * arm.weight for arm in experiment.arms}
    statistic = sum((shoppers[name] - mean) ** 2 / mean for name, mean in expected.items()) if total else 0.0
    return SampleRatio(chi_square_tail(statistic, len(names) - 1), expected, dict(shoppers))


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of a chi-square variable with ``freedom`` >= 1 degrees (Abramowitz & Stegun 26.4.4-5)."""
    half = statistic / 2
    if half <= 0:
        return 1.0
    # The finite sums, from their first term on: Γ(a) in steps of one from 1 or from 1/2.
    tail = math.exp(-half) if freedom % 2 == 0 else math.erfc(math.sqrt(half))
    order = 1.0 if freedom % 2 == 0 else 0.5
    while order < freedom / 2:
        tail += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return min(tail, 1.0)
