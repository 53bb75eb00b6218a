"""Many short texts in one piece of memory: a million titles as Python strings would take 100 MB, so they take 30."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np


class PackedTexts:
    """An immutable sequence of texts, kept as UTF-8."""

    __slots__ = ("_blob", "_ends")

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "replace") for text in texts]
        self._blob = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def with_changes(self, changes: Mapping[int, str]) -> PackedTexts:
        """The texts with some replaced; places from ``len(self)`` on add to them and leave no gap."""
        encoded = {place: changes[place].encode("utf-8", "replace") for place in sorted(changes)}
        length = max(len(self), max(encoded, default=-1) + 1)
        sizes = np.zeros(length, dtype=np.int64)
        sizes[: len(self)] = np.diff(self._ends)
        parts, after = [], 0
        for place, text in encoded.items():
            sizes[place] = len(text)
            if place < len(self):
                parts.append(self._blob[self._ends[after] : self._ends[place]])
                after = place + 1
            elif after < len(self):
                parts.append(self._blob[self._ends[after] :])
                after = len(self)
            parts.append(text)
        if after < len(self):
            parts.append(self._blob[self._ends[after] :])
        made = object.__new__(PackedTexts)
        made._blob, made._ends = b"".join(parts), np.concatenate([[0], np.cumsum(sizes)])
        return made

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        """The text at ``place``; raises IndexError outside [0, len)."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._blob[self._ends[place] : self._ends[place + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))
