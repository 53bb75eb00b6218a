"""Open Bandit as a world for a policy: what is learnt, and that little data promotes nothing."""

from pathlib import Path

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.results import Results
from endcap_workers.evaluation.bandit_replay import Standing, Thompson, add_rows, item_probabilities, replay, replayed
from endcap_workers.evaluation.open_bandit import BanditLog


def test_items_that_are_clicked_more_are_shown_more() -> None:
    random = np.random.default_rng(0)
    item = random.integers(10, size=20_000)
    click = (random.random(20_000) < np.where(item == 3, 0.06, 0.03)).astype(float)
    log = BanditLog(item, item * 0, click, np.full(20_000, 0.1), np.zeros((20_000, 1)), np.zeros((10, 4)))
    odds = item_probabilities(log)
    assert odds.sum() == pytest.approx(1)
    assert odds.argmax() == 3
    assert odds.min() >= 0.2 / 10 - 1e-12, "every item is explored"


def test_forty_clicks_promote_nothing(shared_dir: Path) -> None:
    results = Results("policy", "endcap evaluate policy", 0)
    add_rows(results, 0)
    assert len(results.rows) == 3
    assert all("live stays" in note.lower() for note in results.notes)
    for row in results.rows.values():
        assert row["at least"] < row["random earned"]


def world(count: int = 20_000, items: int = 5) -> BanditLog:
    """Item 2 is clicked by a third, the others by a tenth; shown uniformly."""
    random = np.random.default_rng(1)
    item = random.integers(items, size=count)
    click = (random.random(count) < np.where(item == 2, 0.33, 0.1)).astype(float)
    return BanditLog(item, item * 0, click, np.full(count, 1 / items), np.zeros((count, 1)), np.zeros((items, 4)))


def test_a_replay_tells_what_a_policy_earns_while_it_learns() -> None:
    log = world()
    fixed = replay(log, lambda: Standing(np.eye(5)[2]), 1)
    assert np.array_equal(fixed, (log.item == 2).astype(float)), "all of its impressions, and no other"
    uniform = replay(log, lambda: Standing(np.full(5, 0.2)), 5)
    assert uniform.sum() == pytest.approx(len(log) / 5, rel=0.05)
    rate, low, high = replayed(log, uniform)
    assert low < rate < high
    assert rate == pytest.approx(log.click.mean(), abs=0.01)
    learnt = replay(log, lambda: Thompson(5, 0.1), 3)
    later = learnt * (np.arange(len(log)) > len(log) // 2)
    assert replayed(log, learnt)[0] > rate + 0.1
    assert later[log.item == 2].sum() > 0.9 * later.sum(), "it has found the best item"


def test_a_log_that_is_not_uniform_is_refused() -> None:
    log = world(100)
    log.propensity[3] = 0.5
    with pytest.raises(InvalidInput, match="uniform"):
        replay(log, lambda: Standing(np.full(5, 0.2)), 1)
