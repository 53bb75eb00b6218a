"""Off-policy estimators: the mean reward a policy would have earned on decisions that another one made.

With w = target / propensity, q(x, a) a model's reward and q(x, π) its mean under the evaluated policy:

======================  =============================================  ==========================================
direct_method           mean q(x, π)                                   biased where the model is; least variance
ips                     mean w r                                       unbiased; Horvitz & Thompson 1952
snips                   Σ w r / Σ w                                    Swaminathan & Joachims 2015
doubly_robust           mean q(x, π) + mean w (r - q)                  Dudík et al. 2011
self_normalised_dr      mean q(x, π) + Σ w (r - q) / Σ w               Robins et al. 2007
switch_dr               DR with w only where w <= τ, the model beyond  Wang, Agarwal & Dudík 2017
dr_shrunk               DR with λ w / (w² + λ) for w                   optimistic shrinkage, Su et al. 2020
======================  =============================================  ==========================================

``clip`` replaces w by min(w, clip) (Ionides 2008): for rewards >= 0 that can only lower IPS, so its lower bounds hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from endcap.errors import InvalidInput
from endcap.ope.log import LoggedChoices


@dataclass(frozen=True, slots=True)
class Terms:
    """An estimate in the parts that bounds need: value = Σ_k Σ_i numerator[i, k] / Σ_i denominator[i, k].

    Both (n, k): one row a decision, one column a mean (its denominators are 1), a weighted mean or a position.
    """

    numerator: np.ndarray
    denominator: np.ndarray

    def __len__(self) -> int:
        return len(self.numerator)

    @property
    def value(self) -> float:
        """The estimate, in units of the reward; a weighted mean whose weights are all 0 counts 0."""
        return float(_ratio(self.numerator.sum(axis=0), self.denominator.sum(axis=0)).sum())

    @property
    def influences(self) -> np.ndarray:
        """What each row adds, (n,), mean = value: the plain terms of a mean, linearised terms of a weighted mean."""
        ratio = _ratio(self.numerator.sum(axis=0), self.denominator.sum(axis=0))
        own = self.numerator - ratio * self.denominator
        return ratio.sum() + _ratio(own, np.broadcast_to(self.denominator.mean(axis=0), own.shape)).sum(axis=1)

    @property
    def standard_error(self) -> float:
        """Of ``value``, by the delta method."""
        if len(self) < 2:
            return math.inf
        return float(self.influences.std(ddof=1) / math.sqrt(len(self)))

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The estimate of each resample, (b,). ``counts``: how often each row was drawn, (b, n)."""
        result: np.ndarray = _ratio(counts @ self.numerator, counts @ self.denominator).sum(axis=1)
        return result

    def grouped(self, groups: np.ndarray) -> Terms:
        """One row a group, the same value: decisions of one shopper are not independent, shoppers are.

        Args:
            groups: whose decision each row is, (n,).

        Raises:
            InvalidInput: not one group a row.
        """
        if groups.shape != (len(self),):
            raise InvalidInput(f"groups must be one per decision ({len(self)},), not {groups.shape}")
        names, index = np.unique(groups, return_inverse=True)
        sums = np.zeros((2, len(names), self.numerator.shape[1]))
        np.add.at(sums[0], index, self.numerator)
        np.add.at(sums[1], index, self.denominator)
        return Terms(sums[0], sums[1])


Estimator = Callable[[LoggedChoices], Terms]


def direct_method(log: LoggedChoices) -> Terms:
    """The model's word alone.

    Raises:
        InvalidInput: the log has no model's predictions (as for all estimators that use q).
    """
    _, expected = _model(log)
    return _mean(expected)


def ips(log: LoggedChoices, clip: float = math.inf) -> Terms:
    """Inverse propensity scoring."""
    return _mean(clipped(log.weights, clip) * log.reward)


def snips(log: LoggedChoices, clip: float = math.inf) -> Terms:
    """Self-normalised IPS: bounded by the rewards, and indifferent to a constant added to them."""
    weights = clipped(log.weights, clip)
    return _weighted(weights * log.reward, weights)


