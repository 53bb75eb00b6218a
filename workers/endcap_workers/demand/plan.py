"""Demand and stock of every product: its class, a forecast that adds up over categories, an interval, what to order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from endcap_workers.demand.base import Forecaster
from endcap_workers.demand.driven import Driven, Together, panel_of
from endcap_workers.demand.hierarchy import Tree, reconcile, tree_of
from endcap_workers.demand.intermittent import COMBINED, SBA, SMOOTHING
from endcap_workers.demand.intervals import with_intervals
from endcap_workers.demand.metrics import coverage, mase, rmsse
from endcap_workers.demand.smooth import SeasonalNaive, Theta
from endcap_workers.demand.stock import INTERVAL_LIMIT, VARIATION_LIMIT, StockAdvice, StockPolicy, advise
from endcap_workers.demand.top_sellers import FEWEST_WEEKS, Chosen, choose

CLASSES = ("smooth", "erratic", "intermittent", "lumpy", "new", "none")
#: Who is tried per class; the backtest says who is taken.
CANDIDATES: dict[str, tuple[Forecaster, ...]] = {
    "smooth": (Theta(), SMOOTHING, COMBINED, SeasonalNaive()),
    "erratic": (Theta(), SMOOTHING, COMBINED, SBA),
    "intermittent": (COMBINED, SBA, SMOOTHING),
    "lumpy": (COMBINED, SBA, SMOOTHING),
    "new": (SMOOTHING,),
    "none": (SMOOTHING,),
}
LEVELS = (0.05, 0.5, 0.95)
#: Weeks of history below which a product is new; series that a backtest looks at, at most; its origins.
_NEW_WEEKS, _BACKTESTED, _ORIGINS = 4, 3_000, 3
#: Days beyond which a lead time is none: a date, perhaps, or milliseconds.
MOST_LEAD_DAYS = 3_650.0
#: What advice looks back on: older weeks say how things were.
_RECENT_WEEKS = 26

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Item:
    """What the catalogue knows. ``stock`` and ``price`` None: unknown; ``lead_time_days`` None: the shop's usual;
    ``on_order``: pieces that are on the way."""

    id: str
    title: str = ""
    category: tuple[str, ...] = ()
    price: float | None = None
    stock: float | None = None
    lead_time_days: float | None = None
    on_order: float = 0.0


@dataclass(frozen=True, slots=True)
class Backtest:
    """How a class was forecast at past weeks: who was tried, who won, how wrong. ``coverage`` of the 90 % interval."""

    name: str
    products: int
    chosen: str
    rmsse: dict[str, float]
    mase: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Over n products. ``weekly``: float64 (n, weeks); ``classes``: (n,) of :data:`CLASSES`; ``mean``, ``low``,
    ``high``: float64 (n, horizon) units a week; ``advice``: n; ``by``: n, who forecast it; ``history_sums`` and
    ``forecast_sums``: of each level of the ``tree``, the products' own first."""

    weekly: np.ndarray
    classes: list[str]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    advice: list[StockAdvice]
    backtests: list[Backtest]
    by: list[str]
    tree: Tree
    history_sums: list[np.ndarray]
    forecast_sums: list[np.ndarray]


@dataclass(frozen=True, slots=True)
class Drivers:
    """What may drive the demand of n products, float64 (n, weeks): ``revenue`` (0: unknown) and ``looks``. ``most``:
    products that sell most, each of which gets the forecaster that was best for it, costly ones among them."""

    revenue: np.ndarray
    looks: np.ndarray
    most: int = 400


@dataclass(frozen=True, slots=True)
class Terms:
    """What orders are made by, in days; see :class:`~endcap_workers.demand.stock.StockPolicy`."""

    lead_time_days: float = 7.0
    lead_time_deviation_days: float = 2.0
    review_days: float = 7.0
    service_level: float = 0.95

    def policy(self, lead_time_days: float | None) -> StockPolicy:
        """In weeks. A lead time that can be none counts as not given."""
        given = lead_time_days is not None and lead_time_days <= MOST_LEAD_DAYS
        lead = lead_time_days if given and lead_time_days is not None else self.lead_time_days
        return StockPolicy(
            lead / 7, self.lead_time_deviation_days / 7, self.review_days / 7, self.service_level, period_days=7
        )


