"""The encoder protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TextEncoder(Protocol):
    """Turns texts into unit vectors. Thread-safe; the same text gives the same vector to within 1e-3 cosine, alone or
    in a batch."""

    id: str
    """Identifies model and version: vectors of two encoders with the same id may be compared."""

    dims: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32, shape (len(texts), dims). An empty text gets a vector too."""

    def encode_query(self, text: str) -> np.ndarray:
        """One query, float32, shape (dims,): the quick path, cached."""
