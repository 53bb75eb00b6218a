"""The parts put together: what one process learns, and how it recovers from faults."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import Product
from endcap.catalog.product import product_keys
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import ConfigurationError
from endcap.events import Action, Event
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings, load_settings
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from tests.serving import eventually


def purchase(number: int, product: str, shopper: str = "ann") -> Event:
    return Event(f"e{number}", time.time(), shopper, Action.PURCHASE, product)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    quick = {"tail_interval_s": 0.02, "product_refresh_s": 0.05}
    return load_settings(data_dir=tmp_path, text_encoder="none", deadline_ms=60_000, **quick)


@pytest.fixture
def filled(settings: Settings) -> Settings:
    engine = EmbeddedEngine(settings.data_dir, settings.index)
    engine.ensure(None, "none")
    engine.upsert([(Product(f"p{number}", "Honey", price=1.0), None, "") for number in range(5)])
    engine.refresh()
    engine.close()
    return settings


@pytest.fixture
def runtime(filled: Settings) -> Iterator[Runtime]:
    opened = open_runtime(filled)
    assert opened.upkeep.wait_ready(120.0)
    yield opened
    opened.close()


def recent(runtime: Runtime, product: str) -> float:
    return float(runtime.popularity.read(product_keys([product]), time.time())[0, 1])


@pytest.mark.parametrize(
    "wrong", [{"database_url": "no url"}, {"database_url": "oracle+nothing://x/y"}, {"data_dir": "file/below"}]
)
def test_places_that_cannot_be_used_are_named(tmp_path: Path, wrong: dict[str, str]) -> None:
    (tmp_path / "file").touch()
    given = {"data_dir": tmp_path, "text_encoder": "none", **wrong}
    (name,) = wrong
    if name == "data_dir":
        given["data_dir"] = tmp_path / wrong[name]
    with pytest.raises(ConfigurationError, match=name):
        open_runtime(Settings(**given), start=False)


def test_a_recorded_purchase_changes_the_next_ranking_and_soon_the_popularity(runtime: Runtime) -> None:
    ids, scores = [f"p{number}" for number in range(5)], np.ones(5, dtype=np.float32)
    assert runtime.record([purchase(1, "p3"), purchase(1, "p3")]) == [True, False]
    assert runtime.personalizer.rank("ann", "honey", ids, scores).order[0] == 3
    assert eventually(lambda: recent(runtime, "p3") > 0.99)
    assert recent(runtime, "p3") < 1.01, "counted once, however often it was sent"


def test_events_of_other_processes_arrive(runtime: Runtime) -> None:
    runtime.profiles.get("ann")
    other = EventLog(Database.in_folder(runtime.settings.data_dir))
    other.append([purchase(7, "p2")])
    assert eventually(lambda: bool(runtime.profiles.get("ann")))
    assert eventually(lambda: recent(runtime, "p2") > 0)


def test_popularity_survives_a_restart_without_counting_twice(filled: Settings) -> None:
    first = open_runtime(filled)
    first.record([purchase(number, "p1") for number in range(10)])
    assert eventually(lambda: recent(first, "p1") > 9.9)
    first.close()
    counted = (filled.data_dir / "popularity.npz").read_bytes()
    open_runtime(filled, start=False).close()  # as a training does
    assert (filled.data_dir / "popularity.npz").read_bytes() == counted
    EventLog(Database.in_folder(filled.data_dir)).append([purchase(99, "p1")])
    second = open_runtime(filled)
    try:
        assert second.upkeep.wait_ready(120.0)
        assert recent(second, "p1") == pytest.approx(11.0, abs=0.01)
    finally:
        second.close()


def test_a_lost_event_log_does_not_leave_the_old_counts(filled: Settings) -> None:
    first = open_runtime(filled)
    first.record([purchase(number, "p1") for number in range(10)])
    assert eventually(lambda: recent(first, "p1") > 9.9)
    first.close()
    for file in filled.data_dir.glob("endcap.sqlite*"):
        file.unlink()
    second = open_runtime(filled)
    try:
        assert second.upkeep.wait_ready(120.0)
        assert recent(second, "p1") == 0.0
    finally:
        second.close()


def test_new_products_are_known_without_a_restart(runtime: Runtime) -> None:
    other = EmbeddedEngine(runtime.settings.data_dir, runtime.settings.index)
    other.upsert([(Product("new", "Jam", brand="B"), None, "")])
    other.refresh()
    other.close()

    def known() -> bool:
        table = runtime.personalizer.table
        return table is not None and table.rows(["new"])[0] >= 0

    assert eventually(known)


def test_an_empty_shop_is_ready_too(settings: Settings) -> None:
    runtime = open_runtime(settings)
    try:
        assert runtime.upkeep.wait_ready(120.0)
        assert runtime.personalizer.rank("ann", "x", ["a", "b"], np.ones(2, np.float32)).degraded == ""
    finally:
        runtime.close()


def test_an_engine_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    settings = load_settings(
        data_dir=tmp_path,
        text_encoder="none",
        engine_url="http://127.0.0.1:9",
        engine_timeout_s=0.5,
        product_refresh_s=0.05,
    )
    runtime = open_runtime(settings)
    try:
        assert eventually(lambda: "products" in runtime.upkeep.problems)
        assert not runtime.upkeep.ready
        ranking = runtime.personalizer.rank("ann", "x", ["a", "b"], np.ones(2, np.float32))
        assert (ranking.degraded, ranking.order.tolist()) == ("warming_up", [0, 1])
    finally:
        runtime.close()
