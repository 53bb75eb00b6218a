"""Learns an affinity from what shoppers bought: factors, products alike, how products keep their shoppers.

Everything comes from :class:`~endcap.recommend.behaviour.Behaviour`, which is bounded, so this is, too.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, diags
from scipy.sparse.linalg import svds

from endcap.catalog.table import ProductTable
from endcap.features.affinity import TRAITS, Affinity
from endcap.features.memory import above_of
from endcap.profiles import DAY_S
from endcap.recommend.behaviour import Behaviour

DIMENSIONS = 64
#: Products alike that are kept of each.
NEIGHBOURS = 32
#: Products that an affinity knows, those bought by most: some 800 bytes each in a server.
MOST_PRODUCTS = 200_000
#: Shoppers that the factors and the likeness are learned from; of more, a sample.
MOST_SHOPPERS = 200_000
#: Products of a category above that a ridge regression relates to each other, those bought by most, and its penalty in
#: shoppers. Cross-shelf, it says what likeness alone does not: who buys this diet cola buys that diet lemonade.
MOST_RIDGE = 1_500
_FEWEST_RIDGE, _PENALTY = 8, 60.0
#: A leaf category of more products than this is not compared product by product, but only its best sellers.
MOST_SHELF = 4_000
_FEWEST = 3
_MONTH_S = 31 * DAY_S


def build_affinity(table: ProductTable, behaviour: Behaviour, now: float, seed: int = 0) -> Affinity | None:
    """As of ``now`` (seconds since 1970), of the products that were bought; None where none of the table was."""
    behaviour.merge()
    repeats = behaviour.repeats
    rows = table.rows_of_short_keys(repeats.keys.astype(np.uint32))
    known = np.flatnonzero(rows >= 0)
    bought = np.unique(rows[known])
    if not len(bought):
        return None
    if len(bought) > MOST_PRODUCTS:
        most = np.argsort(-np.bincount(rows[known], minlength=len(table))[bought], kind="stable")[:MOST_PRODUCTS]
        bought = bought[most]
        known = known[np.isin(rows[known], bought)]
    bought = bought[np.argsort(table.keys[bought])]
    place = np.full(len(table), -1, dtype=np.int64)
    place[bought] = np.arange(len(bought))
    product = place[rows[known]]
    shoppers, shopper = np.unique(repeats.keys[known] >> np.uint64(32), return_inverse=True)
    times = repeats.times[known].astype(np.float64)
    first, last = repeats.first[known].astype(np.float64), repeats.last[known].astype(np.float64)
    leaf = table.category[bought]
    traits = _traits(product, times, now - first, now - last, leaf)
    if len(shoppers) > MOST_SHOPPERS:
        chosen = np.zeros(len(shoppers), dtype=bool)
        chosen[np.random.default_rng(seed).permutation(len(shoppers))[:MOST_SHOPPERS]] = True
        kept = chosen[shopper]
        product, times = product[kept], times[kept]
        shopper = np.unique(shopper[kept], return_inverse=True)[1]
    buyers = np.bincount(product, minlength=len(bought))
    people = int(shopper.max()) + 1
    rarity = (np.log(people / (buyers + 1.0)).clip(min=0.2) ** 0.5 * (buyers >= _FEWEST)).astype(np.float32)
    factors = _factors(shopper, product, np.log1p(times) * rarity[product], (people, len(bought)), seed)
    ever = csc_matrix((np.ones(len(product), np.float32), (shopper, product)), shape=(people, len(bought)))
    alike, alike_by = _by_shopper(ever, leaf, buyers)
    basket, basket_by = _by_basket(behaviour, table, bought, place, leaf)
    ridge, ridge_by = _by_ridge(ever, above_of(table, bought), buyers)
    return Affinity(
        table.keys[bought], factors, rarity, alike, alike_by, basket, basket_by, ridge, ridge_by, traits
    )  # fmt: skip


def _traits(
    product: np.ndarray, times: np.ndarray, first: np.ndarray, last: np.ndarray, leaf: np.ndarray
) -> np.ndarray:
    """``first``, ``last``: seconds since each (shopper, product) pair's first and last purchase."""
    count, shelf = len(leaf), leaf + 1  # 0: without a category

    def per_product(weights: np.ndarray) -> np.ndarray:
        return np.bincount(product, weights, minlength=count)

    def per_shelf(values: np.ndarray) -> np.ndarray:
        return np.bincount(shelf, values)[shelf]

    def share(values: np.ndarray) -> np.ndarray:
        return np.log(100.0 * (values + 0.5) / (per_shelf(values) + 20.0) + 0.1)

    shoppers = per_product(np.ones(len(product)))
    had = first >= _MONTH_S
    before, again = per_product(had), per_product(had & (last < _MONTH_S))
    usual = (per_shelf(again) + 1.0) / (per_shelf(before) + 10.0)
    columns = {
        "crowd_shoppers": np.log1p(shoppers),
        "crowd_loyalty": np.log((per_product(times) + 1.0) / (shoppers + 1.0)),
        "crowd_again": np.log((again + 10.0 * usual) / (before + 10.0)),
        "crowd_again_shelf": np.log(usual),
        "crowd_new": share(per_product(first < 60 * DAY_S)),
        "crowd_new_month": share(per_product(first < 30 * DAY_S)),
    }
    return np.stack([columns[name] for name in TRAITS], axis=1).astype(np.float16)


