"""A product table arranged for recommending: what sells, by category and by brand, and when it is bought again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from endcap.catalog.product import PATH_SEPARATOR
from endcap.catalog.table import ProductTable
from endcap.engines.base import Filter
from endcap.errors import InvalidInput
from endcap.popularity import Popularity
from endcap.recommend.behaviour import Behaviour
from endcap.recommend.counts import Repeats, pair

#: Days between two purchases of a product of which nothing is known.
DEFAULT_CYCLE_DAYS = 30.0
#: ... and of what nobody buys twice: repeats are fewer than this share of the category's sales.
NEVER_DAYS = 3650.0
_LEAST_AGAIN = 0.03
#: So many gaps of its category are added to a product's own.
_CYCLE_PRIOR = 5.0
FILTERED_FIELDS = ("id", "brand", "category", "price", "stock")


class Shelves:
    """An immutable snapshot over the n products of a table.

    Attributes:
        selling: float32 (n,), log(1 + recent weight). rising: float32 (n,), how much better than expected a product
            sells this week, 0 where it does not. best: int64 (n,), rows, best selling first.
        cycle_days: float32 (n + 1,), days until the product is bought again.
    """

    def __init__(self, table: ProductTable, popularity: Popularity, behaviour: Behaviour, now: float) -> None:
        self.table = table
        self.behaviour = behaviour
        self.made = now
        count = len(table)
        popular = popularity.read(table.keys[:count], now)
        self.selling = np.log1p(popular[:, 1])
        week, recent = popular[:, 2], popular[:, 1]
        expected = recent * (week.sum() / max(float(recent.sum()), 1e-9))
        # A product has to sell a few pieces to rise; one sale more or less is noise.
        self.rising = np.maximum(np.log((week + 1.0) / (expected + 1.0)), 0.0) * np.log1p(week)
        self.best = np.lexsort((np.arange(count), -popular[:, 0], -self.selling))
        place = np.empty(count, dtype=np.int64)
        place[self.best] = np.arange(count)
        self._categories = _Groups(table.category[:count], place)
        self._brands = _Groups(table.brand[:count], place)
        self.cycle_days = self._cycles(behaviour.repeats)
        self._paths = [PATH_SEPARATOR.join(path.split("\0")) for path in table.categories]

    def __len__(self) -> int:
        return len(self.table)

    def in_category(self, code: int) -> np.ndarray:
        """Rows of one leaf category, best selling first."""
        return self._categories.of(code)

    def of_brand(self, code: int) -> np.ndarray:
        """Rows of one brand, best selling first."""
        return self._brands.of(code)

    def categories_below(self, path: str) -> np.ndarray:
        """Codes of the leaf categories at or below a path ("Grocery > Honey")."""
        below = path + PATH_SEPARATOR
        return np.array(
            [code for code, one in enumerate(self._paths) if one == path or one.startswith(below)], dtype=np.int64
        )

    def path(self, code: int) -> str:
        """A leaf category's path, as documents have it; empty for -1."""
        return self._paths[code] if code >= 0 else ""

    @property
    def paths(self) -> Sequence[str]:
        """The leaf categories' paths by code."""
        return self._paths

    def allowed(self, filters: Sequence[Filter]) -> np.ndarray:
        """Which products pass all filters and are not sold out; bool (n,).

        Raises:
            InvalidInput: a filter on a field that is not one of ``FILTERED_FIELDS``.
        """
        table, count = self.table, len(self)
        stock = table.stock[:count]
        passed = ~(stock <= 0)  # unknown stock is no reason
        for one in filters:
            if one.field not in FILTERED_FIELDS:
                raise InvalidInput(f"{one.field}: recommendations filter by {', '.join(FILTERED_FIELDS)}")
            if one.field in ("price", "stock"):
                passed &= _within(getattr(table, one.field)[:count], one)
                continue
            values = [str(value) for value in one.values]
            if one.field == "id":
                mask = np.zeros(count, dtype=bool)
                rows = table.rows(values)
                mask[rows[rows >= 0]] = True
            elif one.field == "brand":
                mask = np.isin(table.brand[:count], [code for code, name in enumerate(table.brands) if name in values])
            else:
                codes = [self.categories_below(value) for value in values]
                mask = np.isin(table.category[:count], np.concatenate(codes) if codes else [])
            passed &= mask
        return passed

    def history(self, shopper: int) -> tuple[np.ndarray, Repeats]:
        """Rows of what a shopper (uint32 key) bought, and when; products that are gone are left out."""
        found = self.behaviour.repeats.of(shopper)
        rows = self.table.rows_of_short_keys(found.keys.astype(np.uint32))
        here = rows >= 0
        return rows[here], Repeats(found.keys[here], found.first[here], found.last[here], found.times[here])

    def together(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows bought together with the product of a row, and how strongly (float32)."""
        keys, strength = self.behaviour.together(int(self.table.keys[row]) & 0xFFFFFFFF)
        rows = self.table.rows_of_short_keys(keys)
        return rows[rows >= 0], strength[rows >= 0]

    def baskets(self, rows: np.ndarray) -> np.ndarray:
        """In how many baskets each product was; float32."""
        short = self.table.keys[rows].astype(np.uint32)
        return self.behaviour.pairs.read(pair(short, short))

    def _cycles(self, repeats: Repeats) -> np.ndarray:
        """The mean gap between purchases, each product's own blended with its category's."""
        table, count = self.table, len(self)
        products, days, gaps = repeats.cycles()
        rows = table.rows_of_short_keys(products)
        here = rows >= 0
        rows, logs, weight = rows[here], np.log(days[here].astype(np.float64)), gaps[here].astype(np.float64)
        category = table.category.astype(np.int64) + 1  # 0: unknown
        size = int(category.max(initial=0)) + 1
        total = np.bincount(category[rows], weights=weight, minlength=size)
        sums = np.bincount(category[rows], weights=weight * logs, minlength=size)
        overall = float(sums.sum() / total.sum()) if total.sum() else float(np.log(DEFAULT_CYCLE_DAYS))
        of_category = (sums + _CYCLE_PRIOR * overall) / (total + _CYCLE_PRIOR)
        # What is hardly ever bought twice, such as a television, is not recommended again.
        sold = np.bincount(category[:count], weights=self.baskets(np.arange(count)), minlength=size)
        of_category = np.where((total < _LEAST_AGAIN * sold) & (sold >= 20), np.log(NEVER_DAYS), of_category)
        cycle = of_category[category]
        cycle[rows] = (weight * logs + _CYCLE_PRIOR * cycle[rows]) / (weight + _CYCLE_PRIOR)
        assert len(cycle) == count + 1
        return np.exp(cycle).astype(np.float32)


class _Groups:
    """Rows by code, each group in a given order."""

    def __init__(self, codes: np.ndarray, place: np.ndarray) -> None:
        self._rows = np.lexsort((place, codes))
        ordered = codes[self._rows]
        size = int(codes.max(initial=-1)) + 1
        self._starts = np.searchsorted(ordered, np.arange(size + 1))

    def of(self, code: int) -> np.ndarray:
        if not 0 <= code < len(self._starts) - 1:
            return self._rows[:0]
        return self._rows[self._starts[code] : self._starts[code + 1]]


def _within(values: np.ndarray, one: Filter) -> np.ndarray:
    mask = np.isfinite(values)
    if one.values:
        mask &= np.isin(values, np.array([float(value) for value in one.values], dtype=np.float32))
    if one.gte is not None:
        mask &= values >= np.float32(one.gte)
    if one.lte is not None:
        mask &= values <= np.float32(one.lte)
    return mask
