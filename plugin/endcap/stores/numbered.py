"""Entries that people keep in the database (business rules, synonyms): each has a number, servers look for changes."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Connection, Table, delete, func, insert, select

from endcap.errors import EndcapError, InvalidInput
from endcap.stores.database import Database

Entry = TypeVar("Entry")


class NumberedStore(ABC, Generic[Entry]):
    """What all such tables share. Thread-safe; many processes may share the database.

    A table has the columns ``id`` (never given again), ``created``, ``by``, and the one that ``changed`` names.
    """

    table: ClassVar[Table]
    #: Name of the column that tells of changes; of entries that never change, ``created``.
    changed: ClassVar[str] = "created"
    #: How an entry is called, and the error where there is none of a number.
    noun: ClassVar[str]
    unknown: ClassVar[type[EndcapError]]
    #: Entries in force at once.
    most: ClassVar[int]

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()

    @abstractmethod
    def _read(self, row: Mapping[Any, Any]) -> Entry:
        """A row as it is given out."""

    def version(self) -> tuple[int, int, float]:
        """Differs after every change: newest number, how many, latest change."""
        columns = self.table.c
        wanted = select(func.max(columns.id), func.count(), func.max(columns[self.changed])).select_from(self.table)
        with self._database.transaction(read_only=True) as connection:
            newest, count, latest = connection.execute(wanted).one()
        return int(newest or 0), int(count), float(latest or 0.0)

    def all(self) -> list[Entry]:
        """Every entry, by number."""
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(select(self.table).order_by(self.table.c.id)).mappings().all()
        return [self._read(row) for row in rows]

    def get(self, number: int) -> Entry:
        """Raises the error of :attr:`unknown`."""
        with self._database.transaction(read_only=True) as connection:
            row = connection.execute(select(self.table).where(self.table.c.id == number)).mappings().first()
        if row is None:
            raise self._missing(number)
        return self._read(row)

    def remove(self, number: int) -> None:
        """Raises the error of :attr:`unknown`."""
        with self._lock, self._database.transaction() as connection:
            gone = connection.execute(delete(self.table).where(self.table.c.id == number))
        if not gone.rowcount:
            raise self._missing(number)

    def _add(self, values: Mapping[str, Any], by: str) -> Entry:
        """Store a new entry; in force on every server about a second later.

        Raises:
            InvalidInput: there are too many, or :meth:`_check` says so.
            LogUnavailable: the database cannot be written.
        """
        row = {**values, "created": time.time(), "by": by}
        row.setdefault(self.changed, row["created"])
        with self._lock, self._database.transaction() as connection:
            if int(connection.execute(select(func.count()).select_from(self.table)).scalar() or 0) >= self.most:
                raise InvalidInput(f"there are {self.most:,} {self.noun}s already: remove some first")
            self._check(connection, values)
            key = connection.execute(insert(self.table).values(row)).inserted_primary_key
        assert key is not None
        return self._read({**row, "id": int(key[0])})

    def _check(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Raises InvalidInput where an entry cannot stand beside the others."""

    def _missing(self, number: int) -> EndcapError:
        return self.unknown(f"there is no {self.noun} {number}")
