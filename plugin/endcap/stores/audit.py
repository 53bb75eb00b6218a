"""The audit log: who changed what, when, from where, with which outcome."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    Float,
    Index,
    SmallInteger,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
)

from endcap.stores.database import NUMBER, Database, metadata

#: Largest parameters kept, as JSON; longer ones are cut, and say so.
MAX_PARAMETERS_BYTES = 4_000
_SECRET = re.compile(r"token|secret|passw|api_?key|authorization|csrf|cookie|credential", re.IGNORECASE)
_HIDDEN = "(hidden)"
_PASSWORD = re.compile(r"(\w+://[^/@\s:]*:)[^/@\s]+@")

audit = Table(
    "audit",
    metadata,
    Column("sequence", NUMBER, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("token", String, nullable=False, default=""),
    Column("who", String, nullable=False, default=""),
    Column("role", String, nullable=False, default=""),
    Column("address", String, nullable=False, default=""),
    Column("action", String, nullable=False),
    Column("path", String, nullable=False, default=""),
    Column("status", SmallInteger, nullable=False, default=0),
    Column("outcome", String, nullable=False, default=""),
    Column("parameters", Text, nullable=False, default="{}"),
    Column("request_id", String, nullable=False, default=""),
    Index("audit_by_time", "time"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``token`` is the token's id and ``who`` its name, both empty where nobody was let in; ``action`` is
    ``METHOD route``; ``outcome`` is ``done`` or the short name of what went wrong."""

    action: str
    path: str = ""
    status: int = 0
    outcome: str = ""
    token: str = ""
    who: str = ""
    role: str = ""
    address: str = ""
    parameters: Mapping[str, Any] | None = None
    request_id: str = ""
    time: float = 0.0
    sequence: int = 0


class AuditLog:
    """The audit log of a database. Thread-safe; lines are only ever added, and forgotten by age."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def write(self, entry: Entry) -> None:
        """Add a line; secrets among the parameters are left out.

        Raises:
            LogUnavailable: it was not stored.
        """
        row = {name: getattr(entry, name) for name in Entry.__slots__ if name not in ("sequence", "parameters")}
        row["time"] = entry.time or self._clock()
        row["path"] = entry.path[:500]
        row["parameters"] = _json(without_secrets(entry.parameters or {}))
        with self._database.transaction() as connection:
            connection.execute(insert(audit), row)

    def latest(
        self, limit: int = 100, before: int = 0, who: str = "", action: str = "", since: float = 0.0
    ) -> list[Entry]:
        """The newest lines first: those numbered below ``before``, of one token's name or id, whose action contains a
        text, not older than ``since``; each only where given."""
        chosen = select(audit).order_by(audit.c.sequence.desc()).limit(limit)
        if before:
            chosen = chosen.where(audit.c.sequence < before)
        if who:
            chosen = chosen.where((audit.c.who == who) | (audit.c.token == who))
        if action:
            chosen = chosen.where(audit.c.action.contains(action, autoescape=True))
        if since:
            chosen = chosen.where(audit.c.time >= since)
        with self._database.transaction(read_only=True) as connection:
            return [_entry(row) for row in connection.execute(chosen).mappings()]

    def forget_before(self, moment: float) -> int:
        """Delete lines older than ``moment`` (seconds since 1970); how many."""
        with self._database.transaction() as connection:
            return connection.execute(delete(audit).where(audit.c.time < moment)).rowcount


def without_secrets(value: Any) -> Any:
    """The value with everything hidden whose name sounds like a secret, and passwords in addresses."""
    if isinstance(value, Mapping):
        return {
            str(name): _HIDDEN if _SECRET.search(str(name)) else without_secrets(part) for name, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(part) for part in value]
    return _PASSWORD.sub(r"\1***@", value) if isinstance(value, str) else value


def _json(parameters: Any) -> str:
    text = orjson.dumps(parameters, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    if len(text.encode()) <= MAX_PARAMETERS_BYTES:
        return text
    return orjson.dumps({"cut": text[: MAX_PARAMETERS_BYTES // 4], "bytes": len(text.encode())}).decode()


def _entry(row: Any) -> Entry:
    fields = {name: row[name] for name in Entry.__slots__ if name != "parameters"}
    return Entry(**fields, parameters=orjson.loads(row["parameters"]))
