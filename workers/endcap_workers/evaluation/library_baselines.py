"""Recommenders of the library ``implicit``, run beside Endcap's models on the same split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endcap_workers.training.next_item import Prefixes

#: Neighbours of each product; factors, weight of an action, and rounds of ALS. Not tuned.
NEIGHBOURS, FACTORS, ALPHA, ITERATIONS = 200, 128, 5.0, 15


def implicit_ranks(
    train: Sequence[np.ndarray], cases: Prefixes, products: int, k: int, seed: int
) -> dict[str, np.ndarray]:
    """Rank (from 0; ``k`` where it is not among the first k) of each case's target, by row's name; int64 (n,).

    Args:
        train: product numbers of each sequence that the models are made of.
        cases: a case is judged by its history alone, as a new user's.

    Raises:
        ModuleNotFoundError: ``implicit`` is not installed.
    """
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender

    known, asked = _matrix(train, products), _matrix(cases.histories, products)
    models: dict[str, Any] = {
        "item-KNN (implicit)": CosineRecommender(K=NEIGHBOURS, num_threads=2),
        "ALS (implicit)": AlternatingLeastSquares(
            factors=FACTORS, alpha=ALPHA, iterations=ITERATIONS, random_state=seed, num_threads=2, use_gpu=False
        ),
    }
    answer = {}
    for name, model in models.items():
        model.fit(known, show_progress=False)
        options = {"recalculate_user": True} if name.startswith("ALS") else {}
        found = [
            model.recommend(
                np.arange(start, min(start + 2_000, len(cases.targets))),
                asked[start : start + 2_000],
                N=k,
                filter_already_liked_items=cases.hide_seen,
                **options,
            )[0]
            for start in range(0, len(cases.targets), 2_000)
        ]
        hit = np.concatenate(found) == cases.targets[:, None]
        answer[name] = np.where(hit.any(axis=1), hit.argmax(axis=1), k)
    return answer


def als_recommender(counts: Any, k: int, seed: int) -> Callable[[int], np.ndarray]:
    """Implicit ALS (Hu, Koren and Volinsky, ICDM 2008) over a sparse matrix of counts (users, items): the k items of a
    user's row, best first, those that he had included. Parameters as above, not tuned.

    Raises:
        ModuleNotFoundError: ``implicit`` is not installed.
    """
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=FACTORS, alpha=ALPHA, iterations=ITERATIONS, random_state=seed, num_threads=2, use_gpu=False
    )
    matrix = counts.tocsr().astype(np.float32)
    model.fit(matrix, show_progress=False)

    def recommend(user: int) -> np.ndarray:
        return np.asarray(model.recommend(user, matrix[user], N=k, filter_already_liked_items=False)[0])

    return recommend


def _matrix(sequences: Sequence[np.ndarray], products: int) -> Any:
    """float32 (sequences, products), 1 where a product occurs."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    table = csr_matrix(
        (np.ones(len(rows), np.float32), (rows, np.concatenate(list(sequences)))), shape=(len(sequences), products)
    )
    table.data[:] = 1.0
    return table
