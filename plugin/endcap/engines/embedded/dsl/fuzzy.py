"""Which indexed words are within some edits of a word.

tantivy's own fuzzy query finds the documents but scores them all alike; here the words themselves are wanted, so that
each can be scored by BM25. Edits are Damerau's (optimal string alignment): insert, delete, replace, or swap neighbours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import parsing
from .values import as_int

#: Longer words are compared exactly only: nobody types them with a typo that matters, and the table stays narrow.
MAX_LENGTH = 32

_AUTO = re.compile(r"AUTO(?::(\d+),(\d+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fuzziness:
    """Edits allowed by length: none below ``low`` characters, one below ``high``, else two; or always ``fixed``."""

    low: int = 3
    high: int = 6
    fixed: int | None = None

    @classmethod
    def parse(cls, value: Any) -> Fuzziness:
        """``AUTO``, ``AUTO:low,high``, 0, 1 or 2 (also as strings).

        Raises:
            DslError: anything else.
        """
        if isinstance(value, str) and (match := _AUTO.fullmatch(value.strip())):
            if match[1] is None:
                return cls()
            low, high = int(match[1]), int(match[2])
            if low > high:
                raise parsing(f"fuzziness wants AUTO:low,high with low <= high, got [{value}]")
            return cls(low, high)
        edits = as_int(value, "fuzziness")
        if edits > 2:
            raise parsing(f"Valid edit distances are [0, 1, 2] but was [{value}]")
        return cls(fixed=edits)

    def edits(self, word: str) -> int:
        if self.fixed is not None:
            return self.fixed
        return 0 if len(word) < self.low else 1 if len(word) < self.high else 2


class Vocabulary:
    """The words of a field with their document counts.

    Args:
        words: (word, documents that hold it); longer words than :data:`MAX_LENGTH` are left out.
    """

    def __init__(self, words: list[tuple[str, int]]) -> None:
        kept = [(word, count) for word, count in words if 0 < len(word) <= MAX_LENGTH]
        self.words = [word for word, _ in kept]
        self.counts = np.fromiter((count for _, count in kept), np.int64, len(kept))
        table = np.array(self.words, dtype=f"U{MAX_LENGTH}") if kept else np.zeros(0, f"U{MAX_LENGTH}")
        self._letters = table.view(np.uint32).reshape(-1, MAX_LENGTH)  # (n, 32) code points, 0 after the end
        self._lengths = (self._letters != 0).sum(axis=1)
        bits = np.where(
            self._letters != 0, np.uint64(1) << (self._letters.astype(np.uint64) & np.uint64(63)), np.uint64(0)
        )
        self._signature = np.bitwise_or.reduce(bits, axis=1) if kept else np.zeros(0, np.uint64)

    def near(self, word: str, edits: int, prefix_length: int = 0, limit: int = 50) -> list[tuple[str, int, int]]:
        """Words within ``edits`` edits of ``word`` that share its first ``prefix_length`` letters, as
        (word, edits, documents): fewest edits first, then the most common; at most ``limit``."""
        if not self.words or not 0 < len(word) <= MAX_LENGTH:
            return []
        letters = np.array([word], dtype=f"U{MAX_LENGTH}").view(np.uint32)[: len(word)]
        signature = np.uint64(0)
        for letter in letters:
            signature |= np.uint64(1) << np.uint64(int(letter) & 63)
        # An edit changes the length by at most one and the set of letters by at most two.
        near = np.abs(self._lengths - len(word)) <= edits
        near &= _bits(self._signature ^ signature) <= 2 * edits
        if prefix_length:
            shared = min(prefix_length, len(word))
            near &= (self._letters[:, :shared] == letters[:shared]).all(axis=1)
        rows = np.flatnonzero(near)
        distance = _distances(letters, self._letters[rows], self._lengths[rows])
        found = [
            (self.words[row], int(away), int(self.counts[row]))
            for row, away in zip(rows.tolist(), distance.tolist(), strict=True)
            if away <= edits
        ]
        found.sort(key=lambda item: (item[1], -item[2], item[0]))
        return found[:limit]


def _bits(values: np.ndarray) -> np.ndarray:
    """Bits set in each uint64."""
    values = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + ((values >> np.uint64(2)) & np.uint64(0x3333333333333333))
    values = (values + (values >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (values * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _distances(word: np.ndarray, others: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Optimal-string-alignment distances of one word (n,) to many (m, width) with their lengths (m,)."""
    many, width = len(others), int(lengths.max(initial=0))
    before = np.zeros((many, width + 1), np.int16)
    last = np.tile(np.arange(width + 1, dtype=np.int16), (many, 1))
    for row in range(1, len(word) + 1):
        now = np.empty_like(last)
        now[:, 0] = row
        for column in range(1, width + 1):
            differs = others[:, column - 1] != word[row - 1]
            best = np.minimum(last[:, column - 1] + differs, np.minimum(last[:, column], now[:, column - 1]) + 1)
            if row > 1 and column > 1:
                swapped = (others[:, column - 1] == word[row - 2]) & (others[:, column - 2] == word[row - 1])
                best = np.where(swapped, np.minimum(best, before[:, column - 2] + 1), best)
            now[:, column] = best
        before, last = last, now
    return last[np.arange(many), lengths]
