"""The pipeline of one search: features, scores, order; within a deadline, failing open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Ranking:
    """A reordered list of candidates.

    ``order`` (int64, shape (n,)) is a permutation: ``order[0]`` is the position, in the engine's order, of the
    product that comes first. ``degraded`` is empty, or the short reason why the engine's order stands
    (``deadline``, ``busy``, ``scorer_error``, …). ``personalized`` is False where nothing was known about the shopper
    or personalisation was not wanted, too.
    """

    id: str
    order: np.ndarray
    personalized: bool
    scorer: str = ""
    degraded: str = ""
    took_ms: float = 0.0
    scores: np.ndarray | None = field(default=None, repr=False)


class Personalizer:
    """Ranks candidates for a shopper. One per process; thread-safe."""

    def rank(self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray) -> Ranking:
        """Order the candidates for this shopper. Never raises and never takes longer than the deadline: on any fault
        the answer is the engine's order with the reason in ``degraded``."""
        raise NotImplementedError

    def reasons(self, shopper: str, query: str, ids: Sequence[str]) -> list[list[str]]:
        """For each product, at most two short sentences on why it stands where it does, strongest first."""
        raise NotImplementedError
