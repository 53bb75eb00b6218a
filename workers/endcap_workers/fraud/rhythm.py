"""How much each shopper does over the months, and since when he does it as now: the change against his own past.

An account that was made long ago, bought a little so as to look like a customer, and then pushes, is not new. What it
does has a beginning all the same: the rate of its actions changes at once. The most likely change point of a Poisson
process whose rate rises (Chernoff and Zacks, 1964; Raftery and Akman, 1986) is that beginning, where the rise is large.
"""

from __future__ import annotations

import numpy as np

from endcap.profiles import DAY_S

#: Days of one count, how far before the window counts begin, and how many there are.
BUCKET_DAYS, BEFORE_DAYS, BUCKETS = 10.0, 240.0, 40
#: A rise counts from so many times the rate before, with so many actions after it, after so many days of less.
RISE, FEWEST_AFTER, LEAST_BEFORE_DAYS = 3.0, 8, 40.0
#: Natural logarithm of how much likelier two rates must be than one.
EVIDENCE = 6.0
#: Shoppers looked at at once.
_CHUNK = 50_000


class Rhythm:
    """Counts of actions per shopper (row) and ten days: 80 bytes a shopper."""

    def __init__(self, since: float) -> None:
        """``since``: when the window begins, seconds since 1970. What lies 240 days before it is not counted."""
        self._origin = since - BEFORE_DAYS * DAY_S
        self.counts = np.zeros((1024, BUCKETS), dtype=np.uint16)

    def copy(self) -> Rhythm:
        other = Rhythm(self._origin + BEFORE_DAYS * DAY_S)
        other.counts = self.counts.copy()
        return other

    def add(self, rows: np.ndarray, times: np.ndarray, shoppers: int) -> None:
        """Count actions of ``rows`` at ``times``, both (n,); ``shoppers``: rows there are."""
        if shoppers > len(self.counts):
            grown = np.zeros((shoppers * 3 // 2, BUCKETS), dtype=np.uint16)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        bucket = np.floor((times - self._origin) / (BUCKET_DAYS * DAY_S)).astype(np.int64)
        inside = bucket >= 0
        keys = rows[inside] * BUCKETS + np.minimum(bucket[inside], BUCKETS - 1)
        unique, more = np.unique(keys, return_counts=True)
        flat = self.counts.reshape(-1)
        flat[unique] = np.minimum(flat[unique].astype(np.int64) + more, np.iinfo(np.uint16).max)

    def keep(self, rows: np.ndarray) -> None:
        """Only these rows, in this order."""
        kept = self.counts[rows]
        self.counts = np.zeros((max(len(kept), 1024), BUCKETS), dtype=np.uint16)
        self.counts[: len(kept)] = kept

    def rises(self, rows: np.ndarray, first: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray]:
        """When each shopper began to do as much as now, and how many times as much that is; both float64 (rows,).

        ``first``: when each was first seen, seconds since 1970. Without a rise: ``first``, and 1.
        """
        found = [
            self._rises(rows[at : at + _CHUNK], first[at : at + _CHUNK], now) for at in range(0, len(rows), _CHUNK)
        ]
        if not found:
            return np.empty(0), np.empty(0)
        moments, rises = zip(*found)
        return np.concatenate(moments), np.concatenate(rises)

    def _rises(self, rows: np.ndarray, first: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray]:
        width = BUCKET_DAYS * DAY_S
        last = int(np.clip(np.floor((now - self._origin) / width), 0, BUCKETS - 1))
        counts = self.counts[rows, : last + 1].astype(np.float64)
        start = np.clip(np.floor((first - self._origin) / width), 0, last).astype(np.int64)
        done = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(counts, axis=1)], axis=1)
        total, began = done[:, -1], np.maximum(first, self._origin)
        likeliest, at, rise = np.full(len(rows), EVIDENCE), first.copy(), np.ones(len(rows))
        for split in range(1, last + 1):
            moment = self._origin + split * width
            before, after = (moment - began) / DAY_S, (now - moment) / DAY_S
            here = (split > start) & (before >= LEAST_BEFORE_DAYS) & (after > 0)
            less, more = done[:, split], total - done[:, split]
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = (more / after) / np.maximum(less / before, 0.5 / before)
                gain = (
                    np.where(less > 0, less * np.log(less / before), 0.0)
                    + np.where(more > 0, more * np.log(more / after), 0.0)
                    - np.where(total > 0, total * np.log(total / (before + after)), 0.0)
                )
            better = here & (rate >= RISE) & (more >= FEWEST_AFTER) & (gain > likeliest)
            likeliest, at = np.where(better, gain, likeliest), np.where(better, moment, at)
            rise = np.where(better, rate, rise)
        return at, rise
