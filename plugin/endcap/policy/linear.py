"""Contextual bandits with a linear model of each arm's reward: LinUCB and Thompson sampling.

Both keep, per arm, the ridge regression of reward on context: A = λ I + Σ γ^age x xᵀ and b = Σ γ^age x r. With γ < 1
what is old counts less, so that they follow a shop whose shoppers or products change (Russac et al. 2019).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from endcap.errors import InvalidInput
from endcap.policy.base import BasePolicy, Exploration
from endcap.policy.blend import Blend
from endcap.policy.context import COLUMNS

_Self = TypeVar("_Self", bound="LinearPolicy")
#: Gauss-Legendre nodes of the integral over which arm is best, in standard deviations around the arms.
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(48)
_REACH = 6.0


class LinearPolicy(BasePolicy):
    """``mean``: (arms, d) coefficients; ``spread``: (arms, d, d), A⁻¹; ``noise``: standard deviation of a reward."""

    def __init__(
        self,
        arms: tuple[Blend, ...],
        mean: np.ndarray | None = None,
        spread: np.ndarray | None = None,
        noise: float = 0.5,
        exploration: Exploration | None = None,
        version: str = "",
    ) -> None:
        super().__init__(arms, exploration or Exploration(), version)
        width = len(COLUMNS)
        self.mean = np.zeros((len(arms), width)) if mean is None else np.asarray(mean, dtype=np.float64)
        own = np.broadcast_to(np.eye(width), (len(arms), width, width)) if spread is None else spread
        self.spread = np.asarray(own, dtype=np.float64)
        self.noise = float(noise)
        if self.mean.shape != (len(arms), width) or self.spread.shape != (len(arms), width, width):
            raise InvalidInput(f"{self.kind} policy: it needs {len(arms)} x {width} coefficients and their spread")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.spread).all() and self.noise > 0):
            raise InvalidInput(f"{self.kind} policy: its numbers must be finite and its noise above 0")

    def estimates(self, contexts: np.ndarray) -> np.ndarray:
        """Mean reward of each arm, (n, arms)."""
        result: np.ndarray = contexts @ self.mean.T
        return result

    def deviations(self, contexts: np.ndarray) -> np.ndarray:
        """Posterior standard deviation of each arm's mean reward, (n, arms)."""
        # Arm by arm: one matrix product each is faster than einsum's general path.
        squares = np.stack([((contexts @ one) * contexts).sum(axis=1) for one in self.spread], axis=1)
        return self.noise * np.sqrt(np.maximum(squares, 0.0))

    def as_json(self) -> dict[str, Any]:
        return {
            **super().as_json(),
            "columns": list(COLUMNS),
            "mean": self.mean.tolist(),
            "spread": self.spread.tolist(),
            "noise": self.noise,
        }

    @classmethod
    def of(
        cls: type[_Self],
        memory: LinearMemory,
        arms: tuple[Blend, ...],
        exploration: Exploration | None = None,
        version: str = "",
    ) -> _Self:
        """The policy that follows from what was observed."""
        mean, spread, noise = memory.posterior()
        return cls(arms, mean, spread, noise=noise, exploration=exploration, version=version)


class LinUCB(LinearPolicy):
    """Takes the arm with the largest upper bound ``mean + width * deviation`` (Li et al. 2010); with several as large,
    the first. Only what :class:`Exploration` allows is left to chance."""

    kind = "linucb"
    width = 1.0

    def values(self, contexts: np.ndarray) -> np.ndarray:
        return self.estimates(contexts) + self.width * self.deviations(contexts)

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        odds = np.zeros_like(values)
        odds[np.arange(len(values)), values.argmax(axis=1)] = 1.0
        return odds


class ThompsonPolicy(LinearPolicy):
    """Draws each arm with the probability that it is the best one (Thompson 1933; Agrawal & Goyal 2013).

    The arms' posteriors are independent normals, so that probability is one integral over the best value. It is
    computed, not simulated, and what serves draws from the computed numbers: the propensities are exact.
    """

    kind = "thompson"

    def values(self, contexts: np.ndarray) -> np.ndarray:
        return self.estimates(contexts)

    def wanted(self, contexts: np.ndarray, values: np.ndarray) -> np.ndarray:
        return best_probabilities(values, self.deviations(contexts))


