"""What the event log promises on every database: each event once, durable, in order, readable as columns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from endcap.catalog.product import product_key
from endcap.events import Action, Event
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from tests.services.postgres import empty


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'endcap.sqlite'}"
        return
    server: str = request.getfixturevalue("postgres")
    empty(server)
    yield server
    empty(server)


@pytest.fixture
def logs(url: str) -> Iterator[list[EventLog]]:
    """Two logs over one database, as two processes would have them."""
    opened = [EventLog(Database(url)), EventLog(Database(url))]
    yield opened
    for log in opened:
        log.close()


@pytest.fixture
def log(logs: list[EventLog]) -> EventLog:
    return logs[0]


def event(number: int, shopper: str = "ann", **changes: object) -> Event:
    return Event(id=f"e{number}", time=1_750_000_000.0 + number, shopper=shopper, action=Action.CLICK,
                 product=f"p{number}", **changes)  # type: ignore[arg-type]  # fmt: skip


def test_an_event_counts_once_within_a_batch_between_batches_and_between_processes(logs: list[EventLog]) -> None:
    assert logs[0].append([event(1), event(2), event(1)]) == [True, True, False]
    assert logs[1].append([event(2), event(3)]) == [False, True]
    assert logs[0].append([]) == []
    assert logs[0].count() == 3


def test_events_come_back_as_they_went_in(log: EventLog) -> None:
    sent = event(1, query="rote Schuhe 红鞋", position=3, value=9.5, attributes={"device": "phone"})
    log.append([sent])
    assert log.history("ann") == [sent]


def test_columns_follow_the_order_of_arrival(log: EventLog) -> None:
    assert log.append_numbered([event(3), event(1, shopper="bob"), event(2)]) == ([True] * 3, log.last_sequence())
    everything = log.since(0)
    first = int(everything.sequence[0])
    assert everything.sequence.tolist() == sorted(everything.sequence.tolist())
    assert everything.shoppers == ["ann", "bob", "ann"]
    assert everything.keys.tolist() == [product_key("p3"), product_key("p1"), product_key("p2")]
    assert log.since(first + 1).sequence.tolist() == [first + 2]
    assert log.since(first + 2).keys.dtype.name == "uint64"
    assert log.of_shopper("ann").times.tolist() == [1_750_000_003.0, 1_750_000_002.0]
    assert log.of_shopper("ann", limit=1).sequence.tolist() == [first + 2]
    assert len(log.of_shopper("nobody")) == 0


def test_events_of_several_ids_come_in_the_order_of_arrival(log: EventLog) -> None:
    log.append([event(number, shopper=f"s{number % 3}") for number in range(9)])
    joined = log.of_shopper("s0", also=["s1"])
    assert joined.shoppers == ["s0", "s1"] * 3
    assert log.of_shopper("s0", also=["s1"], limit=2).sequence.tolist() == joined.sequence[-2:].tolist()
    assert log.of_shopper("s0", after=int(joined.sequence[3]), also=["s1"]).shoppers == ["s0", "s1"]
    assert [one.id for one in log.history("s0", also=["s1"])] == ["e7", "e6", "e4", "e3", "e1", "e0"]


def test_a_large_batch_and_a_long_stream(log: EventLog) -> None:
    assert all(log.append([event(number) for number in range(2_500)]))
    assert list(log.append_many((event(number) for number in range(2_000, 4_000)), batch=800)) == [300, 800, 400]


def test_replayed_out_of_order_and_by_many_at_once_each_event_counts_once(logs: list[EventLog]) -> None:
    batches = [[event(number) for number in range(start, start + 50)] for start in range(0, 200, 25)]
    stored: list[int] = []

    def replay(turn: int) -> None:
        mine = batches[turn:] + batches[:turn]
        stored.append(sum(sum(logs[turn % 2].append(batch[:: 1 - 2 * (turn % 2)])) for batch in mine))

    threads = [threading.Thread(target=replay, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(stored) == logs[0].count() == 225


def test_a_reader_that_follows_the_log_misses_nothing(logs: list[EventLog]) -> None:
    """PostgreSQL gives numbers out before they are committed: without care a later one can be seen first."""
    seen: list[int] = []
    done = threading.Event()

    def write(log: EventLog, start: int) -> None:
        for number in range(start, start + 100):
            log.append([event(number, f"shopper {start}")])

    def follow() -> None:
        last = 0
        while True:
            finished = done.is_set()
            found = logs[0].since(last)
            seen.extend(found.sequence.tolist())
            last = seen[-1] if seen else 0
            if finished and not len(found):
                return

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(logs[turn % 2], 1_000 * (turn + 1))) for turn in range(4)]
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join(60)
    assert len(seen) == len(set(seen)) == 400


def test_what_was_acknowledged_survives_kill_minus_nine(url: str) -> None:
    program = textwrap.dedent("""
        import sys
        from endcap.events import Action, Event
        from endcap.stores.database import Database
        from endcap.stores.events import EventLog
        log = EventLog(Database(sys.argv[1]))
        number = 0
        while True:
            log.append([Event(id=f"e{number + n}", time=1.7e9, shopper="s", action=Action.CLICK, product="p")
                        for n in range(10)])
            number += 10
            print(number, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 200:
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    log = EventLog(Database(url))
    assert log.count() >= acknowledged
    assert log.count() % 10 == 0, "a batch is stored whole or not at all"
    assert log.append([event(10**9)]) == [True], "what the dead one held is free"
    log.close()
