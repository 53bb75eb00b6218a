"""CUPED: take out of a metric what was known of the shopper before the experiment (Deng, Xu, Kohavi & Walker 2013)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from endcap.errors import InvalidInput
from endcap.experiments.sample import Sample


@dataclass(frozen=True, slots=True)
class Adjusted:
    """``samples``: the adjusted metric by arm. ``reduction``: share of the variance that is gone, r²."""

    samples: dict[str, Sample]
    slope: float
    reduction: float


def adjust(metric: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> Adjusted:
    """metric - slope (before - mean of all arms' before), the slope pooled over the arms.

    Differences keep their expectation as ``before`` cannot know the arm. Shoppers who were not there before have 0.

    Args:
        metric: arm -> one number a shopper, (n,).
        before: arm -> the same shoppers' value of a covariate from before the start, usually the same metric.

    Raises:
        InvalidInput: the two do not belong together, or a number is NaN or infinite.
    """
    arms = list(metric)
    if set(arms) != set(before) or not arms:
        raise InvalidInput("metric and before must have the same arms")
    values = {arm: np.asarray(metric[arm], dtype=np.float64) for arm in arms}
    known = {arm: np.asarray(before[arm], dtype=np.float64) for arm in arms}
    for arm in arms:
        if values[arm].ndim != 1 or values[arm].shape != known[arm].shape:
            raise InvalidInput(f"arm {arm}: metric and before must be the same shoppers")
        if not (np.isfinite(values[arm]).all() and np.isfinite(known[arm]).all()):
            raise InvalidInput(f"arm {arm}: a shopper's metric must be a finite number")
    # Centred by arm: a difference between the arms must not bend the slope.
    y = np.concatenate([values[arm] - (values[arm].mean() if len(values[arm]) else 0.0) for arm in arms])
    x = np.concatenate([known[arm] - (known[arm].mean() if len(known[arm]) else 0.0) for arm in arms])
    spread, total = float(x @ x), float(y @ y)
    slope = float(x @ y) / spread if spread > 0 else 0.0
    centre = float(np.concatenate(list(known.values())).mean()) if len(x) else 0.0
    samples = {arm: Sample.of(values[arm] - slope * (known[arm] - centre)) for arm in arms}
    return Adjusted(samples, slope, slope * float(x @ y) / total if total > 0 else 0.0)
