"""From scores to the order that is shown: a policy chooses the ranking profile, rules have the last word."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.features import RankingInputs
from endcap.policy.base import Choice, Policy, draw_of
from endcap.policy.blend import Blend, scores_of, slate
from endcap.policy.context import NO_VISIT, Visit, context_of
from endcap.policy.fixed import FixedPolicy
from endcap.policy.rules import RuleBook, Ruled

if TYPE_CHECKING:
    from endcap.experiments.models import ArmScorer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """An order and how it came about.

    ``order`` (int64): places in the engine's order, best first, without those that a rule hides. ``scores`` (float32,
    (n,)) in the engine's order. ``arm``, ``propensity``, ``context``: for the rankings log. ``notes`` and ``labels``:
    by place in the engine's order, what rules did to a product and what it has to be marked as (``sponsored``).
    """

    order: np.ndarray
    scores: np.ndarray
    arm: str = ""
    propensity: float = 1.0
    context: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[int, Sequence[str]] = field(default_factory=dict)
    labels: Mapping[int, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What experiments decide about one search.

    ``arm``: the ranking profile that it must be made with; None: the policy chooses. ``versus``: a second profile that
    is interleaved with it. ``noted``: for the rankings log, experiment -> arm. ``seed``: of the interleaving's coins.
    ``model``: what scores this search; None: what is live. ``rival``: the same for ``versus``.
    """

    arm: Blend | None = None
    versus: Blend | None = None
    noted: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    model: ArmScorer | None = None
    rival: ArmScorer | None = None


class Assigner(Protocol):
    """The running experiments, as the request path sees them."""

    def treatment(self, shopper: str, visit: Visit) -> Treatment | None:
        """What the shopper's experiments ask for; None: he takes part in none."""


