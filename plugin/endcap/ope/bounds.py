"""How much an off-policy estimate can be trusted: effective sample size and lower bounds."""

from __future__ import annotations

import math

import numpy as np

from endcap.errors import InvalidInput
from endcap.ope.estimators import Terms

_CELLS = 4_000_000  # resampling counts held at once: 32 MB


def effective_sample_size(weights: np.ndarray) -> float:
    """(Σ w)² / Σ w² (Kish 1965): so many decisions of the evaluated policy itself would say as much."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def bootstrap_lower_bound(terms: Terms, level: float = 0.95, resamples: int = 1_000, seed: int = 0) -> float:
    """One-sided percentile bound (Efron 1979): the estimate of the policy is at least this, at ``level``.

    Asymptotic: trust it with some tens of rewarded decisions or more. The same seed gives the same bound.

    Raises:
        InvalidInput: ``level`` is not in (0, 1), or there are fewer than 100 resamples.
    """
    check_level(level)
    if resamples < 100:
        raise InvalidInput(f"a bound needs at least 100 resamples, not {resamples}")
    random = np.random.default_rng(seed)
    size = len(terms)
    estimates = []
    left = resamples
    while left:
        rows = min(left, max(1, _CELLS // size))
        drawn = random.integers(0, size, (rows, size))
        drawn += np.arange(rows)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        estimates.append(terms.resampled(counts))
        left -= rows
    return float(np.quantile(np.concatenate(estimates), 1 - level))


def empirical_bernstein_lower_bound(values: np.ndarray, low: float, high: float, level: float = 0.95) -> float:
    """A bound on the mean of independent values in [low, high] that holds at every sample size.

    Maurer & Pontil 2009, theorem 4: mean - sqrt(2 V ln(2/δ) / n) - 7 (high - low) ln(2/δ) / (3 (n - 1)), V being the
    sample variance. For IPS clipped at c with rewards in [0, R], low is 0 and high is c R; clipping keeps it valid.

    Raises:
        InvalidInput: fewer than two values, a value outside the range, or a level that is not in (0, 1).
    """
    check_level(level)
    if len(values) < 2:
        raise InvalidInput("an empirical-Bernstein bound needs at least two values")
    if not math.isfinite(high - low) or values.min() < low or values.max() > high:
        raise InvalidInput(f"values reach from {values.min():.6g} to {values.max():.6g}, outside [{low}, {high}]")
    size, log_term = len(values), math.log(2 / (1 - level))
    spread = math.sqrt(2 * float(values.var(ddof=1)) * log_term / size)
    return float(values.mean()) - spread - 7 * (high - low) * log_term / (3 * (size - 1))


def check_level(level: float) -> None:
    """Refuse what is no level of confidence.

    Raises:
        InvalidInput: not in (0, 1).
    """
    if not 0 < level < 1:
        raise InvalidInput(f"level must be between 0 and 1, not {level}")
