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
from endcap.features.crowd import popularity_features
from endcap.features.memory import memory_of
from endcap.features.names import AFFINITY, FEATURES, INDEX
from endcap.features.personal import personal_features
from endcap.popularity import Popularity
from endcap.profiles import Profile

__all__ = ["AFFINITY", "FEATURES", "INDEX", "RankingInputs", "ranking_inputs"]


@dataclass(slots=True)
class RankingInputs:
    """What a scorer sees of one search.

    ``features``: float32 (n, len(FEATURES)), finite; the columns of ``AFFINITY`` are filled in by the scorer whose
    model brings an ``affinity``, which is kept beside them. ``rows``: int64 (n,) candidates'
    rows in ``table``, -1 for products that it does not know. ``engine_scores``: float32 (n,). ``until``: by when the
    scores are wanted, on the clock of ``time.perf_counter``.
    """

    features: np.ndarray
    rows: np.ndarray
    engine_scores: np.ndarray
    profile: Profile
    query: str
    now: float
    table: ProductTable
    until: float = math.inf
    affinity: object = None


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
    # By columns: each is written, and most are read, as a whole.
    columns = np.zeros((len(FEATURES), len(rows)), dtype=np.float32)
    if len(rows):
        popular = popularity.read(keys, now)
        popularity_features(columns, popular)
        _engine(columns, engine_scores)
        columns[INDEX["candidates"]] = math.log1p(len(rows))
        columns[INDEX["own_age"]] = math.log1p(400.0)
        columns[INDEX["price_relative"]] = table.relative_price[rows]
        if profile:
            personal_features(columns, profile, memory_of(profile, table, now), table, rows, keys, popular, now)
        if not columns[INDEX["own_any"]].any():
            columns[INDEX["stranger_recent"]] = columns[INDEX["recent"]]
    return RankingInputs(np.ascontiguousarray(columns.T), rows, engine_scores, profile, query, now, table)


def _engine(columns: np.ndarray, engine_scores: np.ndarray) -> None:
    scores = np.nan_to_num(np.asarray(engine_scores, dtype=np.float32), posinf=0.0, neginf=0.0)
    best = float(scores.max())
    if best > 0:
        columns[INDEX["engine_score"]] = np.log(np.maximum(scores / best, 0.02))
    # Equal scores share the place of the first among them: the engine expressed no order there.
    changed = np.r_[True, scores[1:] != scores[:-1]]
    place = np.flatnonzero(changed)[np.cumsum(changed) - 1]
    columns[INDEX["engine_rank"]] = 1.0 / np.log2(2.0 + place)