class Arranger:
    """Holds what is in force. Its attributes may be replaced at any time; a search goes on with what it began with."""

    def __init__(
        self,
        policy: Policy | None = None,
        rules: RuleBook | None = None,
        assigner: Assigner | None = None,
        no_exploration: frozenset[str] = frozenset(),
    ) -> None:
        """``no_exploration``: segments that always get the best arm."""
        self.policy: Policy = policy or FixedPolicy()
        self.rules = rules or RuleBook()
        self._table: ProductTable | None = None
        self.assigner = assigner
        self._no_exploration = no_exploration

    def prepare(self, table: ProductTable) -> None:
        """Look the rules' targets up in a product table before searches come with it."""
        self._table = table
        self.rules.prepare(table)

    def put_rules(self, rules: RuleBook) -> None:
        """Put other rules into force, looked up in the products before the first search comes to them."""
        if self._table is not None:
            rules.prepare(self._table)
        self.rules = rules

    def treatment(self, shopper: str, visit: Visit) -> Treatment | None:
        """What experiments ask for in one search; None: nothing. Never raises."""
        if self.assigner is None or not shopper:
            return None
        try:
            return self.assigner.treatment(shopper, visit)
        except Exception:
            log.exception("experiments failed; the search goes on without them")
            return None

    def arrange(
        self,
        inputs: RankingInputs,
        interest: np.ndarray,
        ids: Sequence[str],
        shopper: str,
        visit: Visit = NO_VISIT,
        treatment: Treatment | None = None,
        rival: np.ndarray | None = None,
    ) -> Arrangement:
        """Order n candidates.

        Args:
            interest: the scorer's scores, float32 (n,): those of ``treatment.model`` where it names one.
            treatment: of :meth:`treatment`.
            rival: the scores of ``treatment.rival``; None: as ``interest``.
        """
        policy = self.policy
        context = context_of(inputs, visit)
        explore = visit.segment not in self._no_exploration
        noted: dict[str, Any] = {**context.as_json(), "policy": policy.version, "explored": explore}
        if visit.segment:
            noted["segment"] = visit.segment
        if visit.internal:
            noted["internal"] = True
        if treatment is not None and treatment.noted:
            noted["experiments"] = dict(treatment.noted)
        if treatment is not None and treatment.model is not None:
            noted["model"] = treatment.model.version
        if treatment is not None and treatment.arm is not None:
            # Whose shopper he is was drawn once, not for this search: nothing of it is left to chance here.
            choice = Choice(treatment.arm, 1.0)
            noted["policy"], noted["explored"] = "experiment", False
        else:
            choice = policy.choose(context, draw_of(shopper, inputs.query, inputs.now, policy.version), explore)
        scores = scores_of(choice.arm, inputs, interest)
        versus = None
        if treatment is not None and treatment.versus is not None:
            against = scores_of(treatment.versus, inputs, interest if rival is None else rival)
            versus = _Versus(treatment.versus, against, treatment.seed)
        ruled, teams = self._ruled(
            inputs, scores, ids, shopper, visit, lambda order, own: slate(choice.arm, order, own, inputs), versus
        )
        if versus is not None:
            noted["teams"] = teams
        if ruled.sales:
            noted["sponsored"] = [
                {"rule": sale.rule, "product": ids[sale.place], "position": sale.position, "price": sale.price}
                for sale in ruled.sales
            ]
        return Arrangement(
            ruled.order, ruled.scores, choice.arm.name, choice.propensity, noted, ruled.notes, ruled.labels
        )

    def arrange_anonymous(self, inputs: RankingInputs, ids: Sequence[str], visit: Visit = NO_VISIT) -> Arrangement:
        """The engine's order under the rules alone: nothing is known of the shopper, so nothing is chosen for him."""
        scores = -np.arange(len(ids), dtype=np.float32)
        ruled, _ = self._ruled(inputs, scores, ids, "", visit, lambda order, own: order)
        return Arrangement(ruled.order, ruled.scores, notes=ruled.notes, labels=ruled.labels)

    def _ruled(
        self, inputs: RankingInputs, scores: np.ndarray, ids: Sequence[str], shopper: str, visit: Visit,
        fill: Callable[[np.ndarray, np.ndarray], np.ndarray], versus: _Versus | None = None,
    ) -> tuple[Ruled, list[int]]:  # fmt: skip
        """``fill``: (order, scores) -> the order after the profile's own slate rules. ``versus``: what it is
        interleaved with, before rules about places have the last word; then also who placed each of the first 100."""
        rules = self.rules
        applying = rules.applying(inputs, visit) if rules and len(ids) else []
        ruled = Ruled(np.empty(0, dtype=np.int64), scores)
        rules.boosts(applying, inputs, ruled)
        ruled.order = fill(np.argsort(-ruled.scores, kind="stable"), ruled.scores)
        teams: dict[int, int] = {}
        if versus is not None:
            other = Ruled(np.empty(0, dtype=np.int64), versus.scores)
            rules.boosts(applying, inputs, other)
            other.order = slate(versus.arm, np.argsort(-other.scores, kind="stable"), other.scores, inputs)
            for one in (ruled, other):
                rules.hide(applying, inputs, one)
            teams = _interleave(ruled, other.order, versus.seed)
        rules.places(applying, inputs, ids, shopper, ruled)
        if versus is None:
            return ruled, []
        # What stands where it does by a rule speaks for neither.
        held = {*ruled.held.values(), *(sale.place for sale in ruled.sales)}
        return ruled, [0 if place in held else teams.get(place, 0) for place in ruled.order[:100].tolist()]


@dataclass(frozen=True, slots=True)
class _Versus:
    """The second of two rankings that are interleaved."""

    arm: Blend
    scores: np.ndarray
    seed: int


def _interleave(ruled: Ruled, rival: np.ndarray, seed: int) -> dict[int, int]:
    """Team draft of two orders over the same candidates, the first of them ``ruled``'s, which it becomes; gives who
    placed each candidate."""
    from endcap.experiments.interleaving import team_draft

    order = ruled.order
    if not len(order):
        return {}
    mixed = team_draft([str(one) for one in order.tolist()], [str(one) for one in rival.tolist()], len(order), seed)
    ruled.order = np.array([int(one) for one in mixed.products], dtype=np.int64)
    # What looks at scores afterwards (variety, sponsored places) must not take one side's.
    scores = ruled.scores.copy()
    scores[ruled.order] = np.sort(scores[order])[::-1]
    ruled.scores = scores
    return dict(zip(ruled.order.tolist(), mixed.teams))
