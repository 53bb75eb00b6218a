"""Products that surprisingly many new shoppers chose: the trace of a farm, however ordinary each account looks.

A farm that copies real baskets is not to be told from a shopper by what is in them; what all of its accounts share is
the product that they push, and that they are new. Per product, the number of new shoppers among those who chose it is
held against the share of new ones among all choices: a beta-binomial tail, whose dispersion comes from the products
themselves. Accounts that are old, but do far more than they used to (:mod:`.rhythm`), are looked for in the same way,
among the old ones: what is new there is not the shopper but what he does. In the spirit of lockstep and dense-block
detection (CatchSync, Jiang et al., 2014; FRAUDAR, Hooi et al., 2016), with the shop's own mix in the place of a
graph's density.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap.profiles import DAY_S
from endcap_workers.fraud.pairs import Pairs
from endcap_workers.fraud.rhythm import LEAST_BEFORE_DAYS

#: A shopper is new to the shop for so long; each age is tested, the most surprising counts.
NEW_DAYS = (7.0, 30.0, 90.0)
#: Fewer choosers, or new ones among them, than this are no crowd.
FEWEST = 5
#: Products below this surprise (digits) are not set aside; and how often that is done at most.
_FLOOR, _PEELS = 3.0, 25
#: Surprise beyond so many digits says nothing more.
_MOST_DIGITS = 300.0
#: What 90 % of squared standard normal deviations lie below.
_CHI_SQUARED_90 = 2.706


@dataclass(frozen=True, slots=True)
class Push:
    """``products``: uint32 short keys (p,), sorted; ``surprise``: float64 (p,) minus the decimal logarithm of the
    tail probability; ``choosers`` and ``new``: int64 (p,), shoppers and the new ones among them, at the age that
    surprises most. ``shoppers``: float64 (n,) largest surprise of a product that the shopper chose while new;
    ``culprit``: int64 (n,) the row in ``products`` of it, -1 where there is none; ``second``: float64 (n,) the second
    largest surprise, of another product that the same shopper chose while new; ``shares``: of a shopper's choices, the
    share on products of a surprise above 3 digits."""

    products: np.ndarray
    surprise: np.ndarray
    choosers: np.ndarray
    new: np.ndarray
    shoppers: np.ndarray
    culprit: np.ndarray
    second: np.ndarray
    shares: np.ndarray


def pushes(chosen: Pairs, first_seen: np.ndarray, shoppers: int) -> Push:
    """``chosen``: pairs of shopper (row) and product; ``first_seen``: float64 (shoppers,), seconds since 1970.

    The most surprising products are taken first, and the new shoppers who chose them set aside, before the others are
    looked at again: baskets that a farm copies would make half the shop's products look pushed.
    """
    left = chosen.left
    products, inverse = np.unique(chosen.right, return_inverse=True)
    count = np.bincount(inverse, minlength=len(products))
    surprise, most_new = np.zeros(len(products)), np.zeros(len(products), dtype=np.int64)
    largest, second, culprit = np.zeros(shoppers), np.zeros(shoppers), np.full(shoppers, -1, dtype=np.int64)
    age = (chosen.first - first_seen[left]) / DAY_S if len(left) else np.empty(0)
    there = np.ones(len(left), dtype=bool)
    for _ in range(_PEELS):
        digits, fresh, pair = _look(age, inverse, there, len(products))
        level = max(_FLOOR, float(digits.max(initial=0.0)) / 2)
        taken = digits >= level
        blamed = pair >= level
        last = not taken.any()
        if last:
            blamed = pair > 0
        better = digits > surprise if last else taken & (digits > surprise)
        surprise, most_new = np.where(better, digits, surprise), np.where(better, fresh, most_new)
        rows = np.flatnonzero(blamed)
        rows = rows[np.argsort(pair[rows], kind="stable")]  # the most surprising is written last
        stronger = rows[pair[rows] > largest[left[rows]]]
        culprit[left[stronger]] = inverse[stronger]
        np.maximum.at(largest, left[rows], pair[rows])
        _keep_second(second, left, pair, blamed)
        if last:
            break
        aside = np.zeros(shoppers, dtype=bool)
        aside[left[blamed]] = True
        there &= ~aside[left]
    total = np.bincount(left, weights=chosen.counts, minlength=shoppers)
    pushed = np.bincount(left, weights=chosen.counts * (surprise[inverse] > _FLOOR), minlength=shoppers)
    shares = np.divide(pushed, total, out=np.zeros(shoppers), where=total > 0)
    return Push(products, surprise, count, most_new, largest, culprit, second, shares)


def _keep_second(second: np.ndarray, left: np.ndarray, pair: np.ndarray, blamed: np.ndarray) -> None:
    """The second largest surprise of each shopper who is set aside in this round, into ``second``."""
    aside = np.zeros(len(second), dtype=bool)
    aside[left[blamed]] = True
    rows = np.flatnonzero((pair > 1) & aside[left])
    rows = rows[np.lexsort((-pair[rows], left[rows]))]
    who = left[rows]
    # In each shopper's row of values, falling: the one after the first.
    after = np.flatnonzero(np.r_[False, who[1:] == who[:-1]] & ~np.r_[False, False, who[2:] == who[:-2]])
    second[who[after]] = pair[rows[after]]


def woken_pushes(chosen: Pairs, first_seen: np.ndarray, began: np.ndarray, shoppers: int) -> Push:
    """As :func:`pushes`, of shoppers who are not new: since when each does as much as now takes the place of when he
    was first seen. ``began``: float64 (shoppers,), seconds since 1970."""
    old = chosen.first - first_seen[chosen.left] > LEAST_BEFORE_DAYS * DAY_S
    kept = Pairs(max(len(chosen), 1))
    kept.keys, kept.counts, kept.first, kept.last = chosen.keys, chosen.counts, chosen.first, chosen.last
    kept.keep(old)
    return pushes(kept, began, shoppers)


def _look(
    age: np.ndarray, inverse: np.ndarray, there: np.ndarray, products: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surprise (digits) and new choosers per product, and the largest surprise per pair; of the pairs still there."""
    count = np.bincount(inverse[there], minlength=products)
    surprise, most_new = np.zeros(products), np.zeros(products, dtype=np.int64)
    pair = np.zeros(len(age))
    for days in NEW_DAYS:
        new = there & (age <= days)
        fresh = np.bincount(inverse[new], minlength=products)
        digits = _surprise(fresh, count)
        more = digits > surprise
        surprise, most_new = np.where(more, digits, surprise), np.where(more, fresh, most_new)
        pair = np.maximum(pair, np.where(new, digits[inverse], 0.0))
    return surprise, most_new, pair


