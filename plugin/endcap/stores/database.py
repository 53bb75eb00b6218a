"""The database behind every store: SQLite in the data folder by default, PostgreSQL by setting."""

from __future__ import annotations

import importlib
import pkgutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    MetaData,
    Select,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import DataError, SQLAlchemyError

from endcap import stores
from endcap.errors import ConfigurationError, EndcapError, InvalidInput
from endcap.files import replacing
from endcap.settings import Settings
from endcap.stores.schema import SchemaStatus, status
from endcap.stores.schema import upgrade as upgrade_schema

#: Name of the lock under which PostgreSQL's schema changes.
_SCHEMA = 0x656E6473
#: Most seconds to wait for another process that brings SQLite's schema up to date.
_UPGRADE_S = 1_800.0
#: Parameters of libpq, in seconds but for the first, which is in milliseconds: a connection whose packets nobody
#: acknowledges is given up. The URL may name others.
_PATIENCE = {
    "tcp_user_timeout": 10_000, "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5,
    "keepalives_count": 2,
}  # fmt: skip
_LIBPQ = {"psycopg", "psycopg2"}
#: All tables of all stores; each store declares its own beside its code.
metadata = MetaData()
#: Type of a row's number. SQLite numbers rows by itself only for INTEGER.
NUMBER = BigInteger().with_variant(Integer, "sqlite")


class LogUnavailable(EndcapError):
    """The database cannot be read or written now. Nothing was acknowledged that is not stored."""

    status = 503
    kind = "log_unavailable"


class Database:
    """A pool of connections. Thread-safe. SQLite's writers wait for one another, between processes too."""

    def __init__(self, url: str, upgrade: bool = True, statement_s: float = 0.0, lock_s: float = 0.0) -> None:
        """
        Args:
            upgrade: bring the schema up to date.
            statement_s, lock_s: seconds after which PostgreSQL gives up a statement, and waiting for a lock; 0: as
                the server is set. Changes of the schema may take as long as they take.

        Raises:
            ConfigurationError: the URL names no usable database, or a newer Endcap has written it.
            LogUnavailable: it does not open.
        """
        try:
            self._engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), **_patience(url))
        except (SQLAlchemyError, ImportError) as error:  # no URL, a database that is unknown, its driver missing
            raise ConfigurationError(
                f"database_url cannot be used: {error} (PostgreSQL: pip install 'endcap[postgres]', "
                "postgresql+psycopg://user:password@host/name)"
            ) from None
        if self.dialect == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        if self.dialect == "postgresql" and (statement_s or lock_s):
            event.listen(self._engine, "connect", _limits(statement_s, lock_s))
        if upgrade:
            try:
                self._upgrade()
            except LogUnavailable as error:
                raise LogUnavailable(f"cannot open the event log: {error}") from error

    @classmethod
    def in_folder(cls, data_dir: Path, upgrade: bool = True) -> Database:
        """The default: SQLite in the data folder."""
        data_dir.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{data_dir / 'endcap.sqlite'}", upgrade)

    def schema(self) -> SchemaStatus:
        """Which schema it has.

        Raises:
            ConfigurationError: a newer Endcap has written it.
        """
        with self.transaction(read_only=True) as connection:
            return status(connection)

    def back_up(self, file: Path) -> None:
        """Copy an SQLite database while it is in use; ``file`` is whole or not there.

        Raises:
            ConfigurationError: it is no SQLite, or the file cannot be written.
        """
        if self.dialect != "sqlite":
            raise ConfigurationError(f"this is {self.dialect}: back it up with its own tools (pg_dump)")
        try:
            with replacing(file, durable=True) as part, closing(sqlite3.connect(part)) as copy:
                with self._engine.connect() as connection:
                    # A page at a time would begin anew with every write of another process.
                    connection.connection.driver_connection.backup(copy)  # type: ignore[union-attr]
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            raise ConfigurationError(f"{file} cannot be written: {error}") from None

    def _upgrade(self) -> None:
        until = time.monotonic() + _UPGRADE_S
        while not self.schema().up_to_date:
            try:
                self._upgrade_now()
            except LogUnavailable as error:
                # SQLite waits five seconds for a writer; another process that upgrades years of events takes longer.
                if "database is locked" not in str(error) or time.monotonic() > until:
                    raise

    def _upgrade_now(self) -> None:
        with self.transaction() as connection:
            if self.dialect == "postgresql":
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            take_turns(connection, _SCHEMA)
            upgrade_schema(connection)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    def transaction(self, read_only: bool = False) -> Transaction:
        """A connection inside a transaction: committed at the end of the ``with``, rolled back on an exception.

        Raises:
            LogUnavailable: for every fault of the database, inside too.
            InvalidInput: reading, something was looked for that no row can hold.
        """
        return Transaction(self._engine, read_only)

    def pages(self, chosen: Select[Any], batch: int, after: int = 0) -> Iterator[Sequence[Any]]:
        """The rows of a query in pieces of at most ``batch``, in the order of its first column: a growing number that
        each row has once. Every piece is a transaction of its own, so that a long read holds nobody up.

        Raises:
            LogUnavailable: the database cannot be read now.
        """
        number = chosen.selected_columns[0]
        while True:
            with self.transaction(read_only=True) as connection:
                rows = connection.execute(chosen.where(number > after).order_by(number).limit(batch)).all()
            if not rows:
                return
            after = int(rows[-1][0])
            yield rows

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()


