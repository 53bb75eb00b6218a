"""The index behind the alias: made once, switched without a gap, and never someone else's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from endcap.catalog.product import Product
from endcap.engines.base import Engine, SearchRequest
from endcap.engines.elasticsearch import indices
from endcap.engines.elasticsearch import rebuild as rebuilding
from endcap.errors import (
    ConfigurationError,
    EncoderMismatch,
    EngineError,
    IndexBusy,
    UnknownIndex,
)
from tests.plugin.elasticsearch_support import (
    Make,
    call,
    concrete,
    every_write,
    ids,
    index,
    make,
    no_drain,
    plain,
    unit,
)
from tests.serving import eventually

__all__ = ["index", "make", "no_drain"]


def test_it_is_an_engine(make: Make) -> None:
    assert isinstance(make(), Engine)


def test_the_alias_leads_to_an_index_that_tells_what_it_holds(make: Make, elasticsearch: str, index: str) -> None:
    make().ensure(3, "encoder-1")
    (name,) = concrete(elasticsearch, index)
    assert name != index
    found = call("GET", f"{elasticsearch}/{name}")[name]
    assert list(found["aliases"]) == [index]
    meta = found["mappings"]["_meta"]["endcap"]
    assert (meta["encoder"], meta["dims"], meta["filling"]) == ("encoder-1", 3, False)


def test_processes_that_start_at_once_make_one_index(make: Make, elasticsearch: str, index: str) -> None:
    engines = [make() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda engine: engine.ensure(3, "e"), engines))
    assert len(concrete(elasticsearch, index)) == 1
    engines[0].upsert(plain(Product("1")))
    engines[1].refresh()
    assert [engine.count() for engine in engines] == [1] * 6


def test_the_switch_leaves_no_gap(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(None, "")
    engine.upsert(plain(Product("old", title="honey")))
    engine.refresh()
    seen: list[tuple[str, ...]] = []
    problems: list[Exception] = []
    stop = threading.Event()

    def search_on_and_on() -> None:
        searcher = make()
        while not stop.is_set():
            try:
                seen.append(tuple(ids(searcher, "honey")))
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=search_on_and_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for generation in range(3):
            with engine.rebuild(None, "") as rebuild:
                before = len(seen)
                rebuild.upsert(plain(Product(f"new-{generation}", title="honey")))
                while len(seen) < before + 5 and not problems:
                    stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []
    # Always whole: one generation or another, never none, never two.
    assert set(seen) >= {("old",), ("new-0",), ("new-1",)}
    assert set(seen) <= {("old",), ("new-0",), ("new-1",), ("new-2",)}
    assert len(concrete(elasticsearch, index)) == 1
    assert ids(engine, "honey") == ["new-2"]


def test_a_rebuild_that_fails_leaves_everything_as_it_was(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(3, "e1")
    engine.upsert(plain(Product("kept")))
    engine.refresh()
    before = concrete(elasticsearch, index), engine.version()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        with engine.rebuild(5, "e2") as rebuild:
            assert rebuild.upsert([(Product("lost"), unit(1, 0, 0, 0, 0), "")]).done == 1
            raise ZeroDivisionError
    assert (concrete(elasticsearch, index), engine.version()) == before
    assert engine.get(["kept", "lost"]) == [{"id": "kept"}, None]
    with pytest.raises(EngineError, match="over"):
        rebuild.upsert(plain(Product("late")))


def test_a_rebuild_that_died_holds_the_index_no_longer_than_its_word(
    make: Make, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = make(), make()
    engine.ensure(None, "")
    engine.upsert(plain(Product("kept")))
    died = engine.rebuild(None, "")
    died.__enter__()
    died._over.set()  # type: ignore[attr-defined]  # as if its process were gone: nobody says any more that it goes on
    with pytest.raises(IndexBusy, match="being rebuilt"):
        other.upsert(plain(Product("soon")))
    with pytest.raises(IndexBusy, match="being rebuilt"):
        other.rebuild(None, "").__enter__()
    monkeypatch.setattr(indices, "HOLD_S", -1.0)  # two minutes later
    held = other._indices.serving()
    assert held is not None
    other._indices.go_on_holding(*held)
    with pytest.raises(IndexBusy, match="that died: try again"):
        other.upsert(plain(Product("soon")))
    assert other.upsert(plain(Product("soon"))).done == 1
    other.refresh()
    assert other.get(["kept", "soon"]) == [{"id": "kept"}, {"id": "soon"}]
    with other.rebuild(None, "") as rebuild:
        rebuild.upsert(plain(Product("new")))
    assert other.count() == 1


def test_a_rebuild_that_goes_on_holds_the_index_for_as_long(
    make: Make, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "HOLD_S", 8.0)  # it says so every second
    engine, other = make(), make()
    engine.ensure(None, "")
    with engine.rebuild(None, ""):
        first = other._indices.serving()
        assert first is not None

        def said_again() -> bool:
            now = other._indices.serving()
            return now is not None and now[1].held_until > first[1].held_until

        assert eventually(said_again)
        with pytest.raises(IndexBusy, match="being rebuilt"):
            other.upsert(plain(Product("lost")))


@pytest.mark.parametrize("there_was_one", [True, False])
def test_of_two_rebuilds_at_once_the_second_is_told_and_loses_nothing(
    make: Make, elasticsearch: str, index: str, monkeypatch: pytest.MonkeyPatch, there_was_one: bool
) -> None:
    engine, other = make(), make()
    if there_was_one:
        engine.ensure(None, "")
    monkeypatch.setattr(other._indices, "check_free", lambda meta: None)  # both looked before either said so
    first, second = engine.rebuild(None, ""), other.rebuild(None, "")
    first.__enter__()
    second.__enter__()
    first.upsert(plain(Product("first")))
    second.upsert(plain(Product("second")))
    first.__exit__(None, None, None)
    assert engine.upsert(plain(Product("since"))).done == 1
    with pytest.raises(IndexBusy, match="was done first"):
        second.__exit__(None, None, None)
    assert engine.upsert(plain(Product("later"))).done == 1, "it can still be written"
    engine.refresh()
    assert engine.count() == 3
    assert len(concrete(elasticsearch, index)) == 1


def test_a_rebuild_changes_encoder_and_analyzer(make: Make, index: str) -> None:
    engine = make()
    engine.ensure(3, "e1")
    with engine.rebuild(2, "e2") as rebuild:
        assert rebuild.upsert([(Product("1", title="Kind of Blue"), unit(1, 1), "")]).done == 1
    engine.ensure(2, "e2")
    assert engine.nearest(unit(1, 1), 5).ids == ["1"]
    with pytest.raises(EncoderMismatch, match="e2"):
        make().ensure(3, "e1")
    make().ensure(None, "")  # keyword search works on any
    with make(analyzer="simple").rebuild(None, "") as rebuild:
        rebuild.upsert(plain(Product("1", title="Route66")))
    assert ids(engine, "route") == ["1"]  # `simple` splits at digits, `standard` does not


def test_an_analyzer_that_the_server_lacks_is_named(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="analyzer: the server does not know 'klingon'"):
        make(analyzer="klingon").ensure(None, "")


def test_what_a_dead_rebuild_left_is_swept_and_nothing_else(
    make: Make, elasticsearch: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    engine.ensure(None, "")
    call("PUT", f"{elasticsearch}/{index}-archive", {})  # someone's own, with a name like ours
    monkeypatch.setattr(indices, "HOLD_S", -1.0)  # nobody waits for it
    dead = engine.rebuild(None, "")
    dead.__enter__()
    dead._over.set()  # type: ignore[attr-defined]
    with engine.rebuild(None, ""):
        pass
    assert len(concrete(elasticsearch, index)) == 3  # not old enough: it may still be at work
    monkeypatch.setattr(indices, "ABANDONED_S", -60.0)
    with engine.rebuild(None, ""):
        pass
    left = concrete(elasticsearch, index)
    assert len(left) == 2
    assert f"{index}-archive" in left
    with pytest.raises(EngineError, match="was removed while"):
        dead.__exit__(None, None, None)
    assert concrete(elasticsearch, index) == left


@pytest.mark.parametrize("kind", ["index", "alias", "index of another alias"])
def test_what_others_made_is_never_touched(make: Make, elasticsearch: str, index: str, kind: str) -> None:
    theirs = index if kind == "index" else f"{index}-theirs"
    if kind == "index of another alias":
        other = make(index=theirs)
        other.ensure(None, "")
        theirs = next(name for name in concrete(elasticsearch, theirs))
    else:
        call("PUT", f"{elasticsearch}/{theirs}", {})
    if kind != "index":
        call("POST", f"{elasticsearch}/_aliases", {"actions": [{"add": {"index": theirs, "alias": index}}]})
    call("PUT", f"{elasticsearch}/{theirs}/_doc/1?refresh=true", {"title": "theirs"})
    before = call("GET", f"{elasticsearch}/{theirs}")
    for write in every_write(make()):
        with pytest.raises(ConfigurationError, match="will not be touched"):
            write()
    assert call("GET", f"{elasticsearch}/{theirs}") == before
    assert call("GET", f"{elasticsearch}/{theirs}/_doc/1")["_version"] == 1
    assert call("GET", f"{elasticsearch}/{theirs}/_count")["count"] == 1


def test_an_alias_of_several_indices_is_refused(make: Make, elasticsearch: str, index: str) -> None:
    for name in (f"{index}-a", f"{index}-b"):
        call("PUT", f"{elasticsearch}/{name}", {"aliases": {index: {}}})
    for write in every_write(make()):
        with pytest.raises(ConfigurationError, match="2 indices"):
            write()


def test_without_an_index_nothing_is_made_by_accident(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    assert (engine.count(), engine.version()) == (0, "")
    attempts: list[Callable[[], Any]] = [
        *every_write(engine)[1:4],
        engine.refresh,
        lambda: engine.search(SearchRequest("a")),
        lambda: engine.get(["1"]),
        lambda: engine.digests(["1"]),
        lambda: list(engine.scan()),
        lambda: engine.nearest(unit(1, 0), 1),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownIndex, match="endcap index"):
            attempt()
    assert concrete(elasticsearch, index) == []


def test_an_index_that_vanishes_is_not_made_anew_by_writing(make: Make, elasticsearch: str, index: str) -> None:
    engine = make()
    engine.ensure(None, "")
    call("DELETE", f"{elasticsearch}/{concrete(elasticsearch, index)[0]}")
    with pytest.raises(UnknownIndex):
        engine.upsert(plain(Product("1")))
    assert concrete(elasticsearch, index) == []
