"""Candidate generators: each proposes rows with a score of its own; what the scores mean is left to the merge.

A generator is cheap (arrays of the snapshot, at most one call of the engine) and proposes nothing rather than noise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from endcap.engines.base import Candidates
from endcap.events import Action
from endcap.profiles import DAY_S, Profile
from endcap.recommend.counts import Repeats
from endcap.recommend.shelves import Shelves

log = logging.getLogger(__name__)

#: Candidates of one generator.
MOST = 150
#: Latest products of a shopper that lead to others.
SEEDS = 12
#: Neighbours by vector have at least this cosine.
LEAST_COSINE = 0.35

Nearest = Callable[[np.ndarray, int], Candidates]
Proposed = tuple[np.ndarray, np.ndarray]


@dataclass(slots=True)
class Situation:
    """What generators see: the shelves, the shopper, the products in view (``seeds``: rows) and the products that may
    be shown (``allowed``, bool (n,))."""

    shelves: Shelves
    profile: Profile
    seeds: np.ndarray
    allowed: np.ndarray
    now: float
    shopper: int | None = None
    nearest: Nearest | None = None
    _bought: tuple[np.ndarray, Repeats] | None = None

    @property
    def bought(self) -> tuple[np.ndarray, Repeats]:
        """Rows that the shopper bought, and when."""
        if self._bought is None:
            if self.shopper is None:
                self._bought = (np.empty(0, dtype=np.int64), Repeats.none())
            else:
                self._bought = self.shelves.history(self.shopper)
        return self._bought

    def latest(self, *actions: Action) -> np.ndarray:
        """Rows of the shopper's latest products by these actions, latest first, each once."""
        recent = self.profile.recent
        keys = recent["key"][np.isin(recent["action"], actions)][::-1]
        rows = self.shelves.table.rows_of_profile_keys(keys)
        rows = rows[rows >= 0]
        _, first = np.unique(rows, return_index=True)
        return rows[np.sort(first)]


def buy_again(one: Situation) -> Proposed:
    """What the shopper buys again and again, when it is due."""
    rows, when = one.bought
    wanted = due(one.shelves.cycle_days[rows], when, one.now)
    return _top(one, rows, wanted * np.exp(0.2 * one.shelves.selling[rows]))


def due(cycle_days: np.ndarray, when: Repeats, now: float) -> np.ndarray:
    """How much each product is wanted now, float32 > 0: how often it was bought, how long ago, and whether its time has
    come (before: not yet; long after: given up).

    A log-linear model; its exponents were fitted on first baskets of a month (Complete Journey, November).
    """
    since = np.maximum(now - when.last.astype(np.float64), 0.0) / DAY_S
    late = since / own_cycle(cycle_days, when)
    timely = np.minimum(late + 0.05, 1.0) ** 0.26 * np.maximum(late, 1.0) ** -0.21
    return (when.times.astype(np.float64) ** 0.89 * (since + 5.0) ** -0.43 * timely).astype(np.float32)


def own_cycle(cycle_days: np.ndarray, when: Repeats) -> np.ndarray:
    """Days between two purchases of a product by one shopper, float64: his own gaps, blended with two of the product's
    ``cycle_days`` (those of other shoppers)."""
    gaps = np.maximum(when.times.astype(np.float64) - 1.0, 0.0)
    days = (when.last.astype(np.float64) - when.first) / DAY_S
    own = np.log(np.maximum(days / np.maximum(gaps, 1.0), 0.5))
    return np.exp((gaps * own + 2.0 * np.log(np.maximum(cycle_days, 0.5))) / (gaps + 2.0))


def taste(one: Situation) -> Proposed:
    """Nearest to the shopper's mean vector."""
    table, counters = one.shelves.table, one.profile.counters
    if table.vectors is None or one.nearest is None or not len(counters):
        return _nothing()
    rows = table.rows_of_profile_keys(counters["key"])
    weight = one.profile.weights(one.now)
    strongest = np.argsort(-weight, kind="stable")[:100]
    strongest = strongest[(rows[strongest] >= 0) & (weight[strongest] > 0)]
    if not len(strongest):
        return _nothing()
    return _near(one, weight[strongest] @ table.vectors[rows[strongest]].astype(np.float32))


def alike(one: Situation) -> Proposed:
    """Nearest to the products in view, by vector."""
    table = one.shelves.table
    if table.vectors is None or one.nearest is None or not len(one.seeds):
        return _nothing()
    return _near(one, table.vectors[one.seeds[:SEEDS]].astype(np.float32).sum(axis=0))


def same_kind(one: Situation) -> Proposed:
    """Of the same leaf category as the products in view; those of the same brand and at a like price first."""
    shelves, table = one.shelves, one.shelves.table
    found, scores = [], []
    for seed in one.seeds[:SEEDS].tolist():
        rows = shelves.in_category(int(table.category[seed]))[:MOST]
        same = (table.brand[rows] == table.brand[seed]) & (table.brand[seed] >= 0)
        gap = np.abs(table.relative_price[rows] - table.relative_price[seed])
        parts = (table.attributes[rows] == table.attributes[seed]) & (table.attributes[seed] >= 0)
        best = max(float(shelves.selling[rows].max(initial=0.0)), 1e-9)
        found.append(rows)
        scores.append(1.0 + same + parts.sum(axis=1) * 0.5 - np.minimum(gap, 1.0) + shelves.selling[rows] / best)
    return _joined(one, found, scores)


