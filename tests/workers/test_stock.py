"""Stock maths against theory, and against what shops' data really looks like."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from statistics import NormalDist
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap_workers.demand.history import histories
from endcap_workers.demand.stock import StockPolicy, advise, is_smooth, lead_time_demand

SMOOTH = np.array([10.0, 12, 9, 11, 10, 8, 12, 10, 11, 9])
LUMPY = np.array([0.0, 0, 0, 30, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0])

HISTORIES = st.lists(st.integers(0, 60), min_size=4, max_size=40).map(lambda one: np.array(one, dtype=float))
POLICIES = st.builds(
    StockPolicy,
    lead_time=st.floats(0.5, 6),
    lead_time_deviation=st.floats(0, 2),
    review=st.floats(0, 3),
    service_level=st.floats(0.5, 0.995),
    multiple=st.integers(1, 24),
)


def test_smooth_demand_follows_the_formula() -> None:
    policy = StockPolicy(lead_time=4, lead_time_deviation=1.5, service_level=0.95)
    advice = advise(SMOOTH, stock=30, policy=policy)
    mean, deviation = SMOOTH.mean(), SMOOTH.std(ddof=1)
    safety = NormalDist().inv_cdf(0.95) * np.sqrt(4 * deviation**2 + mean**2 * 1.5**2)

    assert advice.method == "normal"
    assert advice.safety_stock == pytest.approx(safety)
    assert advice.reorder_point == pytest.approx(4 * mean + safety)
    # Without a review period and costs, one lead time's demand beyond the reorder point.
    assert advice.order_quantity == np.ceil(advice.reorder_point - 30 + 4 * mean)
    assert advice.days_of_cover == pytest.approx(30 / mean)


def test_periodic_review_protects_lead_time_and_review() -> None:
    both = advise(SMOOTH, 0, StockPolicy(lead_time=2, review=3))
    longer = advise(SMOOTH, 0, StockPolicy(lead_time=5))

    assert both.reorder_point == pytest.approx(longer.reorder_point)


def test_economic_order_quantity() -> None:
    policy = StockPolicy(lead_time=1, order_cost=50, holding_cost=0.2)
    advice = advise(SMOOTH, stock=0, policy=policy)

    lot = np.sqrt(2 * 50 * SMOOTH.mean() / 0.2)
    assert advice.order_quantity == np.ceil(advice.reorder_point + lot)


def test_risk_at_the_reorder_point_is_what_the_service_level_leaves() -> None:
    policy = StockPolicy(lead_time=3, service_level=0.9)
    point = advise(SMOOTH, 0, policy).reorder_point

    assert advise(SMOOTH, point, policy).stockout_risk == pytest.approx(0.1)


def test_lumpy_demand_is_covered_where_the_normal_formula_would_run_out() -> None:
    policy = StockPolicy(lead_time=3, service_level=0.98)
    advice = advise(LUMPY, stock=0, policy=policy)
    normal = 3 * LUMPY.mean() + NormalDist().inv_cdf(0.98) * np.sqrt(3) * LUMPY.std(ddof=1)
    drawn = np.random.default_rng(9).choice(LUMPY, (100_000, 3)).sum(axis=1)

    assert advice.method == "empirical"
    assert (drawn > advice.reorder_point).mean() <= 0.02
    assert advice.reorder_point != pytest.approx(normal, rel=0.02)


@given(HISTORIES, POLICIES, st.floats(-100, 500))
def test_advice_always_makes_sense(history: np.ndarray, policy: StockPolicy, stock: float) -> None:
    advice = advise(history, stock, policy)

    assert 0 <= advice.stockout_risk <= 1
    assert advice.reorder_point >= advice.safety_stock >= 0
    assert advice.order_quantity >= 0
    assert advice.order_quantity % policy.multiple == 0
    assert (advice.days_of_cover is None) == (history.sum() == 0)
    if advice.order_quantity:
        assert stock + advice.order_quantity >= advice.reorder_point - 1e-6


@given(HISTORIES, POLICIES, st.floats(0, 200), st.floats(0, 200))
def test_more_stock_is_never_riskier(history: np.ndarray, policy: StockPolicy, stock: float, more: float) -> None:
    assert advise(history, stock + more, policy).stockout_risk <= advise(history, stock, policy).stockout_risk + 1e-12
    assert (
        advise(history, stock, policy, on_order=more).stockout_risk
        <= advise(history, stock, policy).stockout_risk + 1e-12
    )


@given(HISTORIES, st.floats(0.5, 6), st.floats(0.5, 0.9))
def test_more_service_needs_no_less_stock(history: np.ndarray, lead: float, level: float) -> None:
    low, high = (
        advise(history, 0, StockPolicy(lead, service_level=one)).reorder_point for one in (level, level + 0.09)
    )

    assert high >= low


@given(HISTORIES, st.integers(2, 9))
def test_units_do_not_matter(history: np.ndarray, factor: int) -> None:
    policy = StockPolicy(lead_time=2.5, service_level=0.9)
    one, many = advise(history, 7, policy), advise(factor * history, 7 * factor, policy)

    assert many.reorder_point == pytest.approx(factor * one.reorder_point)
    assert many.stockout_risk == pytest.approx(one.stockout_risk)
    assert many.days_of_cover == (one.days_of_cover and pytest.approx(one.days_of_cover))


def test_a_forecast_replaces_the_historys_mean() -> None:
    policy = StockPolicy(lead_time=3, service_level=0.9)
    for history in (SMOOTH, LUMPY):
        usual, double = advise(history, 0, policy), advise(history, 0, policy, expected=2 * history.mean())
        assert double.reorder_point == pytest.approx(2 * usual.reorder_point)
        assert double.demand == pytest.approx(2 * usual.demand)
        assert advise(history, 5, policy, expected=0).order_quantity == 0
    with pytest.raises(ValueError, match="expected demand"):
        advise(SMOOTH, 0, policy, expected=-1)


def test_lead_time_demand_has_the_historys_mean() -> None:
    policy = StockPolicy(lead_time=2.5, lead_time_deviation=0.5, review=1)
    drawn = lead_time_demand(LUMPY, policy, draws=200_000)

    assert drawn.mean() == pytest.approx(3.5 * LUMPY.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("history", "method"),
    [([], "too little history"), ([3.0], "too little history"), ([0.0] * 12, "normal"), ([np.nan] * 9 + [4], None)],
)
def test_little_or_no_demand(history: list[float], method: str | None) -> None:
    advice = advise(np.array(history), 5, StockPolicy(lead_time=2))

    assert method is None or advice.method == method
    assert np.isfinite([advice.reorder_point, advice.order_quantity, advice.stockout_risk]).all()
    if not sum(history):
        assert advice.order_quantity == 0
        assert advice.days_of_cover is None


def test_stock_below_zero_is_owed_and_ordered() -> None:
    advice = advise(SMOOTH, stock=-20, policy=StockPolicy(lead_time=2, review=1))

    assert advice.order_quantity == np.ceil(advice.reorder_point + 20)
    assert advice.days_of_cover == 0
    assert advice.stockout_risk == 1
    assert "owed to shoppers" in advice.notes[0]
    # Even of a product that nobody buys any more.
    assert advise(np.zeros(12), -3, StockPolicy(lead_time=2)).order_quantity == 3


def test_returns_beyond_sales_are_no_negative_demand() -> None:
    advice = advise(np.array([5.0, -8, 6, 5, 5]), 0, StockPolicy(lead_time=1))

    assert advice.demand == pytest.approx(21 / 5)
    assert "1 periods with more returns than sales" in advice.notes[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lead_time": -1},
        {"lead_time": float("nan")},
        {"lead_time": 0},
        {"lead_time": 1, "service_level": 1.0},
        {"lead_time": 1, "multiple": 0},
        {"lead_time": 1, "order_cost": 0},
        {"lead_time": 1, "period_days": 0},
    ],
)
def test_senseless_policies_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lead time|service level|positive"):
        StockPolicy(**wrong)
    with pytest.raises(ValueError, match="finite numbers"):
        advise(SMOOTH, float("nan"), StockPolicy(lead_time=1))


def test_what_is_smooth() -> None:
    assert is_smooth(SMOOTH)
    assert is_smooth(np.zeros(5))
    assert not is_smooth(LUMPY)
    assert not is_smooth(np.array([1.0, 0, 1, 0, 1, 0]))  # intermittent, though every sale is alike
    assert not is_smooth(np.array([1.0, 1, 1, 1, 40, 1]))  # erratic, though every period sells


DAY = 86_400.0


class TestHistories:
    NOW = datetime(2024, 7, 1, 12, tzinfo=timezone.utc).timestamp()

    def test_sums_sales_per_product_and_week(self) -> None:
        found = histories(
            ["a", "b", "a", "a"], [self.NOW - days * DAY for days in (2, 9, 9, 8)], [1, 5, 2, 4], self.NOW
        )

        assert found.products == ["a", "b"]
        np.testing.assert_array_equal(found.units, [[6, 1], [5, 0]])
        assert found.notes == ()

    def test_a_product_has_no_history_before_its_first_sale_and_zeros_in_gaps(self) -> None:
        found = histories(["old", "new", "new"], [self.NOW - days * DAY for days in (23, 2, 1)], [1, 3, 3], self.NOW)

        np.testing.assert_array_equal(found.units, [[1, 0, 0, 0], [np.nan, np.nan, np.nan, 6]])

    def test_returns_undo_earlier_sales(self) -> None:
        times = [self.NOW - days * DAY for days in (16, 9, 2)]
        found = histories(["a"] * 3, times, [5, 2, -4], self.NOW)

        np.testing.assert_array_equal(found.units, [[3, 0, 0]])

    def test_returns_of_sales_that_nobody_saw_are_told(self) -> None:
        found = histories(["a", "a"], [self.NOW - days * DAY for days in (9, 2)], [2, -7], self.NOW)

        assert (found.units == 0).all()
        assert "1 products with returns" in found.notes[0]

    def test_the_future_today_and_rows_without_a_number_are_left_out(self) -> None:
        times = [self.NOW - 2 * DAY, self.NOW + 40 * DAY, self.NOW - 60, np.nan, self.NOW - 2 * DAY]
        found = histories(["a", "a", "a", "a", None], times, [1, 100, 100, 1, 1], self.NOW)

        np.testing.assert_array_equal(found.units, [[1]])
        assert found.notes == (
            "2 rows without product, time or quantity left out",
            "1 sales dated in the future left out",
        )

    def test_days_are_the_shops_own_through_daylight_saving(self) -> None:
        zone = ZoneInfo("Europe/Berlin")
        # Noon of every local day over both changes of 2024: every day sells one, none is missed or doubled.
        noons = [datetime(2024, 3, 20, 12, tzinfo=zone) + timedelta(days=number) for number in range(250)]
        edges = [noon.replace(hour=hour) for noon in noons for hour in (0, 23)]
        now = (noons[-1] + timedelta(days=1)).timestamp()
        found = histories(
            ["a"] * 500, [edge.timestamp() for edge in edges], [1] * 500, now, 1, "Europe/Berlin", most=400
        )

        np.testing.assert_array_equal(found.units, np.full((1, 250), 2.0))

    def test_nothing_sold(self) -> None:
        assert histories([], [], [], self.NOW).units.shape[0] == 0
        with pytest.raises(ValueError, match="differ in length"):
            histories(["a"], [], [], self.NOW)

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 300), st.integers(-5, 20)), max_size=60))
    def test_never_negative_and_nothing_is_invented(self, sales: list[tuple[int, int, int]]) -> None:
        products = [product for product, _, _ in sales]
        found = histories(products, [self.NOW - DAY * days for _, days, _ in sales], [q for *_, q in sales], self.NOW)

        assert (found.units[~np.isnan(found.units)] >= 0).all()
        kept = sum(quantity for _, days, quantity in sales if days > 0 and quantity > 0)
        assert np.nansum(found.units) <= kept
