"""Team-draft interleaving (Radlinski, Kurup & Joachims 2008): both rankings compete within one list of results.

Every shopper is his own control, so that the better ranking shows after far fewer impressions than in an A/B test.
It says which ranking attracts more clicks, not how much more is earned: decide between many by it, confirm by A/B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endcap.errors import InvalidInput
from endcap.experiments.sample import Sample
from endcap.experiments.sequential import Interval, mean_sequence

#: Who placed a product: A, B, or both where the rankings begin alike.
TEAM_A, TEAM_B, NEITHER = 1, -1, 0


@dataclass(frozen=True, slots=True)
class Interleaved:
    """The list to show and, for each place, who put it there; log ``teams`` with the impression."""

    products: tuple[str, ...]
    teams: tuple[int, ...]


def team_draft(a: Sequence[str], b: Sequence[str], size: int, seed: int) -> Interleaved:
    """Pick in turns: in each round a coin says who is first, and each adds his best product that is not yet there.

    Products with which both rankings begin in the same order are credited to neither: clicks there say nothing
    about the difference, and a coin's credit would only be noise.

    Args:
        a, b: product ids, best first; a product appears once in each.
        size: how many to show; fewer if the two run out.
        seed: of the coins, e.g. from the request's id: the same seed gives the same list.

    Raises:
        InvalidInput: ``size`` is below 1 or a ranking has a product twice.
    """
    if size < 1:
        raise InvalidInput(f"size must be at least 1, not {size}")
    if len(set(a)) < len(a) or len(set(b)) < len(b):
        raise InvalidInput("a ranking to interleave has a product twice")
    same = 0
    while same < min(len(a), len(b), size) and a[same] == b[same]:
        same += 1
    products, teams = list(a[:same]), [NEITHER] * same
    seen = set(products)
    random = np.random.default_rng(seed)
    left = {TEAM_A: iter(a[same:]), TEAM_B: iter(b[same:])}
    while len(products) < size and left:
        first = TEAM_A if random.random() < 0.5 else TEAM_B
        for team in (first, -first):
            pick = next((product for product in left.get(team, ()) if product not in seen), None)
            if pick is None:
                left.pop(team, None)
            elif len(products) < size:
                products.append(pick)
                teams.append(team)
                seen.add(pick)
    return Interleaved(tuple(products), tuple(teams))


def credit(teams: Sequence[int], clicked: Sequence[int]) -> int:
    """Clicks on A's products minus clicks on B's, of one impression; a product counts once.

    Args:
        teams: as logged with the impression.
        clicked: places that were clicked, from 0.

    Raises:
        InvalidInput: a place that was not shown.
    """
    if any(not 0 <= place < len(teams) for place in clicked):
        raise InvalidInput(f"a click on a place that was not shown: {list(clicked)} of {len(teams)}")
    return sum(teams[place] for place in set(clicked))


@dataclass(frozen=True, slots=True)
class Preference:
    """How much A is preferred.

    ``advantage``: (wins of A - wins of B) / impressions, from -1 to 1, with an always-valid interval. ``probability``:
    of wins as uneven as these were the rankings equal (two-sided sign test, for a single look at the end).
    """

    impressions: int
    wins_a: int
    wins_b: int
    advantage: Interval
    probability: float


def preference(
    wins_a: int, wins_b: int, impressions: int, alpha: float = 0.05, tightest: float = 2_000.0
) -> Preference:
    """From the number of impressions whose credit was above and below 0; the others are ties. They must be independent:
    of one shopper's many the sum of their signs is one.

    Raises:
        InvalidInput: more wins than impressions.
    """
    if min(wins_a, wins_b) < 0 or wins_a + wins_b > impressions:
        raise InvalidInput(f"{wins_a} and {wins_b} wins do not fit {impressions} impressions")
    sample = Sample.of_sums(impressions, wins_a - wins_b, wins_a + wins_b)
    return Preference(impressions, wins_a, wins_b, mean_sequence(sample, alpha, tightest), sign_test(wins_a, wins_b))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided binomial test of fair coins; exact up to 10,000 tosses, else normal with continuity correction."""
    tosses, extreme = wins + losses, max(wins, losses)
    if not tosses:
        return 1.0
    if tosses > 10_000:
        return min(1.0, math.erfc((extreme - 0.5 - tosses / 2) / math.sqrt(tosses / 2)))
    logs = [
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) for k in range(extreme, tosses + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value - tosses * math.log(2)) for value in logs))
