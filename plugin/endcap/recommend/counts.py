"""What is counted about pairs, in sorted arrays of bounded length: products bought together, shopper and product.

New pairs wait in a small buffer and are merged into the arrays from time to time, so that readers get an immutable
snapshot and a merge costs little per event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap.profiles import DAY_S

_SHIFT = np.uint64(32)
#: Purchases of one product by one shopper within this time are one.
_SAME_S = 12 * 3600.0


def pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two uint32 as one uint64: all pairs of one ``left`` lie side by side."""
    return (left.astype(np.uint64) << _SHIFT) | right.astype(np.uint64)


def _slice(keys: np.ndarray, left: int) -> slice:
    low, high = left << 32, ((left + 1) << 32) - 1
    return slice(int(np.searchsorted(keys, np.uint64(low))), int(np.searchsorted(keys, np.uint64(high), side="right")))


class PairCounts:
    """How often pairs occurred: at most ``most`` of them, the rarest given up first.

    ``keys`` (uint64, sorted) and ``counts`` (float32) take 12 bytes a pair.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.state = (np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.state[0])

    def add(self, keys: np.ndarray) -> None:
        """Count every key (uint64, any order, repeated as often as it occurred)."""
        unique, times = np.unique(keys, return_counts=True)
        old, counts = self.state
        place = np.searchsorted(old, unique)
        at = np.minimum(place, max(len(old) - 1, 0))
        known = (old[at] == unique) if len(old) else np.zeros(len(unique), dtype=bool)
        grown = counts.copy()
        grown[at[known]] += times[known]
        merged = np.insert(old, place[~known], unique[~known])
        sums = np.insert(grown, place[~known], times[~known].astype(np.float32))
        if len(merged) > self._most:
            # Give up somewhat more than needed, so that this is not done at every turn.
            keep = np.sort(np.argpartition(-sums, self._most * 7 // 8)[: self._most * 7 // 8])
            merged, sums = merged[keep], sums[keep]
        self.state = (merged, sums)

    def of(self, left: int) -> tuple[np.ndarray, np.ndarray]:
        """What occurred with ``left``: uint32 (m,) and float32 counts (m,)."""
        keys, counts = self.state
        here = _slice(keys, left)
        return keys[here].astype(np.uint32), counts[here]

    def read(self, keys: np.ndarray) -> np.ndarray:
        """The counts of these pairs; float32, 0 where unknown."""
        known, counts = self.state
        if not len(known):
            return np.zeros(len(keys), dtype=np.float32)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[place] == keys, counts[place], np.float32(0.0))


@dataclass(frozen=True, slots=True)
class Repeats:
    """When shoppers bought products: ``keys`` (uint64 pairs of shopper and product, sorted), ``first`` and ``last``
    (uint32, seconds since 1970), ``times`` (uint16, purchases, several on one day counted once). 18 bytes a pair."""

    keys: np.ndarray
    first: np.ndarray
    last: np.ndarray
    times: np.ndarray

    @classmethod
    def none(cls) -> Repeats:
        return cls(
            np.empty(0, dtype=np.uint64),
            np.empty(0, dtype=np.uint32),
            np.empty(0, dtype=np.uint32),
            np.empty(0, dtype=np.uint16),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: np.ndarray, moments: np.ndarray, most: int) -> Repeats:
        """With more purchases (uint64 and float64 seconds, both (m,)); above ``most`` pairs, those not seen for
        longest are given up."""
        order = np.lexsort((moments, keys))
        keys, moments = keys[order], moments[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        unique = keys[starts]
        place = np.searchsorted(self.keys, unique)
        at = np.minimum(place, max(len(self) - 1, 0))
        known = (self.keys[at] == unique) if len(self) else np.zeros(len(unique), dtype=bool)
        before = np.full(len(unique), -np.inf)
        before[known] = self.last[at[known]]
        earlier = np.r_[-np.inf, moments[:-1]]
        earlier[starts] = before
        counted = np.add.reduceat((moments - earlier > _SAME_S).astype(np.int64), starts)
        first, last = moments[starts], np.maximum.reduceat(moments, starts)

        grown_first, grown_last, grown_times = self.first.copy(), self.last.copy(), self.times.copy()
        here = at[known]
        grown_first[here] = np.minimum(grown_first[here], first[known]).astype(np.uint32)
        grown_last[here] = np.maximum(grown_last[here], last[known]).astype(np.uint32)
        grown_times[here] = np.minimum(grown_times[here] + counted[known], 65_535).astype(np.uint16)
        new, where = ~known, place[~known]
        merged = Repeats(
            np.insert(self.keys, where, unique[new]),
            np.insert(grown_first, where, first[new].astype(np.uint32)),
            np.insert(grown_last, where, last[new].astype(np.uint32)),
            np.insert(grown_times, where, np.minimum(counted[new], 65_535).astype(np.uint16)),
        )
        if len(merged) <= most:
            return merged
        keep = np.sort(np.argpartition(-merged.last.astype(np.int64), most * 7 // 8)[: most * 7 // 8])
        return Repeats(merged.keys[keep], merged.first[keep], merged.last[keep], merged.times[keep])

    def of(self, shopper: int) -> Repeats:
        """What one shopper (a uint32) bought; the keys' low halves are the products'."""
        here = _slice(self.keys, shopper)
        return Repeats(self.keys[here], self.first[here], self.last[here], self.times[here])

    def cycles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How long until a product is bought again: products (uint32, sorted), the geometric mean of the days
        between two purchases (float32), and of how many gaps (int64)."""
        again = np.flatnonzero((self.times > 1) & (self.last > self.first))
        gaps = self.times[again].astype(np.float64) - 1.0
        days = np.log((self.last[again].astype(np.float64) - self.first[again]) / gaps / DAY_S)
        products, inverse = np.unique(self.keys[again].astype(np.uint32), return_inverse=True)
        total = np.bincount(inverse, weights=gaps, minlength=len(products))
        mean = np.bincount(inverse, weights=gaps * days, minlength=len(products)) / np.maximum(total, 1.0)
        return products, np.exp(mean).astype(np.float32), total.astype(np.int64)
