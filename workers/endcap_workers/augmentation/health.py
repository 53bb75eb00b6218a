"""Is a generator healthy: does it say many things (mode collapse), and new ones (memorisation)?

Distances are between unit vectors, as 1 - cosine.
"""

from __future__ import annotations

import numpy as np

#: Neighbours of the coverage figure, as in Naeem et al. 2020.
NEIGHBOURS = 5


def health(generated: np.ndarray, real: np.ndarray, content: np.ndarray | None = None) -> dict[str, float]:
    """Figures about generated embeddings (n, d) of cold products, against the learned ones (m, d) of warm products.

    Returns:
        ``spread``: mean standard deviation of generated embeddings over that of real ones; far below 1: collapse.
        ``coverage``: share of real embeddings that have a generated one nearer than their 5th nearest real one
        (Naeem et al. 2020). ``nearest real``: mean distance of a generated embedding to the nearest real one;
        ``real to real``: the same between real ones, the yardstick. ``copies``: share of generated embeddings that are
        nearer to a real one than the nearest hundredth of real pairs are: memorised. ``distinct``: distinct generated
        embeddings per distinct content, where ``content`` (n, any) is given.
    """
    made, learned = _unit(generated), _unit(real)
    nearest_real, _ = _nearest(made, learned, 1)
    among, within = _nearest(learned, learned, NEIGHBOURS + 1)
    to_made, _ = _nearest(learned, made, 1)
    yardstick = among  # the nearest is the product itself: the second counts
    figures = {
        "spread": float(generated.std(axis=0).mean() / max(float(real.std(axis=0).mean()), 1e-9)),
        "coverage": float((to_made < within).mean()),
        "nearest real": float(nearest_real.mean()),
        "real to real": float(yardstick.mean()),
        "copies": float((nearest_real < np.quantile(yardstick, 0.01)).mean()),
    }
    if content is not None:
        different = len(np.unique(np.round(made, 4), axis=0))
        figures["distinct"] = different / max(len(np.unique(content, axis=0)), 1)
    return figures


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _nearest(of: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest (of a set to itself: the nearest other) and to the k-th nearest, both (n,)."""
    first, last = np.zeros(len(of)), np.zeros(len(of))
    k = min(k, len(among))
    for start in range(0, len(of), 512):
        distance = 1.0 - of[start : start + 512] @ among.T
        near = np.sort(np.partition(distance, k - 1, axis=1)[:, :k], axis=1)
        first[start : start + 512] = near[:, 1 if of is among and k > 1 else 0]
        last[start : start + 512] = near[:, -1]
    return first, last
