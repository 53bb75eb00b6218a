"""The products that sell most: each by the forecaster that was best for it, costly ones among them.

Forecasts are made as they would have been at several past weeks, which do not overlap. A product's own errors are
few; those of its class are many, but others'. Both are weighed: as if each product had seen its class's mean error some
more times. How many times is chosen by leaving one of the past weeks out, and what that choice would have earned in the
weeks left out is what the report says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from endcap_workers.demand.base import Forecaster
from endcap_workers.demand.intermittent import COMBINED, CROSTON, IMAPA, SBA, SMOOTHING, TSB
from endcap_workers.demand.intervals import conformal, scale_of
from endcap_workers.demand.metrics import coverage
from endcap_workers.demand.smooth import AutoEts, SeasonalNaive, Theta

CANDIDATES: tuple[Forecaster, ...] = (Theta(), SMOOTHING, COMBINED, IMAPA, TSB, SBA, CROSTON, SeasonalNaive())
#: Weeks without which a product is forecast as all others are; past weeks that forecasts are made at, and the least.
FEWEST_WEEKS, ORIGINS, FEWEST_ORIGINS = 28, 4, 2
#: Weight of the class's mean error, in past weeks; the last: only the class counts.
WEIGHTS = (0.5, 2.0, 8.0, 32.0, np.inf)
#: Products of a class that AutoETS is tried on: series by series, it takes longest. It must win there.
_TRIED = 25


@dataclass(frozen=True, slots=True)
class Chosen:
    """Over n products and the horizon. ``mean``, ``low``, ``high``: float64 (n, horizon); ``by``: names of forecasters.

    ``rmsse``: name -> mean over the products, ``chosen`` that of the choice, each left-out week judged by the others;
    ``mase``; ``coverage``: of the 90 % interval at the latest past week, from the errors of earlier ones.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    by: list[str]
    rmsse: dict[str, float]
    chosen: float
    mase: float
    coverage: float


def choose(
    weekly: np.ndarray,
    classes: Sequence[str],
    horizon: int,
    costly: Sequence[Forecaster] = (),
    progress: Callable[[float], None] = lambda share: None,
    seed: int = 0,
) -> Chosen | None:
    """Forecast each product by who was best for it; None where the history is too short to tell.

    Args:
        weekly: float64 (n, weeks), NaN before the first sale. classes: n, the kind of each one's demand.
        costly: forecasters of all n products beside :data:`CANDIDATES`.
    """
    weeks = weekly.shape[1]
    origins = [weeks - horizon * step for step in range(1, ORIGINS + 1) if weeks - horizon * step >= FEWEST_WEEKS]
    if len(origins) < FEWEST_ORIGINS or not len(weekly):
        return None
    kinds = np.unique(np.array(classes), return_inverse=True)[1]
    candidates = [*CANDIDATES, *costly]
    past: list[np.ndarray] = []  # per candidate (origins, n, horizon)
    for number, one in enumerate(candidates):
        past.append(np.stack([one.forecast(weekly[:, :at], horizon).mean for at in origins]))
        progress(0.7 * (number + 1) / len(candidates))
    actual = np.stack([weekly[:, at : at + horizon] for at in origins])
    ets = AutoEts()
    slow = _ets_wins(ets, weekly, origins, actual, past, kinds, seed)
    progress(0.8)
    if slow.any():
        found = np.full(actual.shape, np.nan)
        found[:, slow] = np.stack([ets.forecast(weekly[slow, :at], horizon).mean for at in origins])
        candidates, past = [*candidates, ets], [*past, found]
    errors = np.stack([_errors(weekly, origins, actual, one) for one in past])  # (candidates, origins, n)
    weight = _weight(errors, kinds)
    best = _best(errors, kinds, weight)
    progress(0.9)
    mean = np.zeros((len(weekly), horizon))
    for number, one in enumerate(candidates):
        rows = np.flatnonzero(best == number)
        if len(rows) and one is ets:
            mean[rows] = one.forecast(weekly[rows], horizon).mean
        elif len(rows):
            mean[rows] = one.forecast(weekly, horizon).mean[rows]
    chosen = np.stack(past)[best, :, np.arange(len(weekly))].transpose(1, 0, 2)
    low, high = _interval(weekly, origins, actual, chosen, kinds, mean)
    earlier = _interval(weekly[:, : origins[0]], origins[1:], actual[1:], chosen[1:], kinds, chosen[0])
    scaled = [_scaled(weekly[:, :at], act, forecast) for at, act, forecast in zip(origins, actual, chosen)]
    return Chosen(
        mean,
        low,
        high,
        [candidates[number].name for number in best.tolist()],
        {
            f"{one.name}, on {int(slow.sum())}" if one is ets else one.name: float(_mean(error))
            for one, error in zip(candidates, errors)
        },
        _left_out(errors, kinds, weight),
        float(np.mean(scaled)),
        coverage(actual[0], *earlier),
    )


