"""Business rules in the database: the shop's, shared by all servers, each looked at for changes about once a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import orjson
from sqlalchemy import (
    Column,
    Float,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from endcap.errors import EndcapError, InvalidInput
from endcap.policy.rule import Rule, rule_of
from endcap.stores.database import NUMBER, Database, metadata

#: Rules in force at once: every search looks at all of them.
MOST_RULES = 1_000

rules = Table(
    "rules",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("definition", LargeBinary, nullable=False),  # JSON
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("by", String, nullable=False, default=""),
    sqlite_autoincrement=True,  # a number of a rule that was removed is never given again
)


class UnknownRule(EndcapError):
    """There is no rule of that number."""

    status = 404
    kind = "unknown_rule"


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule as stored; times are seconds since 1970."""

    id: int
    rule: Rule
    created: float
    updated: float
    by: str


class Rules:
    """Thread-safe; many processes may share the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()

    def version(self) -> tuple[int, int, float]:
        """Differs after every change: newest number, how many, latest change."""
        wanted = select(func.max(rules.c.id), func.count(), func.max(rules.c.updated)).select_from(rules)
        with self._database.transaction(read_only=True) as connection:
            newest, count, latest = connection.execute(wanted).one()
        return int(newest or 0), int(count), float(latest or 0.0)

    def all(self) -> list[StoredRule]:
        """Every rule, by number."""
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(select(rules).order_by(rules.c.id)).all()
        return [_stored(row) for row in rows]

    def get(self, number: int) -> StoredRule:
        """Raises UnknownRule."""
        with self._database.transaction(read_only=True) as connection:
            row = connection.execute(select(rules).where(rules.c.id == number)).first()
        if row is None:
            raise UnknownRule(f"there is no rule {number}")
        return _stored(row)

    def add(self, rule: Rule, by: str = "") -> StoredRule:
        """Store a new rule; in force on every server about a second later.

        Raises:
            InvalidInput: there are too many.
            LogUnavailable: the database cannot be written.
        """
        now = time.time()
        values = {"definition": _json(rule), "created": now, "updated": now, "by": by}
        with self._lock, self._database.transaction() as connection:
            if int(connection.execute(select(func.count()).select_from(rules)).scalar() or 0) >= MOST_RULES:
                raise InvalidInput(f"there are {MOST_RULES} rules already: remove some first")
            key = connection.execute(insert(rules).values(values)).inserted_primary_key
        assert key is not None
        return StoredRule(int(key[0]), rule, now, now, by)

    def replace(self, number: int, rule: Rule, by: str = "") -> StoredRule:
        """Change a rule.

        Raises:
            UnknownRule: there is none of that number.
        """
        before = self.get(number)
        with self._lock, self._database.transaction() as connection:
            # Later than any change before: two within a clock's tick are two versions, and so is one that comes from a
            # server whose clock is behind.
            latest = float(connection.execute(select(func.max(rules.c.updated))).scalar() or 0.0)
            now = max(time.time(), latest + 1e-3)
            changed = connection.execute(
                update(rules).where(rules.c.id == number).values(definition=_json(rule), updated=now, by=by)
            )
        if not changed.rowcount:
            raise UnknownRule(f"there is no rule {number}")
        return StoredRule(number, rule, before.created, now, by)

    def remove(self, number: int) -> None:
        """Raises UnknownRule."""
        with self._lock, self._database.transaction() as connection:
            gone = connection.execute(delete(rules).where(rules.c.id == number))
        if not gone.rowcount:
            raise UnknownRule(f"there is no rule {number}")


def _json(rule: Rule) -> bytes:
    return orjson.dumps(rule.model_dump(mode="json", exclude_none=True))


def _stored(row: object) -> StoredRule:
    found = row._mapping  # type: ignore[attr-defined]
    return StoredRule(
        int(found["id"]), rule_of(orjson.loads(found["definition"])), found["created"], found["updated"], found["by"]
    )
