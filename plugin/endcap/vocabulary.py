"""What a model calls things: the numbers of products, the codes of brands, categories and price bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endcap.catalog.product import product_keys
from endcap.catalog.table import ProductTable

#: Numbers that are no product's: padding, and a product that training never saw.
RESERVED = 2

#: Code columns that a model may read. ``price_band`` is the place of the price within its leaf category.
CODES = ("brand", "category", "parent", "price_band")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a model calls things. Product ``products[n]`` has the number n + 2, value ``codes[column][n]`` of a code
    column the code n + 1. ``price_bands``: ascending edges of log(price / median of the leaf category).
    """

    products: list[str] = field(default_factory=list)
    codes: dict[str, list[str]] = field(default_factory=dict)
    price_bands: list[float] = field(default_factory=list)
    _sorted: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def sorted_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys (uint64) of ``products``, sorted, and the place of each in ``products``. Made once: product tables come
        and go, and are lined up with the same vocabulary each time."""
        if not self._sorted:
            keys = product_keys(self.products)
            order = np.argsort(keys, kind="stable")
            self._sorted.append((keys[order], order))
        return self._sorted[0]

    @classmethod
    def of(
        cls,
        table: ProductTable,
        products: Sequence[str],
        columns: Sequence[str] = CODES,
        price_bands: int = 10,
        most_values: int = 50_000,
    ) -> Vocabulary:
        """The vocabulary of a catalogue.

        Args:
            products: ids that get a number of their own: those with enough events to learn from.
            price_bands: how many, of equally many products each.
            most_values: per code column, the most frequent ones; the others are unknown.
        """
        codes = {}
        for column in columns:
            if column == "price_band":
                continue
            values, of = _values(table, column)
            counts = np.bincount(of[:-1] + 1, minlength=len(values) + 1)[1:]
            kept = np.sort(np.argsort(-counts, kind="stable")[:most_values])
            codes[column] = [values[place] for place in kept.tolist()]
        edges: list[float] = []
        known = table.relative_price[:-1][table.price[:-1] > 0]
        if "price_band" in columns and len(known):
            edges = np.unique(np.quantile(known, np.linspace(0, 1, price_bands + 1)[1:-1])).astype(float).tolist()
        return cls(list(dict.fromkeys(products)), codes, edges)

    @property
    def numbers(self) -> int:
        """Product numbers in use, the two reserved ones included: the size of a model's embedding."""
        return len(self.products) + RESERVED

    def sizes(self, columns: Sequence[str]) -> tuple[int, ...]:
        """Size of each code column's vocabulary, 0 (unknown) included."""
        return tuple(
            len(self.price_bands) + 2 if column == "price_band" else len(self.codes.get(column, ())) + 1
            for column in columns
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; :meth:`from_json` gives the vocabulary back."""
        return {"products": self.products, "codes": self.codes, "price_bands": self.price_bands}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Raises ValueError, KeyError or TypeError for what is no vocabulary."""
        products, codes = values["products"], dict(values["codes"])
        for texts in (products, *codes.values()):
            if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
                raise ValueError("not lists of texts")
        edges = [float(edge) for edge in values["price_bands"]]
        if edges != sorted(edges) or not np.isfinite(edges).all():
            raise ValueError("price bands are not ascending numbers")
        return cls(products, codes, edges)


def _values(table: ProductTable, column: str) -> tuple[list[str], np.ndarray]:
    """Values of a code column and, per row, the place of its value; -1 where unknown."""
    if column == "brand":
        return table.brands, table.brand
    if column == "category":
        return table.categories, table.category
    # The path above each leaf; products directly under the root have none.
    paths = [leaf.rpartition("\0")[0] for leaf in table.categories]
    values = [path for path in dict.fromkeys(paths) if path]
    place = {path: number for number, path in enumerate(values)}
    of_leaf = np.array([*(place.get(path, -1) for path in paths), -1], dtype=np.int64)
    return values, of_leaf[table.category]


def code_column(table: ProductTable, vocabulary: Vocabulary, column: str) -> np.ndarray:
    """Code of each row of a table, int32 (n + 1,), 0 where unknown."""
    if column == "price_band":
        known = table.price > 0  # False for NaN
        return (1 + np.searchsorted(vocabulary.price_bands, table.relative_price)) * known
    code = {value: number for number, value in enumerate(vocabulary.codes.get(column, ()), start=1)}
    values, of = _values(table, column)
    return np.array([*(code.get(value, 0) for value in values), 0], dtype=np.int32)[of]
