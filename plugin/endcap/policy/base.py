"""The protocol of ranking policies, and what all of them share: exact propensities and a bound on exploration."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from endcap.errors import InvalidInput
from endcap.experiments.assignment import position
from endcap.policy.blend import Blend
from endcap.policy.context import Context

#: Searches alike of one shopper get the same arm for so many seconds, so that pages of one list fit together.
STICKY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy decided. ``propensity``: the exact probability with which ``arm`` was drawn, in (0, 1]."""

    arm: Blend
    propensity: float


@runtime_checkable
class Policy(Protocol):
    """Chooses a ranking profile for a context. Immutable while it serves; thread-safe.

    Attributes:
        kind: which implementation, as saved.
        version: of what was learnt; empty for one that was not.
        arms: the ranking profiles it chooses between.
    """

    kind: str
    version: str
    arms: tuple[Blend, ...]

    def distribution(self, contexts: np.ndarray) -> np.ndarray:
        """Probability of each arm.

        Args:
            contexts: float64 (n, len(COLUMNS)), of :func:`~endcap.policy.context.vectors`.

        Returns:
            float64 (n, arms), rows sum to 1. What serves draws from exactly this, so that logged propensities are
            exact whatever approximation is inside.
        """

    def greedy(self, contexts: np.ndarray) -> np.ndarray:
        """Index of the arm that it takes for the best; int64 (n,)."""

    def choose(self, context: Context, draw: float, explore: bool = True) -> Choice:
        """The arm for one search, in well under .1 ms.

        Args:
            draw: in [0, 1), of :func:`draw_of`; decides between the arms.
            explore: False: the best one with propensity 1; such rankings teach nothing about others.
        """

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain JSON; :func:`endcap.policy.saving.policy_from_json` reads it."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """``bound``: at most this share of rankings is made by another arm than the best. ``uniform``: this part of the
    bound goes to all arms alike, whatever is believed, so that every arm can be judged from the log."""

    bound: float = 0.05
    uniform: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and 0 <= self.bound <= 1):
            raise InvalidInput(f"exploration: bound must be in [0, 1], not {self.bound}")
        if not (math.isfinite(self.uniform) and 0 <= self.uniform <= 1):
            raise InvalidInput(f"exploration: uniform must be in [0, 1], not {self.uniform}")

    def bounded(self, wanted: np.ndarray, best: np.ndarray) -> np.ndarray:
        """The nearest distribution that keeps the bound: (n, arms) from ``wanted`` (n, arms) and the best arms (n,)."""
        rows = np.arange(len(wanted))
        if wanted.shape[1] == 1 or self.bound == 0:
            alone = np.zeros_like(wanted)
            alone[rows, best] = 1.0
            return alone
        others = wanted.copy()
        others[rows, best] = 0.0
        mass = others.sum(axis=1, keepdims=True)
        room = self.bound * (1 - self.uniform)
        others *= np.minimum(mass, room) / np.maximum(mass, 1e-300)
        others += self.bound * self.uniform / (wanted.shape[1] - 1)
        others[rows, best] = 0.0
        others[rows, best] = 1.0 - others.sum(axis=1)
        return others

    @classmethod
    def from_json(cls, stored: Any) -> Exploration:
        """Raises InvalidInput for what is none."""
        if not isinstance(stored, Mapping):
            raise InvalidInput("exploration must be an object with bound and uniform")
        return cls(float(stored.get("bound", 0.05)), float(stored.get("uniform", 0.5)))


class BasePolicy:
    """Drawing from a distribution; implementations add :meth:`wanted` and :meth:`values`."""

    kind = ""

    def __init__(self, arms: tuple[Blend, ...], exploration: Exploration, version: str = "") -> None:
        names = [arm.name for arm in arms]
        if not arms or len(set(names)) < len(names):
            raise InvalidInput(f"a policy needs ranking profiles with names that differ, not {names}")
        self.arms = arms
        self.exploration = exploration
        self.version = version
        # Contexts are few (3,600) and a policy never changes: each is worked out once, then served from this table.
        self._table: dict[Context, tuple[list[float], list[float], int]] = {}

    def values(self, contexts: np.ndarray) -> np.ndarray:
        """What each arm is believed to earn, (n, arms)."""
        raise NotImplementedError

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The distribution it would draw from, were there no bound, (n, arms)."""
        raise NotImplementedError

    def greedy(self, contexts: np.ndarray) -> np.ndarray:
        return self.values(contexts).argmax(axis=1)

    def distribution(self, contexts: np.ndarray) -> np.ndarray:
        values = self.values(contexts)
        return self.exploration.bounded(self.wanted(contexts, values), values.argmax(axis=1))

    def choose(self, context: Context, draw: float, explore: bool = True) -> Choice:
        known = self._table.get(context)
        if known is None:
            row = context.vector()[None, :]
            odds = self.distribution(row)[0]
            known = (np.cumsum(odds).tolist(), odds.tolist(), int(self.greedy(row)[0]))
            self._table[context] = known
        reached, chances, best = known
        if not explore:
            return Choice(self.arms[best], 1.0)
        place = min(bisect_right(reached, draw * reached[-1]), len(self.arms) - 1)
        while chances[place] <= 0:  # rounding at the very end of the line
            place -= 1
        return Choice(self.arms[place], chances[place])

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "version": self.version,
            "arms": [arm.as_json() for arm in self.arms],
            "exploration": {"bound": self.exploration.bound, "uniform": self.exploration.uniform},
        }


def draw_of(shopper: str, query: str, now: float, salt: str) -> float:
    """A number in [0, 1) that is the same for the same search within an hour, and uniform over searches."""
    return position(f"{shopper}\0{query}\0{int(now // STICKY_S)}", f"policy\0{salt}")
