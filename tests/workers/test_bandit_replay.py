"""Open Bandit as a world for a policy: what is learnt, and that little data promotes nothing."""

from pathlib import Path

import numpy as np
import pytest

from endcap.results import Results
from endcap_workers.evaluation.bandit_replay import add_rows, item_probabilities
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
