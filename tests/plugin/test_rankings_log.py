"""The rankings log: what was shown comes back as it was, once, and never slows a search down."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endcap.features import FEATURES
from endcap.personalizer import Ranking
from endcap.serving_log import ServingLog
from endcap.stores.background import Background
from endcap.stores.database import Database, LogUnavailable
from endcap.stores.rankings import Rankings, Served

NOW = 1_750_000_000.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Rankings]:
    database = Database.in_folder(tmp_path)
    yield Rankings(database)
    database.close()


def served(number: int, **changes: object) -> Served:
    values = {"id": f"{number:032x}", "time": NOW + number, "shopper": "ann", "products": ("a", "b"),
              "engine_positions": (2, 1)}  # fmt: skip
    return Served(**{**values, **changes})  # type: ignore[arg-type]


def test_a_ranking_comes_back_as_it_went_in(log: Rankings) -> None:
    features = np.arange(6, dtype=np.float16).reshape(2, 3)
    sent = served(
        1, query="rote Schuhe 红鞋", session="s", endpoint="hook", index="shop", start=20, candidates=100, scorer="m:3",
        personalized=True, degraded="", arm="blend", propensity=0.25, context={"stock": 3},
        scores=np.array([1.5, np.nan], dtype=np.float32), features=features, feature_names=("x", "y", "z"),
    )  # fmt: skip
    assert log.append([sent]) == 1
    found = log.by_id(sent.id)
    assert found == sent
    assert found.features is not None
    assert found.scores is not None
    np.testing.assert_array_equal(found.features, features)
    np.testing.assert_array_equal(found.scores, [1.5, np.nan])
    assert list(found.positions) == [21, 22]
    assert log.by_id("nothing") is None


def test_each_counts_once_and_they_are_read_in_order(log: Rankings) -> None:
    assert log.append([served(1), served(2)]) == 2
    assert log.append([served(2), served(3)]) == 1
    assert [one.id for one in log.since(0)] == [served(n).id for n in (1, 2, 3)]
    last = log.since(0, limit=1)[0].sequence
    assert [one.id for one in log.since(last)] == [served(n).id for n in (2, 3)]
    assert [one.id for one in log.of_shopper("ann", 1)] == [served(3).id]
    assert (log.count(), log.last_sequence()) == (3, log.since(0)[-1].sequence)


def test_lists_of_features_that_changed_stay_readable(log: Rankings) -> None:
    one = np.ones((2, 1), dtype=np.float16)
    log.append([served(1, features=one, feature_names=("old",)), served(2, features=one, feature_names=("new",))])
    assert [found.feature_names for found in log.since(0)] == [("old",), ("new",)]


def test_what_no_database_takes_is_taken_out(log: Rankings) -> None:
    log.append([served(1, query="a\x00b", shopper="\ud800")])
    assert log.since(0)[0].query == "ab"


def ranking(number: int = 0, count: int = 5) -> Ranking:
    id = hashlib.md5(str(number).encode()).hexdigest()
    scores = np.arange(count, dtype=np.float32)
    features = np.arange(count * len(FEATURES), dtype=np.float32).reshape(count, -1)
    return Ranking(id, np.arange(count)[::-1], True, "model:1", scores=scores, features=features, arm="b",
                   propensity=0.5)  # fmt: skip


def test_the_log_keeps_scores_and_features_of_the_products_shown(log: Rankings) -> None:
    serving = ServingLog(log, share=1.0, feature_share=1.0, clock=lambda: NOW)
    made = ranking()
    # A page over the window's edge: two candidates, one behind them, one that was no candidate at all.
    outcome = serving.shown(made, "ann", ["e", "d", "x", "y"], [4, 3, 5, -1], endpoint="hook", start=10)
    assert outcome == "logged"
    serving.queue.turn()
    (found,) = log.since(0)
    assert found.engine_positions == (5, 4, 6, 0)
    assert (found.arm, found.propensity, found.candidates, found.time) == ("b", 0.5, 5, NOW)
    assert found.scores is not None
    assert found.features is not None
    np.testing.assert_array_equal(found.scores, [4, 3, np.nan, np.nan])
    np.testing.assert_array_equal(found.features[0], made.features[4])  # type: ignore[index]
    assert np.isnan(found.features[2:].astype(float)).all()
    assert found.feature_names == FEATURES


def test_samples_are_of_the_size_asked_for(log: Rankings) -> None:
    serving = ServingLog(log, share=0.5, feature_share=0.5)
    outcomes = [serving.shown(ranking(n), "ann", ["a"], [0], endpoint="hook") for n in range(400)]
    assert 140 < outcomes.count("logged") < 260
    serving.queue.turn()
    with_features = sum(one.features is not None for one in log.since(0))
    assert 0 < with_features < outcomes.count("logged")
    assert ServingLog(log, share=0.0).shown(ranking(), "ann", ["a"], [0], endpoint="hook") == "not_sampled"


def test_a_fault_of_the_log_is_no_fault_of_the_search(log: Rankings) -> None:
    broken = replace(ranking(), features=np.ones((1, 2)), scores=np.ones(1))
    serving = ServingLog(log, feature_share=1.0)
    assert serving.shown(broken, "ann", ["a"], ["no place"], endpoint="hook") == "dropped"  # type: ignore[list-item]


def test_while_the_database_is_away_rankings_wait_and_then_some_are_dropped() -> None:
    stored: list[int] = []
    away = True

    def write(batch: list[int]) -> None:
        if away:
            raise LogUnavailable("away")
        stored.extend(batch)

    queue: Background[int] = Background(write, capacity=10, batch=4)  # type: ignore[arg-type]
    assert [queue.offer(n) for n in range(12)] == [True] * 10 + [False] * 2
    with pytest.raises(LogUnavailable):
        queue.turn()
    assert (len(queue), queue.dropped) == (10, 2)
    away = False
    queue.turn()
    assert stored == list(range(10))
    assert (queue.written, queue.dropped, len(queue)) == (10, 2, 0)


def test_one_bad_batch_does_not_hold_up_those_behind_it() -> None:
    stored: list[int] = []

    def write(batch: list[int]) -> None:
        if 1 in batch:
            raise ValueError("never")
        stored.extend(batch)

    queue: Background[int] = Background(write, batch=2)  # type: ignore[arg-type]
    for n in range(4):
        queue.offer(n)
    with pytest.raises(ValueError, match="never"):
        queue.turn()
    queue.turn()
    assert stored == [2, 3]
    assert queue.dropped == 2
