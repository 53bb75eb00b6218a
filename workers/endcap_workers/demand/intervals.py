"""Prediction intervals from a forecaster's own past errors, and the rolling-origin backtest they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from endcap_workers.demand.base import Forecast, Forecaster, checked

LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)


def rolling_origin(
    forecaster: Forecaster, history: np.ndarray, horizon: int, origins: Sequence[int]
) -> Iterator[tuple[int, Forecast, np.ndarray]]:
    """Forecasts as they would have been made: of each origin, the forecast and what then came, (series, horizon).

    An origin is the number of periods known when the forecast is made. Nothing later is shown to the forecaster.

    Raises:
        ValueError: an origin without a period before it, or without ``horizon`` periods after it.
    """
    for origin in origins:
        if not 1 <= origin <= history.shape[1] - horizon:
            raise ValueError(f"origin {origin}: {history.shape[1]} periods leave no {horizon} to compare with")
        yield origin, forecaster.forecast(history[:, :origin], horizon), history[:, origin : origin + horizon]


def with_intervals(
    forecaster: Forecaster,
    history: np.ndarray,
    horizon: int,
    levels: Sequence[float] = LEVELS,
    origins: int = 6,
) -> Forecast:
    """The forecast with quantiles: split-conformal, from errors at the last ``origins`` origins.

    Errors are divided by a scale of their series (the spread of its history around its mean, at least a tenth of the
    mean and a hundredth of a unit) and pooled over series, step by step: a product that was hardly ever sold borrows
    from the others. Quantiles never cross and never fall below 0. With too short a history for a single origin the
    quantiles are those of the history itself.

    Raises:
        ValueError: as :class:`~endcap_workers.demand.base.Forecaster`; a level outside 0..1.
    """
    levels = tuple(sorted(levels))
    if not levels or levels[0] <= 0 or levels[-1] >= 1:
        raise ValueError(f"quantile levels lie between 0 and 1, got {levels}")
    history = checked(history, horizon)
    mean = forecaster.forecast(history, horizon).mean
    latest = history.shape[1] - horizon
    past = [origin for origin in range(latest, latest - origins, -1) if origin >= max(2, history.shape[1] // 3)]
    errors = [
        _known_before(history, origin) * (actual - forecast.mean) / scale_of(history[:, :origin])[:, None]
        for origin, forecast, actual in rolling_origin(forecaster, history, horizon, past)
    ]
    pooled = np.concatenate(errors) if errors else np.full((1, horizon), np.nan)
    scale = scale_of(history)
    values = np.empty((*mean.shape, len(levels)))
    for step in range(horizon):
        known = pooled[:, step][~np.isnan(pooled[:, step])]
        if len(known):
            values[:, step] = mean[:, step, None] + scale[:, None] * conformal(known, levels)
        else:
            values[:, step] = _own_quantiles(history, levels)
    return Forecast(mean, levels, np.maximum.accumulate(np.maximum(values, 0.0), axis=2))


def _known_before(history: np.ndarray, origin: int) -> np.ndarray:
    """(series, 1): 1, or NaN where nothing was known at the origin: that forecast was no forecast."""
    return np.where(np.isnan(history[:, :origin]).all(axis=1), np.nan, 1.0)[:, None]


def conformal(errors: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles moved outwards by the finite-sample correction (n + 1 instead of n)."""
    outward = [min(level * (1 + 1 / len(errors)), 1.0) if level > 0.5 else level for level in levels]
    outward = [max(level - (1 - level) / len(errors), 0.0) if level < 0.5 else level for level in outward]
    return np.quantile(errors, outward)


def scale_of(history: np.ndarray) -> np.ndarray:
    known = ~np.isnan(history)
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.nansum(history, axis=1) / count
    spread = np.sqrt(np.nansum((history - mean[:, None]) ** 2, axis=1) / count)
    return np.maximum(spread, np.maximum(0.1 * mean, 0.01))


def _own_quantiles(history: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    rows = [series[~np.isnan(series)] for series in history]
    return np.array([np.quantile(row, levels) if len(row) else np.zeros(len(levels)) for row in rows])