def _ets_wins(
    ets: Forecaster, weekly: np.ndarray, origins: Sequence[int], actual: np.ndarray, past: Sequence[np.ndarray],
    kinds: np.ndarray, seed: int,
) -> np.ndarray:  # fmt: skip
    """Products of the classes where AutoETS is better than every other on a sample; bool (n,)."""
    wins = np.zeros(len(weekly), dtype=bool)
    random = np.random.default_rng(seed)
    horizon = actual.shape[2]
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        some = np.sort(random.permutation(rows)[:_TRIED])
        made = np.stack([ets.forecast(weekly[some, :at], horizon).mean for at in origins])
        every = [made, *(one[:, some] for one in past)]
        own, *others = [_mean(_errors(weekly[some], origins, actual[:, some], one)) for one in every]
        wins[rows] = own < min(others)
    return wins


def _errors(weekly: np.ndarray, origins: Sequence[int], actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Root mean squared errors over that of the naive forecast within the history: RMSSE, (origins, n); NaN where a
    series never changed, or is not forecast."""
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for at, act, made in zip(origins, actual, forecast):
            scale = _mean(np.diff(weekly[:, :at], axis=1) ** 2, axis=1)
            found.append(np.where(scale > 0, np.sqrt(_mean((act - made) ** 2, axis=1) / scale), np.nan))
    return np.array(found)


def _best(errors: np.ndarray, kinds: np.ndarray, weight: float) -> np.ndarray:
    """The candidate with the least error of each product, int64 (n,): own errors and ``weight`` times its class's."""
    own, count = np.nansum(errors, axis=1), np.isfinite(errors).sum(axis=1)
    score = np.empty(own.shape)
    for kind in np.unique(kinds):
        rows = kinds == kind
        usual = _mean(errors[:, :, rows], axis=(1, 2))[:, None]
        if np.isinf(weight):
            score[:, rows] = usual
        else:
            score[:, rows] = (own[:, rows] + weight * usual) / (count[:, rows] + weight)
    # AutoETS does not forecast every class.
    return np.asarray(np.argmin(np.where(np.isnan(score), np.inf, score), axis=0))


def _left_out(errors: np.ndarray, kinds: np.ndarray, weight: float) -> float:
    """Mean RMSSE of the choice, each past week judged by the others."""
    found = []
    for one in range(errors.shape[1]):
        best = _best(np.delete(errors, one, axis=1), kinds, weight)
        found.append(errors[best, one, np.arange(errors.shape[2])])
    return float(_mean(np.array(found)))


def _weight(errors: np.ndarray, kinds: np.ndarray) -> float:
    return min(WEIGHTS, key=lambda weight: _left_out(errors, kinds, weight))


def _interval(
    weekly: np.ndarray, origins: Sequence[int], actual: np.ndarray, forecast: np.ndarray, kinds: np.ndarray,
    mean: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The ends of the 90 % interval around ``mean``, (n, horizon): split-conformal, pooled over each class."""
    scales = np.stack([scale_of(weekly[:, :at]) for at in origins])
    errors = (actual - forecast) / scales[:, :, None]
    low, high, now = mean.copy(), mean.copy(), scale_of(weekly)
    for kind in np.unique(kinds):
        rows = kinds == kind
        for step in range(mean.shape[1]):
            known = errors[:, rows, step]
            known = known[np.isfinite(known)]
            if len(known):
                down, up = conformal(known, (0.05, 0.95))
                low[rows, step] = np.maximum(mean[rows, step] + now[rows] * min(down, 0.0), 0.0)
                high[rows, step] = mean[rows, step] + now[rows] * max(up, 0.0)
    return low, high


def _scaled(history: np.ndarray, actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean absolute scaled error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = _mean(np.abs(np.diff(history, axis=1)), axis=1)
        return float(_mean(np.where(scale > 0, _mean(np.abs(actual - forecast), axis=1) / scale, np.nan)))


def _mean(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> Any:
    """The mean of what is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)