def classify(weekly: np.ndarray) -> list[str]:
    """The class of each product (Syntetos, Boylan and Croston, 2005), over its latest year; ``weekly``: NaN before its
    first sale."""
    known = ~np.isnan(weekly)
    sold = np.nan_to_num(weekly) > 0
    weeks, sales = known.sum(axis=1), sold.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = weeks / sales
        sizes = np.where(sold, weekly, np.nan)
        variation = (np.nanstd(sizes, axis=1) / np.nanmean(sizes, axis=1)) ** 2
    found = []
    for row in range(len(weekly)):
        if not sales[row]:
            found.append("none")
        elif weeks[row] < _NEW_WEEKS:
            found.append("new")
        elif interval[row] <= INTERVAL_LIMIT:
            found.append("smooth" if variation[row] <= VARIATION_LIMIT else "erratic")
        else:
            found.append("intermittent" if variation[row] <= VARIATION_LIMIT else "lumpy")
    return found


def make_plan(
    weekly: np.ndarray,
    items: Sequence[Item],
    terms: Terms,
    progress: Progress = lambda share, phase: None,
    seed: int = 0,
    drivers: Drivers | None = None,
) -> Plan:
    """Plan every product. ``weekly``: float64 (n, weeks), oldest first, NaN before the first sale; ``items``: n.

    The horizon is the longest lead time with its review period, at least four weeks.

    Raises:
        ValueError: ``items`` are not as many as ``weekly``.
    """
    if len(items) != len(weekly):
        raise ValueError(f"{len(items)} products, {len(weekly)} histories")
    leads = [item.lead_time_days for item in items if item.lead_time_days is not None]
    longest = max([terms.lead_time_days, *leads]) + terms.review_days
    horizon = int(np.clip(math.ceil(longest / 7), 4, 26))
    classes = classify(weekly)
    mean, low, high = (np.zeros((len(weekly), horizon)) for _ in range(3))
    backtests, by = [], [SMOOTHING.name] * len(weekly)
    for number, name in enumerate(CLASSES):
        progress(0.3 * number / len(CLASSES), f"forecasting {name} demand")
        rows = np.flatnonzero([one == name for one in classes])
        if not len(rows) or name == "none":
            continue
        test, chosen = _backtest(name, weekly[rows], horizon, seed)
        backtests.append(test)
        forecast = with_intervals(chosen, weekly[rows], horizon, LEVELS)
        mean[rows], low[rows], high[rows] = forecast.mean, forecast.at(0.05), forecast.at(0.95)
        for row in rows.tolist():
            by[row] = chosen.name
    if drivers is not None:
        best, rows = _top_sellers(weekly, classes, items, drivers, horizon, progress, seed)
        if best is not None:
            mean[rows], low[rows], high[rows] = best.mean, best.low, best.high
            for row, name in zip(rows.tolist(), best.by):
                by[row] = name
            backtests.append(_of_top_sellers(best, len(rows)))
    progress(0.4, "making forecasts add up")
    tree = tree_of([item.category for item in items])
    history_sums, forecast_sums = _reconciled(tree, weekly, mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(mean > 0, forecast_sums[0] / mean, 1.0)
    mean = forecast_sums[0]
    low, high = np.minimum(low * moved, mean), np.maximum(high * moved, mean)
    advice = []
    for row, item in enumerate(items):
        if row % 500 == 0:
            progress(0.5 + 0.5 * row / max(len(items), 1), "advising on stock")
        advice.append(_advise(weekly[row], mean[row], item, terms, seed))
    return Plan(weekly, classes, mean, low, high, advice, backtests, by, tree, history_sums, forecast_sums)


def _top_sellers(
    weekly: np.ndarray, classes: Sequence[str], items: Sequence[Item], drivers: Drivers, horizon: int,
    progress: Progress, seed: int,
) -> tuple[Chosen | None, np.ndarray]:  # fmt: skip
    """The forecasts of the products that sell most and have a history, and their rows."""
    known = (~np.isnan(weekly)).sum(axis=1) >= FEWEST_WEEKS
    sold = np.where(known, np.nan_to_num(weekly[:, -_RECENT_WEEKS:]).sum(axis=1), 0.0)
    rows = np.argsort(-sold, kind="stable")[: max(drivers.most, 0)]
    rows = np.sort(rows[sold[rows] > 0])
    if not len(rows):
        return None, rows
    paths = [items[row].category or ("",) for row in rows.tolist()]
    coarse, fine = (_codes([path[:depth] for path in paths]) for depth in (1, None))
    panel = panel_of(
        weekly[rows], drivers.revenue[rows], drivers.looks[rows], np.stack([coarse, fine], axis=1), horizon
    )
    costly: list[Forecaster] = []
    if len(rows) >= Driven.FEWEST_PRODUCTS:
        driven = Driven(panel, seed)
        costly = [driven, Together(driven, COMBINED)]
    told = "forecasting the top sellers one by one"
    chosen = choose(
        weekly[rows], [classes[row] for row in rows.tolist()], horizon, costly,
        lambda share: progress(0.3 + 0.1 * share, told), seed,
    )  # fmt: skip
    return chosen, rows


def _codes(paths: Sequence[tuple[str, ...]]) -> np.ndarray:
    numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
    return np.array([numbers[path] for path in paths], dtype=np.int64)


def _of_top_sellers(best: Chosen, products: int) -> Backtest:
    counts = {name: best.by.count(name) for name in dict.fromkeys(best.by)}
    said = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: -one[1]))
    errors = {"each by its best, unseen weeks": best.chosen, **best.rmsse}
    return Backtest("top sellers", products, said, errors, best.mase, best.coverage)


