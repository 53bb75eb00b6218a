"""The words that an index knows, and those among them that a mistyped word may have meant."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from endcap.engines.embedded.schema import TEXT_FIELDS, stem
from endcap.engines.embedded.snapshot import Snapshot

#: At most so many corrections and completions of one word take part in a search.
_MAX_SIMILAR = 12
_MAX_COMPLETIONS = 12
_MIN_COMPLETED = 3
_MIN_PART = 3

# Number of bits set in a byte.
_BITS = np.array([(byte).bit_count() for byte in range(256)], dtype=np.uint8)


class Vocabulary:
    """The whole words of a snapshot. Cheap to make: words are collected when they are first needed."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.language = snapshot.manifest.language

    @classmethod
    def of(cls, snapshot: Snapshot) -> Vocabulary:
        """The vocabulary of a snapshot, made once."""
        return snapshot.derived.setdefault("vocabulary", cls(snapshot))

    def knows(self, word: str) -> bool:
        """Whether a product holds the word, or another form of it."""
        return any(self._frequency(word, name) for name in TEXT_FIELDS)

    def frequency(self, word: str) -> int:
        """Products that hold the word or another form of it, in the field where most do."""
        return max(self._frequency(word, name) for name in TEXT_FIELDS)

    def _frequency(self, word: str, name: str) -> int:
        words, stems = TEXT_FIELDS[name]
        searcher = self._snapshot.searcher
        return int(searcher.doc_freq(stems, stem(word, self.language)) if stems else searcher.doc_freq(words, word))

    def similar(self, word: str) -> list[tuple[str, int]]:
        """Known words within :func:`allowed_distance`, with their distance; nearest first, then most frequent."""
        allowed = allowed_distance(word)
        if not allowed:
            return []
        words, frequencies, letters, lengths = self._table
        # A letter changed, added or missing changes at most two bits of the set of letters, so this loses nothing.
        apart = _BITS[(letters ^ _letters(word)).view(np.uint8).reshape(-1, 4)].sum(axis=1)
        near = np.flatnonzero((apart <= 2 * allowed) & (np.abs(lengths - len(word)) <= allowed))
        found = []
        for at in near.tolist():
            distance = edit_distance(word, words[at], allowed)
            if 0 < distance <= allowed:
                found.append((distance, -int(frequencies[at]), words[at]))
        return [(other, distance) for distance, _, other in sorted(found)[:_MAX_SIMILAR]]

    def split(self, word: str) -> tuple[str, str] | None:
        """Two known words that this one is when written together ("icecream"); the more frequent the better."""
        if len(word) < 2 * _MIN_PART or not word.isalpha():
            return None
        best, chosen = 0, None
        for at in range(_MIN_PART, len(word) - _MIN_PART + 1):
            frequency = min(self.frequency(word[:at]), self.frequency(word[at:]))
            if frequency > best:
                best, chosen = frequency, (word[:at], word[at:])
        return chosen

    def completions(self, word: str) -> list[str]:
        """Known words that begin with this one; most frequent first."""
        if len(word) < _MIN_COMPLETED:
            return []
        found: dict[str, int] = {}
        for words, _ in TEXT_FIELDS.values():
            for other, frequency in self._snapshot.searcher.terms_with_prefix(words, word, limit=200):
                found[other] = max(found.get(other, 0), frequency)
        found.pop(word, None)
        return sorted(found, key=lambda other: (-found[other], other))[:_MAX_COMPLETIONS]

    @cached_property
    def _table(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Words without digits, in how many products, their letters as bits (uint32), their lengths."""
        found: dict[str, int] = {}
        for words, _ in TEXT_FIELDS.values():
            for word, frequency in self._snapshot.searcher.terms_with_prefix(words, ""):
                if len(word) > 2 and word.isalpha():
                    found[word] = max(found.get(word, 0), frequency)
        words_ = list(found)
        return (
            words_,
            np.fromiter(found.values(), np.int64, len(found)),
            np.fromiter(map(_letters, words_), np.uint32, len(words_)),
            np.fromiter(map(len, words_), np.int64, len(words_)),
        )


def allowed_distance(word: str) -> int:
    """Edits that a word may be off by: none if short or with digits, from 4 letters 1, from 8 letters 2."""
    if not word.isalpha() or len(word) < 4:
        return 0
    return 1 if len(word) < 8 else 2


def edit_distance(one: str, other: str, limit: int) -> int:
    """Letters changed, added, missing or swapped with their neighbour; ``limit + 1`` if that is more than ``limit``.

    The restricted Damerau-Levenshtein distance.
    """
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        line = [row]
        for column, its in enumerate(other, start=1):
            cost = above[column - 1] + (letter != its)
            cost = min(cost, above[column] + 1, line[column - 1] + 1)
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == its:
                cost = min(cost, before[column - 2] + 1)
            line.append(cost)
        if min(line) > limit:
            return limit + 1
        before, above = above, line
    return min(above[-1], limit + 1)


def _letters(word: str) -> np.uint32:
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) & 31)
    return np.uint32(bits)
