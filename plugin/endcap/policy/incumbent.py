"""A policy that keeps what has proven itself: an incumbent profile, challengers, and an alarm when times change.

Where one profile is best for long, a learner that keeps doubting pays for it with every ranking; where what is best
changes, one that never doubts pays more. So the incumbent is only left for a challenger that is ahead by a margin (in
the manner of conservative exploration, Wu et al. 2016), challengers are tried as often as they may be the best
(Thompson 1933) and the less, the longer all was quiet; and when the incumbent suddenly earns less than it used to, most
of what was learnt is forgotten and trying begins anew (change detection, Liu et al. 2018; Cao et al. 2019).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.policy.base import BasePolicy, Exploration
from endcap.policy.blend import Blend
from endcap.policy.linear import best_probabilities

#: Rankings after which what was learnt counts half. All counts below are for this one, and grow with it.
HALF_LIFE = 1_000.0
#: Rankings that are taken in at once, between two looks at who is ahead; after which the first incumbent is named, or
#: earlier if a policy is asked for.
_STEP, _FIRST = 50, 3_000
#: After so many quiet rankings exploration begins to fall, by the square root of their number.
_QUIET = 500
#: An alarm compares the latest so many rankings of the incumbent with all before; so many standard errors sound it.
_WINDOW, _ALARM = 100, 4.0
#: Pseudo-rankings at the incumbent's mean that an arm begins with.
_PRIOR = 10.0
#: A challenger takes over when it is ahead by so many standard errors.
_AHEAD = 0.25
#: Share of the memory that outlives an alarm.
_KEPT = 0.1
#: Part of the exploration that goes to all arms alike.
UNIFORM = 0.1


class IncumbentPolicy(BasePolicy):
    """Takes the incumbent; within the bound each challenger with the probability that it is the best.

    ``incumbent``: index of the arm. ``means``, ``deviations``: what each arm is believed to earn and the standard error
    of that, (arms,).
    """

    kind = "incumbent"

    def __init__(
        self,
        arms: tuple[Blend, ...],
        incumbent: int = 0,
        means: np.ndarray | None = None,
        deviations: np.ndarray | None = None,
        exploration: Exploration | None = None,
        version: str = "",
    ) -> None:
        super().__init__(arms, exploration or Exploration(), version)
        self.incumbent = int(incumbent)
        self.means = np.zeros(len(arms)) if means is None else np.asarray(means, dtype=np.float64)
        self.deviations = np.ones(len(arms)) if deviations is None else np.asarray(deviations, dtype=np.float64)
        if not 0 <= self.incumbent < len(arms):
            raise InvalidInput(f"incumbent policy: there is no arm {incumbent}")
        if self.means.shape != (len(arms),) or self.deviations.shape != (len(arms),):
            raise InvalidInput(f"incumbent policy: it needs {len(arms)} means and deviations, one for each arm")
        if not (np.isfinite(self.means).all() and np.isfinite(self.deviations).all() and (self.deviations > 0).all()):
            raise InvalidInput("incumbent policy: means must be finite, deviations above 0")

    def values(self, contexts: np.ndarray) -> np.ndarray:
        values = np.broadcast_to(self.means, (len(contexts), len(self.arms))).copy()
        # What is ahead by chance only is not taken for better.
        values[:, self.incumbent] = max(float(self.means.max()), float(self.means[self.incumbent])) + 1e-9
        return values

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        odds = best_probabilities(self.means[None], self.deviations[None])
        return np.broadcast_to(odds, values.shape).copy()

    def as_json(self) -> dict[str, Any]:
        return {
            **super().as_json(),
            "incumbent": self.incumbent,
            "means": self.means.tolist(),
            "deviations": self.deviations.tolist(),
        }


class IncumbentMemory:
    """What an :class:`IncumbentPolicy` is learnt from; kept by whoever trains.

    After an alarm the incumbent's mean is that of its latest rankings, while challengers keep, faintly, what they
    earned before: whoever the change did not hurt is soon ahead.
    """

    def __init__(self, arms: int, half_life: float = HALF_LIFE) -> None:
        """``half_life``: rankings after which what was learnt counts half, at least 1,000: a shop with more traffic
        sees as much of a season in more rankings."""
        if arms < 1 or not half_life >= HALF_LIFE:
            raise InvalidInput(f"a policy needs an arm, and a half-life of at least {HALF_LIFE:,.0f} rankings")
        self.half_life = half_life
        scale = half_life / HALF_LIFE
        self._steps, self._first, self._window = int(_STEP * scale), int(_FIRST * scale), int(_WINDOW * scale)
        self._calm = _QUIET * scale
        self.count, self.total, self.squares = np.zeros(arms), np.zeros(arms), np.zeros(arms)
        self.incumbent = -1
        #: Rankings since the beginning, or since the last alarm; and how many alarms there were.
        self.quiet, self.alarms = 0.0, 0
        self._latest = np.zeros(0)
        self._before = np.zeros(2)  # of the incumbent before its latest rankings: how many, what they earned

    def add(self, action: np.ndarray, reward: np.ndarray) -> None:
        """Learn from rankings in order of time: int (n,), (n,).

        Raises:
            InvalidInput: a reward is no finite number.
        """
        if len(action) != len(reward) or not np.isfinite(reward).all():
            raise InvalidInput("every ranking needs an arm and a reward that is a finite number")
        for start in range(0, len(reward), self._steps):
            part = slice(start, start + self._steps)
            self._step(action[part], np.asarray(reward[part], dtype=np.float64))
        if self.incumbent < 0 and len(reward):
            self._enthrone(int(self._believed()[0].argmax()))

    def policy(self, arms: tuple[Blend, ...], exploration: Exploration, version: str = "") -> IncumbentPolicy:
        """The policy that follows. ``exploration``: what is allowed; it uses up less, the longer all was quiet."""
        means, deviations = self._believed()
        bound = exploration.bound * min(1.0, math.sqrt(self._calm / (self._calm + self.quiet)))
        return IncumbentPolicy(
            arms, max(self.incumbent, 0), means, deviations, Exploration(bound, UNIFORM), version
        )  # fmt: skip

    def _step(self, action: np.ndarray, reward: np.ndarray) -> None:
        arms = len(self.count)
        weight = 0.5 ** (np.arange(len(reward) - 1, -1, -1.0) / self.half_life)
        fade = 0.5 ** (len(reward) / self.half_life)
        self.count = self.count * fade + np.bincount(action, weight, minlength=arms)
        self.total = self.total * fade + np.bincount(action, weight * reward, minlength=arms)
        self.squares = self.squares * fade + np.bincount(action, weight * reward**2, minlength=arms)
        self.quiet += len(reward)
        if self.incumbent >= 0:
            self._watch(reward[action == self.incumbent])
        means, deviations = self._believed()
        if self.incumbent < 0:
            if self.quiet >= self._first:
                self._enthrone(int(means.argmax()))
            return
        ahead = means - means[self.incumbent] - _AHEAD * np.hypot(deviations, deviations[self.incumbent])
        ahead[self.incumbent] = 0.0
        if ahead.max() > 0:
            self._enthrone(int(ahead.argmax()))

    def _believed(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean of each arm, shrunk towards the incumbent's, and its standard error."""
        known = max(float(self.count.sum()), 1e-9)
        mean = float(self.total.sum()) / known
        variance = max(float(self.squares.sum()) / known - mean**2, 2.5e-3)
        if self.incumbent >= 0 and self.count[self.incumbent] > 0:
            mean = float(self.total[self.incumbent] / self.count[self.incumbent])
        means = (self.total + _PRIOR * mean) / (self.count + _PRIOR)
        return means, np.sqrt(variance / (self.count + _PRIOR))

    def _enthrone(self, arm: int) -> None:
        # What it was believed to earn when it came is what it is held to, or luck would keep it.
        self.incumbent = arm
        self._latest, self._before = np.zeros(0), np.array([self.count[arm], self.total[arm]])

    def _watch(self, reward: np.ndarray) -> None:
        """Does the incumbent earn less than it used to?"""
        latest = np.r_[self._latest, reward]
        older, self._latest = latest[: -self._window], latest[-self._window :]
        self._before += (len(older), float(older.sum()))
        if len(self._latest) < self._window or self._before[0] < self._window:
            return
        now, usual = float(self._latest.mean()), float(self._before[1] / self._before[0])
        known = float(self.count.sum())
        variance = max(float(self.squares.sum()) / known - (float(self.total.sum()) / known) ** 2, 2.5e-3)
        if usual - now <= _ALARM * math.sqrt(variance * (1 / self._before[0] + 1 / self._window)):
            return
        self.alarms += 1
        self.quiet = 0.0
        for sums, own in (
            (self.count, float(self._window)),
            (self.total, float(self._latest.sum())),
            (self.squares, float((self._latest**2).sum())),
        ):
            sums *= _KEPT
            sums[self.incumbent] = own
        self._latest, self._before = np.zeros(0), np.zeros(2)
