"""Demand out of price, promotion, search and the past, as a forecaster among others: what a report can know by itself.

The log tells what was paid and what was looked for, not what the shop plans: prices and promotions of the weeks ahead
are taken to stay as they are, in the backtest as well.
"""

from __future__ import annotations

import warnings

import numpy as np

from endcap_workers.demand.base import Forecast, Forecaster
from endcap_workers.demand.drivers import LEVEL, DriverModel, Panel

#: Weeks whose median a price is held against, and the share of it below which it counts as a promotion.
_USUAL_WEEKS, _PROMOTED = 8, 0.9
#: Origins that are learned from, the latest.
_ORIGINS = 30
_PARAMETERS = {"num_leaves": 31, "min_child_samples": 50, "lambda_l2": 5.0}


def panel_of(weekly: np.ndarray, revenue: np.ndarray, looks: np.ndarray, categories: np.ndarray, ahead: int) -> Panel:
    """What the log knows of n products over w weeks, with room for ``ahead`` weeks to forecast.

    Args:
        weekly: float64 (n, w) units, NaN before the first sale. revenue: float64 (n, w), 0 where unknown.
        looks: float64 (n, w), how often each was looked at or found by a search.
        categories: int64 (n, 2), the coarse and the fine category of each.
    """
    room = ((0, 0), (0, ahead))
    weekly, revenue, looks = (np.pad(one, room, constant_values=np.nan) for one in (weekly, revenue, looks))
    with np.errstate(divide="ignore", invalid="ignore"):
        paid = np.where((weekly > 0) & (revenue > 0), revenue / weekly, np.nan)
    price = _carried(paid)
    usual = np.full(price.shape, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for week in range(1, price.shape[1]):
            usual[:, week] = np.nanmedian(price[:, max(0, week - _USUAL_WEEKS) : week], axis=1)
    promoted = np.where(price < _PROMOTED * usual, 1.0, 0.0)
    kinds = {"category": categories[:, 0], "fine category": categories[:, 1]}
    # A week in which nobody looked at anything is one that was not counted.
    counted = np.where(np.nansum(looks, axis=0) > 0, looks, np.nan)
    signals = {"looks": counted} if np.isfinite(counted).any() else {}
    return Panel(weekly, price, {"promotion": promoted}, kinds, categories[:, 1], None, signals, planned=False)


def _carried(values: np.ndarray) -> np.ndarray:
    """Each row's last known value up to every period; NaN before the first."""
    place = np.where(np.isfinite(values), np.arange(values.shape[1]), 0)
    return np.take_along_axis(values, np.maximum.accumulate(place, axis=1), axis=1)


class Driven:
    """A :class:`~endcap_workers.demand.base.Forecaster` of one panel: of the histories it is given only the length
    counts, and nothing later of the panel is read."""

    name = "LightGBM"
    #: Products without which there is nothing to learn from.
    FEWEST_PRODUCTS = 20

    def __init__(self, panel: Panel, seed: int = 0, rounds: int = 150, threads: int = 1) -> None:
        self._panel, self._seed, self._rounds, self._threads = panel, seed, rounds, threads
        self._made: dict[tuple[int, int], np.ndarray] = {}

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`.

        Raises:
            ValueError: the history is not one of the panel's products, or too short.
        """
        if len(history) != len(self._panel.units):
            raise ValueError(f"{len(history)} histories, {len(self._panel.units)} products")
        origin, steps = history.shape[1], tuple(range(1, horizon + 1))
        if (origin, horizon) not in self._made:
            self._made[origin, horizon] = self._fitted(origin, steps)
        return Forecast(self._made[origin, horizon])

    def _fitted(self, origin: int, steps: tuple[int, ...]) -> np.ndarray:
        model = DriverModel(
            self._seed, self._rounds, holdout=0, threads=self._threads, mean=True, parameters=_PARAMETERS
        )
        first = max(LEVEL, origin - _ORIGINS)
        return model.fit(self._panel, origin, steps, first).forecast().mean


class Together:
    """The mean of several forecasters: what they miss in different ways, they miss less together (Bates and Granger,
    1969)."""

    def __init__(self, *members: Forecaster) -> None:
        self._members = members
        self.name = " and ".join(one.name for one in members)

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """See :class:`~endcap_workers.demand.base.Forecaster`."""
        return Forecast(np.mean([one.forecast(history, horizon).mean for one in self._members], axis=0))
