"""Position bias: how probable it is that a shopper looks at a place at all, estimated from what was clicked.

The examination model (Richardson et al. 2007; Craswell et al. 2008): P(click) = P(place is examined) x P(product
attracts). Two ways to part the one from the other, neither of which needs to know what attracts:

- :func:`from_swaps`: pairs of neighbours were shown in either order by a coin (FairPairs, Radlinski & Joachims 2006).
- :func:`harvested`: the same product stood at different places for the same query because different rankings were in
  force: intervention harvesting (Agarwal et al. 2019), which needs no randomisation beyond the exploration that a
  policy does anyway.

Clicks divided by these propensities say what products are worth, not where they stood (Joachims, Swaminathan & Schnabel
2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from endcap.errors import InvalidInput

#: Pseudo-clicks of every pair of places, at the prior's ratio: with little data the estimate stays near it.
_PRIOR = 5.0
#: Largest weight of a click.
MOST_WEIGHT = 20.0


@dataclass(frozen=True, slots=True)
class Examination:
    """``propensity``: (places,), examination relative to the first place, in (0, 1], not rising; ``clicks``: how many
    clicks each rests on, (places,)."""

    propensity: np.ndarray
    clicks: np.ndarray

    def of(self, position: np.ndarray) -> np.ndarray:
        """Of positions from 1; beyond the last place its propensity is that of the last."""
        place = np.clip(np.asarray(position, dtype=np.int64), 1, len(self.propensity)) - 1
        result: np.ndarray = self.propensity[place]
        return result

    def weights(self, position: np.ndarray, most: float = MOST_WEIGHT) -> np.ndarray:
        """What a click at a position counts: 1 / propensity, at most ``most`` (clipping trades variance for bias)."""
        return np.minimum(1.0 / self.of(position), most)


def assumed(places: int) -> Examination:
    """Where nothing is known: 1 / log2(1 + position)."""
    return Examination(_usual(places), np.zeros(places))


def from_swaps(places: int, upper: np.ndarray, clicks_upper: np.ndarray, clicks_lower: np.ndarray) -> Examination:
    """From neighbours that were shown in either order with probability 1/2.

    The same products stand at the upper and the lower place equally often, so that the ratio of the two places' clicks
    is the ratio of their examination.

    Args:
        places: how many to estimate.
        upper: int (n,), position of the upper one of each swapped pair, from 1.
        clicks_upper, clicks_lower: (n,), clicks on whatever stood there, 0 or 1.

    Raises:
        InvalidInput: shapes differ, or positions are not from 1 to places - 1.
    """
    upper = np.asarray(upper, dtype=np.int64)
    if places < 2 or upper.shape != np.shape(clicks_upper) or upper.shape != np.shape(clicks_lower):
        raise InvalidInput("pairs need a position and the clicks of both places, and there must be two places")
    if len(upper) and (upper.min() < 1 or upper.max() >= places):
        raise InvalidInput(f"the upper place of a pair must be from 1 to {places - 1}")
    above = np.bincount(upper - 1, weights=clicks_upper, minlength=places)[: places - 1]
    below = np.bincount(upper - 1, weights=clicks_lower, minlength=places)[: places - 1]
    usual = _usual(places)
    ratios = (below + _PRIOR * usual[1:] / usual[:-1]) / (above + _PRIOR)
    propensity = np.r_[1.0, np.cumprod(np.minimum(ratios, 1.0))]
    return Examination(_decreasing(propensity), np.r_[above, 0.0] + np.r_[0.0, below])


def harvested(
    places: int, item: np.ndarray, position: np.ndarray, clicked: np.ndarray, rounds: int = 50
) -> Examination:
    """From the same products at different places: the all-pairs estimator of Agarwal et al. 2019.

    For each two places k < l, only items count that stood at both; each is weighted so that it counts alike at both, by
    how often it stood there. Then the propensities are fitted that explain all pairs' click rates best.

    Args:
        places: how many to estimate.
        item: int (n,), a label of (query, product): an impression each. position: int (n,), from 1.
        clicked: (n,), 0 or 1.
        rounds: of the fit.

    Raises:
        InvalidInput: shapes differ, or nothing ever stood at two places.
    """
    item, position = np.asarray(item, dtype=np.int64), np.asarray(position, dtype=np.int64)
    clicked = np.asarray(clicked, dtype=np.float64)
    if not (item.shape == position.shape == clicked.shape) or places < 2:
        raise InvalidInput("impressions need an item, a position and whether it was clicked")
    kept = (position >= 1) & (position <= places)
    _, label = np.unique(item[kept], return_inverse=True)
    place, clicked = position[kept] - 1, clicked[kept]
    # Most products of a large log stood at one place only: they are put aside before there is a table of all places.
    moved = np.bincount(np.unique(label * places + place) // places, minlength=1) > 1
    if not moved.any():
        raise InvalidInput("no product ever stood at two places for the same query: nothing tells places from products")
    row = (np.cumsum(moved) - 1)[label]
    cell = (row * places + place)[moved[label]]
    size = int(moved.sum()) * places
    shown = np.bincount(cell, minlength=size).reshape(-1, places).astype(np.float64)
    clicks = np.bincount(cell, weights=clicked[moved[label]], minlength=size).reshape(-1, places)
    # (k, l): weighted clicks at k of what also stood at l. Each pair of places, its items weighted by the harmonic mean
    # of how often they stood at either.
    at_first = np.zeros((places, places))
    for k in range(places):
        there = shown[:, k] > 0
        here, other = shown[there, k, None], shown[there]
        at_first[k] = (clicks[there, k, None] * other / (here + other)).sum(axis=0)
    np.fill_diagonal(at_first, 0.0)
    usual = _usual(places)
    at_first += _PRIOR * usual[:, None] / (usual[:, None] + usual[None, :]) * (1 - np.eye(places))
    # Bradley-Terry by minorisation (Hunter 2004): clicks at k against those at l are won with p_k / (p_k + p_l).
    total = at_first + at_first.T
    strength = usual.copy()
    for _ in range(rounds):
        expected = (total / (strength[:, None] + strength[None, :])).sum(axis=1)
        strength = at_first.sum(axis=1) / np.maximum(expected, 1e-12)
        strength /= strength[0]
    return Examination(_decreasing(np.minimum(strength, 1.0)), clicks.sum(axis=0))


def _usual(places: int) -> np.ndarray:
    """Examination where nothing is known: 1 / log2(1 + position)."""
    return np.array([1 / math.log2(1 + position) for position in range(1, places + 1)])


def _decreasing(values: np.ndarray) -> np.ndarray:
    """The nearest sequence that does not rise (pool adjacent violators), its first value 1."""
    sums: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        sums.append(value)
        counts.append(1)
        while len(sums) > 1 and sums[-1] / counts[-1] > sums[-2] / counts[-2]:
            last, count = sums.pop(), counts.pop()
            sums[-1] += last
            counts[-1] += count
    flat = np.concatenate([np.full(count, total / count) for total, count in zip(sums, counts)])
    result: np.ndarray = np.maximum(flat / flat[0], 1e-3)
    return result
