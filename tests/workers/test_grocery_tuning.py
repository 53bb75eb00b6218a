"""Training the last blocks of the packaged network, over a few drawn pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from endcap_workers.evaluation.grocery_tuning import Tuned, Tuning, Views, augmented, open_network
from tests.photo_support import drawn

KINDS = ("ball", "grid", "box")
SMALL = Tuning(side=64, views=2, epochs=5, batch=8, rate=1e-3, head_rate=1e-2, mixup=0.1)


def test_it_learns_kinds_and_leaves_the_first_blocks_alone(tmp_path: Path) -> None:
    network = open_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    views = Views(network, SMALL, tmp_path)
    shown = [partial(drawn, kind, (60 + 4 * n, 80)) for n in range(6) for kind in KINDS]
    kinds = np.arange(len(shown)) % len(KINDS)
    crops = views.crops(shown, 0)
    assert crops.dtype == np.float16
    assert crops.shape[:2] == (2, len(shown))
    assert not np.array_equal(crops[0], crops[1])
    tuned = Tuned(network, SMALL, len(KINDS), 0)
    tuned.train(crops, kinds)
    new = views.looked([partial(drawn, kind, (100, 90 + n)) for n in range(4) for kind in KINDS])
    scores = tuned.scores(new)
    assert scores.shape == (12, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-4)
    assert (scores.argmax(axis=1) == np.arange(12) % 3).mean() > 0.9
    after = network.state_dict()
    changed = {
        name.split(".")[1] for name in before if name.startswith("_blocks") and not before[name].equal(after[name])
    }
    assert changed
    assert min(map(int, changed)) >= SMALL.frozen
    assert all(before[name].equal(after[name]) for name in before if "running" in name), "statistics stay"


@pytest.mark.parametrize("size", [(300, 200), (64, 900), (9, 9)])
def test_any_picture_can_be_cut(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels = augmented(drawn("ball", size), 32, rng)
        assert pixels.shape == (3, 32, 32)
        assert pixels.dtype == np.float32
        assert np.abs(pixels).max() <= 1.0
