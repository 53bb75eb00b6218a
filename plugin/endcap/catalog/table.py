"""The catalogue as columns: what ranking reads about candidates, without asking the engine again.

A table is an immutable snapshot. A new one replaces it when the engine's version changes, so readers need no lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from endcap.catalog.product import Product, product_keys
from endcap.catalog.texts import PackedTexts
from endcap.catalog.values import number_or_none, time_or_none
from endcap.pictures import PictureSource
from endcap.profile_bytes import profile_keys


class ProductTable:
    """Columns over n products, and one row more: the last describes a product of which nothing is known, so that row
    -1 may be read like any other.

    Attributes:
        ids: product ids; row r describes ``ids[r]``.
        keys: uint64 (n + 1,), :func:`~endcap.catalog.product.product_key` of each; 0 in the last row.
        brand, category, parent: int32 (n + 1,) codes of brand, leaf category path and the path above it; -1 where
            unknown. Equal codes mean equal values within this table only; ``brands``, ``categories`` and ``parents``
            hold the values.
        price, stock: float32 (n + 1,), NaN where unknown. relative_price: log(price / median of the leaf category),
            0 where unknown.
        margin: float32 (n + 1,), what the shop earns by one piece; added: float64 (n + 1,), seconds since 1970 when the
            product came into the range; both from the attributes that the settings name, NaN where unknown.
        titles: the n titles; a product without one has its id there.
        vectors: float16 (n + 1, d) unit vectors (zero where a product has none), or None.
        pictures: where the products' pictures can be had from, for a model that reads them; None where nobody said.
    """

    __slots__ = (
        "_attribute_names",
        "_attributes_of",
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
        "parents",
        "pictures",
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
        self._attribute_names = margin_attribute, added_attribute
        self.ids = [product.id for product in products]
        self.keys = np.append(product_keys(self.ids), np.uint64(0))
        self._row_of = {product_id: row for row, product_id in enumerate(self.ids)}
        self._sort_keys()
        self.brand, self.brands = _codes([product.brand for product in products])
        self.category, self.categories = _codes(["\0".join(product.categories) for product in products])
        self.parent, self.parents = _codes(["\0".join(product.categories[:-1]) for product in products])
        self._attributes_of: dict[str, list[str]] = {name: [] for name in _telling_attributes(products)}
        self.attributes = self._attribute_codes(products)
        self.price = _numbers([product.price for product in products])
        self.stock = _numbers([product.stock for product in products])
        self.relative_price = _relative_price(self.price, self.category)
        self.margin, self.added = self._margin_and_added(products)
        self.titles = PackedTexts([_title(product) for product in products])
        self.pictures: PictureSource | None = None
        self.vectors = None
        if vectors is not None:
            self.vectors = np.zeros((len(products) + 1, vectors.shape[1]), dtype=np.float16)
            self.vectors[:-1] = vectors

    def __len__(self) -> int:
        return len(self.ids)

    def with_changes(self, changes: Sequence[tuple[Product, np.ndarray | None]]) -> ProductTable:
        """The table after some products were added or changed, with their vectors: without reading the others again.

        Of changes of the same product the last one counts. Which attributes tell shoppers apart is not asked anew.

        Raises:
            ValueError: a vector is not as wide as those of the table.
        """
        latest = {product.id: (product, vector) for product, vector in changes}
        products = [product for product, _ in latest.values()]
        new = [one for one in latest if one not in self._row_of]
        made = object.__new__(ProductTable)
        made._attribute_names = self._attribute_names
        made.ids = self.ids + new
        made._row_of = self._row_of | {one: row for row, one in enumerate(new, start=len(self))}
        at = made.rows(list(latest))

        def grown(column: np.ndarray, values: np.ndarray) -> np.ndarray:
            longer = np.concatenate([column[:-1], np.repeat(column[-1:], len(new) + 1, axis=0)])
            longer[at] = values[:-1]
            return longer

        made.keys = grown(self.keys, np.append(product_keys(list(latest)), np.uint64(0)))
        made._sort_keys()
        brand, made.brands = _codes([product.brand for product in products], self.brands)
        category, made.categories = _codes(["\0".join(product.categories) for product in products], self.categories)
        parent, made.parents = _codes(["\0".join(product.categories[:-1]) for product in products], self.parents)
        made.brand, made.category = grown(self.brand, brand), grown(self.category, category)
        made.parent = grown(self.parent, parent)
        made._attributes_of = dict(self._attributes_of)
        made.attributes = grown(self.attributes, made._attribute_codes(products))
        made.price = grown(self.price, _numbers([product.price for product in products]))
        made.stock = grown(self.stock, _numbers([product.stock for product in products]))
        made.relative_price = _relative_price(made.price, made.category)
        margin, added = self._margin_and_added(products)
        made.margin, made.added = grown(self.margin, margin), grown(self.added, added)
        made.titles = self.titles.with_changes(dict(zip(at.tolist(), map(_title, products), strict=True)))
        found = {row: vector for row, (_, vector) in zip(at.tolist(), latest.values(), strict=True)}
        made.vectors, made.pictures = self._vectors_with(found, len(made) + 1), self.pictures
        return made

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each id; int64 (n,), -1 where the product is not in the table."""
        row_of = self._row_of
        return np.fromiter((row_of.get(one, -1) for one in ids), dtype=np.int64, count=len(ids))

    def rows_of_short_keys(self, keys: np.ndarray) -> np.ndarray:
        """Row of each uint32 product key (:func:`~endcap.profiles.short_keys`); int64 (n,), -1 where there is none."""
        return lookup(self._short_keys, self._short_order, keys)

    def rows_of_profile_keys(self, keys: np.ndarray) -> np.ndarray:
        """The same for keys as profiles hold them (:func:`~endcap.profile_bytes.profile_keys`)."""
        if not len(self):
            return np.full(len(keys), -1, dtype=np.int64)
        # The other bits of such a key are 0: of the keys that begin like it, none comes before it.
        place = np.minimum(np.searchsorted(self._short_keys, keys), len(self) - 1)
        return np.where(profile_keys(self._short_keys[place]) == keys, self._short_order[place], -1)

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

    def _sort_keys(self) -> None:
        short = self.keys[:-1].astype(np.uint32)
        self._short_order = np.argsort(short, kind="stable")
        self._short_keys = short[self._short_order]

    def _attribute_codes(self, products: Sequence[Product]) -> np.ndarray:
        """int32 (n + 1, a): codes of the attributes that tell shoppers apart, -1 where a product has none. What has no
        code yet gets one."""
        columns = []
        for name, known in self._attributes_of.items():
            values = (product.attributes.get(name) for product in products)
            codes, self._attributes_of[name] = _codes([one if isinstance(one, str) else "" for one in values], known)
            columns.append(codes)
        return np.stack(columns, axis=1) if columns else np.empty((len(products) + 1, 0), dtype=np.int32)

    def _margin_and_added(self, products: Sequence[Product]) -> tuple[np.ndarray, np.ndarray]:
        margin, added = self._attribute_names
        times = [time_or_none(product.attributes.get(added)) for product in products]
        return (
            _numbers([number_or_none(product.attributes.get(margin)) for product in products]),
            np.array([np.nan if one is None else one for one in times] + [np.nan]),
        )

    def _vectors_with(self, found: Mapping[int, np.ndarray | None], length: int) -> np.ndarray | None:
        """The vectors with those of some rows, ``length`` in all."""
        dims = next((len(vector) for vector in found.values() if vector is not None), 0)
        if self.vectors is None and not dims:
            return None
        if self.vectors is None:
            vectors = np.zeros((length, dims), dtype=np.float16)
        else:
            vectors = np.empty((length, self.vectors.shape[1]), dtype=np.float16)
            vectors[: len(self)], vectors[len(self) :] = self.vectors[:-1], 0.0
        for row, vector in found.items():
            vectors[row] = 0.0 if vector is None else vector
        return vectors


