"""May a candidate policy replace the live one, judged on what the live or an exploring policy logged?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from endcap.errors import InvalidInput
from endcap.ope.bounds import bootstrap_lower_bound, check_level, effective_sample_size
from endcap.ope.estimators import Terms, clipped, doubly_robust, snips
from endcap.ope.log import LoggedChoices

#: Weights further from their expected mean of 1 than this many standard errors are no coincidence.
_STRAY = 5.0


class Decision(str, Enum):
    """What to do with a candidate."""

    PROMOTE = "promote"
    KEEP = "keep"
    TOO_LITTLE_DATA = "too_little_data"


@dataclass(frozen=True, slots=True)
class Gate:
    """What a candidate has to pass.

    ``level``: of the one-sided bounds. ``fewest_effective``: effective decisions. ``fewest_rewarded``: decisions with a
    reward that the candidate would repeat; the bootstrap knows nothing about rewards that it never saw. ``clip``:
    largest importance weight.
    """

    level: float = 0.95
    fewest_effective: float = 1_000.0
    fewest_rewarded: int = 30
    clip: float = 100.0
    resamples: int = 1_000

    def __post_init__(self) -> None:
        check_level(self.level)
        if not self.fewest_effective > 0 or self.fewest_rewarded < 1:
            raise InvalidInput("fewest_effective and fewest_rewarded must be above 0")


@dataclass(frozen=True, slots=True)
class Judgement:
    """``lower``, ``estimate``: of each estimator that was asked, by its name; ``live``: the bar they had to clear."""

    decision: Decision
    reason: str
    live: float
    effective: float
    rewarded: int
    estimate: dict[str, float]
    lower: dict[str, float]


def judge(
    candidate: LoggedChoices,
    live: LoggedChoices | float,
    gate: Gate | None = None,
    shoppers: np.ndarray | None = None,
    seed: int = 0,
) -> Judgement:
    """Promote only if SNIPS and, where the log has a reward model, DR agree that the candidate beats the live policy.

    Args:
        candidate: the log, seen by the candidate.
        live: the same log seen by the live policy, or the mean reward that the live policy earned in that time.
        gate: what to demand.
        shoppers: whose decision each one is, (n,): bounds then resample shoppers, as decisions of one are alike.
        seed: of the bootstrap.

    Raises:
        InvalidInput: the two logs are not the same decisions, or ``live`` is not a finite number.
    """
    gate = gate or Gate()
    if isinstance(live, LoggedChoices):
        if len(live) != len(candidate) or not (live.reward == candidate.reward).all():
            raise InvalidInput("candidate and live must be judged on the same decisions")
    elif not math.isfinite(live):
        raise InvalidInput(f"the live policy's reward must be a finite number, not {live}")
    weights = clipped(candidate.weights, gate.clip)
    effective = effective_sample_size(weights)
    rewarded = int(((candidate.reward != 0) & (weights > 0)).sum())
    bar = _best_of(live, gate)

    def decide(decision: Decision, reason: str, **found: dict[str, float]) -> Judgement:
        return Judgement(decision, reason, bar, effective, rewarded, found.get("estimate", {}), found.get("lower", {}))

    if not candidate.reward.any():
        return decide(
            Decision.TOO_LITTLE_DATA,
            "No decision in the log earned anything: check that rewards are joined. Live stays.",
        )
    if effective < gate.fewest_effective or rewarded < gate.fewest_rewarded:
        return decide(
            Decision.TOO_LITTLE_DATA,
            f"Too little data: {len(candidate):,} decisions are worth {effective:,.0f} of the candidate's own "
            f"({gate.fewest_effective:,.0f} wanted), {rewarded:,} of them rewarded ({gate.fewest_rewarded:,} wanted). "
            "Live stays; explore more or wait.",
        )
    stray = _stray(candidate.weights)
    if stray:
        return decide(Decision.KEEP, stray)
    estimate: dict[str, float] = {}
    lower: dict[str, float] = {}
    for name, terms in _estimates(candidate, gate).items():
        estimate[name] = terms.value
        terms = terms if shoppers is None else terms.grouped(shoppers)
        lower[name] = bootstrap_lower_bound(terms, gate.level, gate.resamples, seed)
    weakest = min(lower, key=lambda name: lower[name])
    wins = lower[weakest] > bar
    reason = (
        f"The candidate's reward is at least {lower[weakest]:.4g} at {gate.level:.0%} confidence (estimate "
        f"{estimate[weakest]:.4g}, {weakest}); live earns {bar:.4g}, from {effective:,.0f} effective decisions. "
    )
    decision = Decision.PROMOTE if wins else Decision.KEEP
    return decide(decision, reason + ("Promote." if wins else "Not proven better: live stays."), estimate=estimate,
                  lower=lower)  # fmt: skip


def _estimates(log: LoggedChoices, gate: Gate) -> dict[str, Terms]:
    found = {"SNIPS": snips(log, gate.clip)}
    if log.predicted is not None:
        found["DR"] = doubly_robust(log, gate.clip)
    return found


def _best_of(live: LoggedChoices | float, gate: Gate) -> float:
    """The bar: the live policy's reward by the kindest of the estimators."""
    if isinstance(live, LoggedChoices):
        return max(terms.value for terms in _estimates(live, gate).values())
    return float(live)


def _stray(weights: np.ndarray) -> str:
    """Why the weights cannot be right, or nothing: with true propensities that cover the candidate their mean is 1."""
    mean = float(weights.mean())
    error = float(weights.std(ddof=1)) / math.sqrt(len(weights)) if len(weights) > 1 else math.inf
    if abs(mean - 1) <= max(_STRAY * error, 0.01):
        return ""
    return (
        f"The importance weights average {mean:.3g} where 1 is expected: propensities are logged wrong, or the "
        "candidate often does what the logging policy never did. Live stays."
    )
