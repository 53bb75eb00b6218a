"""The products that sell most: who forecasts them is chosen on weeks past, and nothing of later weeks is read."""

from __future__ import annotations

import numpy as np
import pytest

from endcap_workers.demand.driven import Driven, Together, panel_of
from endcap_workers.demand.intermittent import COMBINED, SMOOTHING
from endcap_workers.demand.plan import Drivers, Item, Terms, make_plan
from endcap_workers.demand.top_sellers import choose

WEEKS = 48


def looked_at(products: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units that follow the looks of the week before; their revenue at a steady price; the looks."""
    random = np.random.default_rng(seed)
    looks = random.integers(0, 12, (products, WEEKS)).astype(float)
    before = np.roll(looks, 1, axis=1)
    units = random.poisson(6 + 5 * before).astype(float)
    return units, units * 2.0, looks


def categories(products: int) -> np.ndarray:
    return np.stack([np.arange(products) % 2, np.arange(products) % 4], axis=1)


def test_search_demand_is_used_where_it_tells_what_comes() -> None:
    units, revenue, looks = looked_at()
    driven = Driven(panel_of(units, revenue, looks, categories(40), 1), rounds=60)
    found = choose(units, ["smooth"] * 40, 1, [driven, Together(driven, COMBINED)])
    assert found is not None
    assert found.by.count(driven.name) >= 36
    assert found.rmsse[driven.name] < 0.6 * found.rmsse[COMBINED.name]
    assert found.chosen < 1.1 * found.rmsse[driven.name], "as good on weeks that the choice has not seen"
    assert 0.75 < found.coverage <= 1
    wanted = 6 + 5 * looks[:, -1]
    assert np.mean(np.abs(found.mean[:, 0] - wanted)) < 0.3 * np.mean(np.abs(wanted - wanted.mean()))
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()
    assert (found.low >= 0).all()


def test_nothing_later_is_read() -> None:
    units, revenue, looks = looked_at(25)
    origin = 40
    others = [one.copy() for one in (units, revenue, looks)]
    for one in others:
        one[:, origin:] = np.random.default_rng(1).integers(0, 500, (25, WEEKS - origin))
    made = [
        Driven(panel_of(*one, categories(25), 4), rounds=20).forecast(units[:, :origin], 4).mean  # type: ignore[arg-type]
        for one in ((units, revenue, looks), others)
    ]
    np.testing.assert_array_equal(*made)
    with pytest.raises(ValueError, match="25 products"):
        Driven(panel_of(units, revenue, looks, categories(25), 4)).forecast(units[:3], 4)


def test_each_class_and_product_gets_its_best_and_growth_gets_autoets() -> None:
    random = np.random.default_rng(0)
    flat = random.poisson(30, (12, WEEKS)).astype(float)
    growing = np.round(40 * 1.04 ** np.arange(WEEKS) * random.normal(1, 0.02, (6, WEEKS)))
    found = choose(np.concatenate([flat, growing]), ["erratic"] * 12 + ["smooth"] * 6, 4)
    assert found is not None
    assert set(found.by[12:]) == {"AutoETS"}
    assert "AutoETS" not in found.by[:12]
    expected = 40 * 1.04 ** np.arange(WEEKS, WEEKS + 4)
    np.testing.assert_allclose(found.mean[12:].mean(axis=0), expected, rtol=0.1)
    np.testing.assert_allclose(found.mean[:12].mean(), 30, rtol=0.1)


def test_gaps_new_and_dead_products_are_borne() -> None:
    units, revenue, looks = looked_at(24)
    units[0, :40] = np.nan
    units[1, 10:] = 0.0
    units[2] = 7.0
    units[3, 20:24] = np.nan
    revenue[4] = 0.0
    looks[:, :30] = 0.0
    driven = Driven(panel_of(units, revenue, looks, categories(24), 4), rounds=10)
    found = choose(units, ["smooth"] * 24, 4, [driven])
    assert found is not None
    for one in (found.mean, found.low, found.high):
        assert np.isfinite(one).all()
        assert (one >= 0).all()
    assert found.mean[2] == pytest.approx(7.0, rel=0.3)
    assert choose(units[:, :30], ["smooth"] * 24, 4) is None, "too short to tell"
    assert choose(units[:0], [], 4) is None


def test_the_plan_says_who_forecast_what() -> None:
    units, revenue, looks = looked_at(30)
    units = np.concatenate([units, np.full((2, WEEKS), np.nan)])
    units[31, -3:] = 900.0  # sells most, but nobody knows it yet
    more = np.zeros((2, WEEKS))
    drivers = Drivers(np.concatenate([revenue, more]), np.concatenate([looks, more]), most=25)
    items = [Item(str(n), category=("Food", f"Kind {n % 3}"), stock=5.0) for n in range(32)]
    plan = make_plan(units, items, Terms(), drivers=drivers)
    row = plan.backtests[-1]
    assert (row.name, row.products) == ("top sellers", 25)
    assert row.rmsse["each by its best, unseen weeks"] <= 1.1 * min(row.rmsse.values())
    assert plan.by[31] == SMOOTHING.name
    assert sum(int(part.rsplit(" ", 1)[1]) for part in row.chosen.split(", ")) == 25
    plain = make_plan(units, items, Terms(), drivers=Drivers(drivers.revenue, drivers.looks, most=0))
    assert all(one.name != "top sellers" for one in plain.backtests)
