"""(profile, query, candidates) -> model inputs. The only place where features are made, for training and serving.

Everything is a function of what was known before the moment ``now``; nothing here looks anything up elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endcap.catalog.product import product_keys
from endcap.catalog.table import ProductTable
from endcap.popularity import Popularity
from endcap.profiles import Profile, short_keys

#: The columns of :attr:`RankingInputs.features`, in order. A model's bundle names them; another list, another model.
FEATURES = (
    "own_buys",  # log(1 + purchases of this product by this shopper)
    "own_decayed",  # log(1 + decayed weight of all his actions on it)
    "own_recency",  # 1 / (1 + days since the last action / 30); 0 where there was none
    "own_any",  # 1 where the shopper knows the product
    "own_share",  # its part of the shopper's weight in this leaf category, shrunk towards 0
    "brand_share",  # shopper's weight on the brand within the leaf category, other products only, shrunk
    "brand_weight",  # log(1 + shopper's decayed weight on the brand in all categories)
    "category_weight",  # log(1 + shopper's decayed weight on the leaf category)
    "attribute_share",  # mean over attributes of the weight on the same value within the leaf category
    "price_gap",  # -|relative price - shopper's mean relative price|, in log units
    "similarity",  # cosine to the shopper's weighted mean vector
    "total",  # log(1 + all-time weight)
    "recent",  # log(1 + recent weight)
    "week",  # log(1 + this week's weight)
    "recent_share",  # recent weight / largest among the candidates
    "trend",  # log((1 + recent weight) / (1 + expected from the all-time weight))
    "engine_score",  # log(engine score / largest among the candidates), at least log(.02)
    "engine_rank",  # 1 / log2(2 + engine position)
    "stranger_recent",  # recent, where the shopper knows none of the candidates
)

#: A derived memory is used for so many seconds before its decay is computed anew.
_FRESH_S = 600.0
INDEX = {name: column for column, name in enumerate(FEATURES)}


@dataclass(slots=True)
class RankingInputs:
    """What a scorer sees of one search.

    ``features``: float32 (n, len(FEATURES)), finite. ``rows``: int64 (n,) candidates' rows in ``table``, -1 for
    products that it does not know. ``engine_scores``: float32 (n,). ``until``: by when the scores are wanted, on the
    clock of ``time.perf_counter``.
    """

    features: np.ndarray
    rows: np.ndarray
    engine_scores: np.ndarray
    profile: Profile
    query: str
    now: float
    table: ProductTable
    until: float = math.inf


@dataclass(slots=True)
class _Sums:
    """The shopper's weight per code: sorted codes, their sums."""

    codes: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, weight: np.ndarray) -> _Sums:
        known = codes >= 0
        unique, inverse = np.unique(codes[known], return_inverse=True)
        return cls(unique, np.bincount(inverse, weights=weight[known], minlength=len(unique)).astype(np.float32))

    def __getitem__(self, codes: np.ndarray) -> np.ndarray:
        if not len(self.codes):
            return np.zeros(len(codes), dtype=np.float32)
        position = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[position] == codes, self.sums[position], np.float32(0.0))


@dataclass(slots=True)
class _Memory:
    """A profile seen through a table. ``weight`` belongs to the profile's counters, 0 for products that are gone."""

    weight: np.ndarray
    brand: _Sums
    category: _Sums
    category_brand: _Sums
    category_attributes: list[_Sums]
    vector: np.ndarray | None
    price: float


def ranking_inputs(
    profile: Profile,
    query: str,
    ids: Sequence[str],
    engine_scores: np.ndarray,
    table: ProductTable,
    popularity: Popularity,
    now: float,
) -> RankingInputs:
    """Model inputs for n candidates in the engine's order.

    Args:
        engine_scores: (n,), any scale; only ratios and the order are used. Non-finite scores count as 0.
        now: seconds since 1970.
    """
    rows = table.rows(ids)
    keys = table.keys[rows]
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        keys[missing] = product_keys([ids[number] for number in missing.tolist()])
    features = np.zeros((len(rows), len(FEATURES)), dtype=np.float32)
    if len(rows):
        popular = popularity.read(keys, now)
        _popular(features, popular)
        _engine(features, engine_scores)
        if profile:
            _personal(features, profile, table, rows, keys, now)
        features[:, INDEX["stranger_recent"]] = features[:, INDEX["recent"]] * (not features[:, INDEX["own_any"]].any())
    return RankingInputs(features, rows, engine_scores, profile, query, now, table)


