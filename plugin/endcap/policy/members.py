"""Which products a rule's target covers, looked up in a product table once, so that a search only looks into arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from endcap.catalog.product import PATH_SEPARATOR
from endcap.catalog.table import ProductTable
from endcap.policy.rule import Target


class Members:
    """A target in the terms of one table."""

    def __init__(self, target: Target, table: ProductTable) -> None:
        self._table = table
        self._rows: np.ndarray | None = None
        if target.products:
            found = np.unique(table.rows(target.products))
            self._rows = np.append(found[found >= 0], np.iinfo(np.int64).max)
        brands = {name.casefold() for name in target.brands}
        self._brands = _flags(table.brands, lambda name: name.casefold() in brands) if brands else None
        paths = tuple(_path(one) for one in target.categories)
        self._categories = _flags(table.categories, lambda name: _below(name, paths)) if paths else None

    @cached_property
    def mask(self) -> np.ndarray:
        """Of all the table's products; bool (n,)."""
        return self.at(np.arange(len(self._table)))

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Of rows of the table, -1: none; bool, as many."""
        table = self._table
        mine = rows >= 0
        if self._rows is not None:
            mine &= self._rows[np.searchsorted(self._rows, rows)] == rows
        if self._brands is not None:
            mine &= self._brands[table.brand[rows]]
        if self._categories is not None:
            mine &= self._categories[table.category[rows]]
        return mine


def _path(text: str) -> str:
    """A path as the table writes it."""
    return "\0".join(part.strip() for part in text.split(PATH_SEPARATOR.strip()))


def _below(name: str, paths: tuple[str, ...]) -> bool:
    return any(name == path or name.startswith(f"{path}\0") for path in paths)


def _flags(names: Sequence[str], wanted: Callable[[str], bool]) -> np.ndarray:
    """Which codes are wanted; bool (names + 1,), the last for code -1, unknown: never."""
    return np.array([*(wanted(name) for name in names), False], dtype=bool)
