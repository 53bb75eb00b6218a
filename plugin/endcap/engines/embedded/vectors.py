"""The vectors of an index by row, and the search for the nearest among them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

#: Up to so many rows a product of matrix and vector is exact and quick enough; above, rows are kept as float16.
EXACT_ROWS = 50_000

_BLOCK = 8192


class _Buffer:
    """Rows that only ever grow at the end: tables of earlier snapshots go on reading their own beginning."""

    __slots__ = ("keys", "matrix", "present", "used")

    def __init__(self, rows: int, dims: int) -> None:
        self.matrix = np.zeros((rows, dims), dtype=np.float32 if rows <= EXACT_ROWS else np.float16)
        self.present = np.zeros(rows, dtype=bool)
        self.keys = np.zeros(rows, dtype=np.uint64)
        self.used = 0


class VectorTable:
    """Unit vectors of the first ``len(self)`` rows; immutable. Rows without a vector are never near anything."""

    __slots__ = ("_buffer", "_rows", "dims")

    def __init__(self, dims: int, buffer: _Buffer | None = None, rows: int = 0) -> None:
        self.dims = dims
        self._buffer = buffer or _Buffer(0, dims)
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    @property
    def present(self) -> np.ndarray:
        """Which rows have a vector; bool, shape (len(self),)."""
        return self._buffer.present[: self._rows]

    @property
    def keys(self) -> np.ndarray:
        """A number that stands for the vector's content; uint64, shape (len(self),)."""
        return self._buffer.keys[: self._rows]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of some rows; float32, shape (len(rows), dims)."""
        return self._buffer.matrix[rows].astype(np.float32, copy=False)

    def extended(self, blobs: Sequence[bytes]) -> VectorTable:
        """A table with further rows: float16 bytes in machine order, b'' for a row without a vector."""
        rows = self._rows + len(blobs)
        buffer = self._buffer
        # Another table may have grown the same buffer already: then this one goes on in a copy.
        if buffer.used != self._rows or rows > len(buffer.matrix):
            buffer = _Buffer(max(rows, min(2 * self._rows, rows + 100_000)), self.dims)
            buffer.matrix[: self._rows] = self._buffer.matrix[: self._rows]
            buffer.present[: self._rows] = self.present
            buffer.keys[: self._rows] = self.keys
        for row, blob in enumerate(blobs, start=self._rows):
            if len(blob) == 2 * self.dims:
                buffer.matrix[row] = np.frombuffer(blob, dtype=np.float16)
                buffer.present[row] = True
                buffer.keys[row] = int.from_bytes(blake2b(blob, digest_size=8).digest(), "little")
        buffer.used = rows
        return VectorTable(self.dims, buffer, rows)

    def take(self, rows: np.ndarray) -> VectorTable:
        """A table of some of the rows, in the order given."""
        buffer = _Buffer(len(rows), self.dims)
        buffer.matrix[:] = self._buffer.matrix[rows]
        buffer.present[:] = self._buffer.present[rows]
        buffer.keys[:] = self._buffer.keys[rows]
        buffer.used = len(rows)
        return VectorTable(self.dims, buffer, len(rows))

    def nearest(self, vector: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of the allowed rows (bool, shape (len(self),)), exactly.

        Returns:
            Rows (int64) and cosines (float32), best first; equal cosines by row.
        """
        rows = np.flatnonzero(allowed & self.present)
        few = 4 * len(rows) < self._rows
        return best_of(rows, self.scores(vector, rows) if few else self._scores(vector, None)[rows], k)

    def scores(self, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Cosines of some rows with a unit vector; float32, shape (len(rows),)."""
        return self._scores(vector, rows)

    def _scores(self, vector: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """Of all rows where ``rows`` is None. float16 rows are widened block by block to bound the memory."""
        matrix = self._buffer.matrix[: self._rows]
        if matrix.dtype == np.float32:
            return _products(matrix if rows is None else matrix[rows], vector)
        count = self._rows if rows is None else len(rows)
        scores = np.empty(count, dtype=np.float32)
        for start in range(0, count, _BLOCK):
            block = matrix[start : start + _BLOCK] if rows is None else matrix[rows[start : start + _BLOCK]]
            scores[start : start + len(block)] = _products(block.astype(np.float32), vector)
        return scores


def best_of(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows with the highest scores, best first; equal scores by row."""
    if k < len(rows):
        best = np.argpartition(-scores, k - 1)[:k]
        # Everything as good as the last one, so that which of them stays does not depend on chance.
        best = np.flatnonzero(scores >= scores[best].min())
    else:
        best = np.arange(len(rows))
    best = best[np.lexsort((rows[best], -scores[best]))][:k]
    return rows[best], scores[best]


def _products(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    # One small product per row rather than one large: BLAS would split the large one over threads, which gains little
    # (memory is the bound) and on a busy server waits for the slowest thread: median 1.3 ms against 10 ms.
    return np.matmul(matrix[:, None, :], vector[:, None])[:, 0, 0]
