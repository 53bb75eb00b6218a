"""What the shopper did with each candidate, and with others like it.

Of what he remembers only the part that shares a category with some candidate is compared, each product with each
candidate: a few thousand pairs, which a handful of array operations settle.
"""

from __future__ import annotations

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.features.memory import Memory, above_of
from endcap.features.names import INDEX
from endcap.profile_bytes import profile_keys
from endcap.profiles import Profile

#: Imaginary purchases at everybody's taste: shares of little are shrunk.
_PRIOR = 5.0
_ATTRIBUTES = 4


def personal_features(
    columns: np.ndarray,
    profile: Profile,
    memory: Memory,
    table: ProductTable,
    rows: np.ndarray,
    keys: np.ndarray,
    popular: np.ndarray,
    now: float,
) -> None:
    """Fill the columns of ``OWN``, ``SHELF`` and ``TASTE``; ``columns`` is float32 (F, n)."""
    age = _own(columns, profile, keys, now)
    columns[INDEX["brand_weight"]] = np.log1p(memory.brands[table.brand[rows]])
    columns[INDEX["shopper_buys"]] = np.log1p(memory.buys.sum())
    columns[INDEX["price_shopper"]] = memory.price
    relative = table.relative_price[rows]
    columns[INDEX["price_gap"]] = -np.abs(relative - memory.price) * (rows >= 0)
    if memory.vector is not None and table.vectors is not None:
        columns[INDEX["similarity"]] = table.vectors[rows].astype(np.float32) @ memory.vector
    above = above_of(table, rows)
    near = np.flatnonzero(np.isin(memory.above, above[above != -1]))
    if not len(near):
        columns[INDEX["shelf_age"]] = np.log1p(np.float32(400.0))
        return
    leaf = table.category[rows]
    same = memory.rows[near] == rows[:, None]
    on_shelf = (memory.leaf[near] == leaf[:, None]) & (leaf[:, None] >= 0)
    in_above = (memory.above[near] == above[:, None]) & ~same
    weight = memory.weight[near]
    own = same @ weight
    _shelf(columns, memory, near, on_shelf, own, age, relative)
    _taste(columns, memory, near, on_shelf & ~same, in_above, table, rows, popular[:, 1])


def _own(columns: np.ndarray, profile: Profile, keys: np.ndarray, now: float) -> np.ndarray:
    """Gives the days since the last action on each candidate, infinite where there was none."""
    counters = profile.counters
    short = profile_keys(keys)
    place = np.minimum(np.searchsorted(counters["key"], short), len(counters) - 1)  # counters are sorted by key
    known = counters["key"][place] == short
    at = place[known]
    if not len(at):
        return np.full(len(keys), np.inf, dtype=np.float32)
    age = profile.age_days(now)[at]
    columns[INDEX["own_any"], known] = 1.0
    columns[INDEX["own_buys"], known] = np.log1p(profile.buys()[at])
    columns[INDEX["own_decayed"], known] = np.log1p(profile.weights(now)[at])
    columns[INDEX["own_recency"], known] = 1.0 / (1.0 + age / 30.0)
    columns[INDEX["own_age"], known] = np.log1p(age)
    last = np.full(len(keys), np.inf, dtype=np.float32)
    last[known] = age
    return last


def _shelf(
    columns: np.ndarray,
    memory: Memory,
    near: np.ndarray,
    on_shelf: np.ndarray,
    own: np.ndarray,
    age: np.ndarray,
    relative: np.ndarray,
) -> None:
    buys, decayed, ages, weight = memory.buys[near], memory.decayed[near], memory.age[near], memory.weight[near]
    total, lately, on_it = on_shelf @ buys, on_shelf @ decayed, on_shelf @ weight
    distinct = on_shelf @ (buys > 0).astype(np.float32)
    some = np.maximum(total, 1.0)
    columns[INDEX["category_weight"]] = np.log1p(on_it)
    columns[INDEX["own_share"]] = own / (on_it + 1.0)
    mine = np.expm1(columns[INDEX["own_decayed"]])
    columns[INDEX["own_share_lately"]] = mine / (np.maximum(lately, mine) + 0.05)
    columns[INDEX["shelf_buys"]] = np.log1p(total)
    columns[INDEX["shelf_distinct"]] = np.log1p(distinct)
    columns[INDEX["shelf_variety"]] = distinct / some
    columns[INDEX["shelf_top_share"]] = np.max(on_shelf * buys, axis=1) / some
    columns[INDEX["shelf_age"]] = np.log1p(np.where(on_shelf, ages, np.float32(400.0)).min(axis=1))
    # Days count once, however many products of the shelf were bought on each.
    day = memory.leaf[near].astype(np.int64) * 100_000 + ages.astype(np.int64)
    once = np.zeros(len(near), dtype=np.float32)
    once[np.unique(day, return_index=True)[1]] = 1.0
    known = np.isfinite(age)
    columns[INDEX["own_trips"], known] = np.log1p((on_shelf[known] & (ages < age[known, None] - 0.5)) @ once)

    usual = (on_shelf @ (weight * memory.relative_price[near]) + np.float32(memory.price)) / (on_it + 1.0)
    columns[INDEX["price_above_shelf"]] = relative - usual
    columns[INDEX["price_gap_shelf"]] = -np.abs(relative - usual)


def _taste(
    columns: np.ndarray,
    memory: Memory,
    near: np.ndarray,
    on_shelf: np.ndarray,
    in_above: np.ndarray,
    table: ProductTable,
    rows: np.ndarray,
    sales: np.ndarray,
) -> None:
    """``on_shelf``, ``in_above``: bool (n, k), which of the remembered products lie on a candidate's shelf, in its
    category; the candidate itself is none of them."""
    weight = memory.weight[near]
    around, around_above = on_shelf @ weight, in_above @ weight
    everybody = float(sales.sum()) + 1.0

    def usual(code: np.ndarray) -> np.ndarray:
        """Everybody's share of each candidate's code."""
        return ((code == code[:, None]) @ sales + 0.1) / everybody

    def lift(here: np.ndarray, inside: np.ndarray, share: np.ndarray) -> np.ndarray:
        return np.log((here + _PRIOR * share) / ((inside + _PRIOR) * share))

    brand = table.brand[rows]
    same_brand = (memory.brand[near] == brand[:, None]) & (brand[:, None] >= 0)
    share = usual(brand)
    on_brand, on_brand_above = (on_shelf & same_brand) @ weight, (in_above & same_brand) @ weight
    columns[INDEX["brand_share"]] = on_brand / (around + 1.0)
    columns[INDEX["brand_lift"]] = lift(on_brand, around, share)
    columns[INDEX["brand_lift_above"]] = lift(on_brand_above, around_above, share)
    columns[INDEX["brand_seen"]] = np.log1p(on_brand_above)

    twins, kinds = in_above & same_brand, brand.astype(np.int64)
    attributes = min(table.attributes.shape[1], _ATTRIBUTES)
    for number in range(attributes):
        code = table.attributes[rows, number]
        alike = (memory.attributes[near, number] == code[:, None]) & (code[:, None] >= 0)
        share = usual(code)
        here = (on_shelf & alike) @ weight
        columns[INDEX["attribute_share"]] += here / ((around + 1.0) * attributes)
        columns[INDEX["attribute_1_lift"] + number] = lift(here, around, share)
        above = lift((in_above & alike) @ weight, around_above, share)
        columns[INDEX["attributes_lift_above"]] += above / attributes
        twins &= alike | (code[:, None] < 0)
        kinds = kinds * 100_003 + code
    columns[INDEX["twin_lift"]] = lift(twins @ weight, around_above, usual(kinds))
