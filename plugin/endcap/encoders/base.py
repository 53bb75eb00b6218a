"""The encoder protocol, and what its implementations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

#: Called with the number of texts encoded since the last call.
Progress = Callable[[int], None]

#: Queries remembered by an encoder: about 15 MB at 384 dimensions.
CACHED_QUERIES = 10_000
#: Characters of a query that are read. No model here looks at more than some hundred words.
MAX_QUERY_LENGTH = 2_000


class TextEncoder(Protocol):
    """Turns texts into unit vectors. Thread-safe; the same text gives the same vector to within 1e-3 cosine, alone or
    in a batch."""

    id: str
    """Identifies model and version: vectors of two encoders with the same id may be compared."""

    dims: int

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Unit vectors, float32, shape (len(texts), dims). An empty text gets a vector too."""

    def encode_query(self, text: str) -> np.ndarray:
        """One query, float32, shape (dims,), read-only: the quick path, cached."""


def cached_query(encode: Callable[[str], np.ndarray]) -> Callable[[str], np.ndarray]:
    """``encode`` (one text -> (dims,)) behind a bounded cache of read-only vectors; thread-safe."""

    @lru_cache(maxsize=CACHED_QUERIES)
    def remember(text: str) -> np.ndarray:
        vector = np.ascontiguousarray(encode(text), dtype=np.float32)
        vector.setflags(write=False)
        return vector

    def encode_query(text: str) -> np.ndarray:
        return remember(encodable(text[:MAX_QUERY_LENGTH]))

    return encode_query


def encodable(text: str) -> str:
    """``text`` with a question mark for what UTF-8 cannot hold (half a surrogate pair, as JSON can bring)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of ``vectors`` scaled to length 1, float32; a row of zeros becomes the first axis."""
    vectors = np.array(vectors, dtype=np.float32, copy=True)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    empty = norms[:, 0] < 1e-12
    vectors[empty, 0] = 1.0
    norms[empty] = 1.0
    return vectors / norms


def length_sorted_batches(texts: Sequence[str], size: int) -> list[list[int]]:
    """Positions of ``texts`` in batches of like length, so that little of a batch is padding."""
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    return [order[start : start + size] for start in range(0, len(order), size)]
