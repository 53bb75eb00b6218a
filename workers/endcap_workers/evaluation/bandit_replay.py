"""Open Bandit as a world for a policy: learnt from one policy's clicks, judged on the random policy's log.

Two ways to ask what a policy would have earned in each campaign of ZOZOTOWN's shop, both on the uniformly random
policy's 10,000 impressions of the same week:

- *Weighed*: Thompson sampling over items, learnt from what BTS logged (10,000 impressions) with its probabilities
  computed, not simulated; SNIPS and its lower bound (Swaminathan & Joachims 2015).
- *Replayed*: the log as an environment, by rejection sampling (Li et al. 2011). The policy draws an item for each
  impression; where it is the one that was shown, the impression counts, and a policy that learns learns from it. That
  is unbiased for policies that change while they serve, which weighing is not, and keeps one impression in 34 to 80.
  Means of 200 runs; intervals (95 %) resample impressions, with how often each was accepted and by whom.

Both logs hold some 40 clicks a campaign.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from endcap.errors import InvalidInput
from endcap.ope import Gate, LoggedChoices, bootstrap_lower_bound, effective_sample_size, judge, snips
from endcap.policy.linear import best_probabilities
from endcap.results import Results
from endcap_workers.evaluation.open_bandit import BanditLog, load

CAMPAIGNS = ("all", "men", "women")
#: Impressions that an item's click rate is shrunk by towards the rate of all.
_PRIOR = 200.0
#: Replays of each log; bootstrap samples of an interval.
RUNS = 200
_RESAMPLES = 1_000


def item_probabilities(log: BanditLog, explored: float = 0.2) -> np.ndarray:
    """Probability that each item is the best one, by a normal posterior of its click rate, mixed with uniform."""
    shown, clicks = _counts(log)
    return (1 - explored) * _posterior(shown, clicks, float(log.click.mean())) + explored / len(log.items)


def _counts(log: BanditLog) -> tuple[np.ndarray, np.ndarray]:
    """Impressions and clicks of each item, (items,)."""
    items = len(log.items)
    return np.bincount(log.item, minlength=items).astype(float), np.bincount(log.item, log.click, minlength=items)


def _posterior(shown: np.ndarray, clicks: np.ndarray, overall: float) -> np.ndarray:
    rate = (clicks + _PRIOR * overall) / (shown + _PRIOR)
    deviation = np.sqrt(rate * (1 - rate) / (shown + _PRIOR))
    odds = best_probabilities(rate[None], deviation[None])[0]
    result: np.ndarray = odds / odds.sum()
    return result


class Player(Protocol):
    """Draws items in a replay."""

    def odds(self) -> np.ndarray:
        """Probability of each item, (items,)."""

    def learn(self, item: int, click: float) -> None:
        """What came of an impression that it chose."""


class Standing:
    """Draws from the same probabilities for ever."""

    def __init__(self, odds: np.ndarray) -> None:
        self._odds = odds

    def odds(self) -> np.ndarray:
        return self._odds

    def learn(self, item: int, click: float) -> None:
        """Nothing."""


class Thompson:
    """Thompson sampling over items, with computed probabilities, that goes on learning."""

    def __init__(self, items: int, rate: float, shown: np.ndarray | None = None, clicks: np.ndarray | None = None):
        """``rate``: of clicks, that every item begins with. ``shown``, ``clicks``: what is known already, (items,)."""
        self._rate = rate
        self._shown = np.zeros(items) if shown is None else shown.astype(float)
        self._clicks = np.zeros(items) if clicks is None else clicks.astype(float)
        self._odds: np.ndarray | None = None

    def odds(self) -> np.ndarray:
        if self._odds is None:
            self._odds = _posterior(self._shown, self._clicks, self._rate)
        return self._odds

    def learn(self, item: int, click: float) -> None:
        self._shown[item] += 1
        self._clicks[item] += click
        self._odds = None


def replay(log: BanditLog, make: Callable[[], Player], runs: int = RUNS, seed: int = 0) -> np.ndarray:
    """How often each impression was accepted, mean of the runs, (n,).

    Raises:
        InvalidInput: the log is not a uniform policy's: what it accepts would not be the policy's own impressions.
    """
    items = len(log.items)
    if not np.allclose(log.propensity * items, 1.0):
        raise InvalidInput("a replay by rejection sampling needs the log of a uniform policy")
    accepted = np.zeros(len(log))
    for run in range(runs):
        random = np.random.default_rng((seed, run))
        player = make()
        at = 0
        while at < len(log):
            # Until it learns something its probabilities stay, and draws can be made ahead.
            ahead = log.item[at : at + 4 * items]
            same = np.flatnonzero(random.choice(items, size=len(ahead), p=player.odds()) == ahead)
            if not len(same):
                at += len(ahead)
                continue
            row = at + int(same[0])
            accepted[row] += 1
            player.learn(int(log.item[row]), float(log.click[row]))
            at = row + 1
    return accepted / runs


def replayed(log: BanditLog, accepted: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Clicks per accepted impression, and 95 % of it, resampling impressions."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(log), np.full(len(log), 1 / len(log)), size=_RESAMPLES).astype(np.float32)
    means = (drawn @ (accepted * log.click)) / np.maximum(drawn @ accepted, 1e-12)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(accepted @ log.click / accepted.sum()), float(low), float(high)


def players(taught: BanditLog, log: BanditLog) -> dict[str, Callable[[], Player]]:
    """Row name -> maker of who is replayed."""
    items = len(log.items)
    shown, clicks = _counts(taught)
    rate = float(taught.click.mean())
    best = int(((clicks + _PRIOR * rate) / (shown + _PRIOR)).argmax())
    own_shown, own_clicks = _counts(log)
    hindsight = int(((own_clicks + _PRIOR * rate) / (own_shown + _PRIOR)).argmax())
    return {
        "uniform": lambda: Standing(np.full(items, 1 / items)),
        "best fixed item of BTS's log": lambda: Standing(np.eye(items)[best]),
        "best fixed item in hindsight": lambda: Standing(np.eye(items)[hindsight]),
        "Thompson sampling from nothing": lambda: Thompson(items, rate),
        "Thompson sampling from BTS's log": lambda: Thompson(items, rate, shown, clicks),
    }


def add_rows(results: Results, seed: int) -> None:
    """Weighed: one row a campaign, and what the gate says of each."""
    for campaign in CAMPAIGNS:
        taught, log = load("bts", campaign), load("random", campaign)
        odds = item_probabilities(taught)
        seen = LoggedChoices.from_distribution(log.click, log.item, log.propensity, odds)
        terms = snips(seen)
        results.add(
            f"open-bandit, {campaign}: learnt",
            {
                "clicks per 1,000": 1_000 * terms.value,
                "at least": 1_000 * bootstrap_lower_bound(terms, seed=seed),
                "random earned": 1_000 * float(log.click.mean()),
                "BTS earned": 1_000 * float(taught.click.mean()),
                "effective": effective_sample_size(seen.weights),
            },
        )
        said = judge(seen, float(log.click.mean()), Gate(), seed=seed)
        results.notes.append(f"open-bandit, {campaign}, the gate: {said.reason}")


def run(seed: int = 0, runs: int = RUNS) -> Results:
    """Both ways, in each campaign."""
    results = Results("open-bandit as an environment", "endcap evaluate bandit-replay", seed)
    for campaign in CAMPAIGNS:
        taught, log = load("bts", campaign), load("random", campaign)
        for name, make in players(taught, log).items():
            accepted = replay(log, make, runs, seed)
            rate, low, high = replayed(log, accepted, seed)
            results.add(
                f"{campaign}: {name}",
                {
                    "clicks per 1,000": 1_000 * rate,
                    "from": 1_000 * low,
                    "to": 1_000 * high,
                    "accepted": float(accepted.sum()),
                    "clicks a run": float(accepted @ log.click),
                },
            )
    add_rows(results, seed)
    return results
