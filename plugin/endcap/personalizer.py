"""The pipeline of one search: what is known about the shopper, features, scores, order; in time, failing open."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.errors import EndcapError, ScorerUnavailable
from endcap.experiments.models import missing, same_model
from endcap.features import RankingInputs, ranking_inputs
from endcap.policy.arrange import Arrangement, Arranger
from endcap.policy.context import NO_VISIT, Visit
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.reasons import reasons
from endcap.scoring.base import Scored, Scorer, answer, sane
from endcap.stores.profiles import ProfileReader
from endcap.tracing import carried

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ranking:
    """A reordered list of candidates.

    ``order`` (int64, shape (n - hidden,)) has no place twice: ``order[0]`` is the position, in the engine's order, of
    the product that comes first. ``degraded`` is empty, or the short reason why the engine's order stands
    (``deadline``, ``busy``, ``warming_up``, or the ``kind`` of an error). ``personalized`` is False where nothing is
    known about the shopper; the order may then still follow what sells. ``scores`` (float32, (n,)) belong to the
    engine's order. ``fallback`` is empty, or which better scorers than ``scorer`` could not answer and why
    (``triton:circuit_open``).

    ``arm`` names the policy that chose the order and ``propensity`` is the probability with which it chose this arm
    ((0, 1]; 1 where nothing was left to chance); ``context`` is what it looked at, as plain JSON. ``features``
    (float32, (n, F), in the engine's order) are the columns that were scored, None where nothing was. All four go to
    the rankings log.

    ``notes`` say what business rules did to a product and ``labels`` what it has to be marked as (``sponsored``), both
    by its place in the engine's order. ``hidden``: so many candidates are left out of ``order`` by a rule.

    ``interest`` (float64, (n,), in the engine's order) is how probable it is that the shopper wants each candidate, as
    the model's calibration says (:mod:`endcap.interest`); None where the scorer has none.
    """

    id: str
    order: np.ndarray
    personalized: bool
    scorer: str = ""
    degraded: str = ""
    took_ms: float = 0.0
    scores: np.ndarray | None = field(default=None, repr=False)
    fallback: str = ""
    arm: str = ""
    propensity: float = 1.0
    context: Mapping[str, Any] | None = None
    features: np.ndarray | None = field(default=None, repr=False)
    notes: Mapping[int, Sequence[str]] = field(default_factory=dict, repr=False)
    labels: Mapping[int, Sequence[str]] = field(default_factory=dict, repr=False)
    hidden: int = 0
    interest: np.ndarray | None = field(default=None, repr=False)


class Personalizer:
    """Ranks candidates for a shopper. One per process; thread-safe.

    ``table``, ``scorer`` and what is in force in ``arranger`` may be replaced at any time; a search in flight goes on
    with what it began with.
    """

    def __init__(
        self,
        scorer: Scorer,
        profiles: ProfileReader,
        popularity: Popularity,
        table: ProductTable | None = None,
        deadline_ms: float = 30.0,
        threads: int = 4,
        clock: Callable[[], float] = time.time,
        arranger: Arranger | None = None,
    ) -> None:
        """``table`` None: not loaded yet, every ranking is degraded to the engine's order until it is."""
        self.scorer = scorer
        self.arranger = arranger or Arranger()
        self.table = table
        self.popularity = popularity
        #: Table -> its products that a generator speaks for, see :meth:`endcap.live.LiveModel.newcomers`.
        self.newcomers: Callable[[ProductTable], np.ndarray | None] = lambda table: None
        #: Told of every search that the scorer has ranked: what it saw, what it said, and how many seconds it took.
        self.observe: Callable[[RankingInputs, np.ndarray, float], None] = lambda inputs, scores, seconds: None
        self._profiles = profiles
        self._deadline_s = deadline_ms / 1000.0
        self._clock = clock
        self._places = threading.BoundedSemaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="endcap-score")

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking:
        """Order the candidates for this shopper.

        Never raises and never takes longer than the deadline: on any fault the answer is the engine's order (without
        what rules hide), with the reason in ``degraded``. Ties keep the engine's order. A shopper without a name gets
        the engine's order too.

        Args:
            visit: of a search: the policy chooses the ranking profile, experiments and business rules apply, the latter
                without a shopper too. None: the scorer's own order, whatever is in force.
        """
        started = time.perf_counter()
        if not len(ids) or not (shopper or (visit is not None and self.arranger.rules)):
            return self._unranked(ids, "", started, query, visit, shopper)
        # A separate thread, because only that bounds a scorer or a store that hangs. Ranking takes a few milliseconds,
        # so of many searches at once one soon makes room for the next.
        if not self._places.acquire(timeout=self._deadline_s):
            return self._unranked(ids, "busy", started, query, visit, shopper)
        try:
            future = self._pool.submit(
                carried(self._rank), shopper, query, ids, engine_scores, started + self._deadline_s, visit
            )
        except RuntimeError:  # the pool is shut down: the process is stopping
            self._places.release()
            return self._unranked(ids, "stopping", started, query, visit, shopper)
        future.add_done_callback(lambda _: self._places.release())
        try:
            left = max(0.0, started + self._deadline_s - time.perf_counter())
            scored, inputs, arranged, interest = future.result(timeout=left)
        except FutureTimeout:
            future.cancel()
            return self._unranked(ids, "deadline", started, query, visit, shopper)
        except EndcapError as error:
            return self._unranked(ids, error.kind, started, query, visit, shopper)
        except Exception:
            log.exception("ranking failed; the engine's order stands")
            return self._unranked(ids, "internal_error", started, query, visit, shopper)
        return Ranking(
            _new_id(),
            arranged.order,
            bool(inputs.profile),
            scored.scorer,
            "",
            _since(started),
            arranged.scores,
            scored.fallback,
            arranged.arm,
            arranged.propensity,
            {**arranged.context, "took_ms": round(_since(started), 2)} if arranged.context else {},
            features=inputs.features if shopper else None,
            notes=arranged.notes,
            labels=arranged.labels,
            hidden=len(ids) - len(arranged.order),
            interest=interest,
        )

    @property
    def rules_in_force(self) -> bool:
        """Whether searches of anonymous shoppers have to be ranked, too."""
        return bool(self.arranger.rules)

    @property
    def hiding(self) -> bool:
        """Whether lists that nobody ranks have to be asked about, too: see :meth:`hidden`."""
        return self.arranger.rules.hiding

    def hidden(
        self,
        query: str,
        ids: Sequence[str],
        visit: Visit,
        documents: Sequence[Mapping[str, Any] | None] = (),
        whole: bool = True,
    ) -> np.ndarray:
        """Which of some found products a rule hides now, whether they can be ranked or not; bool (n,).

        Needs neither the scorer nor the shopper's profile, and does not raise.

        Args:
            documents: of products that this process may not know yet. whole: see
                :meth:`~endcap.policy.rules.RuleBook.hidden_among`.
        """
        try:
            return self.arranger.rules.hidden_among(ids, self.table, visit, self._clock(), query, documents, whole)
        except Exception:
            log.exception("rules that hide could not be applied")
            return np.zeros(len(ids), dtype=bool)

    def reasons(self, shopper: str, query: str, ids: Sequence[str]) -> list[list[str]]:
        """For each product, at most two short sentences on why it stands where it does, strongest first.

        Empty lists where the shopper has no name or the reasons cannot be had now.
        """
        if not shopper or not len(ids) or self.table is None:
            return [[] for _ in ids]
        try:
            inputs = self._inputs(shopper, query, ids, np.zeros(len(ids), dtype=np.float32), self.table)
            new = self.newcomers(inputs.table)
            return reasons(inputs, None if new is None else new[inputs.rows])
        except EndcapError:
            return [[] for _ in ids]

    def close(self) -> None:
        """Stop taking searches; those in flight finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _unranked(
        self, ids: Sequence[str], degraded: str, started: float, query: str, visit: Visit | None, shopper: str
    ) -> Ranking:
        """The engine's order, without what is hidden."""
        order = np.arange(len(ids))
        if visit is not None and self.hiding:
            order = order[~self.hidden(query, ids, visit)]
        found = Ranking(_new_id(), order, False, "engine", degraded, _since(started), hidden=len(ids) - len(order))
        if visit is None or not degraded:
            return found
        # An arm that is late or fails has to answer for that, too: its shoppers' searches count in any case.
        treatment = self.arranger.treatment(shopper, visit)
        if treatment is not None and treatment.noted:
            context = {"experiments": dict(treatment.noted), "took_ms": round(found.took_ms, 2)}
            found = replace(found, context={**context, "internal": True} if visit.internal else context)
        return found

    def _rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, until: float, visit: Visit | None
    ) -> tuple[Scored, RankingInputs, Arrangement, np.ndarray | None]:
        scored, inputs, arranged = self._arranged(shopper, query, ids, engine_scores, until, visit)
        scored, interest = _calibrated(scored)
        return scored, inputs, arranged, interest

    def _arranged(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, until: float, visit: Visit | None
    ) -> tuple[Scored, RankingInputs, Arrangement]:
        table, scorer = self.table, self.scorer
        if table is None:
            raise WarmingUp("the products are still being loaded")
        inputs = self._inputs(shopper, query, ids, engine_scores, table)
        inputs.until = until
        if not shopper:
            arranged = self.arranger.arrange_anonymous(inputs, ids, visit or NO_VISIT)
            return Scored(arranged.scores, "engine"), inputs, arranged
        treatment = self.arranger.treatment(shopper, visit) if visit is not None else None
        model = treatment.model if treatment is not None else None
        began = time.perf_counter()
        scored = _scored(model or scorer, inputs)
        if model is None:
            self.observe(inputs, scored.scores, time.perf_counter() - began)
        if visit is None:
            plain = Arrangement(np.argsort(-scored.scores, kind="stable"), scored.scores)
            return scored, inputs, plain
        rival = None
        if treatment is not None and treatment.versus is not None and not same_model(model, treatment.rival):
            rival = _scored(treatment.rival or scorer, inputs)
        lost = [why for why in (missing(one) for one in (scored, rival) if one is not None) if why]
        arranged = self.arranger.arrange(
            inputs, scored.scores, ids, shopper, visit, treatment, rival.scores if rival is not None else None
        )
        if lost:
            arranged = replace(arranged, context={**arranged.context, "model_missing": lost[0]})
            if not scored.fallback and rival is not None:
                scored = scored._replace(fallback=rival.fallback)
        return scored, inputs, arranged

    def _inputs(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, table: ProductTable
    ) -> RankingInputs:
        profile = self._profiles.get(shopper) if shopper else Profile()
        return ranking_inputs(profile, query, ids, engine_scores, table, self.popularity, self._clock())


class WarmingUp(ScorerUnavailable):
    """The process has just started and does not know the products yet."""

    kind = "warming_up"


def _scored(scorer: Scorer, inputs: RankingInputs) -> Scored:
    """Raises ScorerUnavailable where there are no scores that make sense."""
    scored = answer(scorer, inputs)
    return scored._replace(scores=sane(scored.scores, inputs, f"scorer {scored.scorer}"))


def _calibrated(scored: Scored) -> tuple[Scored, np.ndarray | None]:
    """The probabilities beside the scores. The order does not hang on them: where they cannot be had it stands without,
    and ``fallback`` says so."""
    if scored.calibration is None:
        return scored, None
    try:
        interest = np.asarray(scored.calibration.probability(scored.scores), dtype=np.float64)
        if interest.shape != scored.scores.shape or not np.isfinite(interest).all():
            raise ValueError(f"probabilities of shape {interest.shape} or not finite")
        return scored, interest
    except Exception:
        log.exception("the scores of %s could not be made probabilities", scored.scorer)
        return scored._replace(fallback=",".join(filter(None, (scored.fallback, "calibration:internal_error")))), None


def _new_id() -> str:
    return uuid.uuid4().hex


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0
