"""What happens to the event log when its database is locked, away, or none; the promises are in tests/contracts."""

import sqlite3
from pathlib import Path

import psycopg
import pytest

from endcap.events import Action, Event
from endcap.stores.database import Database
from endcap.stores.events import EventLog, LogUnavailable


def event(number: int) -> Event:
    return Event(f"e{number}", 1_750_000_000.0 + number, "ann", Action.CLICK, f"p{number}")


def test_a_locked_database_is_reported_and_heals(tmp_path: Path) -> None:
    log = EventLog(Database(f"sqlite:///{tmp_path / 'endcap.sqlite'}?timeout=0.1"))
    other = sqlite3.connect(tmp_path / "endcap.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for _ in range(20):  # more often than there are connections: none may be lost
        with pytest.raises(LogUnavailable):
            log.append([event(1)])
    other.execute("ROLLBACK")
    assert log.append([event(1)]) == [True]


def test_a_database_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnavailable, match="cannot open"):
        EventLog(Database(f"sqlite:///{tmp_path / 'file' / 'endcap.sqlite'}"))


def test_a_postgresql_that_goes_away_is_reported_and_heals(postgres: str) -> None:
    server = postgres.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS endcap_away")
        admin.execute("CREATE DATABASE endcap_away")
        log = EventLog(Database(postgres.rsplit("/", 1)[0] + "/endcap_away"))
        assert log.append([event(1)]) == [True]
        hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'endcap_away'"
        admin.execute(hang_up)
        assert log.append([event(2)]) == [True], "a connection that was cut is made anew"
        admin.execute("ALTER DATABASE endcap_away ALLOW_CONNECTIONS false")
        admin.execute(hang_up)
        for _ in range(20):
            with pytest.raises(LogUnavailable):
                log.append([event(3)])
        with pytest.raises(LogUnavailable, match="cannot open"):
            Database(postgres.rsplit("/", 1)[0] + "/endcap_away")
        admin.execute("ALTER DATABASE endcap_away ALLOW_CONNECTIONS true")
        assert log.append([event(3)]) == [True]
        assert log.count() == 3
        log.close()
        admin.execute("DROP DATABASE endcap_away")
