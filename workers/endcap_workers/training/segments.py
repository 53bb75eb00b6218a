"""Figures of held-out lists: over all, and for those that an average hides."""

from __future__ import annotations

import numpy as np

from endcap.features import INDEX
from endcap.interest import Calibration
from endcap.metrics import ndcg_at, reciprocal_rank
from endcap_workers.training.cases import Cases
from endcap_workers.training.learning import Scores

#: Products below this weight of all events ever are new ones; shoppers above this many remembered purchases heavy ones.
_NEW_PRODUCT = float(np.log1p(5.0))
_HEAVY_SHARE = 0.8
_BINS = 15
#: Bins of the population stability index, and the least share of each.
_DRIFT_BINS, _LEAST = 10, 1e-4


def segments(cases: Cases, chosen: np.ndarray, scores: Scores) -> dict[str, dict[str, float]]:
    """NDCG@10, MRR and the number of wanted products by segment: ``all``, ``new_shoppers`` (without a purchase),
    ``heavy_shoppers`` (the fifth with most), ``new_products`` (hardly ever bought), ``known`` and ``unknown`` (whether
    the shopper had done anything with the product before)."""
    rank, weight, group = scores.ranks()
    if not len(rank):
        return {}
    buys = cases.lists["buys"][chosen]
    rows = np.flatnonzero(scores.wanted > 0)
    number = np.repeat(np.arange(len(chosen)), np.diff(scores.starts))[rows]
    at = cases.lists["start"][chosen][number] + rows - scores.starts[number]
    total = np.asarray(cases.features[at, INDEX["total"]])
    known = np.asarray(cases.features[at, INDEX["own_any"]]) > 0
    heavy = max(float(np.quantile(buys, _HEAVY_SHARE)), 1.0)
    masks = {
        "all": np.ones(len(rank), dtype=bool),
        "new_shoppers": buys[group] == 0,
        "heavy_shoppers": buys[group] >= heavy,
        "new_products": total < _NEW_PRODUCT,
        "known": known,
        "unknown": ~known,
    }
    found = {}
    for name, mask in masks.items():
        if mask.any():
            found[name] = {
                "ndcg@10": float(np.average(ndcg_at(rank[mask]), weights=weight[mask])),
                "mrr": float(np.average(reciprocal_rank(rank[mask]), weights=weight[mask])),
                "wanted": float(weight[mask].sum()),
            }
    return found


def calibration_error(scores: Scores, calibration: Calibration) -> float:
    """Expected calibration error of the interest in single candidates (Naeini et al. 2015), bins of equal size: each
    list's choice is its wanted products in equal parts."""
    said, happened = [], []
    for begin, end in zip(scores.starts[:-1].tolist(), scores.starts[1:].tolist(), strict=True):
        said.append(calibration.probability(scores.scores[begin:end]))
        wanted = (scores.wanted[begin:end] > 0).astype(float)
        happened.append(wanted / max(float(wanted.sum()), 1.0))
    if not said:
        return float("nan")
    one, other = np.concatenate(said), np.concatenate(happened)
    order = np.argsort(one, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    return float(sum(len(part) * abs(one[part].mean() - other[part].mean()) for part in parts) / len(one))


def drift(scores: Scores, other: Scores) -> float:
    """Population stability index of the scores, each list's own level taken out; 0 for equal distributions."""
    one, two = (_levelled(part) for part in (scores, other))
    if not len(one) or not len(two):
        return 0.0
    edges = np.unique(np.quantile(two, np.linspace(0, 1, _DRIFT_BINS + 1)[1:-1]))
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) / len(part), _LEAST)
        for part in (one, two)
    ]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _levelled(scores: Scores) -> np.ndarray:
    sizes = np.diff(scores.starts)
    if not len(sizes):
        return np.zeros(0)
    tops = np.maximum.reduceat(scores.scores, scores.starts[:-1])
    return scores.scores - np.repeat(tops, sizes)
