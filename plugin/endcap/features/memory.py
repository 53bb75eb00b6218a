"""A profile seen through a product table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.profiles import Profile

#: A derived memory is used for so many seconds before its decay is computed anew.
_FRESH_S = 600.0


@dataclass(slots=True)
class Sums:
    """The shopper's weight per code: sorted codes, their sums."""

    codes: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, weight: np.ndarray) -> Sums:
        """Negative codes are left out."""
        known = codes >= 0
        unique, inverse = np.unique(codes[known], return_inverse=True)
        return cls(unique, np.bincount(inverse, weights=weight[known], minlength=len(unique)).astype(np.float32))

    def __getitem__(self, codes: np.ndarray) -> np.ndarray:
        if not len(self.codes):
            return np.zeros(len(codes), dtype=np.float32)
        position = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[position] == codes, self.sums[position], np.float32(0.0))


@dataclass(slots=True)
class Memory:
    """The m products that a profile remembers and the table knows; all (m,) unless said otherwise.

    Attributes:
        rows: in the table. weight: of all actions, decayed, a quarter of the purchases for ever. buys, decayed, age:
            as in the profile. leaf, above, brand: codes; attributes: (m, a). relative_price: of the product.
        brands: weight by brand. vector: the mean content vector, or None. price: the mean relative price.
    """

    rows: np.ndarray
    weight: np.ndarray
    buys: np.ndarray
    decayed: np.ndarray
    age: np.ndarray
    leaf: np.ndarray
    above: np.ndarray
    brand: np.ndarray
    attributes: np.ndarray
    relative_price: np.ndarray
    brands: Sums
    vector: np.ndarray | None
    price: float


def above_of(table: ProductTable, rows: np.ndarray) -> np.ndarray:
    """Code of the category above the leaf; of a leaf that has none above, one of its own. -1 without a category."""
    parent = table.parent[rows]
    return np.where(parent >= 0, parent, -2 - table.category[rows])


def memory_of(profile: Profile, table: ProductTable, now: float) -> Memory:
    """Kept until profile or table changes, or time passes."""
    cached = profile.cache.get("memory")
    if isinstance(cached, tuple) and cached[0] is table and abs(now - cached[1]) < _FRESH_S:
        return cached[2]
    rows = table.rows_of_profile_keys(profile.counters["key"])
    decayed, buys = profile.weights(now), profile.buys()
    # A quarter of the count stays for ever, so that what was bought long ago is not forgotten altogether.
    weight = decayed + np.float32(0.25) * buys
    here = np.flatnonzero((weight > 0) & (rows >= 0))
    rows, weight = rows[here], weight[here]
    brand, relative = table.brand[rows], table.relative_price[rows]
    vector = None
    if table.vectors is not None and len(rows):
        vector = weight @ table.vectors[rows].astype(np.float32)
        vector /= max(float(np.linalg.norm(vector)), 1e-9)
    memory = Memory(
        rows=rows,
        weight=weight,
        buys=buys[here],
        decayed=decayed[here],
        age=profile.age_days(now)[here],
        leaf=table.category[rows],
        above=above_of(table, rows),
        brand=brand,
        attributes=table.attributes[rows],
        relative_price=relative,
        brands=Sums.of(brand, weight),
        vector=vector,
        price=float(weight @ relative / weight.sum()) if len(rows) else 0.0,
    )
    profile.cache["memory"] = (table, now, memory)
    return memory
