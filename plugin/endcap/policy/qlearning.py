"""Q-learning over a session: an arm's worth is what it earns now and what it leaves for the rankings after it.

Fitted Q iteration (Ernst et al. 2005) with a linear Q, from the log and off-policy; doubled (van Hasselt 2010): two
halves of the sessions hold a Q each, the arm that one of them takes for the best is valued by the other, so that luck
in the best arm's rewards is not taken for worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.policy.base import BasePolicy, Exploration
from endcap.policy.blend import Blend
from endcap.policy.context import COLUMNS
from endcap.policy.fixed import softmax


@dataclass(frozen=True, slots=True)
class Steps:
    """Rankings of sessions, each session's in order of time.

    ``contexts``: (n, d). ``action``: int (n,). ``reward``: (n,). ``after``: int (n,), row of the same session's next
    ranking, -1: the session ended. ``session``: int (n,). ``weight``: (n,), how much each counts; None: alike.
    """

    contexts: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    after: np.ndarray
    session: np.ndarray
    weight: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        contexts: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        session: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Steps:
        """From rankings in order of time; ``session``: any labels, (n,)."""
        count = len(reward)
        if not (len(contexts) == len(action) == len(session) == count):
            raise InvalidInput("contexts, action, reward and session must have one row for each ranking")
        if not np.isfinite(reward).all():
            raise InvalidInput("rewards must be finite numbers")
        _, label = np.unique(session, return_inverse=True)
        order = np.argsort(label, kind="stable")
        after = np.full(count, -1, dtype=np.int64)
        same = label[order][1:] == label[order][:-1]
        after[order[:-1][same]] = order[1:][same]
        return cls(contexts, np.asarray(action, dtype=np.int64), np.asarray(reward, float), after, label, weight)


class QPolicy(BasePolicy):
    """Draws by softmax over Q, within the bound. ``coefficients``: (arms, d). ``temperature``: in rewards."""

    kind = "q"

    def __init__(
        self,
        arms: tuple[Blend, ...],
        coefficients: np.ndarray | None = None,
        temperature: float = 0.02,
        exploration: Exploration | None = None,
        version: str = "",
    ) -> None:
        super().__init__(arms, exploration or Exploration(), version)
        shape = (len(arms), len(COLUMNS))
        self.coefficients = np.zeros(shape) if coefficients is None else np.asarray(coefficients, dtype=np.float64)
        self.temperature = float(temperature)
        if self.coefficients.shape != shape or not np.isfinite(self.coefficients).all():
            raise InvalidInput(f"q policy: coefficients must be finite numbers of shape {shape}")
        if not self.temperature > 0:
            raise InvalidInput(f"q policy: temperature must be above 0, not {temperature}")

    def values(self, contexts: np.ndarray) -> np.ndarray:
        result: np.ndarray = contexts @ self.coefficients.T
        return result

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        return softmax(values / self.temperature)

    def as_json(self) -> dict[str, Any]:
        return {
            **super().as_json(),
            "columns": list(COLUMNS),
            "coefficients": self.coefficients.tolist(),
            "temperature": self.temperature,
        }

    @classmethod
    def learn(
        cls,
        arms: tuple[Blend, ...],
        steps: Steps,
        discount: float = 0.8,
        rounds: int = 15,
        ridge: float = 5.0,
        exploration: Exploration | None = None,
        version: str = "",
        seed: int = 0,
    ) -> QPolicy:
        """Double fitted Q iteration.

        Args:
            discount: what a reward counts that comes one ranking later, in [0, 1); 0: a bandit.
            rounds: of the iteration; what lies further ahead than that is not seen.
            ridge: penalty on how far an arm departs from what all arms together say.

        Raises:
            InvalidInput: nothing to learn from, or a number out of its range.
        """
        if not 0 <= discount < 1:
            raise InvalidInput(f"discount must be in [0, 1), not {discount}")
        if not len(steps.reward):
            raise InvalidInput("there is no ranking to learn from")
        if len(steps.action) and (steps.action.min() < 0 or steps.action.max() >= len(arms)):
            raise InvalidInput("a ranking was made by an arm that the policy does not have")
        random = np.random.default_rng(seed)
        half = random.permutation(int(steps.session.max()) + 1)[steps.session] % 2
        regressions = [_Regression(steps, half == side, len(arms), ridge) for side in (0, 1)]
        tables = [np.zeros((len(arms), steps.contexts.shape[1])) for _ in (0, 1)]
        going = np.flatnonzero(steps.after >= 0)
        following = steps.contexts[steps.after[going]]
        for _ in range(rounds if discount else 1):
            own = [following @ table.T for table in tables]
            fresh = []
            for side in (0, 1):
                target = steps.reward.copy()
                picked = own[side].argmax(axis=1)
                target[going] += discount * own[1 - side][np.arange(len(going)), picked]
                fresh.append(regressions[side].solve(target))
            tables = fresh
        return cls(arms, (tables[0] + tables[1]) / 2, exploration=exploration, version=version)


class _Regression:
    """Ridge regression of each arm on context, factored once for all rounds."""

    def __init__(self, steps: Steps, mine: np.ndarray, arms: int, ridge: float) -> None:
        self._rows = np.flatnonzero(mine)
        contexts = steps.contexts[self._rows]
        weight = np.ones(len(self._rows)) if steps.weight is None else steps.weight[self._rows]
        self._weighted = contexts * weight[:, None]
        action = steps.action[self._rows]
        self._members = [np.flatnonzero(action == arm) for arm in range(arms)]
        identity = ridge * np.eye(contexts.shape[1])
        self._ridge = ridge
        self._inverses = [np.linalg.inv(self._weighted[one].T @ contexts[one] + identity) for one in self._members]
        self._common = np.linalg.inv(self._weighted.T @ contexts + identity)

    def solve(self, target: np.ndarray) -> np.ndarray:
        wanted = target[self._rows]
        common = self._common @ (self._weighted.T @ wanted)
        return np.stack(
            [
                inverse @ (self._weighted[one].T @ wanted[one] + self._ridge * common)
                for inverse, one in zip(self._inverses, self._members, strict=True)
            ]
        )
