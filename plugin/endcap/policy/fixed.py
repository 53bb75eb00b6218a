"""Policies that look at no context: one profile for everyone, all alike, and softmax over what each has earned."""

from __future__ import annotations

from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.policy.base import BasePolicy, Exploration
from endcap.policy.blend import INTEREST, Blend


class FixedPolicy(BasePolicy):
    """Always the first arm, but for the share that explores uniformly."""

    kind = "fixed"

    def __init__(
        self, arms: tuple[Blend, ...] = (INTEREST,), exploration: Exploration | None = None, version: str = ""
    ) -> None:
        super().__init__(arms, exploration or Exploration(0.0), version)

    def values(self, contexts: np.ndarray) -> np.ndarray:
        values = np.zeros((len(contexts), len(self.arms)))
        values[:, 0] = 1.0
        return values

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.full(values.shape, 1 / len(self.arms))


class SoftmaxPolicy(BasePolicy):
    """Boltzmann exploration over each arm's mean reward, whatever the context.

    ``means``: reward of each arm, (arms,). ``temperature``: in units of the reward; infinite: uniform.
    """

    kind = "softmax"

    def __init__(
        self,
        arms: tuple[Blend, ...],
        means: np.ndarray,
        temperature: float = 0.01,
        exploration: Exploration | None = None,
        version: str = "",
    ) -> None:
        super().__init__(arms, exploration or Exploration(), version)
        self.means = np.asarray(means, dtype=np.float64)
        self.temperature = float(temperature)
        if self.means.shape != (len(arms),) or not np.isfinite(self.means).all():
            raise InvalidInput(f"softmax policy: means must be {len(arms)} finite rewards, one for each arm")
        if not self.temperature > 0:
            raise InvalidInput(f"softmax policy: temperature must be above 0, not {temperature}")

    def values(self, contexts: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.means, (len(contexts), len(self.arms))).copy()

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        return softmax(values / self.temperature)

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "means": self.means.tolist(), "temperature": self.temperature}

    @classmethod
    def learn(
        cls,
        arms: tuple[Blend, ...],
        action: np.ndarray,
        reward: np.ndarray,
        temperature: float = 0.01,
        exploration: Exploration | None = None,
        version: str = "",
    ) -> SoftmaxPolicy:
        """Means of what each arm earned, shrunk towards the mean of all by ten rankings' worth."""
        counts = np.bincount(action, minlength=len(arms))
        sums = np.bincount(action, weights=reward, minlength=len(arms))
        overall = float(reward.mean()) if len(reward) else 0.0
        return cls(arms, (sums + 10 * overall) / (counts + 10), temperature, exploration, version)


def softmax(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    odds = np.exp(values - values.max(axis=-1, keepdims=True))
    result: np.ndarray = odds / odds.sum(axis=-1, keepdims=True)
    return result