def _personal(
    features: np.ndarray, profile: Profile, table: ProductTable, rows: np.ndarray, keys: np.ndarray, now: float
) -> None:
    """Columns about the shopper: what he did with each candidate, and with others like it."""
    memory = _memory(profile, table, now)
    counters = profile.counters
    short = short_keys(keys)
    place = np.minimum(np.searchsorted(counters["key"], short), len(counters) - 1)  # counters are sorted by key
    known = counters["key"][place] == short
    age = profile.age_days(now)[place]
    features[:, INDEX["own_buys"]] = known * np.log1p(profile.buys()[place])
    features[:, INDEX["own_decayed"]] = known * np.log1p(profile.weights(now)[place])
    features[:, INDEX["own_recency"]] = known / (1.0 + age / 30.0)
    features[:, INDEX["own_any"]] = known
    own = np.where(known, memory.weight[place], np.float32(0.0))

    category, brand = table.category[rows].astype(np.int64), table.brand[rows]
    in_category = memory.category[category]
    others = np.maximum(in_category - own, 0.0) + 1.0  # one imaginary purchase: shares of little are shrunk
    features[:, INDEX["own_share"]] = own / (in_category + 1.0)
    same_brand = memory.category_brand[_pair(category, brand)]
    features[:, INDEX["brand_share"]] = np.maximum(same_brand - own, 0.0) / others
    features[:, INDEX["brand_weight"]] = np.log1p(memory.brand[brand])
    features[:, INDEX["category_weight"]] = np.log1p(in_category)
    for column, sums in zip(table.attributes.T, memory.category_attributes, strict=True):
        share = np.maximum(sums[_pair(category, column[rows])] - own, 0.0) / others
        features[:, INDEX["attribute_share"]] += share / table.attributes.shape[1]
    features[:, INDEX["price_gap"]] = -np.abs(table.relative_price[rows] - memory.price) * (rows >= 0)
    if memory.vector is not None and table.vectors is not None:
        features[:, INDEX["similarity"]] = table.vectors[rows].astype(np.float32) @ memory.vector


def _pair(category: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One code for two; -1 where either is unknown."""
    return np.where((category >= 0) & (other >= 0), (category << 32) | other.astype(np.int64), -1)


def _memory(profile: Profile, table: ProductTable, now: float) -> _Memory:
    """The shopper's weights by product, brand and category; kept until profile or table changes, or time passes."""
    cached = profile.cache.get("memory")
    if isinstance(cached, tuple) and cached[0] is table and abs(now - cached[1]) < _FRESH_S:
        return cached[2]
    counters = profile.counters
    rows = table.rows_of_short_keys(counters["key"])
    # A quarter of the count stays for ever, so that what was bought long ago is not forgotten altogether.
    weight = profile.weights(now) + np.float32(0.25) * profile.buys()
    weight[rows < 0] = 0.0
    here = np.flatnonzero(weight > 0)
    rows, of = rows[here], weight[here]
    category = table.category[rows].astype(np.int64)
    vector = None
    if table.vectors is not None and len(rows):
        vector = of @ table.vectors[rows].astype(np.float32)
        vector /= max(float(np.linalg.norm(vector)), 1e-9)
    memory = _Memory(
        weight=weight,
        brand=_Sums.of(table.brand[rows], of),
        category=_Sums.of(category, of),
        category_brand=_Sums.of(_pair(category, table.brand[rows]), of),
        category_attributes=[_Sums.of(_pair(category, column[rows]), of) for column in table.attributes.T],
        vector=vector,
        price=float(of @ table.relative_price[rows] / of.sum()) if len(rows) else 0.0,
    )
    profile.cache["memory"] = (table, now, memory)
    return memory


def _popular(features: np.ndarray, popular: np.ndarray) -> None:
    logs = np.log1p(popular)
    features[:, INDEX["total"]], features[:, INDEX["recent"]], features[:, INDEX["week"]] = logs.T
    recent = popular[:, 1]
    features[:, INDEX["recent_share"]] = recent / max(float(recent.max()), 1e-9)
    expected = popular[:, 0] * (recent.sum() / max(float(popular[:, 0].sum()), 1e-9))
    features[:, INDEX["trend"]] = np.log((1.0 + recent) / (1.0 + expected))


def _engine(features: np.ndarray, engine_scores: np.ndarray) -> None:
    scores = np.nan_to_num(np.asarray(engine_scores, dtype=np.float32), posinf=0.0, neginf=0.0)
    best = float(scores.max())
    if best > 0:
        features[:, INDEX["engine_score"]] = np.log(np.maximum(scores / best, 0.02))
    # Equal scores share the place of the first among them: the engine expressed no order there.
    changed = np.r_[True, scores[1:] != scores[:-1]]
    place = np.flatnonzero(changed)[np.cumsum(changed) - 1]
    features[:, INDEX["engine_rank"]] = 1.0 / np.log2(2.0 + place)