def same_brand(one: Situation) -> Proposed:
    """Of the same brand as the products in view."""
    table = one.shelves.table
    brands = dict.fromkeys(table.brand[one.seeds[:SEEDS]].tolist())
    found = [one.shelves.of_brand(brand)[:MOST] for brand in brands if brand >= 0]
    return _joined(one, found, [one.shelves.selling[rows] + 1.0 for rows in found])


def near_kinds(one: Situation) -> Proposed:
    """What sells in the other leaf categories beside those of the products in view."""
    table = one.shelves.table
    parents, kinds = set(table.parent[one.seeds].tolist()) - {-1}, set(table.category[one.seeds].tolist())
    if not parents:
        return _nothing()
    rows = np.flatnonzero(np.isin(table.parent[:-1], list(parents)) & ~np.isin(table.category[:-1], list(kinds)))
    return _top(one, rows, one.shelves.selling[rows])


def bought_together(one: Situation) -> Proposed:
    """In the same baskets as the products in view."""
    return _baskets(one, one.seeds[:50])


def after_latest(one: Situation) -> Proposed:
    """In the same baskets as what the shopper bought or looked at lately."""
    return _baskets(one, one.latest(Action.PURCHASE, Action.CART, Action.CLICK, Action.VIEW)[:SEEDS])


def recently_viewed(one: Situation) -> Proposed:
    """Looked at or put into the cart lately, but not bought."""
    rows = one.latest(Action.VIEW, Action.CLICK, Action.CART)
    rows = rows[~np.isin(rows, one.bought[0])]
    return _top(one, rows, 1.0 / (1.0 + np.arange(len(rows), dtype=np.float32)))


def own_categories(one: Situation) -> Proposed:
    """What sells in the categories that the shopper buys from."""
    table, counters = one.shelves.table, one.profile.counters
    if not len(counters):
        return _nothing()
    rows = table.rows_of_profile_keys(counters["key"])
    known = (rows >= 0) & (table.category[rows] >= 0)
    if not known.any():
        return _nothing()
    weight = np.bincount(table.category[rows[known]], weights=one.profile.weights(one.now)[known])
    chosen = np.argsort(-weight, kind="stable")[:10]
    chosen = chosen[weight[chosen] > 0]
    found = [one.shelves.in_category(code)[:30] for code in chosen.tolist()]
    scores = [np.log1p(weight[code]) * one.shelves.selling[rows] for code, rows in zip(chosen.tolist(), found)]
    return _joined(one, found, scores)


def trending(one: Situation) -> Proposed:
    """Selling better this week than was to be expected."""
    rising = np.flatnonzero((one.shelves.rising > 0) & one.allowed)
    return _top(one, rising, one.shelves.rising[rising])


def popular(one: Situation) -> Proposed:
    """What sells best of all that may be shown."""
    best = one.shelves.best
    rows = best[one.allowed[best]][:MOST]
    return rows, one.shelves.selling[rows] + np.float32(1e-6)


GENERATORS: dict[str, Callable[[Situation], Proposed]] = {
    one.__name__: one
    for one in (
        buy_again, taste, alike, same_kind, same_brand, near_kinds, bought_together, after_latest, recently_viewed,
        own_categories, trending, popular,
    )
}  # fmt: skip


def _nothing() -> Proposed:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)


def _top(one: Situation, rows: np.ndarray, scores: np.ndarray) -> Proposed:
    """The best of the rows that may be shown, best first."""
    here = one.allowed[rows]
    rows, scores = rows[here], scores[here]
    order = np.argsort(-scores, kind="stable")[:MOST]
    return rows[order], np.asarray(scores[order], dtype=np.float32)


def _joined(one: Situation, found: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> Proposed:
    """The sum of several lists."""
    if not found:
        return _nothing()
    rows, inverse = np.unique(np.concatenate(found), return_inverse=True)
    return _top(one, rows, np.bincount(inverse, weights=np.concatenate(scores), minlength=len(rows)))


def _baskets(one: Situation, seeds: np.ndarray) -> Proposed:
    lists = [one.shelves.together(row) for row in seeds.tolist()]
    return _joined(one, [rows for rows, _ in lists], [strength for _, strength in lists])


def _near(one: Situation, vector: np.ndarray) -> Proposed:
    assert one.nearest is not None
    size = float(np.linalg.norm(vector))
    if size < 1e-6:
        return _nothing()
    try:
        near = one.nearest((vector / size).astype(np.float32), MOST)
    except Exception:
        # Vectors are one source of several: the others have an answer.
        log.warning("no neighbours by vector", exc_info=True)
        return _nothing()
    rows = one.shelves.table.rows(near.ids)
    close = (rows >= 0) & (near.scores >= LEAST_COSINE)
    return _top(one, rows[close], near.scores[close])
