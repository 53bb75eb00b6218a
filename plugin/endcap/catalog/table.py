"""The catalogue as columns: what ranking reads about candidates, without asking the engine again.

A table is an immutable snapshot. A new one replaces it when the engine's version changes, so readers need no lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from endcap.catalog.product import Product, product_keys
from endcap.catalog.texts import PackedTexts
from endcap.catalog.values import number_or_none, time_or_none


class ProductTable:
    """Columns over n products, and one row more: the last describes a product of which nothing is known, so that row
    -1 may be read like any other.

    Attributes:
        ids: product ids; row r describes ``ids[r]``.
        keys: uint64 (n + 1,), :func:`~endcap.catalog.product.product_key` of each; 0 in the last row.
        brand, category, parent: int32 (n + 1,) codes of brand, leaf category path and the path above it; -1 where
            unknown. Equal codes mean equal values within this table only.
        price, stock: float32 (n + 1,), NaN where unknown. relative_price: log(price / median of the leaf category),
            0 where unknown.
        margin: float32 (n + 1,), what the shop earns by one piece; added: float64 (n + 1,), seconds since 1970 when the
            product came into the range; both from the attributes that the settings name, NaN where unknown.
        titles: the n titles; a product without one has its id there.
        vectors: float16 (n + 1, d) unit vectors (zero where a product has none), or None.
    """

    __slots__ = (
        "_row_of",
        "_short_keys",
        "_short_order",
        "added",
        "attributes",
        "brand",
        "brands",
        "categories",
        "category",
        "ids",
        "keys",
        "margin",
        "parent",
        "price",
        "relative_price",
        "stock",
        "titles",
        "vectors",
    )

    def __init__(
        self,
        products: Sequence[Product],
        vectors: np.ndarray | None = None,
        margin_attribute: str = "margin",
        added_attribute: str = "added_at",
    ) -> None:
        """Raises ValueError where ``vectors`` is not (len(products), d)."""
        if vectors is not None and vectors.shape[0] != len(products):
            raise ValueError(f"{len(products)} products but {vectors.shape[0]} vectors")
        self.ids = [product.id for product in products]
        keys = product_keys(self.ids)
        self.keys = np.append(keys, np.uint64(0))
        self._row_of = {product_id: row for row, product_id in enumerate(self.ids)}
        short = keys.astype(np.uint32)
        self._short_order = np.argsort(short, kind="stable")
        self._short_keys = short[self._short_order]
        self.brand, self.brands = _codes([product.brand for product in products])
        self.category, self.categories = _codes(["\0".join(product.categories) for product in products])
        self.parent, _ = _codes(["\0".join(product.categories[:-1]) for product in products])
        self.attributes = _attribute_codes(products)
        self.price = _numbers([product.price for product in products])
        self.stock = _numbers([product.stock for product in products])
        self.relative_price = _relative_price(self.price, self.category)
        self.margin = _numbers([number_or_none(product.attributes.get(margin_attribute)) for product in products])
        added = [time_or_none(product.attributes.get(added_attribute)) for product in products]
        self.added = np.array([np.nan if one is None else one for one in added] + [np.nan])
        self.titles = PackedTexts([product.title[:200] or product.id for product in products])
        self.vectors = None
        if vectors is not None:
            self.vectors = np.zeros((len(products) + 1, vectors.shape[1]), dtype=np.float16)
            self.vectors[:-1] = vectors

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each id; int64 (n,), -1 where the product is not in the table."""
        row_of = self._row_of
        return np.fromiter((row_of.get(one, -1) for one in ids), dtype=np.int64, count=len(ids))

    def rows_of_short_keys(self, keys: np.ndarray) -> np.ndarray:
        """Row of each uint32 product key (:func:`~endcap.profiles.short_keys`); int64 (n,), -1 where there is none."""
        return lookup(self._short_keys, self._short_order, keys)

    @classmethod
    def collect(
        cls,
        batches: Iterable[list[tuple[Product, np.ndarray | None]]],
        margin_attribute: str = "margin",
        added_attribute: str = "added_at",
    ) -> ProductTable:
        """The table of an engine's :meth:`~endcap.engines.base.Engine.scan`."""
        products: list[Product] = []
        found: list[np.ndarray | None] = []
        for batch in batches:
            for product, vector in batch:
                products.append(product)
                found.append(None if vector is None else vector.astype(np.float16))
        dims = next((len(vector) for vector in found if vector is not None), 0)
        if not dims:
            return cls(products, None, margin_attribute, added_attribute)
        vectors = np.zeros((len(products), dims), dtype=np.float16)
        for row, vector in enumerate(found):
            if vector is not None:
                vectors[row] = vector
        return cls(products, vectors, margin_attribute, added_attribute)


def lookup(sorted_keys: np.ndarray, order: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Index of each key in the array that ``sorted_keys = array[order]`` came from; int64 (n,), -1 where absent."""
    if not len(sorted_keys):
        return np.full(len(keys), -1, dtype=np.int64)
    position = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[position] == keys, order[position], -1)


def _codes(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Integer codes in order of first appearance; the empty string is -1."""
    known: dict[str, int] = {}
    codes = np.full(len(values) + 1, -1, dtype=np.int32)
    codes[:-1] = [known.setdefault(value, len(known)) if value else -1 for value in values]
    return codes, list(known)


#: Attributes that tell shoppers apart: few enough values to recur, enough to differ. More would only add noise.
_MAX_ATTRIBUTES = 4


def _attribute_codes(products: Sequence[Product]) -> np.ndarray:
    """int32 (n + 1, a ≤ 4): codes of the text attributes that most products carry, -1 where a product has none."""
    seen: dict[str, int] = {}
    for product in products:
        for name, value in product.attributes.items():
            if isinstance(value, str) and len(value) <= 64:
                seen[name] = seen.get(name, 0) + 1
    names = sorted((name for name, count in seen.items() if count * 5 >= len(products)), key=lambda n: (-seen[n], n))
    columns = [
        _codes([value if isinstance(value := product.attributes.get(name), str) else "" for product in products])[0]
        for name in names[:_MAX_ATTRIBUTES]
    ]
    return np.stack(columns, axis=1) if columns else np.empty((len(products) + 1, 0), dtype=np.int32)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values] + [np.nan], dtype=np.float32)


def _relative_price(price: np.ndarray, category: np.ndarray) -> np.ndarray:
    known = np.flatnonzero((price > 0) & np.isfinite(price))
    relative = np.zeros(len(price), dtype=np.float32)
    if not len(known):
        return relative
    logs = np.log(price[known])
    order = np.lexsort((logs, category[known]))
    codes = category[known][order]
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    ends = np.r_[starts[1:], len(codes)]
    medians = logs[order][(starts + ends - 1) // 2]
    relative[known[order]] = logs[order] - np.repeat(medians, ends - starts)
    return relative
