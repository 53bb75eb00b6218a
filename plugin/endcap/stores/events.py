"""The event log: every accepted event once, in order of arrival, behind SQLAlchemy (SQLite by default)."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    func,
    or_,
    select,
    text,
)

from endcap.catalog.product import is_generated, product_keys
from endcap.events import Action, Event
from endcap.stores.database import NUMBER, Database, LogUnavailable, metadata, take_turns

__all__ = ["Columns", "EventLog", "Lines", "LogUnavailable", "events", "kept"]


events = Table(
    "events",
    metadata,
    Column("sequence", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("time", Float, nullable=False),
    Column("shopper", String, nullable=False),
    Column("action", SmallInteger, nullable=False),
    Column("product", String, nullable=False, default=""),
    Column("session", String, nullable=False, default=""),
    Column("query_id", String, nullable=False, default=""),
    Column("query", String, nullable=False, default=""),
    Column("position", Integer, nullable=False, default=0),
    Column("quantity", Float, nullable=False, default=1.0),
    Column("value", Float, nullable=False, default=0.0),
    Column("attributes", LargeBinary, nullable=True),
    Index("events_by_shopper", "shopper", "sequence"),
    Index("events_by_time", "time"),
    Index("events_by_query", "query_id", sqlite_where=text("query_id != ''"), postgresql_where=text("query_id != ''")),
    sqlite_autoincrement=True,  # whoever follows the log must not miss a number that comes again
)

#: Name of the lock that PostgreSQL's writers take in turn.
_WRITERS = 0x656E6463


@dataclass(frozen=True, slots=True)
class Columns:
    """Events as columns, all (n,): sequence int64, keys uint64 (0 for a search), times float64, actions uint8, and the
    shoppers' ids."""

    sequence: np.ndarray
    keys: np.ndarray
    times: np.ndarray
    actions: np.ndarray
    shoppers: list[str]

    def __len__(self) -> int:
        return len(self.sequence)

    def at(self, rows: np.ndarray) -> Columns:
        """Some of the events, by index (int64)."""
        chosen = [self.shoppers[row] for row in rows.tolist()]
        return Columns(self.sequence[rows], self.keys[rows], self.times[rows], self.actions[rows], chosen)


def kept(shoppers: Sequence[str], left_out: Collection[str]) -> np.ndarray:
    """Rows (int64) of shoppers whose behaviour counts; see :meth:`endcap.stores.flags.Flags.excluded_shoppers`."""
    if not left_out:
        return np.arange(len(shoppers))
    return np.flatnonzero(np.fromiter((one not in left_out for one in shoppers), dtype=bool, count=len(shoppers)))


@dataclass(frozen=True, slots=True)
class Lines:
    """Events as columns, with their sessions and queries, empty where there is none; all (n,)."""

    columns: Columns
    sessions: list[str]
    queries: list[str]


