"""The event log on SQLite: each event once, durable, readable as columns."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from endcap.catalog.product import product_key
from endcap.events import Action, Event
from endcap.stores.database import Database
from endcap.stores.events import EventLog, LogUnavailable


@pytest.fixture
def log(tmp_path: Path):
    opened = EventLog(Database.in_folder(tmp_path))
    yield opened
    opened.close()


def event(number: int, shopper: str = "ann", **changes: object) -> Event:
    return Event(id=f"e{number}", time=1_750_000_000.0 + number, shopper=shopper, action=Action.CLICK,
                 product=f"p{number}", **changes)  # type: ignore[arg-type]  # fmt: skip


def test_an_event_counts_once_within_a_batch_and_between_batches(log: EventLog) -> None:
    assert log.append([event(1), event(2), event(1)]) == [True, True, False]
    assert log.append([event(2), event(3)]) == [False, True]
    assert log.count() == 3


def test_events_come_back_as_they_went_in(log: EventLog) -> None:
    sent = event(1, query="rote Schuhe 红鞋", position=3, value=9.5, attributes={"device": "phone"})
    log.append([sent])
    assert log.history("ann") == [sent]


def test_columns_follow_the_order_of_arrival(log: EventLog) -> None:
    log.append([event(3), event(1, shopper="bob"), event(2)])
    everything = log.since(0)
    assert everything.sequence.tolist() == [1, 2, 3]
    assert everything.shoppers == ["ann", "bob", "ann"]
    assert everything.keys.tolist() == [product_key("p3"), product_key("p1"), product_key("p2")]
    assert log.since(2).sequence.tolist() == [3]
    assert log.since(3).keys.dtype.name == "uint64"
    assert log.of_shopper("ann").times.tolist() == [1_750_000_003.0, 1_750_000_002.0]
    assert log.of_shopper("ann", limit=1).sequence.tolist() == [3]
    assert len(log.of_shopper("nobody")) == 0


def test_a_large_batch_and_a_long_stream(log: EventLog) -> None:
    assert all(log.append([event(number) for number in range(2_500)]))
    assert list(log.append_many((event(number) for number in range(2_000, 4_000)), batch=800)) == [300, 800, 400]


def test_threads_write_side_by_side(log: EventLog) -> None:
    def write(start: int) -> None:
        for number in range(start, start + 20):
            log.append([event(number)])

    threads = [threading.Thread(target=write, args=(base,)) for base in range(0, 200, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.count() == 200


def test_what_was_acknowledged_survives_kill_minus_nine(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        from pathlib import Path
        from endcap.events import Action, Event
        from endcap.stores.database import Database
        from endcap.stores.events import EventLog
        log = EventLog(Database.in_folder(Path({str(tmp_path)!r})))
        number = 0
        while True:
            log.append([Event(id=f"e{{number + n}}", time=1.7e9, shopper="s", action=Action.CLICK, product="p")
                        for n in range(10)])
            number += 10
            print(number, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 200:
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    log = EventLog(Database.in_folder(tmp_path))
    assert log.count() >= acknowledged
    assert log.count() % 10 == 0, "a batch is stored whole or not at all"


def test_a_locked_database_is_reported_and_heals(tmp_path: Path) -> None:
    log = EventLog(Database(f"sqlite:///{tmp_path / 'endcap.sqlite'}?timeout=0.1"))
    other = sqlite3.connect(tmp_path / "endcap.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LogUnavailable):
        log.append([event(1)])
    other.execute("ROLLBACK")
    assert log.append([event(1)]) == [True]


def test_a_database_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnavailable, match="cannot open"):
        EventLog(Database(f"sqlite:///{tmp_path / 'file' / 'endcap.sqlite'}"))
