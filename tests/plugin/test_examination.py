"""Position bias: known propensities are found again, and what they correct is not taken in by places."""

import tracemalloc

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.policy.examination import Examination, from_swaps, harvested

PLACES = 8
TRUE = 1 / np.arange(1, PLACES + 1) ** 0.8


def test_swapped_neighbours_reveal_the_propensities() -> None:
    random = np.random.default_rng(0)
    count = 60_000
    upper = random.integers(1, PLACES, count)
    # The better product stands above without a coin: it is the coin that parts place from worth.
    better, worse = random.uniform(0.3, 0.9, count), random.uniform(0.05, 0.3, count)
    coin = random.random(count) < 0.5
    first, second = np.where(coin, better, worse), np.where(coin, worse, better)
    clicks_upper = random.random(count) < TRUE[upper - 1] * first
    clicks_lower = random.random(count) < TRUE[upper] * second
    found = from_swaps(PLACES, upper, clicks_upper, clicks_lower)
    assert np.abs(found.propensity - TRUE).max() < 0.05


def impressions(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two rankers that agree by and large: good products stand high under both, so that click rates alone mislead."""
    random = np.random.default_rng(seed)
    queries = 60
    worth = np.sort(random.uniform(0.02, 0.8, (queries, PLACES)), axis=1)[:, ::-1]
    orders = np.stack([np.argsort(-(worth + random.normal(0, 0.15, worth.shape)), axis=1) for _ in range(3)], axis=1)
    query, ranker = random.integers(queries, size=count), random.integers(3, size=count)
    shown = orders[query, ranker]
    item = (query[:, None] * PLACES + shown).ravel()
    position = np.tile(np.arange(1, PLACES + 1), count)
    attracted = worth[np.repeat(query, PLACES), shown.ravel()]
    clicked = random.random(len(item)) < TRUE[position - 1] * attracted
    return item, position, clicked, worth


def test_the_same_product_at_different_places_reveals_them_too() -> None:
    item, position, clicked, _ = impressions(20_000)
    found = harvested(PLACES, item, position, clicked)
    assert np.abs(found.propensity - TRUE).max() < 0.06
    rates = np.array([clicked[position == place].mean() for place in range(1, PLACES + 1)])
    assert np.abs(rates / rates[0] - TRUE).max() > 0.1, "click rates alone do mislead here"


def test_a_large_log_fits_into_memory() -> None:
    """Of a shop's latest 50,000 pages hundreds of thousands of products stood at two places."""
    random = np.random.default_rng(2)
    item = np.repeat(np.arange(5_000), 2)
    position = random.integers(1, 41, len(item))
    tracemalloc.start()
    harvested(40, item, position, random.random(len(item)) < 0.3 / position)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6, "5,000 of them; a table of all pairs of places for each takes 200 MB"


def test_weighted_clicks_order_products_by_worth_not_by_place() -> None:
    """One product always stands first and one always fourth, the better one."""
    random = np.random.default_rng(3)
    worth, place, count = np.array([0.3, 0.5]), np.array([1, 4]), 20_000
    clicks = random.random((count, 2)) < TRUE[place - 1] * worth
    assert clicks[:, 0].mean() > clicks[:, 1].mean(), "the place wins"
    known = Examination(TRUE, np.full(PLACES, 1e4))
    corrected = clicks.mean(axis=0) * known.weights(place)
    assert corrected == pytest.approx(worth, rel=0.1)


def test_little_data_stays_near_what_is_usual_and_never_rises() -> None:
    found = from_swaps(5, np.array([1, 2]), np.array([0, 1]), np.array([1, 1]))
    assert (np.diff(found.propensity) <= 0).all()
    assert found.propensity[0] == 1
    assert found.of(np.array([1, 5, 99])).tolist() == [1, found.propensity[4], found.propensity[4]]
    assert Examination(np.array([1.0, 0.001]), np.zeros(2)).weights(np.array([2])) == [20.0]


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="two places"):
        harvested(3, np.array([1, 2]), np.array([1, 2]), np.array([1, 0]))
    with pytest.raises(InvalidInput):
        from_swaps(3, np.array([3]), np.array([1]), np.array([0]))
    with pytest.raises(InvalidInput):
        harvested(3, np.array([1]), np.array([1, 2]), np.array([1, 0]))


def _market(correct: bool, explore: float, seed: int) -> float:
    """Rankings by counted clicks over 4,000 searches: the share of clicks that the truly best product gets at the end.
    It starts as a newcomer behind others who have clicks already."""
    random = np.random.default_rng(seed)
    worth = np.array([0.3] * 7 + [0.6])
    known = Examination(TRUE, np.full(PLACES, 1e4))
    clicks, shown = np.array([900.0] * 7 + [0.0]), np.array([3_000.0] * 7 + [1.0])
    late = np.zeros(PLACES)
    for step in range(4_000):
        order = np.argsort(-clicks / (shown if correct else 1.0), kind="stable")
        if random.random() < explore:
            order = random.permutation(PLACES)
        hit = random.random(PLACES) < TRUE * worth[order]
        if correct:
            shown[order] += 1
            clicks[order] += hit * known.weights(np.arange(1, PLACES + 1))
        else:
            clicks[order] += hit
        if step >= 3_000:
            late[order] += hit
    return float(late[-1] / late.sum())


def test_a_popularity_loop_is_broken_by_exploration_and_correction() -> None:
    """Ranking by counted clicks keeps the newcomer down although it is twice as good; a bounded exploration with
    clicks weighted by examination finds it."""
    loop = np.mean([_market(correct=False, explore=0.0, seed=seed) for seed in range(3)])
    broken = np.mean([_market(correct=True, explore=0.05, seed=seed) for seed in range(3)])
    assert broken > 0.4
    assert broken > 3 * loop
