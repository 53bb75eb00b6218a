"""What everybody does with the candidates: popularity, and how it moves."""

from __future__ import annotations

import numpy as np

from endcap.features.names import INDEX


def popularity_features(columns: np.ndarray, popular: np.ndarray) -> None:
    """``popular``: float32 (n, 3), total, recent and this week's weight."""
    total, recent = popular[:, 0], popular[:, 1]
    logs = np.log1p(popular)
    columns[INDEX["total"]], columns[INDEX["recent"]], columns[INDEX["week"]] = logs.T
    sums = popular.sum(axis=0)
    columns[INDEX["recent_share"]] = recent / max(float(recent.max()), 1e-9)
    columns[INDEX["trend"]] = logs[:, 1] - np.log1p(total * (sums[1] / max(float(sums[0]), 1e-9)))
    columns[INDEX["week_trend"]] = logs[:, 2] - np.log1p(recent * (sums[2] / max(float(sums[1]), 1e-9)))
    parts = np.log(100.0 * (popular + 0.5) / (sums + 20.0) + 0.1)
    columns[INDEX["total_part"]], columns[INDEX["recent_part"]], columns[INDEX["week_part"]] = parts.T
