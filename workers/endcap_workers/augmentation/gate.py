"""May a generator go live? With it and without it, on products that were hidden from it."""

from __future__ import annotations

import math
from typing import Any

from endcap.gates import Verdict
from endcap.settings import Settings
from endcap.stores.versions import Version

KIND = "augmentation"


class AugmentationGate:
    """Passes a generator whose gain over the model by itself is surely above nothing (lower end of the 95% interval).

    The figures were taken by the job ``augment`` on products that neither trained the generator nor chose it. A live
    generator is no rival: it was made for other weights or an older catalogue, and the new one is judged against none.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def judge(self, candidate: Version, live: Version | None) -> Verdict:
        """See :class:`endcap.gates.Gate`."""
        lower: Any = candidate.metrics.get("lower bound of the gain")
        verdict = helps(float(lower) if isinstance(lower, (int, float)) else math.nan)
        return Verdict(verdict.passed, verdict.reasons, dict(candidate.metrics))


def helps(lower: float) -> Verdict:
    """The verdict on a gain in NDCG@20 whose 95% interval begins at ``lower``."""
    numbers = {"lower bound of the gain": lower if math.isfinite(lower) else None}
    if math.isfinite(lower) and lower > 0:
        return Verdict(True, (f"new products rank better with it: at least {lower:+.4f} NDCG@20",), numbers)
    return Verdict(
        False, (f"new products may rank no better with it: the gain in NDCG@20 could be {lower:+.4f}",), numbers
    )
