"""What a policy learns from: the decisions of the rankings log, with the rewards that came of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from endcap.errors import InvalidInput
from endcap.events import Action
from endcap.policy.context import COLUMNS, Context, vectors
from endcap.policy.examination import Examination
from endcap.stores.outcomes import Outcome, Reaction


@dataclass(frozen=True, slots=True)
class Rewards:
    """What a reaction counts. A click or a cart counts once a ranking, a purchase once a product."""

    click: float = 0.1
    cart: float = 0.3
    purchase: float = 1.0

    def __post_init__(self) -> None:
        values = (self.click, self.cart, self.purchase)
        if not all(math.isfinite(one) and one >= 0 for one in values) or not any(values):
            raise InvalidInput("rewards: click, cart and purchase must be at least 0, one of them above")

    def of(self, reactions: Iterable[Reaction], examination: Examination | None = None) -> float:
        """A ranking's reward. What was given back does not count as bought.

        ``examination``: a reaction that names no ranking (a cart or a purchase hardly ever does) was only found to
        concern a product that the ranking showed, perhaps where nobody looked: it counts by how probable it is that its
        place was looked at. None: it counts in full.
        """
        credit: dict[Action, dict[str, float]] = {action: {} for action in Action}
        for one in reactions:
            looked = 1.0 if one.named or examination is None else float(examination.of(np.array(one.position)))
            mine = credit[one.action]
            mine[one.product] = max(mine.get(one.product, 0.0), looked)
        bought = [value for name, value in credit[Action.PURCHASE].items() if name not in credit[Action.RETURN]]
        carted = [value for name, value in credit[Action.CART].items() if name not in credit[Action.UNCART]]
        clicked = max(credit[Action.CLICK].values(), default=0.0)
        return self.click * clicked + self.cart * max(carted, default=0.0) + self.purchase * sum(bought)


@dataclass(slots=True)
class Decisions:
    """Decisions in order of time.

    ``contexts``: float64 (n, d). ``action``: int64 (n,), index into the arms. ``propensity``, ``reward``, ``time``:
    float64 (n,). ``session``, ``shopper``: labels, (n,). ``left_out``: why -> how many rankings do not count.
    ``examination``: by which rewards were weighed; None: by none.
    """

    contexts: np.ndarray
    action: np.ndarray
    propensity: np.ndarray
    reward: np.ndarray
    time: np.ndarray
    session: np.ndarray
    shopper: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)
    examination: Examination | None = None

    def __len__(self) -> int:
        return len(self.action)

    def take(self, rows: np.ndarray | slice) -> Decisions:
        """Some of them."""
        return Decisions(
            self.contexts[rows], self.action[rows], self.propensity[rows], self.reward[rows], self.time[rows],
            self.session[rows], self.shopper[rows], self.left_out, self.examination,
        )  # fmt: skip


class DecisionReader:
    """Collects decisions out of outcomes that come in batches."""

    def __init__(
        self,
        arms: Sequence[str],
        rewards: Rewards,
        complete_before: float,
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        """``complete_before``: rankings after it may still earn something, and do not count. ``excluded``: flagged
        shoppers, whose behaviour counts for nothing."""
        self._arm = {name: number for number, name in enumerate(arms)}
        self._rewards, self._before, self._excluded = rewards, complete_before, excluded
        self._contexts: list[Context] = []
        self._rows: list[tuple[int, float, float]] = []
        self._reactions: list[tuple[Reaction, ...]] = []
        self._labels: list[tuple[str, str]] = []
        self._left_out: dict[str, int] = {}

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Take in rankings with what followed.

        Raises:
            InvalidInput: a decision of a policy was logged without its propensity, or with one that is none.
        """
        for outcome in outcomes:
            reason = self._why_not(outcome)
            if reason:
                self._left_out[reason] = self._left_out.get(reason, 0) + 1
                continue
            ranking = outcome.ranking
            propensity = ranking.propensity
            if propensity is None or not math.isfinite(propensity) or not 0 < propensity <= 1:
                raise InvalidInput(
                    f"ranking {ranking.id} has no propensity in (0, 1] but {propensity}: nothing can be learnt from a "
                    "log that does not say how probable its choices were"
                )
            self._contexts.append(Context.from_json(ranking.context))
            self._rows.append((self._arm[ranking.arm], propensity, ranking.time))
            self._reactions.append(outcome.reactions)
            self._labels.append(
                (ranking.session or f"{ranking.shopper}\0{int(ranking.time // 1_800)}", ranking.shopper)
            )

    def _why_not(self, outcome: Outcome) -> str:
        ranking = outcome.ranking
        context = ranking.context
        if ranking.degraded or not ranking.shopper or not ranking.arm or ranking.start:
            return "no decision"  # the engine's order, anonymous shoppers, the pages after the first
        if ranking.shopper in self._excluded:
            return "flagged shopper"
        if context.get("internal"):
            return "internal shopper"
        if context.get("model"):
            return "another model"  # of an experiment: what a profile earned with it says nothing of the live one
        if not context.get("explored"):
            return "nothing left to chance"  # segments that are opted out, experiments
        if ranking.time > self._before:
            return "too recent"
        if ranking.arm not in self._arm:
            return "profile that is gone"
        return ""

    def decisions(self, examination: Examination | None = None) -> Decisions:
        """All of them so far, in order of time. ``examination``: see :meth:`Rewards.of`."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 3)
        reward = np.array([self._rewards.of(one, examination) for one in self._reactions], dtype=np.float64)
        order = np.argsort(rows[:, 2], kind="stable")
        labels = np.array(self._labels, dtype=object).reshape(-1, 2)
        contexts = vectors(self._contexts) if self._contexts else np.zeros((0, len(COLUMNS)))
        return Decisions(
            contexts[order],
            rows[order, 0].astype(np.int64),
            rows[order, 1],
            reward[order],
            rows[order, 2],
            labels[order, 0].astype(str),
            labels[order, 1].astype(str),
            dict(self._left_out),
            examination,
        )
