"""How demand follows price: elasticities with intervals, and the range of prices they speak for. For people to read;
nothing is priced by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Weeks with sales, spread of the log price, units a week and share of weeks with sales below which nothing can be
#: told: where most weeks sell one or none, the price of the others is not known.
FEWEST_WEEKS, LEAST_SPREAD, FEWEST_UNITS, LEAST_STEADY = 16, 0.03, 4.0, 0.75
#: The interval is this wide in standard errors: 90 %.
_Z = 1.645


@dataclass(frozen=True, slots=True)
class PriceBand:
    """``elasticity``: percent more units for one percent more price, with its 90 % interval ``low``..``high``.

    ``observed``: 10th and 90th percentile of the weekly prices; ``recommended``: the part of it that the interval
    speaks for, or all of it; ``verdict`` in words. ``weeks``: that it was learned from.
    """

    elasticity: float
    low: float
    high: float
    observed: tuple[float, float]
    recommended: tuple[float, float]
    verdict: str
    weeks: int


def price_bands(units: np.ndarray, revenue: np.ndarray, category: np.ndarray) -> dict[int, PriceBand]:
    """Bands of the products of which enough is known, by row.

    ``units``, ``revenue``: float64 (products, weeks), NaN where nothing is known; ``category``: int64 (products,).

    Weekly log units on log price, both less the product's mean, units also less what the rest of the category did that
    week (season, holidays). Standard errors allow for uneven noise (HC1). Each estimate is drawn towards the category's
    mean by its own uncertainty (empirical Bayes), so that one promotion does not make a law.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.where((units > 0) & (revenue > 0), revenue / units, np.nan)
        logs, demand = np.log(price), np.log(np.where(units > 0, units, np.nan))
    demand = demand - _trend(units, category)
    found: dict[int, tuple[float, float, np.ndarray]] = {}
    sold, weeks = (~np.isnan(logs)).sum(axis=1), np.maximum((~np.isnan(units)).sum(axis=1), 1)
    enough = (sold >= FEWEST_WEEKS) & (sold >= LEAST_STEADY * weeks)
    enough &= np.nan_to_num(units).sum(axis=1) >= FEWEST_UNITS * weeks
    for row in np.flatnonzero(enough).tolist():
        known = ~np.isnan(logs[row]) & ~np.isnan(demand[row])
        if known.sum() < FEWEST_WEEKS or np.std(logs[row][known]) < LEAST_SPREAD:
            continue
        slope, error = _slope(logs[row][known], demand[row][known])
        found[row] = slope, error, price[row][known]
    if not found:
        return {}
    rows = np.array(list(found))
    slopes, errors = np.array([found[row][0] for row in found]), np.array([found[row][1] for row in found])
    shrunk, spread = _shrunk(slopes, errors, category[rows])
    return {row: _band(float(shrunk[at]), float(spread[at]), found[row][2]) for at, row in enumerate(rows.tolist())}


def _trend(units: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Log of the category's units each week without the product's own, less its mean; float64 (products, weeks)."""
    codes = np.unique(category, return_inverse=True)[1]
    filled = np.nan_to_num(units)
    total = np.zeros((codes.max(initial=0) + 1, units.shape[1]))
    np.add.at(total, codes, filled)
    others = np.log(np.maximum(total[codes] - filled, 0.0) + 1.0)
    return np.asarray(others - others.mean(axis=1, keepdims=True))


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    x, y = x - x.mean(), y - y.mean()
    square = float(x @ x)
    slope = float(x @ y) / square
    rest = y - slope * x
    error = np.sqrt(float((x**2) @ (rest**2)) * len(x) / (len(x) - 2)) / square
    return slope, float(max(error, 0.02))


def _shrunk(slopes: np.ndarray, errors: np.ndarray, category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = 1 / (errors**2 + 0.25)
    overall = float(np.average(slopes, weights=weights))
    codes = np.unique(category, return_inverse=True)[1]
    total = np.bincount(codes, weights)
    # Each category's mean is itself drawn to the shop's, as if ten more products said that.
    prior = (np.bincount(codes, weights * slopes) + 10 * np.median(weights) * overall) / (
        total + 10 * np.median(weights)
    )
    between = max(float(np.average((slopes - prior[codes]) ** 2, weights=weights) - np.median(errors) ** 2), 0.05)
    trust = between / (between + errors**2)
    return prior[codes] + trust * (slopes - prior[codes]), np.sqrt(trust) * errors


def _band(elasticity: float, error: float, prices: np.ndarray) -> PriceBand:
    low, high = elasticity - _Z * error, elasticity + _Z * error
    cheap, middle, dear = (float(value) for value in np.quantile(prices, [0.1, 0.5, 0.9]))
    if elasticity > 0 or np.log(dear / cheap) < LEAST_SPREAD:
        recommended, verdict = (cheap, dear), "not clear: prices seen so far do not tell"
    elif low > -1.0:
        recommended, verdict = (middle, dear), "demand hardly follows price: more revenue in the upper part"
    elif high < -1.0:
        recommended, verdict = (cheap, middle), "demand follows price strongly: more revenue in the lower part"
    else:
        recommended, verdict = (cheap, dear), "not clear: prices seen so far do not tell"
    return PriceBand(elasticity, low, high, (cheap, dear), recommended, verdict, len(prices))
