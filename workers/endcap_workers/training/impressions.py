"""What the server really showed, and what was wanted of it: training lists from the rankings log.

A list is one page as it went out, not what a search might have found: only what was shown could be wanted. Lower places
are looked at less, so what was wanted there counts more: 1 / the propensity of examination, estimated from the same
log (:mod:`endcap.policy.examination`), which makes the training loss and the held-out NDCG unbiased under that model
(Joachims, Swaminathan & Schnabel 2017).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select

from endcap.catalog.product import product_keys
from endcap.policy.examination import Examination
from endcap.policy.looks import SEARCHES, Looks
from endcap.profiles import DAY_S
from endcap.stores.database import Database
from endcap.stores.outcomes import Outcome, Outcomes
from endcap.stores.rankings import Rankings, Served, rankings
from endcap_workers.training.cases import TRAIN
from endcap_workers.training.plan import Plan

#: With fewer pages that something was wanted of, all lists are the engine's.
ENOUGH = 2_000
#: How long after a page what names no ranking still belongs to it: a visit's pause.
_HOURS = 2.0
#: Rankings read at once; most that are looked at (of more, an even part).
_BATCH, _MOST_READ = 1_000, 400_000


@dataclass(frozen=True, slots=True)
class Page:
    """``wanted``: float32 (k,) of ``served.products``, how often each was wanted, weighted for its place."""

    served: Served
    wanted: np.ndarray
    part: int


@dataclass(order=True, slots=True)
class _Drawn:
    """A ranking that becomes a list: ``wanted`` has places in the page and how often each was wanted."""

    time: float
    sequence: int
    part: int = field(compare=False)
    wanted: dict[int, int] = field(compare=False)


class Impressions:
    """The drawn pages, handed out in the order of time. Memory: a few numbers each; pages are read when due."""

    def __init__(self, database: Database, drawn: Sequence[_Drawn], examination: Examination, begins: float) -> None:
        self._rankings = Rankings(database)
        self._waiting = deque(sorted(drawn))
        #: How probable it is that a place is looked at.
        self.examination = examination
        #: From this moment on (a day's beginning, UTC) lists are what was shown; before it, the engine's.
        self.begins = begins
        self.counts = np.bincount([one.part for one in drawn], minlength=3).tolist()

    def until(self, moment: float) -> list[Page]:
        """The next pages, up to and at a moment; each is given once.

        Raises:
            LogUnavailable: the database cannot be read.
        """
        due: dict[int, _Drawn] = {}
        while self._waiting and self._waiting[0].time <= moment:
            one = self._waiting.popleft()
            due[one.sequence] = one
        numbers = list(due)
        pages: list[Page] = []
        for start in range(0, len(numbers), _BATCH // 2):
            part = numbers[start : start + _BATCH // 2]
            found = self._rankings.read(select(rankings).where(rankings.c.sequence.in_(part)), len(part))
            pages += [Page(one, self._weighted(one, due[one.sequence]), due[one.sequence].part) for one in found]
        return sorted(pages, key=lambda page: (page.served.time, page.served.sequence))

    def _weighted(self, served: Served, drawn: _Drawn) -> np.ndarray:
        wanted = np.zeros(len(served.products), dtype=np.float32)
        at = np.fromiter(drawn.wanted, dtype=np.int64, count=len(drawn.wanted))
        wanted[at] = list(drawn.wanted.values())
        return wanted * self.examination.weights(np.asarray(served.positions)).astype(np.float32)


def impressions(
    database: Database,
    plan: Plan,
    limits: Sequence[int],
    excluded: frozenset[str] = frozenset(),
    seed: int = 0,
    enough: int = ENOUGH,
    progress: Callable[[float, float, str], None] = lambda *_: None,
) -> tuple[Impressions | None, int]:
    """The pages of the plan's time that become lists, and of how many something was wanted. None where these are fewer
    than ``enough``, or later parts would have none.

    Args:
        limits: most pages of each part; of more, those drawn by their ids and ``seed``.
        excluded: shoppers whose pages teach nothing.

    Pages that nothing was wanted of teach the outside option: they are kept where they are read, in the parts that
    validate and judge, as often as there are such. What was wanted after a part's end is not known in it.

    Raises:
        LogUnavailable: the database cannot be read.
    """
    log, outcomes = Rankings(database), Outcomes(database, _HOURS)
    first, last = log.before(plan.start), log.before(plan.end)
    draw = _Draw(limits, seed)
    looks = Looks()
    begins = np.inf
    sequence = first
    stride = max(last - first, 1) / _MOST_READ
    while sequence < last:
        batch = log.since(sequence, _BATCH)
        if not batch:
            break
        sequence = batch[-1].sequence
        progress(sequence - first, max(last - first, 1), "reading rankings")
        kept = [one for one in batch if _counts(one, plan, excluded)]
        begins = min([begins, *(one.time for one in kept)])
        for outcome in outcomes.of(kept):
            draw.take(outcome, plan)
            if outcome.ranking.time < plan.valid:
                looks.take(outcome)
        if stride > 1:  # an even part of the log
            sequence += int((stride - 1) * _BATCH)
    if draw.wanted[TRAIN] < enough or not sum(draw.wanted[TRAIN + 1 :]):
        return None, sum(draw.wanted)
    begins = float(np.floor(begins / DAY_S) * DAY_S)
    return Impressions(database, draw.result(), looks.examination(), begins), sum(draw.wanted)


def _counts(one: Served, plan: Plan, excluded: frozenset[str]) -> bool:
    return (
        one.endpoint in SEARCHES
        and bool(one.shopper)
        and one.shopper not in excluded
        and len(one.products) > 1
        and plan.start <= one.time < plan.end
    )


class _Draw:
    """Of each part, the pages with the smallest numbers drawn by their ids: the order of reading plays no part."""

    def __init__(self, limits: Sequence[int], seed: int) -> None:
        self._limits, self._seed = limits, seed
        self._heaps: list[list[tuple[int, int, _Drawn]]] = [[] for _ in limits]
        self.wanted = [0] * len(limits)

    def take(self, outcome: Outcome, plan: Plan) -> None:
        served = outcome.ranking
        part = plan.part(served.time)
        end = (plan.valid, plan.test, plan.end)[part]
        wanted: dict[int, int] = {}
        for one in outcome.reactions:
            if one.time < end and int(one.action) in plan.wanted:
                place = one.position - served.start - 1
                wanted[place] = wanted.get(place, 0) + 1
        self.wanted[part] += bool(wanted)
        if not wanted and (part == TRAIN or end - served.time < _HOURS * 3_600.0):
            return  # nothing to learn from, or not known yet
        number = int(product_keys([f"{self._seed}:{served.id}"])[0])
        heap = self._heaps[part]
        heapq.heappush(heap, (-number, served.sequence, _Drawn(served.time, served.sequence, part, wanted)))
        if len(heap) > self._limits[part]:
            heapq.heappop(heap)

    def result(self) -> list[_Drawn]:
        return [one for heap in self._heaps for _, _, one in heap]
