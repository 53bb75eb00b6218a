"""From a place in the shop to a list of products: generate, merge, rank for the shopper, spread, fill up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from endcap.engines.base import Filter
from endcap.errors import EndcapError, InvalidInput
from endcap.features import RankingInputs
from endcap.personalizer import Personalizer, Ranking, WarmingUp
from endcap.policy.context import NO_VISIT, Visit
from endcap.policy.rules import RuleBook, Ruled
from endcap.policy.sponsored import hold
from endcap.profiles import DAY_S, Profile
from endcap.recommend.behaviour import shopper_key
from endcap.recommend.discovery import Discovery
from endcap.recommend.generators import GENERATORS, Nearest, Situation, own_cycle
from endcap.recommend.shelves import Shelves
from endcap.stores.profiles import ProfileReader

log = logging.getLogger(__name__)

#: Merged candidates that are ranked.
POOL = 200
#: Smooths the head of each generator's list when lists are merged (reciprocal-rank fusion).
MERGE_K = 20.0
#: A product bought rests for this share of its cycle before it is shown again where one looks for something else.
RESTING = 0.3


@dataclass(frozen=True, slots=True)
class Placement:
    """A recipe.

    ``generators``: name -> weight in the merge. ``fallbacks`` fill up what these leave free, in order. ``bought``:
    ``any``; ``due`` leaves out what the shopper bought and does not need yet; ``only`` asks for nothing else.
    ``complements``: no product of the leaf categories in view. ``personal``: weight of the scorer's log-odds beside how
    strongly the generators propose; 0: not personal. ``spread``: at most this share of a list from one category, and
    from one brand. ``sells``: it has sponsored places. ``pins``: it is browsed like a search, and pins hold.
    """

    generators: Mapping[str, float]
    fallbacks: tuple[str, ...] = ("popular",)
    bought: Literal["any", "due", "only"] = "any"
    complements: bool = False
    personal: float = 1.0
    spread: float = 1.0
    sells: bool = True
    pins: bool = False


PLACEMENTS: Mapping[str, Placement] = {
    "home": Placement(
        {"buy_again": 1.0, "taste": 0.7, "after_latest": 0.5, "recently_viewed": 0.8, "own_categories": 0.5,
         "trending": 0.2},
        bought="due", spread=0.34,
    ),
    # The whole next purchase, to put into the cart at once: the usual, whatever it is.
    "basket": Placement({"buy_again": 1.0}, ("after_latest", "own_categories", "popular"), personal=0.1, sells=False),
    "category": Placement(
        {"buy_again": 1.0, "taste": 0.7, "own_categories": 0.5, "popular": 0.5}, spread=0.5, pins=True
    ),
    "cart": Placement(
        {"bought_together": 1.0, "buy_again": 0.4, "after_latest": 0.2},
        ("own_categories", "popular"), bought="due", complements=True, personal=0.5, spread=0.34,
    ),
    "similar": Placement({"alike": 1.0, "same_kind": 0.8, "same_brand": 0.1}, ("near_kinds", "popular"), personal=0.3),
    "cross-sell": Placement(
        {"bought_together": 1.0}, ("near_kinds", "popular"), bought="due", complements=True, personal=0.3, spread=0.34
    ),
    "trending": Placement({"trending": 1.0}, personal=0.0, spread=0.34),
    "buy-again": Placement({"buy_again": 1.0}, (), bought="only", personal=0.1, sells=False),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recommended:
    """``ids`` best first; ``sources``: for each the generators that proposed it; ``scores`` float32 in [0, 1], falling
    but for the spreading. ``places``: of each in the list that ``ranking`` was made of, from 0; -1 for one that a
    fallback added. ``fallback``: names of the fallbacks that had to help, in order; empty where none had to. ``notes``:
    for each product what business rules did to it; ``labels``: what it has to be marked as (``sponsored``)."""

    placement: str
    ids: list[str]
    sources: list[list[str]]
    scores: np.ndarray
    fallback: tuple[str, ...]
    ranking: Ranking
    places: list[int]
    took_ms: float = 0.0
    notes: list[list[str]] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)


@dataclass(slots=True)
class _Merged:
    rows: np.ndarray
    scores: np.ndarray
    sources: dict[int, list[str]] = field(default_factory=dict)


class Recommender:
    """Recommends from what a :class:`Discovery` knows. Thread-safe."""

    def __init__(
        self,
        discovery: Discovery,
        personalizer: Personalizer,
        profiles: ProfileReader,
        nearest: Callable[[np.ndarray, int, Sequence[Filter]], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``nearest``: the engine's search by vector, None where there are no vectors."""
        self._discovery = discovery
        self._personalizer = personalizer
        self._profiles = profiles
        self._nearest = nearest
        self._clock = clock

    def recommend(
        self,
        placement: str,
        shopper: str = "",
        size: int = 12,
        seeds: Sequence[str] = (),
        exclude: Sequence[str] = (),
        filters: Sequence[Filter] = (),
        visit: Visit = NO_VISIT,
    ) -> Recommended:
        """Products for one placement, under the business rules; see :meth:`~endcap.policy.rules.RuleBook.shelf`.

        Args:
            visit: for rules that hold for some segments only.
            seeds: ids of the products in view (those in the cart, the one looked at); never among the answer.
            exclude: ids that must not be shown.

        Raises:
            InvalidInput: an unknown placement or filter.
            WarmingUp: the products are not loaded yet.
        """
        started = time.perf_counter()
        recipe = PLACEMENTS.get(placement)
        if recipe is None:
            raise InvalidInput(f"placement: {placement!r:.40} is none of {', '.join(PLACEMENTS)}")
        shelves = self._discovery.shelves
        if shelves is None:
            raise WarmingUp("the products are still being loaded")
        now = self._clock()
        profile, degraded = self._profile(shopper)
        one = Situation(
            shelves,
            profile,
            _rows(shelves, seeds),
            shelves.allowed(filters),
            now,
            shopper_key(shopper) if shopper else None,
            self._near(filters),
        )
        one.allowed[_rows(shelves, exclude)] = False
        _restrict(one, recipe)
        rules = self._personalizer.arranger.rules
        if (hidden := rules.hidden(shelves.table, visit, now)) is not None:
            one.allowed &= ~hidden
        merged = _merge(one, recipe.generators)
        ranking, scores = self._rank(shopper, merged, shelves, recipe, degraded)
        notes: dict[int, list[str]] = {}
        ruled = _Shelf(rules, shelves, shopper, visit, now, notes)
        order, scores, done = ruled.order(merged.rows, scores, recipe, size)
        rows, values, places = merged.rows[order], scores[order], order
        used: list[str] = []
        for name in recipe.fallbacks:
            if len(rows) >= size:
                break
            more, _ = GENERATORS[name](one)
            more = more[~np.isin(more, rows)]
            # They are best first and have no scores that compare with the others'.
            by_rules, _, _ = ruled.order(more, np.exp(-np.arange(len(more)) / POOL))
            more = more[by_rules][: size - len(rows)]
            if len(more):
                used.append(name)
                merged.sources.update((row, [name]) for row in more.tolist())
                rows, values = np.append(rows, more), np.append(values, np.zeros(len(more)))
                places = np.append(places, np.full(len(more), -1))
        chosen = _spread(shelves, rows, size, recipe.spread)
        labels: dict[int, list[str]] = {}
        if done is not None and done.held:
            at = {place: number for number, place in enumerate(order.tolist())}
            chosen = hold(chosen, {spot: at[place] for spot, place in done.held.items() if spot <= size})[:size]
            labels = {at[sale.place]: done.labels[sale.place] for sale in done.sales}
            ranking = _priced(ranking, done, merged.rows, shelves)
        ids = [shelves.table.ids[row] for row in rows[chosen].tolist()]
        return Recommended(
            placement,
            ids,
            [merged.sources[row] for row in rows[chosen].tolist()],
            values[chosen].astype(np.float32),
            tuple(used),
            ranking,
            places[chosen].tolist(),
            (time.perf_counter() - started) * 1000.0,
            [notes.get(row, []) for row in rows[chosen].tolist()],
            [labels.get(place, []) for place in chosen.tolist()],
        )

    def _profile(self, shopper: str) -> tuple[Profile, str]:
        if not shopper:
            return Profile(), ""
        try:
            return self._profiles.get(shopper), ""
        except EndcapError as error:
            return Profile(), error.kind

    def _near(self, filters: Sequence[Filter]) -> Nearest | None:
        if self._nearest is None:
            return None
        nearest = self._nearest
        return lambda vector, count: nearest(vector, count, filters)  # type: ignore[return-value]

    def _rank(
        self, shopper: str, merged: _Merged, shelves: Shelves, recipe: Placement, degraded: str
    ) -> tuple[Ranking, np.ndarray]:
        """The scorer's ranking of the merged candidates, and what they are ordered by, in (0, 1]: the product of how
        strongly they were proposed and the scorer's odds to the power of ``recipe.personal``."""
        ids = [shelves.table.ids[row] for row in merged.rows.tolist()]
        who = shopper if recipe.personal > 0 and not degraded else ""
        ranking = self._personalizer.rank(who, "", ids, merged.scores.astype(np.float32))
        if degraded and not ranking.degraded:
            ranking = replace(ranking, personalized=False, degraded=degraded, scores=None)
        if not len(ids):
            return ranking, np.empty(0)
        combined = np.log(np.maximum(merged.scores / merged.scores.max(), 1e-6))
        if ranking.scores is not None:
            combined += recipe.personal * ranking.scores
        return ranking, np.exp(np.clip(combined - combined.max(), -50.0, 0.0))


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The rules of one request. ``notes``: what they did, by row."""

    rules: RuleBook
    shelves: Shelves
    shopper: str
    visit: Visit
    now: float
    notes: dict[int, list[str]]

    def order(
        self, rows: np.ndarray, scores: np.ndarray, recipe: Placement | None = None, size: int = 0
    ) -> tuple[np.ndarray, np.ndarray, Ruled | None]:
        """The order of scored rows and their scores, as rules have them. ``recipe`` None: of a fallback, where nothing
        is sold or pinned."""
        if not self.rules or not len(rows):
            return np.argsort(-scores, kind="stable"), scores, None
        # Rules move a score by deviations: of its logarithm, since a few are near 1 and most near 0.
        logs = np.log(np.maximum(scores, 1e-30)).astype(np.float32)
        table = self.shelves.table
        inputs = RankingInputs(np.empty((len(rows), 0), np.float32), rows, logs, Profile(), "", self.now, table)
        ids = [table.ids[row] for row in rows.tolist()]
        pins, sells = (recipe.pins, size * recipe.sells) if recipe is not None else (False, 0)
        ruled = self.rules.shelf(inputs, self.visit, ids, self.shopper, pins, sells)
        for place, said in ruled.notes.items():
            self.notes.setdefault(int(rows[place]), []).extend(said)
        return ruled.order, np.exp(ruled.scores - max(0.0, float(ruled.scores.max()))).astype(np.float64), ruled


def _priced(ranking: Ranking, ruled: Ruled, rows: np.ndarray, shelves: Shelves) -> Ranking:
    """What was sold goes to the rankings log, as with a search."""
    sold = [
        {"rule": sale.rule, "product": shelves.table.ids[int(rows[sale.place])], "position": sale.position,
         "price": sale.price}
        for sale in ruled.sales
    ]  # fmt: skip
    return replace(ranking, context={**(ranking.context or {}), "sponsored": sold}) if sold else ranking


def _rows(shelves: Shelves, ids: Sequence[str]) -> np.ndarray:
    rows = shelves.table.rows(ids)
    return rows[rows >= 0]


def _restrict(one: Situation, recipe: Placement) -> None:
    """Take out of ``allowed`` what this placement must not show."""
    table = one.shelves.table
    one.allowed[one.seeds] = False
    if recipe.complements and len(one.seeds):
        kinds = table.category[one.seeds]
        one.allowed &= ~np.isin(table.category[:-1], kinds[kinds >= 0])
    if recipe.bought == "due":
        rows, when = one.bought
        since = (one.now - when.last.astype(np.float64)) / DAY_S
        one.allowed[rows[since < RESTING * own_cycle(one.shelves.cycle_days[rows], when)]] = False


def _merge(one: Situation, generators: Mapping[str, float]) -> _Merged:
    """The generators' lists as one, best first, at most ``POOL``: by reciprocal-rank fusion, since the scores of two
    generators do not compare; a single one's scores say more than its ranks and stay."""
    proposed = {name: GENERATORS[name](one) for name in generators}
    lists = {name: rows for name, (rows, _) in proposed.items()}
    if not any(map(len, lists.values())):
        return _Merged(np.empty(0, dtype=np.int64), np.empty(0))
    if len(lists) == 1:
        rows, scores = next(iter(proposed.values()))
        return _Merged(rows[:POOL], scores[:POOL], {row: list(lists) for row in rows[:POOL].tolist()})
    rows, inverse = np.unique(np.concatenate(list(lists.values())), return_inverse=True)
    weights = [weight / (MERGE_K + np.arange(len(lists[name]))) for name, weight in generators.items()]
    scores = np.bincount(inverse, weights=np.concatenate(weights), minlength=len(rows))
    order = np.argsort(-scores, kind="stable")[:POOL]
    sources: dict[int, list[str]] = {row: [] for row in rows[order].tolist()}
    for name, found in lists.items():
        for row in found.tolist():
            if row in sources:
                sources[row].append(name)
    return _Merged(rows[order], scores[order], sources)


def _spread(shelves: Shelves, rows: np.ndarray, size: int, share: float) -> np.ndarray:
    """Places in ``rows`` of the ``size`` to show: of one category, and of one brand, no more than a share, unless
    there is nothing else."""
    if share >= 1.0 or len(rows) <= 1:
        return np.arange(min(size, len(rows)))
    most = max(1, int(np.ceil(share * size)))
    seen: dict[tuple[str, int], int] = {}
    chosen: list[int] = []
    later: list[int] = []
    table = shelves.table
    pairs = zip(table.category[rows].tolist(), table.brand[rows].tolist(), strict=True)
    for place, (category, brand) in enumerate(pairs):
        marks = [mark for mark in (("category", category), ("brand", brand)) if mark[1] >= 0]
        if any(seen.get(mark, 0) >= most for mark in marks):
            later.append(place)
            continue
        for mark in marks:
            seen[mark] = seen.get(mark, 0) + 1
        chosen.append(place)
        if len(chosen) == size:
            break
    return np.array((chosen + later)[:size], dtype=np.int64)