def _factors(
    shopper: np.ndarray, product: np.ndarray, weights: np.ndarray, shape: tuple[int, int], seed: int
) -> np.ndarray:
    """Right singular vectors of the shoppers' memories, float16 (P, DIMENSIONS); zeros where there is too little."""
    memory = csr_matrix((weights.astype(np.float32), (shopper, product)), shape=shape)
    norm = np.sqrt(np.asarray(memory.multiply(memory).sum(axis=1)).ravel())
    memory = diags(((norm + 1e-6) ** -0.7).astype(np.float32)) @ memory
    factors = np.zeros((shape[1], DIMENSIONS), dtype=np.float16)
    # Of as many factors as products each would stand for itself alone.
    rank = min(DIMENSIONS, max(min(shape) // 4, 1), min(shape) - 1)
    if rank > 0 and memory.nnz > rank and weights.any():
        _, strength, right = svds(memory, k=rank, random_state=seed)
        factors[:, :rank] = np.where(strength[:, None] > 1e-6, right, 0.0).T
    return factors


def _by_shopper(ever: csc_matrix, leaf: np.ndarray, buyers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of who bought two products of one leaf category, shrunk."""
    best = _Best(len(leaf))
    for members in _shelves(leaf, buyers):
        table = ever[:, members]
        both = (table.T @ table).tocoo()
        apart = both.row != both.col
        left, right = members[both.row[apart]], members[both.col[apart]]
        best.take(left, right, both.data[apart] / np.sqrt((buyers[left] + 3.0) * (buyers[right] + 3.0)))
    return best.result()


def _by_ridge(ever: csc_matrix, above: np.ndarray, buyers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each product as a linear function of what else a shopper bought in the category above, with the weights of the
    closed form (Steck, Embarrassingly shallow autoencoders, 2019); the largest of them, of either sign."""
    best = _Best(len(above))
    code = np.where((above == -1) | (buyers < _FEWEST_RIDGE), -1, np.unique(above, return_inverse=True)[1])
    for members in _shelves(code, buyers, MOST_RIDGE):
        table = ever[:, members]
        both = (table.T @ table).toarray().astype(np.float64)
        inverse = np.linalg.inv(both + _PENALTY * np.eye(len(members)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        kept = min(NEIGHBOURS, len(members) - 1)
        others = np.argsort(-np.abs(weights), axis=0, kind="stable")[:kept].T
        by = np.take_along_axis(weights.T, others, axis=1)
        best.take(np.repeat(members, kept), members[others.ravel()], by.ravel())
    return best.result()


def _by_basket(
    behaviour: Behaviour, table: ProductTable, bought: np.ndarray, place: np.ndarray, leaf: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same of the baskets that two products lay in together."""
    keys, counts = behaviour.pairs.state
    left, right = (table.rows_of_short_keys(part) for part in (_high(keys), keys.astype(np.uint32)))
    known = (left >= 0) & (right >= 0)
    left, right, counts = place[left[known]], place[right[known]], counts[known]
    inside = (left >= 0) & (right >= 0)
    left, right, counts = left[inside], right[inside], counts[inside]
    own = np.zeros(len(bought))
    itself = left == right
    own[left[itself]] = counts[itself]
    pairs = ~itself & (leaf[left] == leaf[right]) & (leaf[left] >= 0)
    left, right, counts = left[pairs], right[pairs], counts[pairs]
    best = _Best(len(bought))
    # A product's own count may have been given up before its pairs' were: it was at least theirs.
    norm = np.sqrt((np.maximum(own[left], counts) + 5.0) * (np.maximum(own[right], counts) + 5.0))
    best.take(left, right, counts / norm)
    return best.result()


def _high(keys: np.ndarray) -> np.ndarray:
    return (keys >> np.uint64(32)).astype(np.uint32)


def _shelves(leaf: np.ndarray, buyers: np.ndarray, most: int = MOST_SHELF) -> list[np.ndarray]:
    """Products of each category, ascending; of those with too many, the ones bought most."""
    order = np.lexsort((-buyers, leaf))
    order = order[leaf[order] >= 0]
    parts = np.split(order, np.flatnonzero(np.diff(leaf[order])) + 1) if len(order) else []
    return [np.sort(part[:most]) for part in parts if len(part) > 1]


class _Best:
    """The NEIGHBOURS best of each product."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._other = np.full((count, NEIGHBOURS), count, dtype=np.int32)
        self._by = np.zeros((count, NEIGHBOURS), dtype=np.float16)

    def take(self, left: np.ndarray, right: np.ndarray, by: np.ndarray) -> None:
        """Pairs, in any order; all of one ``left`` at once."""
        order = np.lexsort((-by, left))
        left, right, by = left[order], right[order], by[order]
        start = np.flatnonzero(np.r_[True, left[1:] != left[:-1]]) if len(left) else np.empty(0, np.int64)
        number = np.arange(len(left)) - np.repeat(start, np.diff(np.r_[start, len(left)]))
        kept = number < NEIGHBOURS
        self._other[left[kept], number[kept]] = right[kept]
        self._by[left[kept], number[kept]] = by[kept]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return self._other, self._by
