"""Demand and stock on two public sets: weekly orange juice with prices and promotions, monthly car parts with gaps.

Orange juice (Dominick's, 83 stores x 11 brands): the multi-round protocol of microsoft/forecasting. Ten rounds; round
r knows sales up to week 135 + 2r (r = 0..9) and forecasts weeks 137 + 2r and 138 + 2r, so a week lies between; prices,
deals and features of those weeks are known. MAPE in % over the rows of those weeks that the data has (17,534 of
18,260: nobody knows the others' sales). Published under it: LightGBM 35.97, dilated CNN 37.66, AutoARIMA 68.30.

Car parts (Hyndman et al., 2008): the 1,046 parts without gaps, with at least ten months of demand and some in the
first and the last 15 months. Rolling origins after 39, 41, 43 and 45 of 51 months, six months ahead. Then stock: every
month of the last twelve an order up to a level, delivered two months later; the rest of the cost is in the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from endcap.results import Results
from endcap_workers.demand.base import Forecaster
from endcap_workers.demand.drivers import DriverModel, Panel, backtest
from endcap_workers.demand.intermittent import COMBINED, CROSTON, IMAPA, SBA, TSB
from endcap_workers.demand.intervals import LEVELS, rolling_origin, with_intervals
from endcap_workers.demand.metrics import coverage, mape, mase, pinball, rmsse
from endcap_workers.demand.pooled import Pooled
from endcap_workers.demand.smooth import AutoEts, SeasonalNaive, Theta
from endcap_workers.demand.stock import StockPolicy, advise
from endcap_workers.evaluation.shared_data import shared_file

FIRST_WEEK, LAST_WEEK = 40, 160
ROUNDS, FIRST_END, STRIDE = 10, 135, 2
STEPS = (2, 3)
#: AutoETS fits series by series: this many, evenly spread.
ETS_SERIES = 60
ORIGINS, HORIZON = (39, 41, 43, 45), 6
#: Months between order and delivery; what a unit costs to hold a month, and to owe one.
LEAD, HOLDING, OWED, SIMULATED = 2, 1.0, 19.0, 12
#: Months that stock levels look back on: parts die out, so that all four years would say too much.
RECENT = 24


def orange_juice(stores: int | None = None) -> Panel:
    """All series, store by store, weeks 40 to 160; or those of the first ``stores`` stores.

    Raises:
        ConfigurationError: the data is not there.
    """
    import pandas as pd

    frame = pd.read_csv(shared_file("dominicks-oj", "yx.csv.gz"))
    numbers = np.sort(frame.store.unique())[:stores]
    frame = frame[frame.store.isin(numbers)]
    store = np.searchsorted(numbers, frame.store.to_numpy())
    brand, week = frame.brand.to_numpy() - 1, frame.week.to_numpy() - FIRST_WEEK
    brands, weeks = 11, LAST_WEEK - FIRST_WEEK + 1
    series = store * brands + brand
    units, deal, feature = (np.full((len(numbers) * brands, weeks), np.nan) for _ in range(3))
    units[series, week] = np.round(np.exp(frame.logmove.to_numpy()))
    deal[series, week], feature[series, week] = frame.deal, frame.feat
    # Every row knows the prices of all brands of its store and week.
    price = np.full((len(numbers), brands, weeks), np.nan)
    price[store, :, week] = frame[[f"price{number}" for number in range(1, brands + 1)]].to_numpy()
    kinds = {"store": np.repeat(np.arange(len(numbers)), brands), "brand": np.tile(np.arange(brands), len(numbers))}
    return Panel(
        units, price.reshape(units.shape), {"deal": deal, "feature": feature}, kinds, kinds["store"], season=52
    )


def car_parts() -> np.ndarray:
    """float64 (1046, 51).

    Raises:
        ConfigurationError: the data is not there.
    """
    import pandas as pd

    table = pd.read_csv(shared_file("carparts", "carparts.csv.gz"), index_col=0).T.to_numpy(dtype=float)
    table = table[~np.isnan(table).any(axis=1)]
    sold = table > 0
    return table[(sold.sum(axis=1) >= 10) & sold[:, :15].any(axis=1) & sold[:, -15:].any(axis=1)]


def run(seed: int = 0) -> Results:
    """Both sets."""
    results = Results("demand", "endcap evaluate demand", seed)
    started = time.monotonic()
    judge_orange_juice(results, orange_juice(), DriverModel(seed))
    between = time.monotonic()
    judge_car_parts(results, car_parts(), seed)
    minutes = ((between - started) / 60, (time.monotonic() - between) / 60)
    results.notes.append(f"orange juice {minutes[0]:.1f} minutes, car parts {minutes[1]:.1f} minutes.")
    return results


def judge_orange_juice(results: Results, panel: Panel, model: DriverModel, rounds: int = ROUNDS) -> None:
    """Add the rows of the multi-round protocol."""
    ends = [FIRST_END - FIRST_WEEK + 1 + STRIDE * number for number in range(rounds)]
    actual = np.concatenate([panel.units[:, [end + step - 1 for step in STEPS]] for end in ends])

    def alone(forecaster: Forecaster, units: np.ndarray) -> np.ndarray:
        runs = rolling_origin(forecaster, units, STEPS[-1], ends)
        return np.concatenate([forecast.mean[:, [step - 1 for step in STEPS]] for _, forecast, _ in runs])

    for forecaster in (SeasonalNaive(52), SeasonalNaive(), Theta()):
        results.add(f"orange juice: {forecaster.name}", {"MAPE %": mape(actual, alone(forecaster, panel.units))})
    some = np.unique(np.linspace(0, len(panel.units) - 1, ETS_SERIES).astype(int))
    part = actual.reshape(rounds, len(panel.units), len(STEPS))[:, some].reshape(-1, len(STEPS))
    ets = mape(part, alone(AutoEts(), panel.units[some]))
    results.add(f"orange juice: AutoETS, {len(some)} series", {"MAPE %": ets})
    runs = [forecast for _, forecast, _ in backtest(panel, ends, STEPS, model)]
    results.add("orange juice: prices and promotions", {"MAPE %": mape(actual, np.concatenate([r.mean for r in runs]))})
    low, middle, high = (np.concatenate([run.at(level) for run in runs]) for level in (0.05, 0.5, 0.95))
    results.add(
        "orange juice: its 90% interval",
        {
            "coverage": coverage(actual, low, high),
            "pinball 5%": pinball(actual, low, 0.05),
            "pinball 50%": pinball(actual, middle, 0.5),
            "pinball 95%": pinball(actual, high, 0.95),
        },
    )


def judge_car_parts(results: Results, history: np.ndarray, seed: int) -> None:
    """Add errors, intervals and stock costs."""
    forecasters: list[Forecaster] = [CROSTON, SBA, TSB, IMAPA, COMBINED, Pooled(seed)]
    nothing = np.zeros((len(history), HORIZON))
    for forecaster in forecasters:
        found = [
            (history[:, :origin], actual, forecast.mean)
            for origin, forecast, actual in rolling_origin(forecaster, history, HORIZON, ORIGINS)
        ]
        results.add(f"car parts: {forecaster.name}", _errors(found))
    zero = [(history[:, :origin], history[:, origin : origin + HORIZON], nothing) for origin in ORIGINS]
    results.add("car parts: always 0", _errors(zero))
    results.notes.append("MASE on demand that is mostly 0 is least for a forecast of 0: RMSSE is the one to read.")

    forecast = with_intervals(COMBINED, history[:, :45], HORIZON, LEVELS)
    inside = coverage(history[:, 45:], forecast.at(0.05), forecast.at(0.95))
    results.add("car parts: combined, 90% interval", {"coverage": inside})
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"{one.name}, normal": _normal_levels(one) for one in (CROSTON, SBA, TSB, IMAPA)
    }
    rules[f"mean of {RECENT} months, normal"] = _recent_normal_levels
    rules[f"Endcap's stock advice, {RECENT} months"] = _advised_levels(seed)
    for name, rule in rules.items():
        results.add(f"stock: {name}", simulate(history, rule))
    results.notes.append(
        f"Stock: {SIMULATED} months, delivery after {LEAD}, holding {HOLDING:g} and owing {OWED:g} a unit and month "
        f"(service level {OWED / (OWED + HOLDING):.2f}); costs per part and month. "
        "Parts die out, so most of the gain over Croston comes from looking back less far, not from the bootstrap."
    )


def _errors(found: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    return {
        "MASE": float(np.mean([mase(*one) for one in found])),
        "RMSSE": float(np.mean([rmsse(*one) for one in found])),
        "mean error": float(np.mean([np.mean(forecast - actual) for _, actual, forecast in found])),
    }


def simulate(history: np.ndarray, rule: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Periodic review every month, unmet demand is owed. ``rule``: history -> order-up-to level (series,).

    Starts with the first level in stock. An order of month t arrives at the start of month t + LEAD, so it has to last
    until the order after it does: LEAD + 1 months.
    """
    months = history.shape[1]
    first = months - SIMULATED
    stock = rule(history[:, :first])
    pipeline = np.zeros((LEAD, len(history)))
    held = owed = met = 0.0
    for month in range(first, months):
        stock = stock + pipeline[0]
        target = rule(history[:, :month])
        pipeline = np.roll(pipeline, -1, axis=0)
        pipeline[-1] = 0.0
        pipeline[-1] = np.maximum(target - stock - pipeline.sum(axis=0), 0.0)
        demand = history[:, month]
        met += float(np.clip(stock, 0, demand).sum())
        stock = stock - demand
        held += float(np.maximum(stock, 0).sum())
        owed += float(np.maximum(-stock, 0).sum())
    scale = len(history) * SIMULATED
    return {
        "cost": (HOLDING * held + OWED * owed) / scale,
        "held": held / scale,
        "owed": owed / scale,
        "fill rate": met / float(history[:, first:].sum()),
    }


def _normal_levels(forecaster: Forecaster) -> Callable[[np.ndarray], np.ndarray]:
    """The textbook's: forecast times protection time, plus z times the history's spread over it."""

    def levels(history: np.ndarray) -> np.ndarray:
        return _with_safety(forecaster.forecast(history, LEAD + 1).mean.sum(axis=1), history)

    return levels


def _recent_normal_levels(history: np.ndarray) -> np.ndarray:
    recent = history[:, -RECENT:]
    return _with_safety((LEAD + 1) * recent.mean(axis=1), recent)


def _with_safety(expected: np.ndarray, history: np.ndarray) -> np.ndarray:
    quantile = NormalDist().inv_cdf(OWED / (OWED + HOLDING))
    return np.ceil(expected + quantile * np.sqrt(LEAD + 1) * history.std(axis=1, ddof=1))


def _advised_levels(seed: int) -> Callable[[np.ndarray], np.ndarray]:
    policy = StockPolicy(lead_time=LEAD, review=1, service_level=OWED / (OWED + HOLDING), period_days=30)

    def levels(history: np.ndarray) -> np.ndarray:
        return np.array([advise(one[-RECENT:], 0.0, policy, seed=seed).reorder_point for one in history])

    return levels
