"""Ranking hidden products: where the product that was chosen stands among a pool, for given embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from endcap.metrics import ndcg_at


@dataclass(frozen=True, slots=True)
class Cases:
    """What was chosen next, and what is no candidate any more.

    ``states``: float32 (m, d) of the shopper just before; ``targets``: int64 (m,) product numbers; ``seen``: int64
    (m, longest) product numbers that the shopper had before, 0 is none.
    """

    states: np.ndarray
    targets: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, which: np.ndarray | slice) -> Cases:
        """Some of the cases, by index, mask or slice."""
        return Cases(self.states[which], self.targets[which], self.seen[which])


def ranks(cases: Cases, vectors: np.ndarray, pool: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Rank (from 0, ties at their expectation) of each target among the pool; float64 (m,).

    Args:
        vectors: float32 (V, d), a row for each product number. pool: product numbers that compete, targets included.
        bias: float (V,), added to the scores; with vectors of width 0 the scores alone.
    """
    pool = np.sort(pool)
    place_of = np.full(len(vectors), -1, dtype=np.int64)
    place_of[pool] = np.arange(len(pool))
    table = torch.from_numpy(vectors[pool].T.astype(np.float32))
    extra = torch.from_numpy((np.zeros(len(pool)) if bias is None else bias[pool]).astype(np.float32))
    answer = np.zeros(len(cases))
    for start in range(0, len(cases), 512):
        part = slice(start, start + 512)
        scores = torch.from_numpy(cases.states[part]) @ table + extra
        target = torch.from_numpy(place_of[cases.targets[part]]).unsqueeze(1)
        own = scores.gather(1, target)
        # One column more takes what is hidden but not in the pool.
        seen = place_of[cases.seen[part]]
        seen = np.where((cases.seen[part] > 0) & (seen >= 0), seen, len(pool))
        scores = torch.cat([scores, scores.new_full((len(scores), 1), -torch.inf)], dim=1)
        scores.scatter_(1, torch.from_numpy(seen), -torch.inf)
        scores.scatter_(1, target, -torch.inf)
        answer[part] = ((scores > own).sum(dim=1) + (scores == own).sum(dim=1) / 2.0).numpy()
    return answer


def figures(rank: np.ndarray, k: int = 20) -> dict[str, float]:
    """``recall`` and ``ndcg`` at k, of cases with one target each."""
    return {"recall": float((rank < k).mean()), "ndcg": float(ndcg_at(rank, k).mean())}
