"""How sure a difference of the cold-products table is: over seeds, and over products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Of Student's t with so many degrees of freedom, two-sided 95%.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
_DRAWS = 1_000


def half_width(values: Sequence[float]) -> float:
    """Half of the 95% interval of a mean over seeds, by Student's t; NaN for fewer than two values or more than ten."""
    if len(values) - 1 not in _T95:
        return math.nan
    return _T95[len(values) - 1] * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def over_products(gaps: Sequence[np.ndarray], products: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """95% interval of the mean of the seeds' mean gaps, by a bootstrap that draws whole products within each seed.

    It says what other hidden products would have made of the same recommenders; what other recommenders would, only
    :func:`half_width` says.

    Args:
        gaps: for each seed the difference of each case, (m,). products: the product that each case is about, (m,).
    """
    draw = np.random.default_rng([seed, 24])
    total = np.zeros(_DRAWS)
    for gap, about in zip(gaps, products, strict=True):
        _, place = np.unique(about, return_inverse=True)
        count = np.bincount(place).astype(float)
        weight = draw.multinomial(len(count), np.full(len(count), 1.0 / len(count)), _DRAWS)
        total += (weight @ np.bincount(place, gap)) / (weight @ count)
    low, high = np.quantile(total / len(gaps), [0.025, 0.975])
    return float(low), float(high)
