"""How policies are kept learning while they serve: what an evaluation replays, batch by batch, in order of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from endcap.policy import Blend, Exploration, FixedPolicy, SoftmaxPolicy
from endcap.policy.base import BasePolicy
from endcap.policy.incumbent import IncumbentMemory
from endcap.policy.linear import LinearMemory, LinearPolicy, LinUCB, ThompsonPolicy
from endcap.policy.qlearning import QPolicy, Steps


class Learner(Protocol):
    """Takes in what its policy earned and gives the next policy."""

    def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
        """Rankings in order of time: (n, d), int (n,), (n,), int (n,). Nothing about arms that were not shown."""

    def policy(self) -> BasePolicy:
        """What serves from now on."""


class Standing:
    """Learns nothing."""

    def __init__(self, policy: BasePolicy) -> None:
        self._policy = policy

    def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
        """Not used."""

    def policy(self) -> BasePolicy:
        return self._policy


class LinearLearner:
    """LinUCB or Thompson sampling that forgets half in ``half_life`` rankings."""

    def __init__(
        self, kind: type[LinearPolicy], arms: tuple[Blend, ...], exploration: Exploration, half_life: float
    ) -> None:
        self._kind, self._arms, self._exploration = kind, arms, exploration
        self._memory = LinearMemory(len(arms), decay=0.5 ** (1 / half_life))

    def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
        self._memory.add(contexts, action, reward)

    def policy(self) -> BasePolicy:
        return self._kind.of(self._memory, self._arms, self._exploration)


class SoftmaxLearner:
    """Softmax over discounted means, whatever the context."""

    def __init__(self, arms: tuple[Blend, ...], exploration: Exploration, half_life: float) -> None:
        self._arms, self._exploration, self._decay = arms, exploration, 0.5 ** (1 / half_life)
        self._count, self._sum = np.zeros(len(arms)), np.zeros(len(arms))

    def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
        weight = self._decay ** np.arange(len(reward) - 1, -1, -1.0)
        fade = self._decay ** len(reward)
        self._count = self._count * fade + np.bincount(action, weight, minlength=len(self._arms))
        self._sum = self._sum * fade + np.bincount(action, weight * reward, minlength=len(self._arms))

    def policy(self) -> BasePolicy:
        overall = self._sum.sum() / max(self._count.sum(), 1e-9)
        means = (self._sum + 10 * overall) / (self._count + 10)
        return SoftmaxPolicy(self._arms, means, 0.01, self._exploration)


class IncumbentLearner:
    """Keeps an incumbent until a challenger is ahead for sure, and forgets when the incumbent fails."""

    def __init__(self, arms: tuple[Blend, ...], exploration: Exploration) -> None:
        self._arms, self._exploration = arms, exploration
        self._memory = IncumbentMemory(len(arms))

    def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
        self._memory.add(action, reward)

    def policy(self) -> BasePolicy:
        return self._memory.policy(self._arms, self._exploration)


class QLearner:
    """Double fitted Q iteration over the latest rankings, older ones counting less."""

    def __init__(
        self, arms: tuple[Blend, ...], exploration: Exploration, half_life: float, discount: float, seed: int
    ) -> None:
        self._arms, self._exploration, self._discount, self._seed = arms, exploration, discount, seed
        self._half_life = half_life
        self._seen: list[tuple[np.ndarray, ...]] = []

    def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
        self._seen.append((contexts, action, reward, session))
        while len(self._seen) > 1 and sum(len(one[1]) for one in self._seen[1:]) > 6 * self._half_life:
            self._seen.pop(0)

    def policy(self) -> BasePolicy:
        if not self._seen:
            return FixedPolicy(self._arms, self._exploration)
        contexts, action, reward, session = (np.concatenate(parts) for parts in zip(*self._seen))
        weight = 0.5 ** (np.arange(len(reward) - 1, -1, -1.0) / self._half_life)
        steps = Steps.of(contexts, action, reward, session, weight)
        return QPolicy.learn(
            self._arms, steps, self._discount, rounds=8, exploration=self._exploration, seed=self._seed
        )


def learners(
    arms: tuple[Blend, ...], half_life: float, discount: float = 0.5, bound: float = 0.05
) -> dict[str, Callable[[int], Learner]]:
    """Name -> maker (from a seed) of every learner that is compared."""
    exploration = Exploration(bound)
    return {
        "incumbent": lambda seed: IncumbentLearner(arms, exploration),
        "softmax, no context": lambda seed: SoftmaxLearner(arms, exploration, half_life),
        "LinUCB": lambda seed: LinearLearner(LinUCB, arms, exploration, half_life),
        "Thompson sampling": lambda seed: LinearLearner(ThompsonPolicy, arms, exploration, half_life),
        "double Q": lambda seed: QLearner(arms, exploration, half_life, discount, seed),
    }
