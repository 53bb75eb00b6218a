"""What the registry remembers: every version of every kind of model, and every change of what is live."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import Boolean, Column, Connection, Float, Integer, String, Table, Text, insert, select, update

from endcap.errors import EndcapError
from endcap.stores.database import Database, metadata, take_turns

versions = Table(
    "model_versions",
    metadata,
    Column("kind", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("pinned", Boolean, nullable=False, default=False),
    Column("folder", String, nullable=False, default=""),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("metrics", Text, nullable=False, default="{}"),
    Column("provenance", Text, nullable=False, default="{}"),
    Column("verdict", Text, nullable=True),
    Column("shadow", Text, nullable=True),
)

changes = Table(
    "model_changes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("kind", String, nullable=False, index=True),
    Column("action", String, nullable=False),
    Column("version", String, nullable=False),
    Column("before", String, nullable=False, default=""),
    Column("by", String, nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
)

State = Literal["candidate", "shadow", "live", "retired"]
CANDIDATE: State = "candidate"
SHADOW: State = "shadow"
LIVE: State = "live"
RETIRED: State = "retired"

#: Name of the lock under which PostgreSQL's writers change what is live in turn.
_CHANGES = 0x656E6D76


class UnknownVersion(EndcapError):
    """There is no such version, or its files are gone."""

    status = 404
    kind = "unknown_version"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one kind of model.

    Attributes:
        folder: where its files lie: a name in the model folder, or an absolute path; empty where they were removed.
        created, changed: seconds since 1970 (UTC): when it was added, and when its state changed last.
        metrics: numbers of its training's validation. provenance: data window, seed, libraries, the run it came from.
        verdict: of the gate: ``passed``, ``reasons``, ``numbers``, ``against``; None where none has judged it.
        shadow: what scoring it beside the live version has shown so far; None where it has not been.
    """

    kind: str
    version: str
    state: State
    pinned: bool
    folder: str
    created: float
    changed: float
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    shadow: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a kind: ``promote``, ``pin``, ``unpin``, ``roll-back``, ``found`` (live, as it turned out, by a
    hand of its own), ``shadow``, ``refuse`` (the gate), ``remove``, ``withdraw`` (nothing is live any more)."""

    time: float
    kind: str
    action: str
    version: str
    before: str
    by: str
    reason: str


class Versions:
    """The tables. What a change means is the registry's business (:mod:`endcap.registry`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, kind: str, version: str) -> Version:
        """Raises UnknownVersion."""
        with self._database.transaction(read_only=True) as connection:
            return self.one(connection, kind, version)

    def list(self, kind: str = "", state: State | Literal[""] = "", limit: int = 200) -> list[Version]:
        """Newest first."""
        chosen = select(versions).order_by(versions.c.created.desc(), versions.c.version.desc()).limit(limit)
        if kind:
            chosen = chosen.where(versions.c.kind == kind)
        if state:
            chosen = chosen.where(versions.c.state == state)
        with self._database.transaction(read_only=True) as connection:
            return [_version(row) for row in connection.execute(chosen)]

    def history(self, kind: str = "", limit: int = 100) -> Sequence[Change]:
        """Newest first."""
        chosen = select(changes).order_by(changes.c.number.desc()).limit(limit)
        if kind:
            chosen = chosen.where(changes.c.kind == kind)
        with self._database.transaction(read_only=True) as connection:
            return [_change(row) for row in connection.execute(chosen)]

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction in which nobody else changes what is live; gives a connection for the methods below.

        Raises:
            LogUnavailable: nothing of it was stored.
        """
        with self._database.transaction() as connection:
            take_turns(connection, _CHANGES)
            yield connection

    @staticmethod
    def one(connection: Connection, kind: str, version: str) -> Version:
        """Raises UnknownVersion."""
        chosen = select(versions).where(versions.c.kind == kind, versions.c.version == version)
        row = connection.execute(chosen).first()
        if row is None:
            raise UnknownVersion(f"there is no version {version[:100]!r} of {kind[:60]!r}; `endcap models` lists them")
        return _version(row)

    @staticmethod
    def live(connection: Connection, kind: str) -> Version | None:
        """The one that is live."""
        row = connection.execute(select(versions).where(versions.c.kind == kind, versions.c.state == LIVE)).first()
        return None if row is None else _version(row)

    @staticmethod
    def add(connection: Connection, values: Mapping[str, Any]) -> None:
        """A new row; ``metrics`` and ``provenance`` are plain JSON."""
        now = time.time()
        connection.execute(insert(versions).values(created=now, changed=now, **_stored(values)))

    @staticmethod
    def change(connection: Connection, kind: str, version: str, **values: Any) -> None:
        """Change columns of a row."""
        chosen = update(versions).where(versions.c.kind == kind, versions.c.version == version)
        if "state" in values:
            values["changed"] = time.time()
        connection.execute(chosen.values(_stored(values)))

    @staticmethod
    def note(
        connection: Connection, kind: str, action: str, version: str, before: str, by: str, reason: str = ""
    ) -> None:
        """Write a change down."""
        values = {"kind": kind, "action": action, "version": version, "before": before, "by": by[:200]}
        connection.execute(insert(changes).values(time=time.time(), reason=reason[:4_000], **values))

    @staticmethod
    def were_live(connection: Connection, kind: str) -> Sequence[str]:
        """Versions that have been live one after another, the latest last; a roll back takes back what came after."""
        chosen = select(changes.c.action, changes.c.version).where(
            changes.c.kind == kind, changes.c.action.in_(("promote", "pin", "roll-back", "found", "withdraw"))
        )
        line: list[str] = []
        for action, version in connection.execute(chosen.order_by(changes.c.number)):
            if action == "withdraw":
                line.clear()
            elif action == "roll-back" and version in line:
                del line[len(line) - line[::-1].index(version) :]
            elif line[-1:] != [version]:
                line.append(version)
        return line


def added(before: Mapping[str, Any], sums: Mapping[str, float]) -> dict[str, float]:
    """Counts and means, with what further searches have shown; see :meth:`endcap.registry.Registry.shadowed`."""
    old, new = float(before.get("searches", 0)), float(sums.get("searches", 0))
    counts = {name: before.get(name, 0) + sums.get(name, 0) for name in ("searches", "errors")}
    means = {
        name: (before.get(name, 0.0) * old + sums.get(name, 0.0)) / (old + new)
        for name in {**before, **sums}
        if name not in counts and old + new
    }
    return {**counts, **means}


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    texts = ("metrics", "provenance", "verdict", "shadow")
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return {
        name: orjson.dumps(value, option=options).decode() if name in texts and value is not None else value
        for name, value in values.items()
    }


def _version(row: Any) -> Version:
    values = {name: row._mapping[name] for name in Version.__slots__}
    for name in ("metrics", "provenance", "verdict", "shadow"):
        values[name] = orjson.loads(values[name]) if values[name] is not None else None
    return Version(**values)


def _change(row: Any) -> Change:
    return Change(**{name: row._mapping[name] for name in Change.__slots__})