def _advise(history: np.ndarray, forecast: np.ndarray, item: Item, terms: Terms, seed: int) -> StockAdvice:
    policy = terms.policy(item.lead_time_days)
    reach = max(1, min(len(forecast), math.ceil(policy.protection)))
    stock = item.stock if item.stock is not None and math.isfinite(item.stock) else 0.0
    ahead = float(forecast[:reach].mean())
    return advise(history[-_RECENT_WEEKS:], stock, policy, item.on_order, expected=ahead, seed=seed)


def _backtest(name: str, weekly: np.ndarray, horizon: int, seed: int) -> tuple[Backtest, Forecaster]:
    """Rolling origins; the candidate with the least RMSSE. With too short a history the first candidate is taken."""
    candidates = CANDIDATES[name]
    weeks = weekly.shape[1]
    some = np.random.default_rng(seed).permutation(len(weekly))[:_BACKTESTED]
    origins = [weeks - horizon - step for step in range(0, 2 * _ORIGINS, 2) if weeks - horizon - step >= 8]
    part = weekly[some]
    part = part[(np.nan_to_num(part[:, : origins[-1]]) > 0).any(axis=1)] if origins else part[:0]
    if not len(part) or name in ("new", "none"):
        return Backtest(name, len(weekly), candidates[0].name, {}, float("nan"), float("nan")), candidates[0]
    errors: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for one in candidates:
            found = [
                rmsse(part[:, :at], part[:, at : at + horizon], one.forecast(part[:, :at], horizon).mean)
                for at in origins
            ]
            errors[one.name] = float(np.nanmean(found))
        best = min(candidates, key=lambda one: errors[one.name])
        at = origins[0]
        forecast = with_intervals(best, part[:, :at], horizon, LEVELS)
        actual = part[:, at : at + horizon]
        scaled = mase(part[:, :at], actual, forecast.mean)
    covered = coverage(actual, forecast.at(0.05), forecast.at(0.95))
    return Backtest(name, len(weekly), best.name, errors, scaled, covered), best


def _reconciled(tree: Tree, weekly: np.ndarray, mean: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sums of the history, and forecasts of all levels that add up to one another."""
    history = tree.sums(weekly)
    horizon = mean.shape[1]
    forecasts, variances = [mean], [_variance(weekly)]
    for level in history[1:]:
        forecasts.append(Theta().forecast(level, horizon).mean)
        variances.append(_variance(level))
    return history, reconcile(tree, forecasts, variances)


def _variance(history: np.ndarray) -> np.ndarray:
    """Mean squared change from week to week over the last half year, (series,), > 0: how wrong a forecast may be."""
    recent = np.nan_to_num(history[:, -_RECENT_WEEKS:])
    if recent.shape[1] < 2:
        return np.maximum(recent.mean(axis=1), 0.1)
    return np.maximum(np.mean(np.diff(recent, axis=1) ** 2, axis=1) / 2, 0.01)
