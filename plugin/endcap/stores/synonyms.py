"""Synonyms that the shop keeps in the database, shared by all servers; a file of them may stand beside."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from sqlalchemy import Column, Float, String, Table, delete, func, insert, select

from endcap.errors import EndcapError, InvalidInput
from endcap.stores.database import NUMBER, Database, metadata
from endcap.synonyms import MOST_RULES, parse_rule

synonyms = Table(
    "synonyms",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("rule", String, nullable=False),  # as in a file of Solr's: "tv, television" or "telly => tv"
    Column("created", Float, nullable=False),
    Column("by", String, nullable=False, default=""),
    sqlite_autoincrement=True,  # a number of a rule that was removed is never given again
)


class UnknownSynonym(EndcapError):
    """There is no synonym rule of that number."""

    status = 404
    kind = "unknown_synonym"


@dataclass(frozen=True, slots=True)
class StoredSynonym:
    """A rule as stored; ``created`` is in seconds since 1970."""

    id: int
    rule: str
    created: float
    by: str


class SynonymStore:
    """Thread-safe; many processes may share the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()

    def version(self) -> tuple[int, int]:
        """Differs after every change: newest number, how many."""
        wanted = select(func.max(synonyms.c.id), func.count()).select_from(synonyms)
        with self._database.transaction(read_only=True) as connection:
            newest, count = connection.execute(wanted).one()
        return int(newest or 0), int(count)

    def all(self) -> list[StoredSynonym]:
        """Every rule, by number."""
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(select(synonyms).order_by(synonyms.c.id)).mappings().all()
        return [StoredSynonym(int(row["id"]), row["rule"], row["created"], row["by"]) for row in rows]

    def add(self, rule: str, by: str = "") -> StoredSynonym:
        """Store a rule; in force on every server about a second later.

        Raises:
            InvalidInput: it is none, it is there already, or there are too many.
        """
        text = parse_rule(rule).written
        now = time.time()
        with self._lock, self._database.transaction() as connection:
            if int(connection.execute(select(func.count()).select_from(synonyms)).scalar() or 0) >= MOST_RULES:
                raise InvalidInput(f"there are {MOST_RULES:,} synonym rules already: remove some first")
            same = connection.execute(select(synonyms.c.id).where(synonyms.c.rule == text)).scalar()
            if same is not None:
                raise InvalidInput(f"rule {same} says the same: {text}")
            key = connection.execute(insert(synonyms).values(rule=text, created=now, by=by)).inserted_primary_key
        assert key is not None
        return StoredSynonym(int(key[0]), text, now, by)

    def remove(self, number: int) -> None:
        """Raises UnknownSynonym."""
        with self._lock, self._database.transaction() as connection:
            gone = connection.execute(delete(synonyms).where(synonyms.c.id == number))
        if not gone.rowcount:
            raise UnknownSynonym(f"there is no synonym rule {number}")
