"""The event log on a real PostgreSQL: the same promises as on SQLite, with several processes writing."""

import threading
from collections.abc import Iterator

import pytest

from endcap.events import Action, Event
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from tests.services.postgres import empty


@pytest.fixture
def logs(postgres: str) -> Iterator[list[EventLog]]:
    """Two logs over one database, as two processes would have them."""
    opened = [EventLog(Database(postgres)), EventLog(Database(postgres))]
    yield opened
    for log in opened:
        log.close()
    empty(postgres)


def event(number: int, shopper: str = "ann") -> Event:
    return Event(f"e{number}", 1_750_000_000.0 + number, shopper, Action.CLICK, f"p{number}", attributes={"n": number})


def test_each_event_once_and_as_it_was_sent(logs: list[EventLog]) -> None:
    assert logs[0].append([event(1), event(2), event(1)]) == [True, True, False]
    assert logs[1].append([event(2), event(3)]) == [False, True]
    assert logs[1].history("ann") == [event(3), event(2), event(1)]
    assert logs[0].since(1).sequence.tolist() == sorted(logs[0].since(1).sequence.tolist())


def test_a_reader_that_follows_the_log_misses_nothing(logs: list[EventLog]) -> None:
    """Numbers are given out before they are committed: without care a later one can be seen first."""
    seen: list[int] = []
    done = threading.Event()

    def write(log: EventLog, start: int) -> None:
        for number in range(start, start + 150):
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
    assert len(seen) == len(set(seen)) == 600
