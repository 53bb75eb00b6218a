"""The schema: migrations make what the stores declare, take over what there was, and refuse what they do not know."""

import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner

from endcap.commands.database import database as command
from endcap.errors import ConfigurationError
from endcap.events import Action, Event
from endcap.stores import schema
from endcap.stores.database import Database, LogUnavailable, declare_tables, metadata
from endcap.stores.events import EventLog
from tests.serving import eventually


def differences(database: Database) -> list[Any]:
    """What the tables lack, or have too much, of what the stores declare."""
    declare_tables()
    with database.transaction() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


ADVICE = "a store's tables changed: run `endcap database revision 'what changed'`, read the file and commit it"


def test_migrations_make_what_the_stores_declare(tmp_path: Path) -> None:
    database = Database.in_folder(tmp_path)
    assert differences(database) == [], ADVICE
    assert database.schema() == schema.SchemaStatus(schema.known()[-1], schema.known()[-1])
    database.close()


@pytest.fixture
def empty_postgres(postgres: str) -> Iterator[str]:
    """A database of its own on the server."""
    import psycopg

    server = postgres.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS endcap_schema_test")
        connection.execute("CREATE DATABASE endcap_schema_test")
        yield postgres.rsplit("/", 1)[0] + "/endcap_schema_test"
        connection.execute("DROP DATABASE endcap_schema_test WITH (FORCE)")


def test_on_postgresql_too_with_several_processes_starting_at_once(empty_postgres: str) -> None:
    start_together(empty_postgres)
    database = Database(empty_postgres)
    assert differences(database) == [], ADVICE
    database.close()


def test_processes_that_start_at_once_wait_for_the_one_that_migrates(tmp_path: Path) -> None:
    start_together(f"sqlite:///{tmp_path / 'endcap.sqlite'}?timeout=60")


