"""A version beside the live one: what is compared, and that nobody notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from endcap.features import RankingInputs
from endcap.registry import INTEREST, Registry
from endcap.shadow import ShadowScoring, agreement, kendall
from endcap.stores.database import Database
from tests.serving import ENCODER, in_process, make_bundle, searches


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Version 1 is live, 2 is another model, 3 the same as 1."""
    database = Database.in_folder(tmp_path)
    made = Registry(database, tmp_path / "models")
    for version, seed in ((1, 5), (2, 6), (3, 5)):
        made.add_candidate(INTEREST, str(version), make_bundle(tmp_path / "models", version, seed))
    made.promote(INTEREST, "1", force=True)
    yield made
    database.close()


@pytest.fixture
def scoring(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> ShadowScoring:
    monkeypatch.setattr("endcap.shadow._WRITE_S", 0.0)
    monkeypatch.setattr("endcap.shadow._LOOK_S", 0.0)
    return ShadowScoring(registry, 1.0, ENCODER)


def offered(scoring: ShadowScoring, registry: Registry, inputs: list[RankingInputs]) -> None:
    live = in_process(registry.models / "interest-1")
    for one in inputs:
        scoring.offer(one, live.score(one), 0.002)
    for _ in range(1 + len(inputs) // 16):
        scoring.turn()


def test_the_same_model_agrees_with_itself_and_another_does_not(registry: Registry, scoring: ShadowScoring) -> None:
    registry.shadow(INTEREST, "3")
    scoring.turn()
    offered(scoring, registry, searches(30))
    same = registry.get(INTEREST, "3").shadow
    assert same is not None
    assert (same["searches"], same["errors"]) == (30, 0)
    assert (same["rank_correlation"], same["agreement@10"]) == (pytest.approx(1.0, abs=1e-6), pytest.approx(1.0))
    assert same["live_latency_ms"] == pytest.approx(2.0)
    assert same["latency_ms"] > 0

    registry.shadow(INTEREST, "2")
    scoring.turn()
    offered(scoring, registry, searches(30))
    other = registry.get(INTEREST, "2").shadow
    assert other is not None
    assert other["rank_correlation"] < 0.6
    assert registry.get(INTEREST, "3").state == "candidate"


def test_without_a_shadow_nothing_is_kept(registry: Registry, scoring: ShadowScoring) -> None:
    scoring.turn()
    offered(scoring, registry, searches(3))
    assert not scoring._waiting
    registry.shadow(INTEREST, "2")
    scoring.turn()
    offered(scoring, registry, searches(2))
    registry.promote(INTEREST, "2", force=True)
    scoring.turn()
    scoring.offer(searches(1)[0], np.zeros(1, dtype=np.float32), 0.0)
    assert not scoring._waiting, "a version that went live is still a shadow"


def test_a_flood_does_not_pile_up(registry: Registry, scoring: ShadowScoring) -> None:
    registry.shadow(INTEREST, "2")
    scoring.turn()
    live, asked = in_process(registry.models / "interest-1"), searches(4)
    for number in range(500):
        scoring.offer(asked[number % 4], live.score(asked[number % 4]), 0.001)
    assert len(scoring._waiting) <= 64


def test_what_the_live_model_keeps_and_sees_stays_its_own(registry: Registry, scoring: ShadowScoring) -> None:
    registry.shadow(INTEREST, "2")
    scoring.turn()
    [asked] = searches(1, seed=3)
    live = in_process(registry.models / "interest-1")
    before = live.score(asked)
    cached, features = dict(asked.profile.cache), asked.features.copy()
    scoring.offer(asked, before, 0.001)
    scoring.turn()
    assert asked.profile.cache == cached
    assert np.array_equal(asked.features, features)
    assert np.array_equal(live.score(asked), before)


def test_the_rank_correlation_is_kendall_s_tau_b() -> None:
    draw = np.random.default_rng(4)
    for size in (2, 7, 100):
        a, b = draw.integers(0, 20, size).astype(np.float32), draw.normal(size=size).astype(np.float32)
        expected = kendalltau(a, b).statistic
        assert kendall(a, b) == pytest.approx(1.0 if np.isnan(expected) else expected)
    assert kendall(np.ones(5), draw.normal(size=5)) == 1.0
    assert agreement(np.array([3.0, 2.0, 1.0, 0.0]), np.array([3.0, 0.0, 1.0, 2.0]), 2) == 0.5
    assert agreement(np.empty(0), np.empty(0), 10) == 1.0