class EventLog:
    """Thread-safe. Writes are serialised within a process; SQLite serialises them between processes."""

    def __init__(self, database: Database) -> None:
        self._write_lock = threading.Lock()
        self.database = database

    def append(self, batch: Sequence[Event]) -> list[bool]:
        """Store events; True for each that is new, False for one whose id is there already (in the batch or the log),
        or that would have happened to a generated row.

        When this returns, the new ones survive the end of the process, kill -9 included. A power cut may take the last
        moments from SQLite (``synchronous=NORMAL``), never its consistency.

        Raises:
            LogUnavailable: none was stored.
        """
        return self.append_numbered(batch)[0]

    def append_numbered(self, batch: Sequence[Event]) -> tuple[list[bool], int]:
        """As :meth:`append`; also the number of the newest event, which none of these exceeds."""
        with self.writing() as connection:
            fresh = store(connection, batch)
            return fresh, int(connection.execute(select(func.max(events.c.sequence))).scalar() or 0)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction in which :func:`store` may be called, together with changes that belong to the events.

        Raises:
            LogUnavailable: nothing of it was stored.
        """
        with self._write_lock, self.database.transaction() as connection:
            # Numbers become visible in their order: a reader that has seen one has missed none before it.
            take_turns(connection, _WRITERS)
            yield connection

    def append_many(self, source: Iterable[Event], batch: int = 20_000) -> Iterator[int]:
        """Store a long stream in batches; yields how many of each batch were new."""
        waiting: list[Event] = []
        for one in source:
            waiting.append(one)
            if len(waiting) >= batch:
                yield sum(self.append(waiting))
                waiting = []
        if waiting:
            yield sum(self.append(waiting))

    def last_sequence(self) -> int:
        """Number of the newest event; 0 where there is none."""
        with self.database.transaction(read_only=True) as connection:
            return int(connection.execute(select(func.max(events.c.sequence))).scalar() or 0)

    def count(self) -> int:
        """Events in the log."""
        with self.database.transaction(read_only=True) as connection:
            return int(connection.execute(select(func.count()).select_from(events)).scalar() or 0)

    def since(self, sequence: int, limit: int = 50_000) -> Columns:
        """The next events after ``sequence``, at most ``limit``."""
        chosen = _columns().where(events.c.sequence > sequence).order_by(events.c.sequence).limit(limit)
        return self._read(chosen)

    def lines_since(self, sequence: int, limit: int = 50_000) -> Lines:
        """As :meth:`since`, with sessions and queries."""
        chosen = _columns(events.c.session, events.c.query).where(events.c.sequence > sequence)
        rows = self._rows(chosen.order_by(events.c.sequence).limit(limit))
        return Lines(_as_columns([row[:5] for row in rows]), [row[5] for row in rows], [row[6] for row in rows])

    def lines_by_time(self, after: tuple[float, int] = (-math.inf, 0), limit: int = 50_000) -> Lines:
        """The next events by (time, number), whenever they arrived: an import may bring one shopper after another."""
        time, sequence = max(after[0], -1e300), after[1]
        chosen = _columns(events.c.session, events.c.query).where(
            events.c.time >= time, or_(events.c.time > time, events.c.sequence > sequence)
        )
        rows = self._rows(chosen.order_by(events.c.time, events.c.sequence).limit(limit))
        return Lines(_as_columns([row[:5] for row in rows]), [row[5] for row in rows], [row[6] for row in rows])

    def extent(self, actions: Collection[Action]) -> tuple[int, float, float]:
        """How many events of these kinds there are, the earliest time and the latest; 0 and zeros where none is."""
        found = select(func.count(), func.min(events.c.time), func.max(events.c.time))
        with self.database.transaction(read_only=True) as connection:
            count, first, last = connection.execute(found.where(events.c.action.in_(map(int, actions)))).one()
        return int(count), float(first or 0.0), float(last or 0.0)

    def of_shopper(self, shopper: str, after: int = 0, limit: int = 5_000, also: Sequence[str] = ()) -> Columns:
        """The latest ``limit`` events, of those that arrived after number ``after``, in order of arrival.

        Args:
            also: further ids whose events count for the shopper.
        """
        with self.database.transaction(read_only=True) as connection:
            rows: list[Any] = []
            # One id at a time: only so does the index give the latest ones without sorting a million.
            for one in (shopper, *also):
                chosen = _columns().where(events.c.shopper == one, events.c.sequence > after)
                rows += connection.execute(chosen.order_by(events.c.sequence.desc()).limit(limit)).all()
        if also:
            rows.sort(key=lambda row: -row[0])
        return _as_columns(rows[:limit][::-1])

    def every(self, shopper: str, until: int, batch: int = 50_000) -> Iterator[Columns]:
        """All of a shopper's events up to number ``until``, in order of arrival."""
        after = 0
        while True:
            chosen = _columns().where(
                events.c.shopper == shopper, events.c.sequence > after, events.c.sequence <= until
            )
            found = self._read(chosen.order_by(events.c.sequence).limit(batch))
            if not len(found):
                return
            yield found
            after = int(found.sequence[-1])

    def history(self, shopper: str, limit: int = 50, also: Sequence[str] = ()) -> list[Event]:
        """A shopper's latest events, those of the further ids ``also`` among them, newest first."""
        chosen = select(events).where(events.c.shopper.in_([shopper, *also]))
        chosen = chosen.order_by(events.c.sequence.desc()).limit(limit)
        with self.database.transaction(read_only=True) as connection:
            return [event_of(row._mapping) for row in connection.execute(chosen)]

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _read(self, chosen: Any) -> Columns:
        return _as_columns(self._rows(chosen))

    def _rows(self, chosen: Any) -> Sequence[Any]:
        with self.database.transaction(read_only=True) as connection:
            return connection.execute(chosen).all()


