"""Forecasters for demand without many empty periods."""

from __future__ import annotations

import warnings

import numpy as np

from endcap_workers.demand.base import Forecast, checked
from endcap_workers.demand.intermittent import GRID, best, smoothing


class SeasonalNaive:
    """What was sold one season ago; the last known value where the season before is not known."""

    def __init__(self, season: int = 1) -> None:
        self._season = season
        self.name = f"naive, season {season}" if season > 1 else "naive"

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`."""
        history = checked(history, horizon)
        periods = history.shape[1]
        last = np.nan_to_num(_last_known(history))
        ahead = np.repeat(last[:, None], horizon, axis=1)
        for step in range(horizon):
            source = periods + step - self._season * (step // self._season + 1)
            if source >= 0:
                ahead[:, step] = np.where(np.isnan(history[:, source]), last, history[:, source])
        return Forecast(ahead)


class Theta:
    """The theta method as smoothing with half the linear trend as drift (Hyndman and Billah, 2003), all series at once.

    On logarithms of 1 + units, so that promotions do not carry the trend away.
    """

    name = "theta"

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`."""
        logs = np.log1p(checked(history, horizon))
        level = best(logs, smoothing, alpha=(*GRID, 0.5, 0.8))
        known = ~np.isnan(logs)
        count = np.maximum(known.sum(axis=1), 1)
        times = np.where(known, np.arange(logs.shape[1], dtype=float), np.nan)
        centred = times - (np.nansum(times, axis=1) / count)[:, None]
        spread = np.nansum(centred**2, axis=1)
        slope = np.where(spread > 0, np.nansum(centred * logs, axis=1) / np.maximum(spread, 1e-12), 0.0)
        # Three periods are no trend.
        drift = np.where(count > 3, slope / 2, 0.0)
        return Forecast(np.maximum(np.expm1(level[:, None] + drift[:, None] * np.arange(1, horizon + 1)), 0.0))


class AutoEts:
    """Exponential smoothing state-space models (statsmodels) without, with and with damped trend, chosen by AICc.

    On logarithms of 1 + units. Series by series, some ten to a hundred milliseconds each: for few products.
    """

    name = "AutoETS"
    #: Fewer periods tell no model from another: the mean of what is known is forecast.
    FEWEST = 8

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`."""
        from threadpoolctl import threadpool_limits

        logs = np.log1p(checked(history, horizon))
        # Matrices of three by three: threads that wait for one another take longer than all the work.
        with threadpool_limits(1):
            ahead = np.array([self._one(_without_gaps(series), horizon) for series in logs])
        return Forecast(np.maximum(np.expm1(ahead.reshape(len(logs), horizon)), 0.0))

    def _one(self, series: np.ndarray, horizon: int) -> np.ndarray:
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel

        if len(series) < self.FEWEST or np.ptp(series) == 0:
            return np.full(horizon, series.mean() if len(series) else 0.0)
        least, chosen = np.inf, np.full(horizon, series.mean())
        for trend, damped in ((None, False), ("add", False), ("add", True)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # convergence: another candidate is then better by AICc
                fitted = ETSModel(series, error="add", trend=trend, damped_trend=damped).fit(disp=False, maxiter=200)
            if np.isfinite(fitted.aicc) and fitted.aicc < least:
                least, chosen = fitted.aicc, np.asarray(fitted.forecast(horizon))
        return chosen


def _last_known(history: np.ndarray) -> np.ndarray:
    known = ~np.isnan(history)
    last = history.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.where(known.any(axis=1), history[np.arange(len(history)), last], np.nan)


def _without_gaps(series: np.ndarray) -> np.ndarray:
    """From the first to the last known period, gaps filled on a line."""
    known = np.flatnonzero(~np.isnan(series))
    if not len(known):
        return np.zeros(0)
    return np.interp(np.arange(known[0], len(series)), known, series[known])
