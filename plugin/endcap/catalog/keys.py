"""A set of 64-bit keys in little memory: which products were seen in files of many millions."""

from __future__ import annotations

import numpy as np

_RECENT = 200_000


class KeySet:
    """Keys (unsigned 64-bit integers) at 8 bytes each, plus a bounded set of the latest.

    Products are named by :func:`endcap.catalog.product.product_key`, whose collisions are negligible.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, key: int) -> bool:
        if key in self._recent:
            return True
        at = int(np.searchsorted(self._sorted, np.uint64(key)))
        return at < len(self._sorted) and int(self._sorted[at]) == key

    def add(self, key: int) -> bool:
        """Add a key; False if it was there."""
        if key in self:
            return False
        self._recent.add(key)
        if len(self._recent) >= _RECENT:
            new = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, new]))
            self._recent.clear()
        return True
