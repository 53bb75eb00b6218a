"""What a good engineer would build in a week, beside Endcap's models: candidates by co-occurrence, ranked by LightGBM's
lambdarank over counts and codes (Burges 2010; the recipe of many session-recommendation contests)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endcap_workers.training.next_item import Prefixes

#: Products alike that are kept of each; last products of a history that candidates come from; candidates of a case.
NEIGHBOURS, LAST, CANDIDATES = 200, 3, 200
#: Candidates that a model adds.
BY_MODEL = 100
#: Cases that train, and how: as many trees as a tenth of the cases says. Not tuned otherwise.
MOST_CASES, TREES, LEAVES, LEAST, RATE, PATIENCE = 20_000, 500, 15, 200, 0.05, 30
_BATCH = 2_000

#: What a model says of all products: histories (n) -> float32 (n, V).
Said = Callable[[Sequence[np.ndarray]], np.ndarray]


def lambdarank_ranks(
    before: Sequence[np.ndarray],
    lessons: Prefixes,
    known: Sequence[np.ndarray],
    cases: Prefixes,
    codes: np.ndarray,
    k: int,
    seed: int,
    said: Said | None = None,
) -> np.ndarray:
    """Rank (from 0, ties at their expectation; ``k`` where it is not among the first k) of each case's target; float64
    (n,).

    Args:
        before: sequences that counts are made of for ``lessons``, whose targets are not in them. known: the same for
            ``cases``.
        codes: int64 (V, K), 0 unknown.
        said: a model whose best products are candidates, too, and whose scores are one feature more. It must not have
            been trained on the targets of ``lessons``.

    Raises:
        ModuleNotFoundError: LightGBM is not installed.
        ValueError: no lesson's target is among its candidates.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(lessons.targets))[:MOST_CASES])
    drawn = Prefixes([lessons.histories[row] for row in chosen], lessons.targets[chosen], lessons.hide_seen)
    counts = _Counts(before, codes)
    tables, wanted, sizes = [], [], []
    for start in range(0, len(drawn.targets), _BATCH):
        features, products, groups = counts.candidates(drawn, slice(start, start + _BATCH), said)
        targets = np.repeat(drawn.targets[start : start + _BATCH], groups)
        hit = products == targets
        # A list without its target teaches nothing.
        teaches = np.repeat(np.add.reduceat(hit, np.r_[0, np.cumsum(groups)[:-1]]) > 0, groups)
        tables.append(features[teaches])
        wanted.append(hit[teaches])
        sizes.append(groups[np.add.reduceat(teaches, np.r_[0, np.cumsum(groups)[:-1]]) > 0])
    if not sum(map(len, sizes)):
        raise ValueError("nothing to learn from: no target is among its candidates")
    ranker = _learnt(np.concatenate(tables), np.concatenate(wanted), np.concatenate(sizes), k, seed)
    counts = _Counts(known, codes)
    ranks = np.full(len(cases.targets), float(k))
    for start in range(0, len(cases.targets), _BATCH):
        features, products, groups = counts.candidates(cases, slice(start, start + _BATCH), said)
        scores = ranker.predict(features)
        ends = np.cumsum(groups)
        for row, (begin, end) in enumerate(zip(ends - groups, ends, strict=True)):
            at = np.flatnonzero(products[begin:end] == cases.targets[start + row])
            if len(at):
                own = scores[begin + at[0]]
                ahead, alike = (scores[begin:end] > own).sum(), (scores[begin:end] == own).sum()
                ranks[start + row] = min(k, ahead + (alike - 1) / 2)
    return ranks


