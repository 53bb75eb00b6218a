"""Forecasters for demand with many empty periods, all series at once.

Croston (1972), SBA (Syntetos and Boylan, 2005), TSB (Teunter, Syntetos and Babai, 2011) and IMAPA (Petropoulos and
Kourentzes, 2015). Written over numpy matrices here: statsforecast, which has them too, cannot be installed beside the
versions of pandas and SciPy that Endcap runs on, and goes series by series.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from endcap_workers.demand.base import Forecast, checked

#: Smoothing constants that are tried; which one wins is decided per series by squared error one step ahead.
GRID = (0.05, 0.1, 0.2, 0.3)

Recursion = Callable[..., tuple[np.ndarray, np.ndarray]]


def croston(history: np.ndarray, alpha: float = 0.1, debias: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Size over interval, each smoothed when there is demand.

    Returns:
        The level after the last period (series,), and what was forecast for each period before it was seen
        (series, periods), NaN before the first demand.
    """
    series, periods = history.shape
    size, interval = np.full(series, np.nan), np.full(series, np.nan)
    since = np.ones(series)
    ahead = np.full((series, periods), np.nan)
    for period in range(periods):
        ahead[:, period] = debias * size / interval
        demand = history[:, period]
        first, sold = np.isnan(size) & (demand > 0), demand > 0
        size = np.where(first, demand, np.where(sold, size + alpha * (demand - size), size))
        interval = np.where(first, since, np.where(sold, interval + alpha * (since - interval), interval))
        since = np.where(sold, 1.0, since + ~np.isnan(demand))
    return np.nan_to_num(debias * size / interval), ahead


def tsb(history: np.ndarray, alpha: float = 0.1, beta: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Size times probability; the probability is smoothed in every period, so that a product can die out."""
    series, periods = history.shape
    size, chance = np.full(series, np.nan), np.full(series, np.nan)
    empty = np.zeros(series)
    ahead = np.full((series, periods), np.nan)
    for period in range(periods):
        ahead[:, period] = size * chance
        demand = history[:, period]
        known, sold = ~np.isnan(demand), demand > 0
        first = np.isnan(size) & sold
        chance = np.where(first, 1 / (empty + 1), np.where(known, chance + beta * (sold - chance), chance))
        size = np.where(first, demand, np.where(sold, size + alpha * (demand - size), size))
        empty += known & ~sold
    return np.nan_to_num(size * chance), ahead


def smoothing(history: np.ndarray, alpha: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Simple exponential smoothing, starting at the first known period."""
    series, periods = history.shape
    level = np.full(series, np.nan)
    ahead = np.full((series, periods), np.nan)
    for period in range(periods):
        ahead[:, period] = level
        demand = history[:, period]
        level = np.where(np.isnan(demand), level, np.where(np.isnan(level), demand, level + alpha * (demand - level)))
    return np.nan_to_num(level), ahead


def best(history: np.ndarray, recursion: Recursion, **choices: tuple[float, ...]) -> np.ndarray:
    """The level (series,) under the constants with the least squared error one step ahead, chosen per series."""
    candidates: list[dict[str, float]] = [{}]
    for name, values in choices.items():
        candidates = [{**one, name: value} for one in candidates for value in values]
    found, least = np.zeros(len(history)), np.full(len(history), np.inf)
    for candidate in candidates:
        level, ahead = recursion(history, **candidate)
        errors = (ahead - history) ** 2
        count = (~np.isnan(errors)).sum(axis=1)
        error = np.where(count > 0, np.nansum(errors, axis=1) / np.maximum(count, 1), np.finfo(float).max)
        better = error < least
        found, least = np.where(better, level, found), np.where(better, error, least)
    return found


def imapa(history: np.ndarray, most: int = 12) -> np.ndarray:
    """Smoothing at every aggregation from one period up to the mean interval between demands, averaged: (series,)."""
    known = ~np.isnan(history)
    demands = np.maximum((history > 0).sum(axis=1), 1)
    longest = np.clip(np.round(known.sum(axis=1) / demands), 1, min(most, history.shape[1])).astype(int)
    total = np.zeros(len(history))
    for length in range(1, longest.max(initial=1) + 1):
        wanted = longest >= length
        total[wanted] += best(_aggregated(history[wanted], length), smoothing, alpha=GRID) / length
    return total / longest


def _aggregated(history: np.ndarray, length: int) -> np.ndarray:
    """Sums over blocks that end with the last period; a block with a gap counts as if the gap were average."""
    whole = history.shape[1] // length
    blocks = history[:, history.shape[1] - whole * length :].reshape(len(history), whole, length)
    known = (~np.isnan(blocks)).sum(axis=2)
    return np.where(known > 0, np.nansum(blocks, axis=2) * length / np.maximum(known, 1), np.nan)


class _Flat:
    """The same level for every period ahead."""

    def __init__(self, name: str, level: Callable[[np.ndarray], np.ndarray]) -> None:
        self.name, self._level = name, level

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`."""
        level = np.maximum(self._level(checked(history, horizon)), 0.0)
        return Forecast(np.repeat(level[:, None], horizon, axis=1))


def _combined(history: np.ndarray) -> np.ndarray:
    return (best(history, tsb, alpha=GRID, beta=GRID) + imapa(history) + best(history, smoothing, alpha=GRID)) / 3


#: Published defaults: both smoothing constants .1; SBA multiplies Croston by 1 - alpha / 2.
CROSTON = _Flat("Croston", lambda history: croston(history)[0])
SBA = _Flat("SBA", lambda history: croston(history, debias=0.95)[0])
TSB = _Flat("TSB", lambda history: tsb(history)[0])
IMAPA = _Flat("IMAPA", imapa)
SMOOTHING = _Flat("exponential smoothing", partial(best, recursion=smoothing, alpha=GRID))
#: The mean of TSB, IMAPA and smoothing, with constants chosen per series.
COMBINED = _Flat("combined", _combined)
