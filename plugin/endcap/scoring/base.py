"""The scorer protocol."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from endcap.errors import ScorerUnavailable
from endcap.features import RankingInputs
from endcap.interest import Calibration
from endcap.tracing import span


class Scorer(Protocol):
    """Gives each candidate of one search a score for one shopper. Thread-safe."""

    name: str

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """Scores, float32, shape (n,); higher is better, all finite.

        Raises:
            ScorerUnavailable: it cannot answer now; the caller falls back.
        """


class Scored(NamedTuple):
    """Scores, who gave them, and, where that was not the first in line, why: ``step:reason``, comma-separated.
    ``calibration`` turns the scores into probabilities; None where the scorer has none."""

    scores: np.ndarray
    scorer: str
    fallback: str = ""
    calibration: Calibration | None = None


@runtime_checkable
class AnsweringScorer(Protocol):
    """A scorer that asks others, and says whom."""

    def answer(self, inputs: RankingInputs) -> Scored:
        """As :meth:`Scorer.score`."""


def sane(
    scores: np.ndarray, inputs: RankingInputs, who: str, error: type[ScorerUnavailable] = ScorerUnavailable
) -> np.ndarray:
    """The scores as float32 (n,).

    Raises:
        ScorerUnavailable: or ``error``: there is not one finite score for each candidate.
    """
    found = np.asarray(scores, dtype=np.float32)
    if found.shape != (len(inputs.rows),) or not np.isfinite(found).all():
        raise error(f"{who} gave scores of shape {found.shape} or not finite")
    return found


def answer(scorer: Scorer, inputs: RankingInputs) -> Scored:
    """The scores and who gave them, of any scorer.

    Raises:
        ScorerUnavailable: see :meth:`Scorer.score`.
    """
    with span("score", candidates=len(inputs.rows)) as spanned:
        if isinstance(scorer, AnsweringScorer):
            scored = scorer.answer(inputs)
        else:
            scored = Scored(scorer.score(inputs), scorer.name, "", getattr(scorer, "calibration", None))
        if spanned is not None:
            spanned.set_attributes({"scorer": scored.scorer, "fallback": scored.fallback})
        return scored
