"""Demand out of price, promotion and the past: one boosted model (LightGBM) over all series.

The model learns what a period sells relative to the series' usual level, from every past origin and step, so that a
product with a short history borrows from the others. Prices and promotions of the target period are known when the
forecast is made: a shop sets them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from endcap_workers.demand.base import Forecast
from endcap_workers.demand.intervals import LEVELS

#: Periods of history that features look back on, and that a series' usual level is taken over.
MEMORY, LEVEL = 60, 20
LAGS, AVERAGES = 8, (4, 10, 40)
#: In markets of at most so many kinds each rival's price is a feature.
RIVALS = 16
#: Log-price distance, and penalty per promotion that differs, at which a past period weighs 1/e for a similar one.
PRICE_WIDTH, PROMOTION_PENALTY = 0.05, 1.5
PARAMETERS = {
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_child_samples": 60,
    "feature_fraction": 0.6,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """float64 (series, periods) each; ``units`` is NaN where not known, prices and promotions reach into the future.

    ``promotions``: name -> 0..1; ``signals``: name -> at least 0, what is counted and not planned (searches, views): it
    is known of the past alone. ``planned``: whether prices and promotions of the target period are known when a
    forecast is made; if not, those of the last known period stand for them. ``kinds``: name -> int (series,), what a
    series is (store, brand), used as category; ``market``: int (series,), series of one market compete on price;
    ``season``: periods of a year, if it matters.

    Raises:
        ValueError: shapes that do not fit.
    """

    units: np.ndarray
    price: np.ndarray
    promotions: Mapping[str, np.ndarray] = field(default_factory=dict)
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    market: np.ndarray | None = None
    season: int | None = None
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    planned: bool = True

    def __post_init__(self) -> None:
        for name, matrix in {"price": self.price, **self.promotions, **self.signals}.items():
            if matrix.shape != self.units.shape:
                raise ValueError(f"{name} is {matrix.shape}, units are {self.units.shape}")
        for name, codes in self.kinds.items():
            if len(codes) != len(self.units):
                raise ValueError(f"{name} has {len(codes)} values for {len(self.units)} series")

    def until(self, origin: int) -> Panel:
        """What is known when ``origin`` periods are over: later units are not."""
        units = self.units.copy()
        units[:, origin:] = np.nan
        return replace(self, units=units)


class DriverFeatures:
    """Model inputs of (origin, step) pairs of one panel."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        with np.errstate(divide="ignore", invalid="ignore"):
            self.logs = np.log(np.maximum(np.where(panel.units < 0, 0, panel.units), 0.5))
            self._price = np.log(np.where(panel.price > 0, panel.price, np.nan))
        markets = np.zeros(len(panel.units), dtype=int) if panel.market is None else panel.market
        self._market = np.unique(markets, return_inverse=True)[1]

    def rows(self, origin: int, step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Features, and the usual log level they are relative to, (series,). Known periods are those before ``origin``.

        Nothing of ``units`` and signals from ``origin`` on is read, nor, where they are not planned, of prices and
        promotions.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing known: NaN is what the trees want to see
            return self._rows(origin, origin + step - 1)

    def _rows(self, origin: int, target: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        start = max(0, origin - MEMORY)
        past, prices = self.logs[:, start:origin], self._price[:, start:origin]
        base = np.nanmean(past[:, -LEVEL:], axis=1)
        found = {"level": base, "step": np.full(len(base), float(target - origin + 1))}
        for lag in range(1, LAGS + 1):
            found[f"units, {lag} ago"] = past[:, -lag] - base if lag <= past.shape[1] else np.full(len(base), np.nan)
        for window in AVERAGES:
            found[f"mean of {window}"] = np.nanmean(past[:, -window:], axis=1) - base
        found["same kind, lately"] = self._mean_over(found["mean of 4"], self._kind())
        at = target if self._panel.planned else origin - 1
        now, usual = self._price[:, at], np.nanmedian(prices[:, -30:], axis=1)
        found["price"], found["price against usual"] = now, now - usual
        for back in range(1, 4):
            found[f"price against {back} before"] = now - self._price[:, at - back]
        found["price against market"] = now - self._mean_over(now, self._market)
        found["market against usual"] = self._mean_over(now - usual, self._market)
        cheapest = np.full(self._market.max() + 1, np.inf)
        np.fmin.at(cheapest, self._market, now)
        found["price against cheapest"] = now - cheapest[self._market]
        found |= self._rivals(now, now - usual)
        if self._panel.season:
            found["season"] = np.full(len(base), float(target % self._panel.season))
        closeness = np.abs(prices - now[:, None]) / PRICE_WIDTH
        for name, matrix in self._panel.promotions.items():
            promoted = matrix[:, start:origin]
            found[name] = matrix[:, at]
            for back in range(1, 4):
                found[f"{name}, {back} before"] = matrix[:, at - back]
            found[f"{name}, in market"] = self._mean_over(matrix[:, at], self._market)
            for said, wanted in (("with", promoted > 0.5), ("without", promoted <= 0.5)):
                found[f"units {said} {name}"] = np.nanmean(np.where(wanted, past, np.nan), axis=1) - base
            closeness = closeness + PROMOTION_PENALTY * np.abs(promoted - matrix[:, at, None])
        weights = np.where(np.isnan(past) | np.isnan(closeness), 0.0, np.exp(-closeness))
        weight = weights.sum(axis=1)
        found["units at such a price"] = np.where(
            weight > 1e-3, (weights * np.nan_to_num(past)).sum(axis=1) / np.maximum(weight, 1e-9) - base, np.nan
        )
        found["weight of that"] = weight
        for name, matrix in self._panel.signals.items():
            counted = np.log1p(matrix[:, max(0, origin - 12) : origin])
            found[f"{name}, last"] = counted[:, -1] - np.nanmean(counted, axis=1)
            found[f"{name}, mean of 4"] = np.nanmean(counted[:, -4:], axis=1) - np.nanmean(counted, axis=1)
        found |= {name: np.asarray(codes, dtype=float) for name, codes in self._panel.kinds.items()}
        return found, base

    def _rivals(self, price: np.ndarray, against_usual: np.ndarray) -> dict[str, np.ndarray]:
        """Rank of the price in its market; in small markets also what each rival's price does."""
        order = np.lexsort((price, self._market))
        first = np.concatenate([[0], np.cumsum(np.bincount(self._market))])
        rank = np.empty(len(price))
        rank[order] = np.arange(len(price)) - first[self._market[order]]
        found = {"price rank": rank}
        kind = self._kind()
        if kind.max() < RIVALS and len(np.unique(kind + RIVALS * self._market)) == len(kind):
            table = np.full((self._market.max() + 1, kind.max() + 1), np.nan)
            table[self._market, kind] = against_usual
            found |= {f"rival {number} against usual": table[self._market, number] for number in range(table.shape[1])}
        return found

    def _kind(self) -> np.ndarray:
        last = list(self._panel.kinds.values())[-1:] or [np.zeros(len(self.logs), dtype=int)]
        return np.unique(last[0], return_inverse=True)[1]

    @staticmethod
    def _mean_over(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
        known = ~np.isnan(values)
        total = np.bincount(groups[known], values[known], groups.max() + 1)
        return (total / np.bincount(groups[known], minlength=groups.max() + 1))[groups]


class DriverModel:
    """Fitted on a panel up to an origin; forecasts the steps it was fitted for.

    The loss is the absolute percentage error in log units, so that a forecast twice too high costs more than one half
    too low, as MAPE has it. With ``mean``, the mean is forecast instead, as stock wants it (a Tweedie deviance of units
    relative to the usual level). Intervals come from the latest ``holdout`` periods, which a first model does not see;
    the model that forecasts then sees them. It is the mean of ``models`` boosters, which differ in their seed.
    """

    def __init__(
        self,
        seed: int = 0,
        rounds: int = 250,
        holdout: int = 12,
        models: int = 1,
        threads: int = 1,
        mean: bool = False,
        parameters: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """``holdout`` 0: no intervals, and no second model for them; ``parameters``: of LightGBM."""
        self._models, self._mean, self._more = models, mean, dict(parameters)
        self._seed, self._rounds, self._holdout, self._threads = seed, rounds, holdout, threads

    def fit(self, panel: Panel, origin: int, steps: tuple[int, ...], first: int = LEVEL) -> DriverModel:
        """``origin``: periods known; ``steps``: 1 is the period after the last known one; ``first``: earliest origin.

        Raises:
            ValueError: too few periods before the origin.
        """
        self._steps, self._panel, self._origin = steps, panel.until(origin), origin
        features = DriverFeatures(self._panel)
        pairs = [(at, step) for at in range(first, origin) for step in steps if at + step <= origin]
        early = [pair for pair in pairs if sum(pair) <= origin - self._holdout]
        late = [pair for pair in pairs if sum(pair) > origin - self._holdout and pair[0] <= origin]
        if not early or (self._holdout and not late):
            raise ValueError(f"{origin} periods are too few: {first + self._holdout + max(steps)} are needed")
        blocks = {pair: self._block(features, *pair) for pair in pairs}
        self._errors = np.empty(0)
        if self._holdout:
            trial = self._train([blocks[pair] for pair in early])
            held = [blocks[pair] for pair in late]
            errors = np.concatenate([target - self._predict(trial, inputs) for inputs, target, _ in held])
            self._errors = errors[~np.isnan(errors)]
        self._boosters = [self._train(list(blocks.values()), number) for number in range(self._models)]
        return self

    def forecast(self, levels: tuple[float, ...] = LEVELS) -> Forecast:
        """(series, steps), in the order of ``steps``; quantiles of the given levels.

        ``mean`` is what MAPE asks for, and lies below the median: for stock, take quantiles, or fit with ``mean``.
        """
        features = DriverFeatures(self._panel)
        logs = []
        for step in self._steps:
            inputs, _, base = self._block(features, self._origin, step)
            logs.append(np.mean([self._predict(one, inputs) for one in self._boosters], axis=0) + base)
        centre = np.stack(logs, axis=1)
        known = ~np.isnan(centre)
        moved = np.where(known, centre, 0.0)
        mean = np.where(known, np.exp(moved), 0.0)
        if not len(self._errors):
            return Forecast(mean)
        values = np.exp(moved[:, :, None] + np.quantile(self._errors, levels))
        return Forecast(mean, levels, np.where(known[:, :, None], values, 0))

    def _predict(self, booster: Any, inputs: np.ndarray) -> np.ndarray:
        """Log units less the usual level."""
        found = np.asarray(booster.predict(inputs), dtype=np.float64)
        return np.log(np.maximum(found, 1e-6)) if self._mean else found

    def _block(self, features: DriverFeatures, origin: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found, base = features.rows(origin, step)
        self._names = list(found)
        inputs = np.stack(list(found.values()), axis=1).astype(np.float32)
        return inputs, features.logs[:, origin + step - 1] - base, base

    def _train(self, blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]], number: int = 0) -> Any:
        import lightgbm

        inputs = np.concatenate([block[0] for block in blocks])
        target = np.concatenate([block[1] for block in blocks])
        known = ~np.isnan(target)
        categories = [self._names.index(name) for name in self._panel.kinds]
        # A period of nothing has a logarithm of one half; the mean wants what was sold.
        wanted = np.where(target > np.log(0.5) - np.concatenate([block[2] for block in blocks]), np.exp(target), 0.0)
        data = lightgbm.Dataset(
            inputs[known], (wanted if self._mean else target)[known], categorical_feature=categories
        )
        objective = (
            {"objective": "tweedie", "tweedie_variance_power": 1.2} if self._mean else {"objective": _percentage}
        )
        more = {**self._more, "seed": self._seed + number, "num_threads": self._threads}
        parameters = {**PARAMETERS, **objective, **more}
        return lightgbm.train(parameters, data, self._rounds)


def _percentage(predicted: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of |exp(z) - 1|, z = log forecast - log actual, and a positive stand-in for its second derivative."""
    miss = np.clip(predicted - data.get_label(), -3, 2)
    slope = np.exp(miss)
    return np.sign(miss) * slope, slope


def backtest(
    panel: Panel, origins: Iterator[int] | list[int], steps: tuple[int, ...], model: DriverModel
) -> Iterator[tuple[int, Forecast, np.ndarray]]:
    """Per origin the forecast made then and what came, (series, steps)."""
    for origin in origins:
        forecast = model.fit(panel, origin, steps).forecast()
        yield origin, forecast, panel.units[:, [origin + step - 1 for step in steps]]
