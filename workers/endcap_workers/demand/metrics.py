"""Errors of forecasts. Arrays are float64; NaN in ``actual`` is left out."""

from __future__ import annotations

import numpy as np


def mape(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean absolute percentage error in %. Periods with an actual of 0 have no percentage and are left out."""
    known = ~np.isnan(actual) & (actual != 0)
    return float(100 * np.mean(np.abs((actual[known] - forecast[known]) / actual[known])))


def _scaled(history: np.ndarray, actual: np.ndarray, forecast: np.ndarray, power: int, season: int) -> float:
    """Mean over series of error / error of the naive forecast within the history, both to ``power``."""
    steps = np.abs(history[:, season:] - history[:, :-season]) ** power
    errors = np.abs(actual - forecast) ** power
    usable = (~np.isnan(steps)).any(axis=1) & (~np.isnan(errors)).any(axis=1)
    scale, error = np.nanmean(steps[usable], axis=1), np.nanmean(errors[usable], axis=1)
    ratio = error[scale > 0] / scale[scale > 0]  # a history that never changes has no scale
    return float(np.mean(ratio ** (1 / power)))


def mase(history: np.ndarray, actual: np.ndarray, forecast: np.ndarray, season: int = 1) -> float:
    """Mean absolute scaled error (Hyndman and Koehler, 2006), mean over series.

    ``history``: (series, periods) before the forecast; ``actual``, ``forecast``: (series, horizon).
    """
    return _scaled(history, actual, forecast, 1, season)


def rmsse(history: np.ndarray, actual: np.ndarray, forecast: np.ndarray, season: int = 1) -> float:
    """Root mean squared scaled error (the M5 competition's, unweighted), mean over series."""
    return _scaled(history, actual, forecast, 2, season)


def pinball(actual: np.ndarray, quantile: np.ndarray, level: float) -> float:
    """Mean pinball loss of one quantile forecast, in units."""
    known = ~np.isnan(actual)
    miss = actual[known] - quantile[known]
    return float(np.mean(np.maximum(level * miss, (level - 1) * miss)))


def coverage(actual: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of the actuals within the interval, its ends included."""
    known = ~np.isnan(actual)
    return float(np.mean((actual[known] >= low[known]) & (actual[known] <= high[known])))