def best_probabilities(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """P(arm k has the largest value) of independent normals: ∫ φ_k(v) Π_{j≠k} Φ_j(v) dv, (n, k) from (n, k) each."""
    deviation = np.maximum(deviation, 1e-9)
    low = (mean - _REACH * deviation).max(axis=1, keepdims=True)
    high = (mean + _REACH * deviation).max(axis=1, keepdims=True)
    value = (low + high) / 2 + (high - low) / 2 * _NODES  # (n, nodes)
    scaled = (value[:, None, :] - mean[:, :, None]) / deviation[:, :, None]
    log_below = np.log(np.maximum(normal_below(scaled), 1e-300))
    log_density = -0.5 * scaled**2 - np.log(deviation)[:, :, None]
    inside = np.exp(log_density + log_below.sum(axis=1, keepdims=True) - log_below) @ _NODE_WEIGHTS
    total = inside.sum(axis=1, keepdims=True)
    alone = np.zeros_like(inside)  # far apart and very sure: no node lies under the best arm's peak
    alone[np.arange(len(mean)), mean.argmax(axis=1)] = 1.0
    return np.where(total > 1e-12, inside / np.maximum(total, 1e-300), alone)


def normal_below(value: np.ndarray) -> np.ndarray:
    """Φ(value), by Abramowitz & Stegun 26.2.17: within 7.5e-8."""
    size = np.abs(value)
    part = 1 / (1 + 0.2316419 * size)
    series = part * (
        0.319381530 + part * (-0.356563782 + part * (1.781477937 + part * (-1.821255978 + part * 1.330274429)))
    )
    tail = np.exp(-0.5 * size**2) / math.sqrt(2 * math.pi) * series
    return np.where(value >= 0, 1 - tail, tail)


class LinearMemory:
    """The sums that linear bandits learn from; kept by whoever trains, rewards in order of time."""

    def __init__(self, arms: int, decay: float = 1.0, ridge: float = 5.0) -> None:
        """``decay``: a ranking's weight relative to the next one's; .999 forgets half in 693. ``ridge``: λ."""
        if not 0 < decay <= 1 or not ridge > 0:
            raise InvalidInput(f"decay must be in (0, 1] and ridge above 0, not {decay} and {ridge}")
        width = len(COLUMNS)
        self.decay, self.ridge = decay, ridge
        self.outer = np.zeros((arms, width, width))
        self.inner = np.zeros((arms, width))
        self.weight, self.total, self.squares = 0.0, 0.0, 0.0

    def add(
        self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, weight: np.ndarray | None = None
    ) -> None:
        """Learn from rankings, oldest first: (n, d), int (n,), (n,); ``weight``: how much each counts, (n,)."""
        count = len(reward)
        if not count:
            return
        if not np.isfinite(reward).all():
            raise InvalidInput("rewards must be finite numbers")
        weights = self.decay ** np.arange(count - 1, -1, -1.0)
        fade = self.decay**count
        if weight is not None:
            weights = weights * weight
        self.outer *= fade
        self.inner *= fade
        for arm in np.unique(action).tolist():
            mine = action == arm
            weighted = contexts[mine] * weights[mine, None]
            self.outer[arm] += weighted.T @ contexts[mine]
            self.inner[arm] += weighted.T @ reward[mine]
        self.weight = self.weight * fade + float(weights.sum())
        self.total = self.total * fade + float(weights @ reward)
        self.squares = self.squares * fade + float(weights @ reward**2)

    def posterior(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Coefficients (arms, d), A⁻¹ (arms, d, d) and the rewards' standard deviation.

        Every arm is shrunk towards what all arms together say of a context, so that arms differ only where the data do.
        """
        width = self.outer.shape[1]
        identity = np.eye(width)
        common = np.linalg.solve(self.outer.sum(axis=0) + self.ridge * identity, self.inner.sum(axis=0))
        spread = np.linalg.inv(self.outer + self.ridge * identity)
        mean = np.einsum("aij,aj->ai", spread, self.inner + self.ridge * common)
        if self.weight <= 1:
            return mean, spread, 0.5
        variance = self.squares / self.weight - (self.total / self.weight) ** 2
        return mean, spread, math.sqrt(max(variance, 1e-6))
