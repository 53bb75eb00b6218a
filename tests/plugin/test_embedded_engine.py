"""What is particular to the embedded engine: it survives kill -9, one process writes while many read."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tantivy

from endcap.catalog.product import Product
from endcap.engines import SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.engines.embedded.snapshot import panics_reported
from endcap.errors import EngineError
from tests.plugin.embedded_child import DIMS, PER_ROUND, vector_of

CHILD = Path(__file__).with_name("embedded_child.py")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    made = EmbeddedEngine(tmp_path, "products", lock_timeout_s=0.1)
    made.ensure(DIMS, "encoder")
    yield made
    made.close()


def again(folder: Path) -> EmbeddedEngine:
    return EmbeddedEngine(folder, "products", lock_timeout_s=0.1)


def generations(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "engine" / "products").glob("g*"))


@contextmanager
def child(folder: Path, doing: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, str(CHILD), str(folder), doing], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()  # SIGKILL: no handler, no flush, no goodbye
        process.wait()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- killed ------------------------------------------------------------------------------------------------------


def test_what_was_refreshed_survives_kill_9_and_nothing_is_half_there(tmp_path: Path) -> None:
    chance = random.Random(5)
    for _ in range(4):
        with child(tmp_path, "rounds") as process:
            last = int(said(process))
            for _ in range(chance.randrange(3)):
                last = int(said(process))
            time.sleep(chance.random() * 0.05)
        engine = again(tmp_path)
        (counter,) = engine.get(["counter"])
        assert counter is not None
        rounds = int(counter["price"])
        assert rounds >= last
        assert engine.count() == 1 + (rounds + 1) * (PER_ROUND - 1)
        assert engine.get([f"r{rounds}-0"]) == [{"id": f"r{rounds}-0", "title": f"Round {rounds}", "stock": rounds}]
        assert engine.get([f"r{rounds}-1", f"r{rounds + 1}-0"]) == [None, None]
        found = engine.nearest(vector_of(rounds), PER_ROUND)
        assert set(found.ids) == {"counter", *(f"r{rounds}-{n}" for n in range(PER_ROUND) if n != 1)}
        assert engine.search(SearchRequest(f"round {rounds}", size=0)).total == PER_ROUND - 1


def test_a_commit_killed_before_its_last_step_is_done_again(tmp_path: Path) -> None:
    """All its files are there, but what the index consists of is still the list of the commit before."""

    def changed() -> int:
        with closing(again(tmp_path)) as engine:
            engine.delete(["p3"])
            engine.upsert([(Product("p5", "New"), vector_of(5), "d")])
            engine.refresh()
            return engine.count()

    with closing(again(tmp_path)) as engine:
        engine.ensure(DIMS, "encoder")
        engine.upsert((Product(f"p{n}", "Old"), vector_of(n), "d") for n in range(9))
        engine.refresh()
    (meta,) = (tmp_path / "engine").rglob("meta.json")
    before = meta.read_bytes()
    assert changed() == 8
    left = set(meta.parent.glob("*.del"))
    meta.write_bytes(before)
    assert changed() == 8
    assert left == set(meta.parent.glob("*.del")), "the same changes have the same names"


def test_a_rebuild_killed_on_the_way_leaves_the_old_index_and_its_rest_is_swept_up(
    tmp_path: Path, engine: EmbeddedEngine
) -> None:
    engine.upsert([(Product("old", "Old"), vector_of(1), "d")])
    engine.refresh()
    with child(tmp_path, "rebuild") as process:
        assert said(process) == "filled"
        assert engine.get(["old"]) == [{"id": "old", "title": "Old"}]
        with pytest.raises(EngineError, match="written by another process") as caught:
            engine.upsert([(Product("more"), None, "")])
        assert caught.value.status == 409
    assert len(generations(tmp_path)) == 2
    assert again(tmp_path).count() == 1
    engine.upsert([(Product("more", "More"), None, "")])
    engine.refresh()
    assert engine.count() == 2
    assert len(generations(tmp_path)) == 1


def test_one_process_writes_at_a_time_and_a_killed_one_lets_go(tmp_path: Path, engine: EmbeddedEngine) -> None:
    with child(tmp_path, "hold") as process:
        assert said(process) == "holding"
        for write in (
            lambda: engine.upsert([(Product("a"), None, "")]),
            lambda: engine.delete(["a"]),
            lambda: engine.rebuild(DIMS, "encoder").__enter__(),
        ):
            with pytest.raises(EngineError, match="try again"):
                write()
        assert engine.count() == 0
    engine.upsert([(Product("a"), None, "")])
    engine.refresh()
    assert engine.get(["a", "uncommitted"]) == [{"id": "a"}, None]


def test_files_of_an_unfinished_commit_do_no_harm(tmp_path: Path, engine: EmbeddedEngine) -> None:
    engine.upsert([(Product("a", "Anchor"), vector_of(1), "d")])
    engine.refresh()
    engine.close()
    folder = tmp_path / "engine" / "products"
    generation = folder / generations(tmp_path)[0]
    for torn in (folder / "current.tmp", generation / ".tmpabc", generation / "0123456789abcdef0123456789abcdef.store"):
        torn.write_bytes(b"\x00half")
    opened = again(tmp_path)
    assert opened.search(SearchRequest("anchor")).total == 1
    opened.upsert([(Product("b"), None, "")])
    opened.refresh()
    assert opened.count() == 2


def test_an_index_that_cannot_be_read_says_what_to_do_and_can_be_rebuilt(
    tmp_path: Path, engine: EmbeddedEngine
) -> None:
    engine.upsert([(Product("a", "Anchor"), vector_of(1), "d")])
    engine.refresh()
    generation = tmp_path / "engine" / "products" / generations(tmp_path)[0]
    for segment in generation.glob("*.store"):
        segment.write_bytes(b"gone")
    opened = again(tmp_path)
    with pytest.raises(EngineError, match="rebuild"):
        opened.count()
    with opened.rebuild(DIMS, "encoder") as new:
        new.upsert([(Product("b", "Better"), None, "")])
    assert opened.count() == 1


def test_an_index_of_another_format_says_what_to_do(tmp_path: Path, engine: EmbeddedEngine) -> None:
    engine.close()
    manifest = tmp_path / "engine" / "products" / generations(tmp_path)[0] / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(EngineError, match="format 99"):
        again(tmp_path).count()


# --- opened again, several at once --------------------------------------------------------------------------------


def test_everything_is_there_after_opening_again(tmp_path: Path, engine: EmbeddedEngine) -> None:
    products = [Product(f"p{n}", f"Product {n}", price=float(n)) for n in range(300)]
    for at in range(0, 300, 100):  # several segments
        engine.upsert([(one, vector_of(int(one.id[1:])), one.id) for one in products[at : at + 100]])
        engine.refresh()
    engine.delete(["p7"])
    engine.refresh()
    opened = again(tmp_path)
    assert opened.version() == engine.version()
    for request in (SearchRequest("product", size=300), SearchRequest("", sort="price:desc", size=300)):
        assert opened.search(request) == engine.search(request)
    one, two = opened.nearest(vector_of(9), 50), engine.nearest(vector_of(9), 50)
    assert one.ids == two.ids
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
    assert opened.digests(["p3", "p7"]) == ["p3", None]


def test_closing_keeps_what_was_written(tmp_path: Path, engine: EmbeddedEngine) -> None:
    engine.upsert([(Product("a"), None, "")])
    engine.close()
    assert again(tmp_path).count() == 1
    assert engine.count() == 1


def test_engines_take_turns_at_writing(tmp_path: Path, engine: EmbeddedEngine) -> None:
    other = again(tmp_path)
    for turn in range(3):
        for writer in (engine, other):
            writer.upsert([(Product(f"{turn}-{id(writer)}"), vector_of(turn), "")])
            writer.update([(f"{turn}-{id(writer)}", {"price": 1.0})])
            writer.refresh()
            assert engine.count() == other.count()
    # The last written goes away, another takes its place: readers must not mistake one for the other.
    engine.upsert([(Product("gone", "Gone"), vector_of(70), "")])
    engine.refresh()
    assert other.nearest(vector_of(70), 1).ids == ["gone"]
    engine.delete(["gone"])
    engine.refresh()
    other.upsert([(Product("came", "Came"), vector_of(71), "")])
    other.refresh()
    assert engine.nearest(vector_of(71), 1).ids == ["came"]
    assert "gone" not in engine.nearest(vector_of(70), 100).ids


def test_what_is_not_refreshed_is_not_seen(tmp_path: Path, engine: EmbeddedEngine) -> None:
    before = engine.version()
    engine.upsert([(Product("a", "Anchor"), vector_of(1), "")])
    for one in (engine, again(tmp_path)):
        assert one.version() == before
        assert one.count() == 0
        assert one.get(["a"]) == [None]
    engine.refresh()
    assert engine.get(["a"]) == [{"id": "a", "title": "Anchor"}]


def test_readers_of_another_engine_live_through_rebuilds(tmp_path: Path, engine: EmbeddedEngine) -> None:
    engine.upsert([(Product(f"p{n}", "Lamp"), vector_of(n), "") for n in range(50)])
    engine.refresh()
    other, stop, errors = again(tmp_path), threading.Event(), []

    def read() -> None:
        try:
            while not stop.is_set():
                assert other.search(SearchRequest("lamp", size=100)).total == 50
                assert len(other.nearest(vector_of(3), 50).ids) == 50
                assert sum(len(batch) for batch in other.scan()) == 50
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for one in readers:
        one.start()
    for _ in range(6):
        with engine.rebuild(DIMS, "encoder") as new:
            new.upsert([(Product(f"p{n}", "Lamp"), vector_of(n), "") for n in range(50)])
        assert len(generations(tmp_path)) == 1
    stop.set()
    for one in readers:
        one.join()
    assert errors == []


def test_changes_are_refused_while_this_process_rebuilds(engine: EmbeddedEngine) -> None:
    with engine.rebuild(DIMS, "encoder") as new:
        new.upsert([(Product("a"), None, "")])
        for write in (lambda: engine.upsert([(Product("b"), None, "")]), lambda: engine.rebuild(None, "").__enter__()):
            with pytest.raises(EngineError, match="being rebuilt") as caught:
                write()
            assert caught.value.status == 409
    engine.upsert([(Product("b"), None, "")])
    engine.refresh()
    assert engine.count() == 2


def test_many_changes_are_committed_on_the_way(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endcap.engines.embedded.engine._MAX_PENDING", 100)
    engine.upsert([(Product(f"p{n}", "Lamp"), None, "") for n in range(2500)])
    assert engine.update([("p0", {"price": 1.0}), ("p2499", {"price": 2.0})]).errors == []
    engine.refresh()
    assert engine.count() == 2500
    assert engine.get(["p0", "p2499"]) == [
        {"id": "p0", "title": "Lamp", "price": 1.0},
        {"id": "p2499", "title": "Lamp", "price": 2.0},
    ]


def test_an_error_half_way_through_a_stream_keeps_the_index_usable(engine: EmbeddedEngine) -> None:
    def broken() -> Iterator[tuple[Product, None, str]]:
        yield Product("a"), None, ""
        raise OSError("the file ended")

    with pytest.raises(OSError, match="the file ended"):
        engine.upsert(broken())
    engine.upsert([(Product("b"), None, "")])
    engine.refresh()
    assert engine.get(["b"]) == [{"id": "b"}]


def test_rows_of_deleted_products_are_given_back(engine: EmbeddedEngine) -> None:
    engine.upsert([(Product(f"p{n}", "Lamp"), vector_of(n), "") for n in range(3000)])
    engine.refresh()
    for _ in range(4):
        engine.update([(f"p{n}", {"price": 1.0}) for n in range(3000)])
        engine.refresh()
    snapshot = engine.snapshot()
    assert snapshot.count == 3000
    assert len(snapshot.seqs) <= 3000 + 1000 + 3000
    assert engine.nearest(vector_of(17), 1).ids == ["p17"]
    assert len(set(engine.nearest(vector_of(17), 5000).ids)) == 3000


def test_the_folder_goes_away_under_a_reader(tmp_path: Path, engine: EmbeddedEngine) -> None:
    engine.upsert([(Product("a"), None, "")])
    engine.refresh()
    shutil.rmtree(tmp_path / "engine")
    assert engine.count() == 0


def test_a_breakdown_inside_the_library_is_an_error_that_a_server_can_answer(engine: EmbeddedEngine) -> None:
    snapshot = engine.snapshot()
    with pytest.raises(EngineError, match="broke down"), panics_reported():
        snapshot.searcher.search(tantivy.Query.all_query(), limit=0)  # which tantivy panics over
    with pytest.raises(KeyboardInterrupt), panics_reported():
        raise KeyboardInterrupt
