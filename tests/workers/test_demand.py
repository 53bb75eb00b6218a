"""Forecasters: what all promise, known answers, intervals that cover, and nothing that looks into the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.results import Results
from endcap_workers.demand import Forecast, Forecaster, with_intervals
from endcap_workers.demand.drivers import DriverFeatures, DriverModel, Panel, backtest
from endcap_workers.demand.intermittent import COMBINED, CROSTON, IMAPA, SBA, SMOOTHING, TSB, croston, tsb
from endcap_workers.demand.intervals import rolling_origin
from endcap_workers.demand.metrics import coverage, mape, mase, pinball, rmsse
from endcap_workers.demand.pooled import Pooled
from endcap_workers.demand.smooth import AutoEts, SeasonalNaive, Theta
from endcap_workers.evaluation import demand as evaluation
from endcap_workers.evaluation import shared_data

FORECASTERS: list[Forecaster] = [
    CROSTON,
    SBA,
    TSB,
    IMAPA,
    SMOOTHING,
    COMBINED,
    Pooled(rounds=20, least=50),
    SeasonalNaive(),
    SeasonalNaive(4),
    Theta(),
    AutoEts(),
]


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda one: one.name)
class TestEveryForecaster:
    def test_bears_gaps_returns_new_and_dead_products(self, forecaster: Forecaster) -> None:
        nothing = np.nan
        history = np.array(
            [
                [1.0, 4, 0, 3, 2, 5, 1, 2, 3, 4, 2, 3],
                [nothing] * 11 + [6],  # one observation
                [nothing] * 12,  # never sold
                [0.0] * 12,
                [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                [3, nothing, 4, -5, nothing, 3, 4, 3, np.inf, 3, 4, 3],
            ]
        )
        forecast = forecaster.forecast(history, 3)

        assert isinstance(forecaster, Forecaster)
        assert forecast.mean.shape == (6, 3)
        assert np.isfinite(forecast.mean).all()
        assert (forecast.mean >= 0).all()
        assert (forecast.mean[2:4] == 0).all()
        assert 0.5 < forecast.mean[0].mean() < 5
        assert 0 < forecast.mean[1].mean() <= 6.5

    def test_a_constant_stays_constant(self, forecaster: Forecaster) -> None:
        forecast = forecaster.forecast(np.full((40, 24), 7.0), 4)

        np.testing.assert_allclose(forecast.mean, 7.0, rtol=0.12)

    def test_refuses_no_history_and_no_horizon(self, forecaster: Forecaster) -> None:
        with pytest.raises(ValueError, match="at least one period"):
            forecaster.forecast(np.zeros((2, 0)), 1)
        with pytest.raises(ValueError, match="horizon"):
            forecaster.forecast(np.zeros((2, 4)), 0)


def test_croston_sba_and_tsb_by_hand() -> None:
    history = np.array([[0.0, 3, 0, 0, 6, 0]])

    # Sizes 3, then 3 + .1 * 3; intervals 2, then 2 + .1 * 1.
    assert croston(history)[0] == pytest.approx(3.3 / 2.1)
    assert SBA.forecast(history, 1).mean[0, 0] == pytest.approx(0.95 * 3.3 / 2.1)
    # Chance 1/2 at the first sale, then down twice, up, down.
    chance = 0.5 * 0.9 * 0.9
    chance = (chance + 0.1 * (1 - chance)) * 0.9
    assert tsb(history)[0] == pytest.approx(3.3 * chance)


def test_only_tsb_notices_that_a_product_died() -> None:
    alive = np.array([[2.0, 0, 2, 0, 2, 0, 2, 0]])
    dead = np.hstack([alive, np.zeros((1, 30))])

    assert CROSTON.forecast(dead, 1).mean == pytest.approx(CROSTON.forecast(alive, 1).mean)
    assert TSB.forecast(dead, 1).mean < 0.1 * TSB.forecast(alive, 1).mean


@given(st.integers(2, 9))
@settings(deadline=None, max_examples=10)
def test_units_do_not_matter(factor: int) -> None:
    history = np.random.default_rng(1).poisson(0.7, (5, 30)).astype(float)
    for forecaster in (CROSTON, SBA, TSB, IMAPA, COMBINED):
        scaled = forecaster.forecast(factor * history, 2).mean
        np.testing.assert_allclose(scaled, factor * forecaster.forecast(history, 2).mean)


def test_seasons_and_trends_go_on() -> None:
    season = np.tile([1.0, 5, 2, 8], 5)[None]
    trend = np.exp(np.linspace(2, 4, 60))[None]

    np.testing.assert_array_equal(SeasonalNaive(4).forecast(season, 6).mean, [[1, 5, 2, 8, 1, 5]])
    for forecaster in (AutoEts(), Theta()):
        ahead = forecaster.forecast(trend, 3).mean[0]
        assert (np.diff(ahead) > 0).all()
        assert ahead[0] == pytest.approx(trend[0, -1], rel=0.1)


def test_metrics_by_hand() -> None:
    actual, forecast = np.array([[10.0, 0, np.nan, 5]]), np.array([[8.0, 1, 3, 6]])
    history = np.array([[1.0, 3, 1, 3]])

    assert mape(actual, forecast) == pytest.approx(20)
    assert mase(history, actual, forecast) == pytest.approx((2 + 1 + 1) / 3 / 2)
    assert rmsse(history, actual, forecast) == pytest.approx(np.sqrt((4 + 1 + 1) / 3 / 4))
    assert pinball(np.array([10.0]), np.array([8.0]), 0.9) == pytest.approx(1.8)
    assert pinball(np.array([8.0]), np.array([10.0]), 0.9) == pytest.approx(0.2)
    assert coverage(actual, forecast - 1, forecast + 1) == pytest.approx(2 / 3)


def test_intervals_cover_what_comes_and_never_cross() -> None:
    random = np.random.default_rng(2)
    level = random.uniform(0.2, 30, (400, 1))
    units = random.poisson(level, (400, 40)).astype(float)
    forecast = with_intervals(SMOOTHING, units[:, :36], 4)

    assert coverage(units[:, 36:], forecast.at(0.05), forecast.at(0.95)) == pytest.approx(0.9, abs=0.04)
    assert forecast.values is not None
    assert (np.diff(forecast.values, axis=2) >= 0).all()
    assert (forecast.values >= 0).all()
    with pytest.raises(ValueError, match="no quantile"):
        forecast.at(0.33)
    with pytest.raises(ValueError, match="between 0 and 1"):
        with_intervals(SMOOTHING, units, 1, levels=(0, 1))


def test_intervals_of_one_observation_are_that_observation() -> None:
    forecast = with_intervals(COMBINED, np.array([[4.0]]), 2)

    np.testing.assert_array_equal(forecast.at(0.95), [[4, 4]])


class _Spy:
    name = "spy"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        self.seen.append(history.shape[1])
        return Forecast(np.zeros((len(history), horizon)))


def test_rolling_origin_shows_only_the_past() -> None:
    history, spy = np.arange(20.0).reshape(2, 10), _Spy()
    runs = list(rolling_origin(spy, history, 3, [4, 7]))

    assert spy.seen == [4, 7]
    np.testing.assert_array_equal(runs[1][2], history[:, 7:])
    with pytest.raises(ValueError, match="origin 8"):
        list(rolling_origin(spy, history, 3, [8]))


def promoted(periods: int = 70, series: int = 60, seed: int = 5) -> Panel:
    """A tenth less price sells a quarter more, a promotion doubles; one price is missing, one is 0."""
    random = np.random.default_rng(seed)
    price = 2 * np.exp(random.choice([0, -0.1, -0.3], (series, periods)))
    deal = (random.random((series, periods)) < 0.2).astype(float)
    level = random.uniform(30, 300, (series, 1))
    units = np.round(level * (price / 2) ** -2.1 * 2**deal * np.exp(random.normal(0, 0.1, price.shape)))
    price[0, 3], price[1, 4], units[2, :30] = np.nan, 0.0, np.nan
    kinds = {"store": np.arange(series) // 10, "brand": np.arange(series) % 10}
    return Panel(units, price, {"deal": deal}, kinds, kinds["store"])


def test_the_driver_model_learns_price_and_promotion() -> None:
    panel = promoted()
    ((_, forecast, actual),) = backtest(panel, [66], (1, 2), DriverModel(rounds=120, holdout=8))
    plain = np.repeat(np.nanmean(panel.units[:, 46:66], axis=1)[:, None], 2, axis=1)

    assert mape(actual, forecast.mean) < 20
    assert mape(actual, forecast.mean) < mape(actual, plain) / 2
    assert coverage(actual, forecast.at(0.05), forecast.at(0.95)) > 0.8


def test_driver_features_and_forecasts_know_nothing_of_later_sales() -> None:
    panel = promoted()
    changed = panel.units.copy()
    changed[:, 60:] *= 7
    other = Panel(changed, panel.price, panel.promotions, panel.kinds, panel.market)

    for origin, step in ((60, 1), (60, 3), (41, 2)):
        one, two = (DriverFeatures(each).rows(origin, step)[0] for each in (panel, other))
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    forecasts = [DriverModel(rounds=10, holdout=8).fit(each, 60, (1, 2)).forecast().mean for each in (panel, other)]
    np.testing.assert_array_equal(*forecasts)


def test_panels_and_origins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="price is"):
        Panel(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="too few"):
        DriverModel().fit(promoted(periods=24), 22, (1,))


@pytest.fixture
def data_dir(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(shared_data.VARIABLE, str(shared_dir / "data"))
    return shared_dir / "data"


def test_orange_juice_is_the_published_protocol(data_dir: Path) -> None:
    panel = evaluation.orange_juice()
    weeks = panel.units[:, 137 - 40 : 157 - 40]

    assert panel.units.shape == (913, 121)
    assert weeks.size == 18_260
    assert (~np.isnan(weeks)).sum() == 17_534
    # Store 2, brand 1, week 40, as the file has it.
    assert panel.units[0, 0] == round(np.exp(9.018695487670564))
    assert panel.price[0, 0] == pytest.approx(0.060469, abs=1e-6)


def test_prices_and_promotions_beat_the_past_alone_on_some_stores(data_dir: Path) -> None:
    results = Results("demand", "", 0)
    evaluation.judge_orange_juice(results, evaluation.orange_juice(stores=4), DriverModel(rounds=60), rounds=2)
    errors = {name: row["MAPE %"] for name, row in results.rows.items() if "MAPE %" in row}

    assert min(errors, key=errors.__getitem__) == "orange juice: prices and promotions"
    assert 0.75 < results.rows["orange juice: its 90% interval"]["coverage"] <= 1


def test_car_parts_are_the_standard_selection(data_dir: Path) -> None:
    parts = evaluation.car_parts()
    assert parts.shape == (1_046, 51)

    errors = {}
    for forecaster in (CROSTON, SBA, TSB, IMAPA):
        ((_, forecast, actual),) = rolling_origin(forecaster, parts, 6, [45])
        errors[forecaster.name] = rmsse(parts[:, :45], actual, forecast.mean)
    # Parts die out: the methods that notice come first.
    assert sorted(errors, key=errors.__getitem__) == ["IMAPA", "TSB", "SBA", "Croston"]


def test_simulated_stock_balances(data_dir: Path) -> None:
    parts = evaluation.car_parts()[:60]
    plenty = evaluation.simulate(parts, lambda history: np.full(len(history), 1e4))
    nothing = evaluation.simulate(parts, lambda history: np.zeros(len(history)))

    assert plenty["fill rate"] == 1
    assert plenty["owed"] == 0
    assert nothing["held"] == 0
    assert nothing["fill rate"] == 0
    # What is ordered for each month's debt arrives two months after: the last two or three months' demand is owed.
    assert nothing["owed"] <= 3 * parts[:, -13:].max(axis=1).mean()
