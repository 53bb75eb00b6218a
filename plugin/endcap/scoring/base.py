"""The scorer protocol."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from endcap.features import RankingInputs


class Scorer(Protocol):
    """Gives each candidate of one search a score for one shopper. Thread-safe."""

    name: str

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """Scores, float32, shape (n,); higher is better, all finite.

        Raises:
            ScorerUnavailable: it cannot answer now; the caller falls back.
        """