def lookup(sorted_keys: np.ndarray, order: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Index of each key in the array that ``sorted_keys = array[order]`` came from; int64 (n,), -1 where absent."""
    if not len(sorted_keys):
        return np.full(len(keys), -1, dtype=np.int64)
    position = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[position] == keys, order[position], -1)


def _codes(values: Sequence[str], before: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """Integer codes in order of first appearance, behind those that have one ``before``; the empty string is -1."""
    known = {value: code for code, value in enumerate(before)}
    codes = np.full(len(values) + 1, -1, dtype=np.int32)
    codes[:-1] = [known.setdefault(value, len(known)) if value else -1 for value in values]
    return codes, list(known)


#: Attributes that tell shoppers apart: few enough values to recur, enough to differ. More would only add noise.
_MAX_ATTRIBUTES = 4


def _telling_attributes(products: Sequence[Product]) -> list[str]:
    """Names of the (at most ``_MAX_ATTRIBUTES``) text attributes that most products carry."""
    seen: dict[str, int] = {}
    for product in products:
        for name, value in product.attributes.items():
            if isinstance(value, str) and len(value) <= 64:
                seen[name] = seen.get(name, 0) + 1
    names = sorted((name for name, count in seen.items() if count * 5 >= len(products)), key=lambda n: (-seen[n], n))
    return names[:_MAX_ATTRIBUTES]


def _title(product: Product) -> str:
    return product.title[:200] or product.id


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
