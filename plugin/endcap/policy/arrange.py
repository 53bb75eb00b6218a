"""From scores to the order that is shown: a policy chooses the ranking profile, rules have the last word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endcap.features import RankingInputs
from endcap.policy.base import Choice, Policy, draw_of
from endcap.policy.blend import blended
from endcap.policy.context import NO_VISIT, Visit, context_of
from endcap.policy.fixed import FixedPolicy


@dataclass(frozen=True, slots=True)
class Arrangement:
    """An order and how it came about.

    ``order`` (int64): places in the engine's order, best first. ``scores`` (float32, (n,)) in the engine's order.
    ``arm``, ``propensity``, ``context``: for the rankings log.
    """

    order: np.ndarray
    scores: np.ndarray
    arm: str
    propensity: float
    context: Mapping[str, Any] = field(default_factory=dict)


class Arranger:
    """Holds what is in force. Its attributes may be replaced at any time; a search goes on with what it began with."""

    def __init__(self, policy: Policy | None = None, no_exploration: frozenset[str] = frozenset()) -> None:
        """``no_exploration``: segments that always get the best arm."""
        self.policy: Policy = policy or FixedPolicy()
        self._no_exploration = no_exploration

    def arrange(
        self, inputs: RankingInputs, interest: np.ndarray, shopper: str, visit: Visit = NO_VISIT
    ) -> Arrangement:
        """Order n candidates. ``interest``: the scorer's scores, float32 (n,)."""
        policy = self.policy
        context = context_of(inputs, visit)
        explore = visit.segment not in self._no_exploration
        choice: Choice = policy.choose(context, draw_of(shopper, inputs.query, inputs.now, policy.version), explore)
        scores, order = blended(choice.arm, inputs, interest)
        noted: dict[str, Any] = {**context.as_json(), "policy": policy.version, "explored": explore}
        if visit.segment:
            noted["segment"] = visit.segment
        if visit.internal:
            noted["internal"] = True
        return Arrangement(order, scores, choice.arm.name, choice.propensity, noted)
