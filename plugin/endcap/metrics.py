"""Ranking metrics, with ties treated fairly: equal scores take the mean of the places that they share."""

from __future__ import annotations

import numpy as np


def expected_rank(scores: np.ndarray, target: int) -> float:
    """Rank (from 0) of one candidate by descending score; ties count half of the others that share its score."""
    own = scores[target]
    return float((scores > own).sum() + ((scores == own).sum() - 1) / 2)


def ndcg_at(rank: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of cases with one relevant product at ``rank`` (from 0): 1/log2(rank + 2) within k, else 0."""
    rank = np.asarray(rank, dtype=float)
    return np.where(rank < k, 1.0 / np.log2(rank + 2.0), 0.0)


def graded_ndcg_at(gains: np.ndarray, ideal: np.ndarray, k: int = 10) -> float:
    """NDCG@k of one ranked list (Järvelin & Kekäläinen 2002, linear gain).

    ``gains``: relevance of the answered products in order; ``ideal``: relevance of all judged products, in any order.
    0 where nothing is relevant.
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.sort(np.asarray(ideal, dtype=float))[::-1][:k]
    top = float((best * discount[: len(best)]).sum())
    found = np.asarray(gains, dtype=float)[:k]
    return float((found * discount[: len(found)]).sum()) / top if top > 0 else 0.0


def reciprocal_rank(rank: np.ndarray) -> np.ndarray:
    """1 / (rank + 1) for ranks from 0."""
    return 1.0 / (np.asarray(rank, dtype=float) + 1.0)


def hit_at(rank: np.ndarray, k: int = 10) -> np.ndarray:
    """1 where the relevant product is among the first k."""
    return (np.asarray(rank, dtype=float) < k).astype(float)
