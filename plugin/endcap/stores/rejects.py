"""Events that were not accepted, with the reason: the latest ten thousand, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Column, Float, String, Table, Text, delete, func, insert, select

from endcap.stores.database import NUMBER, Database, metadata

#: So many are kept; older ones make room.
KEPT = 10_000
#: Characters of an event that are kept.
LONGEST = 2_000

rejects = Table(
    "rejects",
    metadata,
    Column("sequence", NUMBER, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("code", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("event", Text, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Reject:
    """``time``: when it came, in seconds since 1970. ``code`` is the same for all events with this kind of fault.
    ``event``: what was sent, as JSON, cut to ``LONGEST`` characters."""

    time: float
    code: str
    reason: str
    event: str


class Rejects:
    """Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, batch: Sequence[Reject]) -> None:
        """Keep these; the oldest beyond ``KEPT`` go.

        Raises:
            LogUnavailable: none was stored.
        """
        rows = [{"time": one.time, "code": one.code, "reason": one.reason, "event": one.event} for one in batch[-KEPT:]]
        if not rows:
            return
        with self._database.transaction() as connection:
            connection.execute(insert(rejects), rows)
            newest = select(func.max(rejects.c.sequence)).scalar_subquery()
            connection.execute(delete(rejects).where(rejects.c.sequence <= newest - KEPT))

    def latest(self, limit: int = 50, code: str = "") -> list[Reject]:
        """The newest first; of one ``code`` only, where that is given."""
        chosen = select(rejects).order_by(rejects.c.sequence.desc()).limit(limit)
        if code:
            chosen = chosen.where(rejects.c.code == code)
        with self._database.transaction(read_only=True) as connection:
            return [Reject(row.time, row.code, row.reason, row.event) for row in connection.execute(chosen)]

    def counts(self, since: float = 0.0) -> dict[str, int]:
        """How many of the kept ones came since then, by code, most first."""
        number = func.count().label("number")
        chosen = select(rejects.c.code, number).where(rejects.c.time >= since)
        chosen = chosen.group_by(rejects.c.code).order_by(number.desc(), rejects.c.code)
        with self._database.transaction(read_only=True) as connection:
            return {row.code: row.number for row in connection.execute(chosen)}


def reject(time: float, code: str, reason: str, raw: Any) -> Reject:
    """What is kept of a raw event."""
    try:
        text = raw if isinstance(raw, str) else orjson.dumps(raw, default=str).decode()
    except (orjson.JSONEncodeError, UnicodeError):
        text = repr(raw)
    return Reject(time, code, _clean(reason), _clean(text))


def _clean(text: str) -> str:
    return text[:LONGEST].replace("\x00", "").encode("utf-8", "replace").decode()
