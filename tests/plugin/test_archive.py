"""The logs as Parquet files and back, and what is deleted because it is old."""

from __future__ import annotations

import resource
import uuid
from collections.abc import Iterator
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner

from endcap.commands.archive import export as export_command
from endcap.commands.archive import restore as restore_command
from endcap.errors import InvalidInput
from endcap.events import Action, Event
from endcap.stores import archive, retention
from endcap.stores.aliases import Aliases
from endcap.stores.archive import export, restore
from endcap.stores.database import Database, LogUnavailable
from endcap.stores.events import EventLog
from endcap.stores.rankings import Rankings, Served
from endcap.stores.retention import expire
from endcap_workers.tasks.retention import JOB
from tests.services.postgres import empty

DAY = 86_400.0
NOON = 1_750_075_200.0  # 2025-06-16, 12:00 UTC


def fill(database: Database) -> tuple[list[Event], list[Served]]:
    """Four days of events, out of order, several at the same moment; rankings with and without features."""
    log, rankings = EventLog(database), Rankings(database)
    sent = [
        Event(f"e{n}", NOON + DAY * (n % 4) + (n // 8), f"s{n % 3}", Action.CLICK, f"p{n}", query="紅 x",
              attributes={"n": n} if n % 2 else {})
        for n in range(40)
    ]  # fmt: skip
    log.append(sent)
    served = [
        Served(f"{n:032x}", NOON + DAY * n, "s1", ("a", "b"), engine_positions=(2, 1), context={"n": n},
               scores=np.array([1.5, np.nan], np.float32), features=np.ones((2, 3), np.float16) if n % 2 else None,
               feature_names=("x", "y", "z") if n % 2 else ())
        for n in range(4)
    ]  # fmt: skip
    rankings.append(served)
    Aliases(database, log).attach("visitor", "s1", NOON)
    return sent, served


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        made = Database.in_folder(tmp_path / "data")
        yield made
        made.close()
    else:
        url = request.getfixturevalue("postgres")
        empty(url)
        made = Database(url)
        yield made
        made.close()
        empty(url)


def test_what_is_exported_comes_back_as_it_was(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(archive._PAGE, "events", 3)  # pages end amid events of one moment
    sent, served = fill(database)
    folder = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    made = export(database, "events", folder, progress=lambda done, total, day: seen.append((done, total)))
    assert (made.files, made.rows, seen[-1]) == (4, 41, (41, 41))
    assert min(one.name for one in folder.iterdir()) == "events-2025-06-16.parquet"
    assert export(database, "rankings", folder).rows == 4
    other = Database.in_folder(tmp_path / "other")
    assert restore(other, folder) == {"events": {"new": 41, "known": 0}, "rankings": {"new": 4, "known": 0}}
    assert restore(other, folder) == {"events": {"new": 0, "known": 41}, "rankings": {"new": 0, "known": 4}}
    log = EventLog(other)
    found = {one.id: one for shopper in ("s0", "s1", "s2") for one in log.history(shopper)}
    assert {one.id: found[one.id] for one in sent} == {one.id: one for one in sent}
    back = {one.id: one for one in Rankings(other).since(0)}
    assert back == {one.id: one for one in served}
    for one in served:
        np.testing.assert_array_equal(back[one.id].scores, one.scores)  # type: ignore[arg-type]
        if one.features is not None:
            np.testing.assert_array_equal(back[one.id].features, one.features)  # type: ignore[arg-type]
    assert Aliases(other, log).owners({"visitor"}) == {"visitor": "s1"}
    other.close()


def test_an_export_that_was_cut_short_goes_on_where_it_stopped(database: Database, tmp_path: Path) -> None:
    fill(database)

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, day: date) -> None:
        if day == date(2025, 6, 18):
            raise Stopped

    with pytest.raises(Stopped):
        export(database, "events", tmp_path / "out", progress=stop)
    names = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert names == ["events-2025-06-16.parquet", "events-2025-06-17.parquet"], "no half of a file"
    made = export(database, "events", tmp_path / "out")
    assert (made.kept, made.files) == (2, 2)


def test_the_day_that_is_not_over_is_written_again(database: Database, tmp_path: Path) -> None:
    fill(database)
    today = date(2025, 6, 19)
    export(database, "events", tmp_path, today=today)
    EventLog(database).append([Event("late", NOON + 3 * DAY, "s", Action.CLICK, "p")])
    made = export(database, "events", tmp_path, today=today)
    assert (made.kept, made.files) == (3, 1)
    assert "late" in parquet.read_table(tmp_path / "events-2025-06-19.parquet")["id"].to_pylist()
    # Run every night, it finds a file that was written before the day was over; and days whose events came late.
    EventLog(database).append([Event(f"later {day}", NOON + day * DAY, "s", Action.CLICK, "p") for day in (1, 3)])
    made = export(database, "events", tmp_path, today=date(2025, 6, 20))
    assert (made.kept, made.files) == (2, 2)
    for name, event in (("events-2025-06-17", "later 1"), ("events-2025-06-19", "later 3")):
        assert event in parquet.read_table(tmp_path / f"{name}.parquet")["id"].to_pylist()
    expire(database, 1.0, now=NOON + 3 * DAY)
    assert export(database, "events", tmp_path, today=date(2025, 6, 21)).files == 0, "what retention deleted stays"


def test_some_days_only(database: Database, tmp_path: Path) -> None:
    fill(database)
    made = export(database, "events", tmp_path, date(2025, 6, 17), date(2025, 6, 18))
    assert (made.files, made.rows) == (2, 20)
    assert export(database, "events", tmp_path, date(2030, 1, 1)).files == 0


def test_a_folder_with_something_else_in_it(tmp_path: Path) -> None:
    database = Database.in_folder(tmp_path / "data")
    with pytest.raises(InvalidInput, match="endcap export"):
        restore(database, tmp_path)
    (tmp_path / "events-2025-01-01.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InvalidInput, match="cannot be read"):
        restore(database, tmp_path)
    EventLog(database).append([Event("e", NOON, "s", Action.CLICK, "p")])
    export(database, "events", tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + bytes(200) + whole[204:])
    with pytest.raises(InvalidInput, match="damaged"):
        restore(database, tmp_path / "out")
    table = parquet.read_table(BytesIO(whole))
    parquet.write_table(table.set_column(3, "action", [["levitate"]]), file)
    with pytest.raises(InvalidInput, match=r"events-2025-06-16.*cannot read"):
        restore(database, tmp_path / "out")
    database.close()


def test_years_of_files_come_back_whatever_a_process_may_have_open(tmp_path: Path) -> None:
    database, other = Database.in_folder(tmp_path / "data"), Database.in_folder(tmp_path / "other")
    EventLog(database).append([Event(f"e{n}", NOON + n * DAY, "s", Action.CLICK, "p") for n in range(60)])
    export(database, "events", tmp_path / "out")
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, (one.name for one in Path("/proc/self/fd").iterdir())))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 40, most))
    try:
        assert restore(other, tmp_path / "out")["events"] == {"new": 60, "known": 0}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    database.close()
    other.close()


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "data"))
    database = Database.in_folder(tmp_path / "data")
    fill(database)
    database.close()
    run, folder = CliRunner(), str(tmp_path / "out")
    assert "41 events in 4 files" in run.invoke(export_command, ["events", folder]).output
    said = run.invoke(export_command, ["events", folder, "--from", "2025-06-17"]).output
    assert "3 days had their file" in said
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "other"))
    assert "41 events restored" in run.invoke(restore_command, [folder]).output