def _learnt(table: np.ndarray, wanted: np.ndarray, sizes: np.ndarray, k: int, seed: int) -> Any:
    """Trees over lists of these ``sizes``; the first tenth of the lists says when to stop."""
    import lightgbm

    options = {
        "objective": "lambdarank", "num_leaves": LEAVES, "min_data_in_leaf": LEAST, "learning_rate": RATE, "seed": seed,
        "deterministic": True, "lambdarank_truncation_level": 2 * k, "eval_at": [k], "metric": "ndcg",
        "verbose": -1, "num_threads": 2,
    }  # fmt: skip
    first = len(sizes) // 10
    edge = int(sizes[:first].sum())
    taught = lightgbm.Dataset(table[edge:], wanted[edge:].astype(int), group=sizes[first:])
    if not first:
        return lightgbm.train(options, taught, TREES // 10)
    judge = taught.create_valid(table[:edge], wanted[:edge].astype(int), group=sizes[:first])
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(options, taught, TREES, [judge], callbacks=[stop])


class _Counts:
    """Who occurs with whom, and how often."""

    def __init__(self, sequences: Sequence[np.ndarray], codes: np.ndarray) -> None:
        from scipy.sparse import csr_matrix

        count = len(codes)
        self._codes = codes
        lengths = [len(one) for one in sequences]
        rows, columns = np.repeat(np.arange(len(sequences)), lengths), np.concatenate(list(sequences))
        seen = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(sequences), count))
        seen.data[:] = 1.0
        self._popular = np.asarray(seen.sum(axis=0)).ravel()
        together = (seen.T @ seen).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        norm = np.sqrt(self._popular.clip(min=1.0))
        left = np.repeat(np.arange(count), np.diff(together.indptr))
        together.data /= norm[left] * norm[together.indices]
        self._alike = _best(together, NEIGHBOURS)
        pairs = [(one[:-1], one[1:]) for one in sequences if len(one) > 1]
        one, other = (np.concatenate(part) for part in zip(*pairs, strict=True))
        after = csr_matrix((np.ones(len(one), np.float32), (one, other)), shape=(count, count))
        self._next = _best(after.multiply(1.0 / (norm[None, :] ** 0.5)).tocsr(), NEIGHBOURS)

    def candidates(
        self, cases: Prefixes, part: slice, said: Said | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features float32 (R, F) and products (R,) of all candidates of some cases, and how many each case has."""
        from scipy.sparse import csr_matrix

        histories = cases.histories[part]
        count, size = len(histories), len(self._popular)
        lasts = [_matrix(histories, -back, size) for back in range(1, LAST + 1)]
        lengths = [len(one) for one in histories]
        rows, columns = np.repeat(np.arange(count), lengths), np.concatenate(list(histories))
        age = np.concatenate([np.arange(length, 0, -1) for length in lengths])
        faded = csr_matrix((1.0 / age.astype(np.float32), (rows, columns)), shape=(count, size))
        columns_of: list[Any] = [one @ self._alike for one in lasts] + [faded @ self._alike]
        columns_of += [lasts[0] @ self._next, lasts[1] @ self._next]
        columns_of.append(csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(count, size)))
        total = sum(columns_of[:3]) + columns_of[3] + 0.1 * columns_of[4]
        scores = said(histories) if said is not None else None
        if scores is not None:
            best = np.argpartition(-scores, BY_MODEL, axis=1)[:, :BY_MODEL]
            at = np.repeat(np.arange(count), BY_MODEL)
            also = csr_matrix((np.full(len(at), 1e-6, np.float32), (at, best.ravel())), shape=(count, size))
            total = _best(total.tocsr(), CANDIDATES) + also
        if cases.hide_seen:
            total = total.tolil()
            total[rows, columns] = 0.0
            total = total.tocsr()
            total.eliminate_zeros()
        chosen = _best(total.tocsr(), CANDIDATES + BY_MODEL) if scores is not None else _best(total.tocsr(), CANDIDATES)
        groups = np.diff(chosen.indptr)
        groups_safe = np.maximum(groups, 1)
        if (groups == 0).any():  # nothing is known of its products: the most popular one stands for all
            chosen = chosen.tolil()
            chosen[np.flatnonzero(groups == 0), int(self._popular.argmax())] = 1e-6
            chosen = chosen.tocsr()
        row, product = np.repeat(np.arange(count), groups_safe), chosen.indices
        values = [np.asarray(one.tocsr()[row, product]).ravel() for one in columns_of]
        last = np.array([one[-1] for one in histories])
        codes = self._codes
        same = [(codes[product, column] == codes[last[row], column]) & (codes[product, column] > 0)
                for column in range(codes.shape[1])]  # fmt: skip
        if scores is not None:
            values.append(scores[row, product])
        values += [np.asarray(chosen.data), np.log1p(self._popular[product]), np.array(lengths)[row], *same]
        return np.stack(values, axis=1).astype(np.float32), product, groups_safe


def _matrix(histories: Sequence[np.ndarray], place: int, size: int) -> Any:
    """One product of each history, where it has that many."""
    from scipy.sparse import csr_matrix

    rows = np.array([row for row, one in enumerate(histories) if len(one) >= -place], dtype=np.int64)
    columns = np.array([histories[row][place] for row in rows.tolist()], dtype=np.int64)
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(histories), size))


def _best(matrix: Any, most: int) -> Any:
    """The ``most`` largest of each row."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((-matrix.data, rows))
    place = np.arange(len(order)) - matrix.indptr[rows[order]]
    kept = order[place < most]
    return csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