def start_together(url: str) -> None:
    program = textwrap.dedent("""
        import sys
        from endcap.events import Action, Event
        from endcap.stores.database import Database
        from endcap.stores.events import EventLog
        print(sys.stdin.readline())
        EventLog(Database(sys.argv[1])).append([Event(sys.argv[2], 1.7e9, "s", Action.CLICK, "p")])
    """)
    started = [
        subprocess.Popen([sys.executable, "-c", program, url, f"e{number}"], stdin=subprocess.PIPE, text=True,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for number in range(3)
    ]  # fmt: skip
    for one in started:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    errors = [one.communicate(timeout=120)[1] for one in started]
    assert [one.returncode for one in started] == [0, 0, 0], errors
    database = Database(url)
    assert EventLog(database).count() == 3
    database.close()


#: The tables of Endcap 0.1 before there were migrations.
BEFORE = """
CREATE TABLE events (
    sequence INTEGER NOT NULL PRIMARY KEY, id VARCHAR NOT NULL, time FLOAT NOT NULL, shopper VARCHAR NOT NULL,
    action SMALLINT NOT NULL, product VARCHAR NOT NULL, session VARCHAR NOT NULL, query_id VARCHAR NOT NULL,
    query VARCHAR NOT NULL, position INTEGER NOT NULL, quantity FLOAT NOT NULL, value FLOAT NOT NULL, attributes BLOB,
    UNIQUE (id));
CREATE INDEX events_by_shopper ON events (shopper, sequence);
INSERT INTO events VALUES (7, 'e7', 1750000000.0, 'ann', 3, 'p', '', '', '', 0, 1.0, 0.0, NULL);
"""


def test_a_long_migration_by_another_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than SQLite waits for a writer: a server whose worker does not start goes down as a whole."""
    tried: list[Database] = []
    upgrade = Database._upgrade_now

    def counted(database: Database) -> None:
        tried.append(database)
        upgrade(database)

    monkeypatch.setattr(Database, "_upgrade_now", counted)
    first = Database.in_folder(tmp_path, upgrade=False)
    opened: list[Database] = []
    second = threading.Thread(
        target=lambda: opened.append(Database(f"sqlite:///{tmp_path / 'endcap.sqlite'}?timeout=0.01"))
    )
    with first.transaction() as connection:
        second.start()
        assert eventually(lambda: len(tried) > 1)
        schema.upgrade(connection)
    second.join()
    assert opened[0].schema().up_to_date
    for one in (first, *opened):
        one.close()


def test_a_database_from_before_migrations_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "endcap.sqlite") as old:
        old.executescript(BEFORE)
    old.close()
    database = Database.in_folder(tmp_path)
    log = EventLog(database)
    assert [one.id for one in log.history("ann")] == ["e7"]
    assert log.append(
        [Event("e7", 1.75e9, "ann", Action.CLICK, "p"), Event("e8", 1.75e9, "ann", Action.CLICK, "p")]
    ) == [
        False,
        True,
    ]
    assert differences(database) == [], ADVICE
    database.close()


def test_the_number_of_an_erased_event_is_not_given_out_again(tmp_path: Path) -> None:
    for folder, script in (("new", ""), ("old", BEFORE)):
        (tmp_path / folder).mkdir()
        with sqlite3.connect(tmp_path / folder / "endcap.sqlite") as old:
            old.executescript(script)
        old.close()
        database = Database.in_folder(tmp_path / folder)
        log = EventLog(database)
        log.append([Event("newest", 1.75e9, "ann", Action.CLICK, "p")])
        last = log.last_sequence()
        with database.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM events")
        log.append([Event("next", 1.75e9, "ann", Action.CLICK, "p")])
        assert log.last_sequence() == last + 1, "a follower would have missed it"
        database.close()


def test_a_database_of_a_newer_endcap_is_refused_and_left_alone(tmp_path: Path) -> None:
    Database.in_folder(tmp_path).close()
    file = tmp_path / "endcap.sqlite"
    with sqlite3.connect(file) as other:
        other.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
        other.execute("DROP TABLE rejects")
    other.close()
    with pytest.raises(ConfigurationError, match="newer Endcap"):
        Database.in_folder(tmp_path)
    with sqlite3.connect(file) as other:
        assert not other.execute("SELECT name FROM sqlite_master WHERE name = 'rejects'").fetchall()
    other.close()


def test_what_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    Database.in_folder(tmp_path).close()
    program = (
        "import sys; from pathlib import Path; from endcap.stores.database import Database;"
        "Database.in_folder(Path(sys.argv[1])); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == 0


def test_the_line_of_versions_is_one_line() -> None:
    scripts = ScriptDirectory(str(schema.FOLDER))
    assert [one.revision for one in reversed(list(scripts.walk_revisions()))] == schema.known()
    assert scripts.get_heads() == schema.known()[-1:]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    real = op.create_table

    def broken(name: str, *parts: Any, **options: Any) -> Any:
        if name == "rejects":
            raise RuntimeError("the power went off")
        return real(name, *parts, **options)

    monkeypatch.setattr(op, "create_table", broken)
    with pytest.raises(RuntimeError, match="power"):
        Database.in_folder(tmp_path)
    with sqlite3.connect(tmp_path / "endcap.sqlite") as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == []
    other.close()
    monkeypatch.undo()
    Database.in_folder(tmp_path).close()


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path))
    run = CliRunner()
    assert "no database" in run.invoke(command, ["status"]).output
    with sqlite3.connect(tmp_path / "endcap.sqlite") as old:
        old.executescript(BEFORE)
    old.close()
    assert "endcap database upgrade" in run.invoke(command, ["status"]).output
    assert "up to date" in run.invoke(command, ["upgrade"]).output
    assert "up to date" in run.invoke(command, ["status"]).output
    copy = tmp_path / "copies" / "endcap.sqlite"
    refused = run.invoke(command, ["backup", str(copy)])
    assert isinstance(refused.exception, ConfigurationError)
    copy.parent.mkdir()
    assert run.invoke(command, ["backup", str(copy)]).exit_code == 0
    with sqlite3.connect(copy) as kept:
        assert kept.execute("SELECT id FROM events").fetchall() == [("e7",)]
        assert kept.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept.close()


@pytest.mark.timeout(240)
def test_a_postgresql_that_says_nothing_is_given_up_soon() -> None:
    # It takes the connection and is silent, as behind a broken network. The driver itself would wait for minutes.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(LogUnavailable):
            Database(f"postgresql+psycopg://shop:secret@127.0.0.1:{silent.getsockname()[1]}/shop")


def test_what_the_url_says_of_waiting_counts(postgres: str) -> None:
    database = Database(f"{postgres}{'&' if '?' in postgres else '?'}connect_timeout=7&tcp_user_timeout=4000")
    with database.transaction() as connection:
        given = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    database.close()
    assert (given["connect_timeout"], given["tcp_user_timeout"], given["keepalives_idle"]) == ("7", "4000", "10")
