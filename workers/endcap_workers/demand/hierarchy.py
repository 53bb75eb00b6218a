"""Forecasts that add up: products, their categories, the shop.

A category's sum is smoother than any of its products and is forecast better by itself. Reconciled by weighted least
squares (MinT with a diagonal covariance: Wickramasuriya, Athanasopoulos and Hyndman, 2019, JASA 114), which on a tree
is two passes: precisions go up, differences come down in proportion to variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Tree:
    """Levels from the products upwards. ``parents[k]``: int64, the node of level k + 1 that each node of level k
    belongs to; the last level is one node, the whole shop. ``names[k]``: of level k + 1."""

    parents: tuple[np.ndarray, ...]
    names: tuple[tuple[str, ...], ...]

    def sums(self, leaves: np.ndarray) -> list[np.ndarray]:
        """The values (products, …) of every level, the products' own first; a sum of nothing known is NaN."""
        found = [leaves]
        for parent, names in zip(self.parents, self.names):
            below = found[-1]
            known = ~np.isnan(below)
            total = np.zeros((len(names), *below.shape[1:]))
            any_known = np.zeros(total.shape, dtype=bool)
            np.add.at(total, parent, np.nan_to_num(below))
            np.logical_or.at(any_known, parent, known)
            found.append(np.where(any_known, total, np.nan))
        return found


def tree_of(paths: Sequence[tuple[str, ...]], depth: int = 3) -> Tree:
    """The tree of products' category paths, cut at ``depth`` levels below the shop; products without one share one."""
    parents, names = [], []
    below: list[tuple[str, ...]] = [path[:depth] or ("(no category)",) for path in paths]
    deepest = max((len(path) for path in below), default=1)
    nodes = below
    for level in range(deepest, -1, -1):
        cut = [path[:level] for path in nodes]
        unique = {path: number for number, path in enumerate(dict.fromkeys(cut))}
        parents.append(np.fromiter((unique[path] for path in cut), dtype=np.int64, count=len(cut)))
        names.append(tuple(" > ".join(path) for path in unique))
        nodes = list(unique)
    return Tree(tuple(parents), tuple(names))


def reconcile(tree: Tree, forecasts: Sequence[np.ndarray], variances: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Forecasts of every level that add up.

    Args:
        forecasts: per level, products first, float64 (nodes, horizon).
        variances: per level, float64 (nodes,), > 0: how wrong each node's own forecast usually is.

    Returns:
        As ``forecasts``. A product's may come out below 0 and is then 0, so that sums are kept only up to that.
    """
    best, spread = [np.asarray(forecasts[0], dtype=np.float64)], [np.asarray(variances[0], dtype=np.float64)]
    sums: list[np.ndarray] = []
    for parent, own, variance in zip(tree.parents, forecasts[1:], variances[1:]):
        below = np.zeros(own.shape)
        np.add.at(below, parent, best[-1])
        below_variance = np.zeros(len(own))
        np.add.at(below_variance, parent, spread[-1])
        sums.append(below_variance)
        weight = below_variance / (below_variance + variance)
        best.append(below + weight[:, None] * (own - below))
        spread.append(below_variance * variance / (below_variance + variance))
    found = [best[-1]]
    for level in range(len(tree.parents) - 1, -1, -1):
        parent = tree.parents[level]
        total = np.zeros(best[level + 1].shape)
        np.add.at(total, parent, best[level])
        gap = found[0] - total
        share = spread[level] / sums[level][parent]
        found.insert(0, best[level] + share[:, None] * gap[parent])
    return [np.maximum(one, 0.0) for one in found]
