"""From the rankings log to a candidate policy: the older part teaches, the newer part is kept for the gate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from endcap.errors import InvalidInput, TooLittle
from endcap.policy.base import BasePolicy, Exploration
from endcap.policy.blend import Blend
from endcap.policy.decisions import DecisionReader, Decisions, Rewards
from endcap.policy.fixed import SoftmaxPolicy
from endcap.policy.incumbent import HALF_LIFE as MEMORY
from endcap.policy.incumbent import IncumbentMemory
from endcap.policy.linear import LinearMemory, LinUCB, ThompsonPolicy
from endcap.policy.looks import SEARCHES, Looks
from endcap.policy.qlearning import QPolicy, Steps
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.flags import Flags
from endcap.stores.outcomes import Outcomes
from endcap.stores.rankings import Rankings

KINDS = ("incumbent", "thompson", "linucb", "q", "softmax")
#: Part of the decisions, the oldest, that teaches at least.
TAUGHT = 0.5
#: Decisions of each arm that the gate judges by, where there are so many: it wants 1,000 effective ones.
JUDGED_BY = 1_500
#: Fewest decisions from which anything is learnt.
FEWEST = 200
_BATCH = 1_000
#: Steps of the reward model and of the bandits: what lies so many rankings back counts half.
HALF_LIFE = 20_000.0


@dataclass(frozen=True, slots=True)
class Learnt:
    """A candidate, and the moment from which on decisions did not teach it."""

    policy: BasePolicy
    judged_from: float
    taught: int


def read_decisions(
    settings: Settings,
    database: Database,
    arms: tuple[Blend, ...],
    days: float = 90.0,
    progress: Callable[[float], None] | None = None,
    now: float | None = None,
) -> Decisions:
    """The log's decisions of the latest ``days`` whose rewards are complete, weighed by the examination that the clicks
    of the same rankings tell of (:mod:`endcap.policy.examination`).

    Raises:
        InvalidInput: propensities are missing or 0.
        LogUnavailable: the database cannot be read.
    """
    now = time.time() if now is None else now
    rewards = Rewards(settings.reward_click, settings.reward_cart, settings.reward_purchase)
    excluded = Flags(database).excluded_shoppers()
    complete = now - settings.reward_hours * 3_600.0
    reader = DecisionReader([one.name for one in arms], rewards, complete, excluded)
    rankings, outcomes = Rankings(database), Outcomes(database, settings.reward_hours)
    first, last = rankings.before(now - days * 86_400.0), rankings.last_sequence()
    looks = Looks()
    sequence = first
    while sequence < last:
        batch = outcomes.since(sequence, _BATCH)
        if not batch:
            break
        reader.add(batch)
        for one in batch:
            served = one.ranking
            if served.endpoint in SEARCHES and served.shopper and served.shopper not in excluded:
                # Only what names its ranking tells of a look: the rest would count wherever the product stood.
                looks.take(replace(one, reactions=tuple(each for each in one.reactions if each.named)))
        sequence = batch[-1].ranking.sequence
        if progress is not None:
            progress((sequence - first) / max(last - first, 1))
    return reader.decisions(looks.examination())


def learn(
    decisions: Decisions, arms: tuple[Blend, ...], kind: str, exploration: Exploration, version: str,
    discount: float = 0.5, seed: int = 0,
) -> Learnt:  # fmt: skip
    """A policy from the older part of the decisions.

    Raises:
        TooLittle: too few decisions, no reward at all, or only one arm was ever tried.
        InvalidInput: there is no such policy.
    """
    if kind not in KINDS:
        raise InvalidInput(f"there is no policy {kind}; there are {', '.join(KINDS)}")
    if len(decisions) < FEWEST:
        raise TooLittle(
            f"too little data: {len(decisions):,} decisions with complete rewards, {FEWEST:,} are wanted. "
            f"The live policy stays. {_left_out(decisions)}"
        )
    taught = _taught(decisions.action)
    older = decisions.take(slice(0, taught))
    if not older.reward.any():
        raise TooLittle(
            "no decision earned anything: check that the storefront sends clicks and purchases with the ranking's id. "
            "The live policy stays."
        )
    if len(np.unique(older.action)) < 2:
        raise TooLittle(
            "only one ranking profile was ever tried: set learn_policy so that others are. The live policy stays."
        )
    policy = _made(older, arms, kind, exploration, version, discount, seed)
    return Learnt(policy, float(decisions.time[taught - 1]), taught)


def _made(
    older: Decisions, arms: tuple[Blend, ...], kind: str, exploration: Exploration, version: str, discount: float,
    seed: int,
) -> BasePolicy:  # fmt: skip
    if kind == "incumbent":
        known = IncumbentMemory(len(arms), max(MEMORY, _a_fortnight(older)))
        known.add(older.action, older.reward)
        return known.policy(arms, exploration, version)
    if kind == "softmax":
        return SoftmaxPolicy.learn(arms, older.action, older.reward, exploration=exploration, version=version)
    if kind == "q":
        steps = Steps.of(older.contexts, older.action, older.reward, older.session)
        return QPolicy.learn(arms, steps, discount, exploration=exploration, version=version, seed=seed)
    memory = LinearMemory(len(arms), decay=0.5 ** (1 / HALF_LIFE))
    memory.add(older.contexts, older.action, older.reward)
    made = LinUCB if kind == "linucb" else ThompsonPolicy
    return made.of(memory, arms, exploration, version)


def _taught(action: np.ndarray) -> int:
    """How many decisions teach, the oldest: half of them, and all but as many of the newest as the gate needs. What
    changed since then is learnt a night later, so a shop with much traffic does not wait for half a season."""
    newest = [np.flatnonzero(action == arm)[::-1] for arm in np.unique(action)]
    needed = max(len(action) - int(mine[min(JUDGED_BY, len(mine)) - 1]) for mine in newest)
    fewest = int(len(action) * TAUGHT)
    return max(fewest, len(action) - needed) if all(len(mine) >= JUDGED_BY for mine in newest) else fewest


def _a_fortnight(decisions: Decisions) -> float:
    """How many decisions a fortnight has: as long as a range of products or a season stays much the same."""
    days = max(float(decisions.time[-1] - decisions.time[0]) / 86_400.0, 1.0)
    return len(decisions) * min(14.0 / days, 1.0)


def reward_model(older: Decisions, arms: int) -> Callable[[np.ndarray], np.ndarray]:
    """q(x, a) for the doubly robust estimator: contexts (n, d) -> (n, arms), from decisions that are not judged."""
    memory = LinearMemory(arms)
    memory.add(older.contexts, older.action, older.reward)
    mean, _, _ = memory.posterior()
    return lambda contexts: contexts @ mean.T


def _left_out(decisions: Decisions) -> str:
    counts = sorted(decisions.left_out.items(), key=lambda one: -one[1])
    return "Left out: " + ", ".join(f"{count:,} ({why})" for why, count in counts) + "." if counts else ""
