"""The log as columns, what was past at a moment, and the lists that are to be ranked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Products:
    """Codes ≥ 0, int64 (P,): ``type`` is what a shopper searches for; ``category`` is the level above."""

    type: np.ndarray
    category: np.ndarray
    maker: np.ndarray
    label: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.type)


@dataclass(frozen=True, slots=True)
class Log:
    """Purchases, in any order: int64 shopper, product, store and visit numbers; ``time`` in days; ``price`` paid a
    piece; ``reduced``: whether below the list price. A visit is one shopper's."""

    shopper: np.ndarray
    product: np.ndarray
    store: np.ndarray
    visit: np.ndarray
    time: np.ndarray
    price: np.ndarray
    reduced: np.ndarray

    def where(self, wanted: np.ndarray) -> Log:
        """The chosen purchases."""
        return Log(*(getattr(self, name)[wanted] for name in self.__slots__))

    def once_a_visit(self) -> Log:
        """The first line of each product in a visit."""
        visit = np.unique(self.visit, return_inverse=True)[1]
        _, first = np.unique(visit * (int(self.product.max(initial=0)) + 1) + self.product, return_index=True)
        return self.where(np.sort(first))


class Past:
    """What was known at ``now`` (days), and what several features share.

    Attributes:
        age: days since each purchase. pair: number of its (shopper, product) pair. pairs: shopper · P + product of
            each pair, sorted. first_time: whether the purchase was the shopper's first of the product.
        count: purchases of each pair. weight: the same, halved every 120 · ln 2 days.
    """

    def __init__(self, log: Log, products: Products, now: float, shoppers: int) -> None:
        log = log.where(log.time < now).once_a_visit()
        self.log, self.products, self.now, self.shoppers = log, products, now, shoppers
        self.age = now - log.time
        key = log.shopper * len(products) + log.product
        self.pairs, self.pair = np.unique(key, return_inverse=True)
        self.pair_shopper, self.pair_product = np.divmod(self.pairs, len(products))
        self.count = np.bincount(self.pair, minlength=len(self.pairs))
        self.weight = self.per_pair(np.exp2(-self.age / 83.0))
        order = np.lexsort((log.time, self.pair))
        self.first_time = np.zeros(len(key), dtype=bool)
        self.first_time[order[np.r_[True, np.diff(self.pair[order]) > 0]]] = True

    def per_pair(self, weights: np.ndarray) -> np.ndarray:
        """Sum of purchases' weights per pair."""
        return np.bincount(self.pair, weights, minlength=len(self.pairs))

    def per_product(self, weights: np.ndarray) -> np.ndarray:
        """Sum of purchases' weights per product."""
        return np.bincount(self.log.product, weights, minlength=len(self.products))

    def per_type(self, per_product: np.ndarray) -> np.ndarray:
        """Sum over all products of the same type, for each product."""
        return np.bincount(self.products.type, per_product)[self.products.type]

    def per_shopper(self, code: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Dense (shoppers, codes) sums of purchases' weights by a code of each purchase; float32."""
        width = int(code.max(initial=0)) + 1
        sums = np.bincount(self.log.shopper * width + code, weights, minlength=self.shoppers * width)
        return sums.astype(np.float32).reshape(self.shoppers, width)

    def find(self, shopper: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Number of each pair; ``len(pairs)`` where it never was."""
        key = shopper * len(self.products) + product
        place = np.minimum(np.searchsorted(self.pairs, key), len(self.pairs) - 1)
        return np.where(self.pairs[place] == key, place, len(self.pairs))


@dataclass(slots=True)
class Lists:
    """G lists of candidates, one after another in R rows. ``starts``: (G + 1,) where each begins.

    ``wanted``: how often each row's product was bought later (the label); ``shopper``, ``type``: (G,) of each list;
    ``product``: (R,).
    """

    shopper: np.ndarray
    type: np.ndarray
    starts: np.ndarray
    product: np.ndarray
    wanted: np.ndarray

    @property
    def group(self) -> np.ndarray:
        """List number of each row."""
        return np.repeat(np.arange(len(self.shopper)), np.diff(self.starts))

    @classmethod
    def of_cases(
        cls, shopper: np.ndarray, product: np.ndarray, candidates: dict[int, np.ndarray], type_of: np.ndarray
    ) -> Lists:
        """Cases (a shopper bought a product) that share shopper and type become one list; ``candidates``: products of
        each type. Every case's product must be among them."""
        kinds = type_of[product]
        width = len(type_of)
        keys, inverse = np.unique(shopper * width + kinds, return_inverse=True)
        shoppers, types = np.divmod(keys, width)
        sizes = np.array([len(candidates[kind]) for kind in types.tolist()], dtype=np.int64)
        starts = np.r_[0, np.cumsum(sizes)]
        place = {kind: {one: at for at, one in enumerate(members.tolist())} for kind, members in candidates.items()}
        rows = starts[inverse] + [place[kind][one] for kind, one in zip(kinds.tolist(), product.tolist(), strict=True)]
        every = np.concatenate([candidates[kind] for kind in types.tolist()]) if len(types) else np.empty(0, np.int64)
        wanted = np.bincount(rows.astype(np.int64), minlength=int(starts[-1])).astype(np.float32)
        return cls(shoppers, types, starts, every, wanted)


@dataclass(slots=True)
class Columns:
    """Feature columns over the rows of some lists."""

    lists: Lists
    names: list[str] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def add(self, name: str, values: np.ndarray) -> None:
        """One column; faults count as 0 and extremes are cut, so that half precision holds them."""
        clean = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=60.0, neginf=-60.0)
        self.names.append(name)
        self.values.append(np.clip(clean, -60.0, 60.0).astype(np.float16))

    def matrix(self) -> np.ndarray:
        """float16 (R, F)."""
        return np.stack(self.values, axis=1)