def _columns(*more: Any) -> Any:
    return select(events.c.sequence, events.c.product, events.c.time, events.c.action, events.c.shopper, *more)


def _as_columns(rows: Sequence[Any]) -> Columns:
    if not rows:
        empty = np.empty(0)
        return Columns(empty.astype(np.int64), empty.astype(np.uint64), empty, empty.astype(np.uint8), [])
    sequence, products, times, actions, shoppers = zip(*rows)
    return Columns(
        np.array(sequence, dtype=np.int64),
        _keys(list(products)),
        np.array(times, dtype=np.float64),
        np.array(actions, dtype=np.uint8),
        list(shoppers),
    )


def _keys(products: list[str]) -> np.ndarray:
    """Keys of the products; 0 for none. Products repeat, so each is hashed once."""
    unique = {name: number for number, name in enumerate(dict.fromkeys(products))}
    keys = product_keys(list(unique))
    if "" in unique:
        keys[unique[""]] = 0
    return keys[np.fromiter((unique[name] for name in products), dtype=np.int64, count=len(products))]


def store(connection: Connection, batch: Sequence[Event]) -> list[bool]:
    """See :meth:`EventLog.append`; inside :meth:`EventLog.writing`.

    The driver is spoken to directly: SQLAlchemy's handling of each row costs as much as the database's.
    """
    postgresql = connection.dialect.name == "postgresql"
    ids = [one.id for one in batch]
    known: set[str] = set()
    if ids:
        sent = (ids,) if postgresql else (orjson.dumps(ids).decode(),)
        known.update(row[0] for row in connection.exec_driver_sql(_KNOWN[postgresql], sent))
    fresh: list[bool] = []
    rows: list[tuple[Any, ...]] = []
    for one in batch:
        # What a generator made up is no product: nothing can happen to it, whoever says so.
        new = one.id not in known and not is_generated(one.product)
        fresh.append(new)
        if new:
            known.add(one.id)
            rows.append(_row(one))
    if rows:
        connection.exec_driver_sql(_INSERT[postgresql], rows)
    return fresh


_STORED = (
    "id", "time", "shopper", "action", "product", "session", "query_id", "query", "position", "quantity", "value",
    "attributes",
)  # fmt: skip
#: By whether it is PostgreSQL.
_KNOWN = {
    False: "SELECT id FROM events WHERE id IN (SELECT value FROM json_each(?))",
    True: "SELECT id FROM events WHERE id = ANY(%s)",
}
_INSERT = {
    postgresql: f"INSERT INTO events ({', '.join(_STORED)}) VALUES ({', '.join(mark for _ in _STORED)})"  # noqa: S608
    for postgresql, mark in ((False, "?"), (True, "%s"))
}


def _row(one: Event) -> tuple[Any, ...]:
    return (
        one.id, one.time, one.shopper, int(one.action), one.product, one.session, one.query_id, one.query, one.position,
        one.quantity, one.value, orjson.dumps(dict(one.attributes)) if one.attributes else None,
    )  # fmt: skip


def event_of(row: Any) -> Event:
    """The event of a row of the table, by column."""
    fields = {name: row[name] for name in Event.__slots__ if name in row and name not in ("action", "attributes")}
    attributes = orjson.loads(row["attributes"]) if row["attributes"] else {}
    return Event(action=Action(row["action"]), attributes=attributes, **fields)
