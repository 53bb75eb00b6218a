"""A shadow: a version that scores real searches beside the live one, after these are answered, without effect.

A share of the rankings (setting ``shadow_sample``) waits in a short queue that a background thread empties. What is
kept is how far the two agree: Kendall's tau-b over the candidates, the share of common products among the first ten,
and the time that each took.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from endcap.bundles import load_bundle
from endcap.catalog.table import ProductTable
from endcap.errors import EndcapError
from endcap.features import RankingInputs
from endcap.registry import INTEREST, Registry
from endcap.scoring.onnx import OnnxScorer
from endcap.stores.versions import SHADOW, Version

log = logging.getLogger(__name__)

#: Seconds between turns; between looks for another shadow, and between writing down what was found.
TURN_S = 0.25
_LOOK_S, _WRITE_S = 2.0, 5.0
#: Rankings that may wait, and that one turn scores: the rest of the time belongs to searches.
_WAITING, _PER_TURN = 64, 16
_TOP = 10


@dataclass(frozen=True, slots=True)
class _Sample:
    inputs: RankingInputs
    scores: np.ndarray
    seconds: float


class ShadowScoring:
    """One per server process; what several processes find is added up in the registry."""

    def __init__(self, registry: Registry, share: float, encoder_id: str) -> None:
        """``share`` of the rankings is scored as well. ``encoder_id``: of the content vectors; empty without."""
        self._registry = registry
        self._share = share
        self._encoder_id = encoder_id
        self._waiting: deque[_Sample] = deque(maxlen=_WAITING)
        self._scorer: OnnxScorer | None = None
        self._version: Version | None = None
        self._sums: dict[str, float] = {}
        self._looked = self._written = -math.inf
        self._draw = random.Random()  # noqa: S311 - a sample, no secret

    def offer(self, inputs: RankingInputs, scores: np.ndarray, seconds: float) -> None:
        """A search was scored by the live model, in so many seconds. Costs next to nothing; never raises."""
        if self._scorer is None or self._draw.random() >= self._share:
            return
        # What the live scorer keeps with the profile must not be pushed out by what this one would keep there.
        profile = copy.copy(inputs.profile)
        profile.cache = {}
        copied = replace(inputs, profile=profile, features=inputs.features.copy(order="K"), until=math.inf)
        self._waiting.append(_Sample(copied, scores, seconds))

    def turn(self) -> float:
        """Score what waits; for a thread that calls it again and again. Raises EndcapError: tried again later."""
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            self._look()
        for _ in range(min(_PER_TURN, len(self._waiting))):
            self._compare(self._waiting.popleft())
        if self._sums and now - self._written > _WRITE_S:
            self._written = now
            self._write()
        return TURN_S

    def _look(self) -> None:
        found = self._registry.versions(INTEREST, SHADOW, limit=1)
        version = found[0] if found else None
        before = self._version
        if (version and version.version) == (before and before.version) and (self._scorer is not None) == bool(version):
            return
        if self._sums:
            self._write()
        self._scorer, self._version = None, None
        self._waiting.clear()
        if version is not None:
            bundle = load_bundle(self._registry.folder(version), self._encoder_id)
            self._version, self._scorer = version, OnnxScorer(bundle)
            log.info("%s is scored beside the live model", bundle.label)

    def _compare(self, sample: _Sample) -> None:
        scorer = self._scorer
        if scorer is None:
            return
        self._prepare(scorer, sample.inputs.table)
        started = time.perf_counter()
        try:
            scores = scorer.score(sample.inputs)
        except EndcapError as error:
            log.debug("the shadow could not score: %s", error)
            self._add({"errors": 1.0})
            return
        took = time.perf_counter() - started
        self._add(
            {
                "searches": 1.0,
                "rank_correlation": kendall(sample.scores, scores),
                "agreement@10": agreement(sample.scores, scores, _TOP),
                "latency_ms": took * 1_000.0,
                "live_latency_ms": sample.seconds * 1_000.0,
            }
        )

    @staticmethod
    def _prepare(scorer: OnnxScorer, table: ProductTable) -> None:
        try:
            scorer.prepare(table)
        except EndcapError:
            pass  # scoring says so, and is counted

    def _add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _write(self) -> None:
        sums, self._sums = self._sums, {}
        assert self._version is not None
        try:
            self._registry.shadowed(self._version.kind, self._version.version, sums)
        except EndcapError:
            self._add(sums)
            raise


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b of two scorings (n,) of the same candidates, in [-1, 1]; 1 where there is nothing to order.

    Over all pairs, which for the window of a search are few (M. G. Kendall, The treatment of ties in ranking problems,
    Biometrika 33, 1945).
    """
    upper = np.triu_indices(len(a), 1)
    one = np.sign(a[:, None] - a[None, :])[upper]
    other = np.sign(b[:, None] - b[None, :])[upper]
    pairs = math.sqrt(float((one != 0).sum()) * float((other != 0).sum()))
    if not pairs:
        return 1.0
    return float((one * other).sum() / pairs)


def agreement(a: np.ndarray, b: np.ndarray, top: int) -> float:
    """Share of the first ``top`` candidates by one scoring that are among the first by the other."""
    count = min(top, len(a))
    if not count:
        return 1.0
    first: Sequence[int] = np.argsort(-a, kind="stable")[:count].tolist()
    other: Sequence[int] = np.argsort(-b, kind="stable")[:count].tolist()
    return len(set(first) & set(other)) / count
