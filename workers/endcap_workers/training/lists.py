"""The lists that training ranks: what the shop's search would have shown for what a shopper was after."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.engines.base import Engine, SearchRequest
from endcap.errors import EndcapError
from endcap.popularity import Popularity
from endcap.recall import Recaller

#: Answers of the engine that are kept.
_MOST_ANSWERS = 3_000


class Shown(NamedTuple):
    """A list as the engine would give it: the query, ids, and scores float32 (n,)."""

    query: str
    ids: list[str]
    scores: np.ndarray


class Lists:
    """Candidates by query, from the engine; and by leaf category, its best sellers of the moment."""

    def __init__(
        self,
        table: ProductTable,
        popularity: Popularity,
        engine: Engine | None,
        size: int = 100,
        encoder: object = None,
    ) -> None:
        """``engine`` None: there is none to ask, every list is a category's."""
        self._table, self._popularity, self._size = table, popularity, size
        self._recaller = Recaller(engine, encoder) if engine is not None else None  # type: ignore[arg-type]
        self._answers: OrderedDict[str, Shown | None] = OrderedDict()
        order = np.argsort(table.category[:-1], kind="stable")
        codes = table.category[:-1][order]
        self._order, self._codes = order, codes
        self._best: dict[int, np.ndarray] = {}
        self.faults = 0

    def moved_on(self) -> None:
        """The popularity has changed: best sellers are looked up anew."""
        self._best.clear()

    def of_query(self, query: str) -> Shown | None:
        """What the engine finds; None where that is nothing, or it cannot answer."""
        if query in self._answers:
            self._answers.move_to_end(query)
            return self._answers[query]
        shown = None
        if self._recaller is not None and query.strip():
            try:
                found = self._recaller.recall(SearchRequest(text=query, size=self._size), self._size)
                if len(found.ids) > 1:
                    shown = Shown(query, list(found.ids), np.asarray(found.scores, dtype=np.float32))
            except EndcapError:
                self.faults += 1
        self._answers[query] = shown
        if len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        return shown

    def name(self, category: int) -> str:
        """The leaf category's own name: what a shopper would type."""
        return self._table.categories[category].rpartition("\0")[2] if category >= 0 else ""

    def of_category(self, category: int, wanted: np.ndarray, now: float) -> Shown | None:
        """Best sellers of a leaf category and, where it has more, some of the others, as a search would find; what was
        wanted (rows) is among them. None where there is nothing beside it."""
        best = self._best.get(category)
        if best is None:
            begin, end = np.searchsorted(self._codes, (category, category + 1))
            members = self._order[begin:end]
            popular = self._popularity.read(self._table.keys[members], now)
            # By number where nothing else tells them apart: the order must not depend on what comes later.
            best = members[np.lexsort((members, -popular[:, 0], -popular[:, 1]))]
            self._best[category] = best
        if len(best) > self._size:
            # Were it the best sellers alone, whatever else was in a list would be what was wanted.
            top = int(0.7 * self._size)
            others = np.random.default_rng([int(now), category]).permutation(len(best) - top)[: self._size - top]
            best = best[np.r_[np.arange(top), top + np.sort(others)]]
        missing = wanted[~np.isin(wanted, best)]
        rows = np.concatenate([best[: self._size - len(missing)], missing]) if len(missing) else best
        if len(rows) < 2:
            return None
        ids = self._table.ids
        return Shown(self.name(category), [ids[row] for row in rows.tolist()], np.zeros(len(rows), dtype=np.float32))
