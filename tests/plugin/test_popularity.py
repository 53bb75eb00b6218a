"""Popularity: sums that decay, survive a restart and never half-load."""

from pathlib import Path

import numpy as np
import pytest

from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.popularity import Popularity
from endcap.profiles import DAY_S

NOW = 1_750_000_000.0


def counted(**purchases: list[float]) -> Popularity:
    popularity = Popularity(half_life_days=30)
    for product, ages in purchases.items():
        times = NOW - DAY_S * np.array(ages)
        popularity.add(
            np.repeat(product_keys([product]), len(ages)), times, np.full(len(ages), Action.PURCHASE, np.uint8), 7
        )
    return popularity


def test_old_sales_count_in_all_but_hardly_lately() -> None:
    popularity = counted(old=[300.0] * 4, new=[1.0])
    old, new, unknown = popularity.read(product_keys(["old", "new", "never"]), NOW)
    assert (old[0], new[0]) == (4.0, 1.0)
    assert old[1] == pytest.approx(4 * 2**-10, rel=1e-4)
    assert new[1] > 100 * old[1]
    assert not unknown.any()


@pytest.mark.parametrize("days", [0.01, 3.0, 7.0])
def test_a_short_half_life_holds_for_ever(days: float, tmp_path: Path) -> None:
    popularity, again = Popularity(half_life_days=days), Popularity(half_life_days=days)
    key, other, bought = product_keys(["milk"]), product_keys(["tea"]), np.array([Action.PURCHASE], dtype=np.uint8)
    for year in range(0, 60, 5):
        now = NOW + year * 365 * DAY_S
        popularity.add(key, np.array([now - days * DAY_S]), bought)
        popularity.add(other, np.array([now]), bought)
        total, recent, week = popularity.read(key, now)[0].tolist()
        assert total == year / 5 + 1
        assert recent == pytest.approx(0.5, rel=1e-4)
        assert week == pytest.approx(2 ** (-days / 7), rel=1e-4)
        assert np.isfinite(popularity.read(key, NOW - 1_000 * DAY_S)).all()
    popularity.save(tmp_path / "popularity.npz")
    assert again.restore(tmp_path / "popularity.npz", newest=7)
    both = np.concatenate([key, other])
    np.testing.assert_array_equal(popularity.read(both, now), again.read(both, now))


def test_returns_take_back_and_never_go_below_zero() -> None:
    popularity = counted(milk=[1.0])
    key = product_keys(["milk"])
    for _ in range(3):
        popularity.add(key, np.array([NOW]), np.array([Action.RETURN], dtype=np.uint8))
    assert (popularity.read(key, NOW) == 0).all()


def test_reading_an_empty_one() -> None:
    assert (Popularity().read(product_keys(["milk"]), NOW) == 0).all()


def test_a_snapshot_restores_everything(tmp_path: Path) -> None:
    first, second = counted(milk=[1.0, 2.0], tea=[40.0]), Popularity(half_life_days=30)
    first.save(tmp_path / "popularity.npz")
    assert second.restore(tmp_path / "popularity.npz", newest=7)
    keys = product_keys(["tea", "milk"])
    np.testing.assert_array_equal(first.read(keys, NOW), second.read(keys, NOW))
    assert second.sequence == 7
    second.add(product_keys(["new"]), np.array([NOW]), np.array([Action.PURCHASE], dtype=np.uint8))
    assert second.read(product_keys(["new"]), NOW)[0, 0] == 1.0


@pytest.mark.parametrize("damage", ["missing", "half", "other half-life", "other log"])
def test_a_snapshot_that_does_not_fit_is_left_alone(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "popularity.npz"
    counted(milk=[1.0]).save(file)
    if damage == "missing":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    fresh = Popularity(half_life_days=10 if damage == "other half-life" else 30)
    assert not fresh.restore(file, newest=6 if damage == "other log" else 7)
    assert len(fresh) == 0


def test_invented_ids_do_not_grow_it_without_end() -> None:
    popularity = Popularity(most=1_000)
    real = product_keys([f"real {number}" for number in range(300)])
    popularity.add(real, np.full(300, NOW), np.full(300, Action.PURCHASE, dtype=np.uint8))
    for batch in range(20):
        keys = product_keys([f"made up {batch} {number}" for number in range(500)])
        popularity.add(keys, np.full(500, NOW), np.full(500, Action.VIEW, dtype=np.uint8))
    assert len(popularity) <= 1_000
    assert (popularity.read(real, NOW)[:, 0] == 1.0).all(), "what is really bought is remembered"
