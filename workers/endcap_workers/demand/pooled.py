"""Intermittent demand, many short series: one boosted model (LightGBM) of the mean over all of them."""

from __future__ import annotations

import numpy as np

from endcap_workers.demand.base import Forecast, checked
from endcap_workers.demand.intermittent import COMBINED, GRID, best, smoothing, tsb

WINDOWS = (3, 6, 12, 24)
PARAMETERS = {
    "objective": "tweedie",
    "tweedie_variance_power": 1.2,
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_child_samples": 100,
    "feature_fraction": 0.7,
    "lambda_l2": 5.0,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


class Pooled:
    """What series of the same past went on to sell.

    Learns from origins in the second half of the histories; with too little of that (fewer than ``least`` rows) it
    forecasts what :data:`~endcap_workers.demand.intermittent.COMBINED` does. What never sold is forecast as 0.
    """

    name = "pooled (LightGBM)"

    def __init__(self, seed: int = 0, rounds: int = 150, least: int = 1_000, threads: int = 1) -> None:
        self._seed, self._rounds, self._least, self._threads = seed, rounds, least, threads

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`."""
        import lightgbm

        history = checked(history, horizon)
        periods = history.shape[1]
        blocks = []
        for origin in range(max(periods // 2, 4), periods):
            features, scale = _features(history[:, :origin])
            for step in range(1, min(horizon, periods - origin) + 1):
                target = history[:, origin + step - 1] / scale
                known = ~np.isnan(target) & (history[:, :origin] > 0).any(axis=1)
                blocks.append((_with_step(features, step)[known], target[known]))
        if sum(len(target) for _, target in blocks) < self._least:
            return COMBINED.forecast(history, horizon)
        data = lightgbm.Dataset(np.concatenate([one for one, _ in blocks]), np.concatenate([one for _, one in blocks]))
        parameters = {**PARAMETERS, "seed": self._seed, "num_threads": self._threads}
        booster = lightgbm.train(parameters, data, self._rounds)
        features, scale = _features(history)
        ahead = [booster.predict(_with_step(features, step)) * scale for step in range(1, horizon + 1)]
        unsold = ~np.asarray(history > 0).any(axis=1, keepdims=True)
        return Forecast(np.where(unsold, 0.0, np.stack(ahead, axis=1)))


def _features(history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Everything relative to the series' own mean size, and that size; (series, features) and (series,)."""
    sold = history > 0
    known = ~np.isnan(history)
    filled = np.nan_to_num(history)
    demands = sold.sum(axis=1)
    size = np.where(demands > 0, filled.sum(axis=1) / np.maximum(demands, 1), 1.0)
    columns = [size, known.sum(axis=1), known.sum(axis=1) / np.maximum(demands, 1)]
    ago = np.where(sold.any(axis=1), np.argmax(sold[:, ::-1], axis=1), history.shape[1])
    columns.append(ago)
    for window in WINDOWS:
        part = known[:, -window:].sum(axis=1)
        columns.append(np.where(part > 0, filled[:, -window:].sum(axis=1) / np.maximum(part, 1), np.nan) / size)
        columns.append(np.where(part > 0, sold[:, -window:].sum(axis=1) / np.maximum(part, 1), np.nan))
    columns.extend(history[:, -lag] / size for lag in range(1, 4))
    columns.append(tsb(history)[0] / size)
    columns.append(best(history, smoothing, alpha=GRID) / size)
    return np.stack(columns, axis=1), size


def _with_step(features: np.ndarray, step: int) -> np.ndarray:
    return np.column_stack([features, np.full(len(features), float(step))]).astype(np.float32)
