"""Open Bandit as a world for a policy: learnt from one policy's clicks, judged on the random policy's log.

In each campaign of ZOZOTOWN's shop, Thompson sampling over items learns from what BTS logged (10,000 impressions),
with its probabilities computed, not simulated; the uniformly random policy's 10,000 impressions of the same week then
say what it would have earned (SNIPS and its lower bound, Swaminathan & Joachims 2015). Both logs hold some 40 clicks.
"""

from __future__ import annotations

import numpy as np

from endcap.ope import Gate, LoggedChoices, bootstrap_lower_bound, effective_sample_size, judge, snips
from endcap.policy.linear import best_probabilities
from endcap.results import Results
from endcap_workers.evaluation.open_bandit import BanditLog, load

CAMPAIGNS = ("all", "men", "women")
#: Impressions that an item's click rate is shrunk by towards the rate of all.
_PRIOR = 200.0


def item_probabilities(log: BanditLog, explored: float = 0.2) -> np.ndarray:
    """Probability that each item is the best one, by a normal posterior of its click rate, mixed with uniform."""
    items = len(log.items)
    shown = np.bincount(log.item, minlength=items).astype(float)
    clicks = np.bincount(log.item, weights=log.click, minlength=items)
    overall = float(log.click.mean())
    rate = (clicks + _PRIOR * overall) / (shown + _PRIOR)
    deviation = np.sqrt(rate * (1 - rate) / (shown + _PRIOR))
    return (1 - explored) * best_probabilities(rate[None], deviation[None])[0] + explored / items


def add_rows(results: Results, seed: int) -> None:
    """One row a campaign, and what the gate says of each."""
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
