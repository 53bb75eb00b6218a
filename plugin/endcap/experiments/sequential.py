"""Confidence that survives peeking: intervals that hold at all times at once.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2021, theorem 2.2): after t values

    mean ± σ sqrt(2 (t ρ² + 1) / (t² ρ²) · ln( sqrt(t ρ² + 1) / α ))

contains the true mean at every t with probability 1 - α in the limit of late first looks. ρ only decides where it is
tightest. Whoever looks at each shopper and stops when 0 falls out of it errs in at most α of his experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from endcap.errors import InvalidInput
from endcap.experiments.sample import Sample

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True, slots=True)
class Interval:
    """``low`` to ``high`` around ``estimate``."""

    estimate: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def radius(count: Number, deviation: Number, alpha: float = 0.05, tightest: float = 10_000.0) -> Number:
    """Half the width after ``count`` values with standard deviation ``deviation``; scalars or arrays alike.

    ``tightest``: the count at which it shall be narrowest relative to what a single look would give: plan for it.

    Raises:
        InvalidInput: alpha is not in (0, 1), or ``tightest`` is below 1.
    """
    if not 0 < alpha < 1 or not tightest >= 1:
        raise InvalidInput(f"alpha must be in (0, 1) and tightest at least 1, not {alpha} and {tightest}")
    doubled = -2 * math.log(alpha)
    spread = count * ((doubled + math.log(doubled + 1)) / tightest) + 1  # tρ² + 1, ρ of their appendix B
    width: Number = deviation * np.sqrt(2 * spread / (count * (spread - 1)) * np.log(np.sqrt(spread) / alpha))
    return width


def mean_sequence(sample: Sample, alpha: float = 0.05, tightest: float = 10_000.0) -> Interval:
    """Where the mean lies, whenever one looks. Infinite before the second value."""
    if sample.count < 2:
        return Interval(sample.mean, -math.inf, math.inf)
    width = float(radius(float(sample.count), math.sqrt(sample.variance), alpha, tightest))
    return Interval(sample.mean, sample.mean - width, sample.mean + width)


def difference_sequence(control: Sample, treated: Sample, alpha: float = 0.05, tightest: float = 10_000.0) -> Interval:
    """Where treated - control lies, whenever one looks. ``tightest`` counts the shoppers of both arms.

    Each arrival is a value of the inverse-propensity estimate of the difference, centred as in their section 3; its
    deviation is sqrt(t (v0 / n0 + v1 / n1)), so any split of the traffic is right.
    """
    estimate = treated.mean - control.mean
    if min(control.count, treated.count) < 2:
        return Interval(estimate, -math.inf, math.inf)
    width = float(
        difference_radius(
            float(control.count), control.variance, float(treated.count), treated.variance, alpha, tightest
        )
    )
    return Interval(estimate, estimate - width, estimate + width)


def difference_radius(
    control_count: Number,
    control_variance: Number,
    treated_count: Number,
    treated_variance: Number,
    alpha: float = 0.05,
    tightest: float = 10_000.0,
) -> Number:
    """Half the width of :func:`difference_sequence`, scalars or arrays alike."""
    total = control_count + treated_count
    variance = total * (control_variance / control_count + treated_variance / treated_count)
    return radius(total, np.sqrt(variance), alpha, tightest)