def test_what_is_older_goes_a_few_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    fill(database)
    steps: list[tuple[int, int, str]] = []
    gone = expire(database, 2, NOON + 3.5 * DAY, lambda done, total, table: steps.append((done, total, table)))
    # Days 0 and 1 are over; the login event belongs to day 0.
    assert gone == {"events": 21, "rankings": 2}
    assert EventLog(database).count() == 20
    assert steps[0] == (7, 23, "events")
    assert steps[-1] == (23, 23, "rankings")
    assert expire(database, 2, NOON + 3.5 * DAY) == {"events": 0, "rankings": 0}
    with pytest.raises(ValueError, match="positive"):
        expire(database, 0)


def test_others_may_write_while_old_rows_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 5)
    database = Database(f"sqlite:///{tmp_path / 'endcap.sqlite'}?timeout=0.2")
    fill(database)
    other = EventLog(Database(f"sqlite:///{tmp_path / 'endcap.sqlite'}?timeout=0.2"))

    def write(done: int, total: int, table: str) -> None:
        assert other.append([Event(uuid.uuid4().hex, NOON + 30 * DAY, "s", Action.CLICK, "p")]) == [True]

    assert expire(database, 1, NOON + 30 * DAY, write)["events"] == 41
    other.close()
    database.close()


def test_the_job_does_nothing_unless_asked(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from endcap.settings import Settings

    def context(days: float) -> object:
        settings = Settings(data_dir=tmp_path, retention_days=days, database_url="")
        return SimpleNamespace(settings=settings, progress=lambda *parts: None)

    database = Database.in_folder(tmp_path)
    fill(database)
    assert JOB.run(context(0))["kept"] == "all events and rankings"  # type: ignore[arg-type]
    assert JOB.run(context(30))["deleted"] == {"events": 41, "rankings": 4}  # type: ignore[arg-type]
    database.close()


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    database = Database.in_folder(tmp_path)
    log, rankings = EventLog(database), Rankings(database)
    with database.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    full = int(pages or 0) + 40
    for _ in range(8):  # every connection of the pool
        with database._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {full}")
    acknowledged: list[int] = []

    def write_until_it_fails() -> None:
        for start in range(0, 100_000, 100):
            sent = [Event(f"e{n}", NOON, "s", Action.CLICK, "p" * 50) for n in range(start, start + 100)]
            acknowledged.append(sum(log.append(sent)))

    with pytest.raises(LogUnavailable, match="full"):
        write_until_it_fails()
    assert log.count() == sum(acknowledged) > 0
    many = [Served(f"r{n}", NOON, "s", ("p" * 50,) * 20) for n in range(1_000)]
    with pytest.raises(LogUnavailable, match="full"):
        rankings.append(many)
    for _ in range(8):
        with database._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {full * 100}")
    assert log.append([Event("after", NOON, "s", Action.CLICK, "p")]) == [True], "well again by itself"
    database.close()
