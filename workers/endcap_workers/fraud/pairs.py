"""Who did something with what, how often and when: sorted arrays of bounded length."""

from __future__ import annotations

import numpy as np

_SHIFT = np.uint64(32)


class Pairs:
    """Counts of pairs of two uint32. Above ``most`` pairs, those not seen for longest are given up.

    ``keys`` (uint64, sorted: left << 32 | right), ``counts`` (float32), ``first`` and ``last`` (float64 seconds): 28
    bytes a pair.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.keys = np.empty(0, dtype=np.uint64)
        self.counts = np.empty(0, dtype=np.float32)
        self.first, self.last = np.empty(0), np.empty(0)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def left(self) -> np.ndarray:
        """int64 (n,), sorted."""
        return (self.keys >> _SHIFT).astype(np.int64)

    @property
    def right(self) -> np.ndarray:
        """uint32 (n,)."""
        return self.keys.astype(np.uint32)

    def add(self, left: np.ndarray, right: np.ndarray, times: np.ndarray) -> None:
        """Count every pair of ``left`` (below 2**32) and ``right`` (uint32) once at its time; all (m,)."""
        if not len(left):
            return
        keys = (left.astype(np.uint64) << _SHIFT) | right.astype(np.uint64)
        order = np.argsort(keys, kind="stable")
        keys, times = keys[order], times[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        unique = keys[starts]
        counts = np.diff(np.r_[starts, len(keys)]).astype(np.float32)
        first, last = np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)
        place = np.searchsorted(self.keys, unique)
        at = np.minimum(place, max(len(self) - 1, 0))
        known = self.keys[at] == unique if len(self) else np.zeros(len(unique), dtype=bool)
        here = at[known]
        self.counts[here] += counts[known]
        self.first[here] = np.minimum(self.first[here], first[known])
        self.last[here] = np.maximum(self.last[here], last[known])
        where = place[~known]
        self.keys = np.insert(self.keys, where, unique[~known])
        self.counts = np.insert(self.counts, where, counts[~known])
        self.first = np.insert(self.first, where, first[~known])
        self.last = np.insert(self.last, where, last[~known])
        if len(self) > self._most:
            self.keep(np.sort(np.argpartition(-self.last, self._most * 7 // 8)[: self._most * 7 // 8]))

    def keep(self, rows: np.ndarray) -> None:
        """Only these rows (sorted indices or a mask)."""
        self.keys, self.counts = self.keys[rows], self.counts[rows]
        self.first, self.last = self.first[rows], self.last[rows]

    def renumber(self, new: np.ndarray) -> None:
        """``new``: int64, the new number of each left, -1 for those that are gone; order must be kept."""
        left = new[self.left]
        self.keep(left >= 0)
        self.keys = (left[left >= 0].astype(np.uint64) << _SHIFT) | self.keys.astype(np.uint32).astype(np.uint64)