def _surprise(new: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Digits of the tail probability of at least ``new`` among ``count``; 0 for fewer than ``FEWEST`` choosers."""
    found = np.zeros(len(count))
    crowd = count >= FEWEST
    if crowd.sum() < 2:
        return found
    new, size = new[crowd].astype(np.float64), count[crowd].astype(np.float64)
    rates = new / size
    rate = float(np.clip(np.average(rates, weights=np.minimum(size, 50)), 1e-4, 1 - 1e-4))
    # A farm's own products must not set what is usual: a quantile of the deviations does, not their mean.
    inflation = float(np.quantile((rates - rate) ** 2 * size, 0.9)) / (rate * (1 - rate)) / _CHI_SQUARED_90
    correlation = float(np.clip((inflation - 1) / max(float(np.median(size)) - 1, 1.0), 1e-4, 0.5))
    scale = 1 / correlation - 1
    digits = -_log_tail(new, size, rate * scale, (1 - rate) * scale) / np.log(10)
    found[crowd] = np.where((rates > rate) & (new >= FEWEST), np.clip(digits, 0.0, _MOST_DIGITS), 0.0)
    return found


def _log_tail(hits: np.ndarray, size: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Logarithm of a beta-binomial's upper tail: the first term, times the geometric series that bounds the rest
    (SciPy takes one minus the lower tail, which says nothing beyond 16 digits)."""
    from scipy.special import betaln, gammaln

    def log_pmf(value: np.ndarray) -> np.ndarray:
        ways = gammaln(size + 1) - gammaln(value + 1) - gammaln(size - value + 1)
        return np.asarray(ways + betaln(value + alpha, size - value + beta) - betaln(alpha, beta))

    first = log_pmf(hits)
    after = log_pmf(np.minimum(hits + 1, size))
    ratio = np.where(hits < size, np.exp(np.minimum(after - first, 0.0)), 0.0)
    terms = np.minimum(size - hits + 1, 1 / np.maximum(1 - ratio, 1e-9))
    return np.minimum(first + np.log(terms), 0.0)
