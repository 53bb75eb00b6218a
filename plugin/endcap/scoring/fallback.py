"""Scorers in an order of fallback: the first that can answer does, and every search begins with the first again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import numpy as np

from endcap.errors import EndcapError, ScorerUnavailable
from endcap.features import RankingInputs
from endcap.scoring.base import Scored, Scorer, sane

log = logging.getLogger(__name__)


class FallbackScorer:
    """Asks its steps in turn. A step that raises, or whose scores are not finite, is passed over for this search.

    Healing needs nothing here: steps that are broken for long (a circuit that is open) refuse at once, by themselves.
    What changes is logged once, not with every search.
    """

    name = "fallback"

    def __init__(self, *steps: Scorer) -> None:
        """Best first. Raises ValueError without any."""
        self._lock = threading.Lock()
        self._ill: dict[str, str] = {}
        self._steps: tuple[Scorer, ...] = ()
        self.replace(steps)

    @property
    def steps(self) -> tuple[Scorer, ...]:
        """Best first."""
        return self._steps

    def replace(self, steps: Sequence[Scorer]) -> None:
        """Put others in their place; a search in flight goes on with what it began with."""
        if not steps:
            raise ValueError("an order of fallback needs at least one scorer")
        with self._lock:
            self._steps = tuple(steps)
            self._ill = {}

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """float32 (n,); see :class:`~endcap.scoring.base.Scorer`."""
        return self.answer(inputs).scores

    def answer(self, inputs: RankingInputs) -> Scored:
        """Scores, who gave them, and whom that replaced.

        Raises:
            ScorerUnavailable: no step can answer; the last one's error.
        """
        passed: list[str] = []
        last: EndcapError = ScorerUnavailable("no scorer answered")
        for step in self._steps:
            try:
                scores = sane(step.score(inputs), inputs, step.name, _NotSane)
            except EndcapError as error:
                last = error
                passed.append(f"{step.name.partition(':')[0]}:{error.kind}")
                self._fell(step.name, f"{error.kind}: {error}", error.kind)
                continue
            except Exception as error:
                last = ScorerUnavailable(f"{step.name}: {error}")
                passed.append(f"{step.name.partition(':')[0]}:internal_error")
                if self._fell(step.name, repr(error), "internal_error"):
                    log.exception("scorer %s failed", step.name)
                continue
            if self._ill:
                self._healed(step.name)
            return Scored(scores, step.name, ",".join(passed), getattr(step, "calibration", None))
        raise last

    def _fell(self, name: str, why: str, kind: str) -> bool:
        with self._lock:
            if self._ill.get(name) == kind:
                return False
            self._ill[name] = kind
        log.warning("scorer %s cannot answer, the next one does (%s)", name, why)
        return True

    def _healed(self, name: str) -> None:
        with self._lock:
            was = self._ill.pop(name, None)
        if was:
            log.info("scorer %s answers again (it was: %s)", name, was)


class _NotSane(ScorerUnavailable):
    kind = "not_sane"