def doubly_robust(log: LoggedChoices, clip: float = math.inf) -> Terms:
    """Unbiased when either the propensities or the model are right."""
    predicted, expected = _model(log)
    return _mean(expected, clipped(log.weights, clip) * (log.reward - predicted))


def self_normalised_dr(log: LoggedChoices, clip: float = math.inf) -> Terms:
    """DR whose correction is divided by the sum of the weights."""
    predicted, expected = _model(log)
    weights = clipped(log.weights, clip)
    return _weighted(weights * (log.reward - predicted), weights, expected)


def switch_dr(log: LoggedChoices, threshold: float) -> Terms:
    """DR that trusts the model alone where the weight exceeds ``threshold``: 0 is DM, infinity is DR."""
    _positive(threshold, "threshold", zero=True)
    predicted, expected = _model(log)
    weights = log.weights
    return _mean(expected, np.where(weights <= threshold, weights, 0.0) * (log.reward - predicted))


def dr_shrunk(log: LoggedChoices, shrinkage: float) -> Terms:
    """DR with optimistic shrinkage: 0 is DM, infinity is DR; in between it bounds every weight by √λ / 2."""
    predicted, expected = _model(log)
    return _mean(expected, shrunk(log.weights, shrinkage) * (log.reward - predicted))


def clipped(weights: np.ndarray, clip: float) -> np.ndarray:
    """min(w, clip).

    Raises:
        InvalidInput: ``clip`` is not above 0.
    """
    _positive(clip, "clip")
    return np.minimum(weights, clip)


def shrunk(weights: np.ndarray, shrinkage: float) -> np.ndarray:
    """λ w / (w² + λ).

    Raises:
        InvalidInput: ``shrinkage`` is negative or NaN.
    """
    _positive(shrinkage, "shrinkage", zero=True)
    if math.isinf(shrinkage):
        return weights
    if shrinkage == 0:
        return np.zeros_like(weights)
    result: np.ndarray = shrinkage * weights / (weights**2 + shrinkage)
    return result


#: Candidates for :func:`tuned`, those of Saito et al. 2021 (Open Bandit Pipeline).
CANDIDATES = (10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, math.inf)


def tuned(
    estimator: Callable[[LoggedChoices, float], Terms],
    log: LoggedChoices,
    candidates: tuple[float, ...] = CANDIDATES,
    delta: float = 0.1,
) -> tuple[float, Terms]:
    """Choose a hyperparameter from the data by SLOPE (Su, Srinath & Krishnamurthy 2020; Tucker & Lee 2021).

    From the widest confidence interval to the narrowest, go on while the estimate agrees with every wider one; the
    last that agrees has the least variance among those whose bias does not show. Intervals are normal, at 1 - delta.

    Returns:
        The chosen hyperparameter and its terms.
    """
    if not candidates:
        raise InvalidInput("candidates must not be empty")
    quantile = NormalDist().inv_cdf(1 - delta)
    tried = [(candidate, estimator(log, candidate)) for candidate in candidates]
    tried.sort(key=lambda pair: -pair[1].standard_error)
    agreed: list[tuple[float, float]] = []
    best = tried[0]
    for pair in tried:
        value, width = pair[1].value, pair[1].standard_error * quantile
        if any(abs(value - other) > width + (math.sqrt(6) - 1) * wider for other, wider in agreed):
            break
        agreed.append((value, width))
        best = pair
    return best


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _mean(*parts: np.ndarray) -> Terms:
    values = np.stack(parts, axis=1)
    return Terms(values, np.ones_like(values))


def _weighted(values: np.ndarray, weights: np.ndarray, *means: np.ndarray) -> Terms:
    ones = [np.ones_like(weights) for _ in means]
    return Terms(np.stack([values, *means], axis=1), np.stack([weights, *ones], axis=1))


def _model(log: LoggedChoices) -> tuple[np.ndarray, np.ndarray]:
    if log.predicted is None or log.expected is None:
        raise InvalidInput("this estimator needs a reward model: give the log its predictions")
    return log.predicted, log.expected


def _positive(value: float, name: str, zero: bool = False) -> None:
    if math.isnan(value) or value < 0 or (value == 0 and not zero):
        raise InvalidInput(f"{name} must be {'at least' if zero else 'above'} 0, not {value}")
