"""Slate rules: what a product's neighbours in the list make of its place."""

from __future__ import annotations

import numpy as np

from endcap.catalog.table import ProductTable


def diversified(
    order: np.ndarray, scores: np.ndarray, rows: np.ndarray, table: ProductTable, share: float, places: int
) -> np.ndarray:
    """Maximal marginal relevance (Carbonell & Goldstein 1998) for the first ``places``; the rest keeps its order.

    Args:
        order: int64 (n,), best first. scores: (n,) of the candidates, any scale.
        rows: int64 (n,) rows of the candidates in ``table``.
        share: of the likeness to what already stands above, in [0, 1); the score has the rest.

    Likeness is the cosine of the products' vectors where both have one, else 1/2 for the same brand and 1/2 for the
    same leaf category.
    """
    count = len(order)
    if count < 3 or share <= 0:
        return order
    # Only what is near the top can come into the first places: twice as many compete for them.
    pool = order[: min(count, 2 * places)]
    value = scores[pool].astype(np.float64)
    spread = float(value.max() - value.min())
    value = (value - value.min()) / spread if spread > 0 else np.zeros(len(pool))
    alike = likeness(rows[pool], table)
    nearest = np.zeros(len(pool))
    free = np.ones(len(pool), dtype=bool)
    chosen: list[int] = []
    for _ in range(min(places, len(pool))):
        gain = np.where(free, (1 - share) * value - share * nearest, -np.inf)
        best = int(gain.argmax())
        chosen.append(best)
        free[best] = False
        np.maximum(nearest, alike[best], out=nearest)
    return np.concatenate([pool[chosen], pool[free], order[len(pool) :]])


def likeness(rows: np.ndarray, table: ProductTable) -> np.ndarray:
    """How alike products are, pair by pair; float64 (n, n) in [0, 1]."""
    brand, category = table.brand[rows], table.category[rows]
    same = 0.5 * ((brand[:, None] == brand) & (brand >= 0)) + 0.5 * ((category[:, None] == category) & (category >= 0))
    if table.vectors is None:
        return same
    vectors = table.vectors[rows].astype(np.float32)
    described = vectors.any(axis=1)
    cosine = np.clip(vectors @ vectors.T, 0.0, 1.0)
    return np.where(described[:, None] & described, cosine, same)


def capped(order: np.ndarray, groups: np.ndarray, most: int, places: int) -> np.ndarray:
    """At most ``most`` products of a group among the first ``places``, as far as others can take their places.

    ``groups``: int (n,) of the candidates, -1: none, never capped. Those moved keep their order behind the others.
    """
    count = len(order)
    if most < 1 or count < 2:
        return order
    mine = groups[order]
    by_group = np.argsort(mine, kind="stable")
    sorted_groups = mine[by_group]
    begins = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    nth = np.empty(count, dtype=np.int64)
    nth[by_group] = np.arange(count) - np.repeat(begins, np.diff(np.r_[begins, count]))
    over = (nth >= most) & (mine >= 0)
    kept, moved = order[~over], order[over]
    return np.concatenate([kept[:places], moved, kept[places:]]) if len(kept) > places else np.r_[kept, moved]