def _patience(url: str) -> dict[str, Any]:
    """How long to wait for a PostgreSQL that does not answer: a thread that waits for minutes serves no search."""
    parts = make_url(url)
    if parts.get_backend_name() != "postgresql" or parts.get_driver_name() not in _LIBPQ:
        return {}
    wanted = {name: value for name, value in _PATIENCE.items() if name not in parts.query}
    return {"pool_timeout": _PATIENCE["connect_timeout"], "connect_args": wanted}


def _limits(statement_s: float, lock_s: float) -> Callable[[Any, Any], None]:
    """Sets them for a new connection. Not by libpq's ``options``, which a pgbouncer in between refuses."""
    wanted = {"statement_timeout": statement_s, "lock_timeout": lock_s}

    def set_limits(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            for name, seconds in wanted.items():
                if seconds:
                    cursor.execute(f"SET {name} = {max(1, round(1000 * seconds))}")
        connection.commit()  # or it would end with the first transaction that is rolled back

    return set_limits


def open_database(settings: Settings, upgrade: bool = True, limited: bool = False) -> Database:
    """The database that the settings ask for; see :class:`Database`. ``limited``: with the settings' limits, for those
    whom a shopper waits for; jobs and commands read for as long as it takes."""
    if settings.database_url:
        limits = (settings.database_statement_timeout_s, settings.database_lock_timeout_s) if limited else ()
        return Database(settings.database_url, upgrade, *limits)
    return Database.in_folder(settings.data_dir, upgrade)


def declare_tables() -> None:
    """Have every store's tables in :data:`metadata`, whichever of the stores the program itself uses."""
    for module in pkgutil.iter_modules(stores.__path__, f"{stores.__name__}."):
        if not module.ispkg:
            importlib.import_module(module.name)


def take_turns(connection: Connection, lock: int) -> None:
    """Wait until no other process is in a transaction that has said this number, and keep all others waiting until the
    end of this one. SQLite's writers are in turn anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(lock)))


class Transaction:
    """A connection with a transaction; database errors come out as LogUnavailable, and as InvalidInput where something
    is looked for that no row can hold (NUL in PostgreSQL): the database is well."""

    def __init__(self, engine: Any, read_only: bool) -> None:
        self._engine = engine
        self._read_only = read_only

    def __enter__(self) -> Connection:
        try:
            self._connection: Connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise LogUnavailable(f"the event log cannot be reached: {error}") from error
        try:
            self._connection.info["read_only"] = self._read_only
            self._connection.begin()
        except SQLAlchemyError as error:
            self._connection.close()
            raise LogUnavailable(f"the event log cannot be reached: {error}") from error
        return self._connection

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                self._connection.commit()
            else:
                self._connection.rollback()
        except SQLAlchemyError as failure:
            raise LogUnavailable(f"the event log could not store this: {failure}") from failure
        finally:
            self._connection.close()
        if isinstance(error, DataError) and self._read_only:
            raise InvalidInput(f"no row of the database can hold this: {error.orig}") from error
        if isinstance(error, SQLAlchemyError):
            raise LogUnavailable(f"the event log failed: {error}") from error


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN (below) instead of sqlite3's guesses
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    # Ids are random: pages of their index are touched all over, and the rarer they are copied back, the fewer are.
    cursor.execute("PRAGMA cache_size=-32000")
    cursor.execute("PRAGMA wal_autocheckpoint=8000")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a deferred one could fail at its first write, after having read.
    connection.exec_driver_sql("BEGIN" if connection.info.get("read_only") else "BEGIN IMMEDIATE")
