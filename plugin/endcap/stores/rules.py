"""Business rules in the database: the shop's, shared by all servers, each looked at for changes about once a second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Column, Float, LargeBinary, String, Table, func, select, update

from endcap.errors import EndcapError
from endcap.policy.rule import Rule, rule_of
from endcap.stores.database import NUMBER, metadata
from endcap.stores.numbered import NumberedStore

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


class Rules(NumberedStore[StoredRule]):
    """See :class:`~endcap.stores.numbered.NumberedStore`."""

    table = rules
    changed = "updated"
    noun = "rule"
    unknown = UnknownRule
    most = MOST_RULES

    def add(self, rule: Rule, by: str = "") -> StoredRule:
        """Store a new rule; in force on every server about a second later.

        Raises:
            InvalidInput: there are too many.
            LogUnavailable: the database cannot be written.
        """
        return self._add({"definition": _json(rule)}, by)

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
            raise self._missing(number)
        return StoredRule(number, rule, before.created, now, by)

    def _read(self, row: Mapping[Any, Any]) -> StoredRule:
        found = rule_of(orjson.loads(row["definition"]))
        return StoredRule(int(row["id"]), found, row["created"], row["updated"], row["by"])


def _json(rule: Rule) -> bytes:
    return orjson.dumps(rule.model_dump(mode="json", exclude_none=True))
