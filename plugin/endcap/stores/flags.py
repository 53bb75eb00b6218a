"""Who and what is suspected of fraud, what people decided about it, and whose behaviour is left out because of it.

A flag is suspected until a person confirms or dismisses it. A suspected or confirmed shopper's behaviour counts for
nothing but itself: training, popularity, what is bought together, suggestions, rewards, experiments and demand leave it
out (:meth:`Flags.excluded_shoppers`). Dismissing brings it back. A suspicion that its detector no longer holds lapses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import Connection, func, insert, select, update

from endcap.stores.aliases import aliases
from endcap.stores.database import Database, take_turns
from endcap.stores.flag_records import (
    CONFIRMED,
    DISMISSED,
    EXCLUDING,
    KINDS,
    LAPSED,
    STATES,
    SUSPECTED,
    Change,
    Flag,
    FlagConflict,
    Suspicion,
    UnknownFlag,
    flag_changes,
    flags,
)

__all__ = [
    "CONFIRMED", "DISMISSED", "KINDS", "LAPSED", "STATES", "SUSPECTED", "Change", "Flag", "FlagConflict", "Flags",
    "Suspicion", "UnknownFlag", "flag_changes", "flags",
]  # fmt: skip

#: Name of the lock that PostgreSQL's writers take in turn.
_WRITERS = 0x656E6466
#: Subjects asked for in one statement.
_CHUNK = 900


class Flags:
    """Thread-safe; many processes may share the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        #: Version, flagged shoppers, and these with what is joined to them.
        self._cached: tuple[int, frozenset[str], frozenset[str]] = (-1, frozenset(), frozenset())

    def version(self) -> int:
        """Grows with every change of a state; 0 before the first."""
        with self._database.transaction(read_only=True) as connection:
            return int(connection.execute(select(func.max(flag_changes.c.id))).scalar() or 0)

    def excluded_shoppers(self) -> frozenset[str]:
        """Ids whose behaviour is left out now: flagged shoppers, and what was joined to them. Cheap while nothing has
        changed."""
        return self.excluded()[1]

    def excluded(self) -> tuple[int, frozenset[str]]:
        """:meth:`version` and :meth:`excluded_shoppers` that belong together."""
        with self._lock:
            with self._database.transaction(read_only=True) as connection:
                version = int(connection.execute(select(func.max(flag_changes.c.id))).scalar() or 0)
                if version != self._cached[0]:
                    chosen = select(flags.c.subject).where(flags.c.kind == "shopper", flags.c.state.in_(EXCLUDING))
                    flagged = frozenset(row[0] for row in connection.execute(chosen))
                    self._cached = version, flagged, flagged
                _, flagged, left_out = self._cached
                if flagged:  # a log-in changes no flag, nor does a parting
                    joined = select(aliases.c.alias).join(flags, flags.c.subject == aliases.c.shopper)
                    joined = joined.where(flags.c.kind == "shopper", flags.c.state.in_(EXCLUDING))
                    now = flagged.union(row[0] for row in connection.execute(joined))
                    if now != left_out:
                        self._cached = version, flagged, now
            return version, self._cached[2]

    def suspect(self, found: Sequence[Suspicion], source: str, now: float | None = None) -> int:
        """Flag what a detector or a person found; gives how many became suspected by it.

        A flag that is there gets the new score, reasons and evidence; a lapsed one is suspected again; what a person
        confirmed or dismissed stays so.

        Raises:
            ValueError: a kind that is none, or an empty subject.
            LogUnavailable: none was stored.
        """
        now = time.time() if now is None else now
        latest = {(one.kind, one.subject): one for one in found}
        for kind, subject in latest:
            if kind not in KINDS or not subject:
                raise ValueError(f"cannot flag {kind!r} {subject!r}: a kind of {', '.join(KINDS)} and a subject")
        new = 0
        with self._writing() as connection:
            for kind in KINDS:
                subjects = [subject for one, subject in latest if one == kind]
                for start in range(0, len(subjects), _CHUNK):
                    chunk = subjects[start : start + _CHUNK]
                    chosen = select(flags.c.subject, flags.c.id, flags.c.state)
                    rows = connection.execute(chosen.where(flags.c.kind == kind, flags.c.subject.in_(chunk)))
                    known = {row[0]: (int(row[1]), str(row[2])) for row in rows}
                    for subject in chunk:
                        new += _suspect(connection, latest[kind, subject], known.get(subject), source, now)
        return new

    def lapse(self, kind: str, source: str, still: Collection[str], now: float | None = None) -> int:
        """End the suspicions of ``source`` about subjects that are not among ``still``; gives how many."""
        now = time.time() if now is None else now
        chosen = select(flags.c.id, flags.c.subject).where(
            flags.c.kind == kind, flags.c.source == source, flags.c.state == SUSPECTED
        )
        with self._writing() as connection:
            gone = [int(row[0]) for row in connection.execute(chosen) if row[1] not in still]
            for number in gone:
                _move(connection, number, SUSPECTED, LAPSED, source, "no longer found", now)
        return len(gone)

    def decide(self, number: int, state: str, by: str, note: str = "", now: float | None = None) -> Flag:
        """A person's word: ``confirmed``, ``dismissed``, or ``suspected`` to put it back in the queue.

        Raises:
            UnknownFlag: no flag has this number.
            FlagConflict: it is in that state already, or the state is none that people give.
        """
        if state not in (SUSPECTED, CONFIRMED, DISMISSED):
            raise FlagConflict(f"a flag can be confirmed, dismissed or suspected, not {state!r:.40}")
        with self._writing() as connection:
            flag = _get(connection, number)
            if flag.state == state:
                raise FlagConflict(f"flag {number} is {state} already")
            when = time.time() if now is None else now
            _move(connection, number, flag.state, state, by, note, when, decision=True)
            return _get(connection, number)

    def undo(self, number: int, by: str, now: float | None = None) -> Flag:
        """Take back the latest decision of a person that has not been taken back yet.

        Raises:
            UnknownFlag: no flag has this number.
            FlagConflict: nothing was decided about it.
        """
        with self._writing() as connection:
            flag = _get(connection, number)
            changes = _changes(connection, number)
            undone = {change.undoes for change in changes}
            decided = [change for change in changes if change.decision and change.id not in undone]
            if not decided:
                raise FlagConflict(f"nothing was decided about flag {number}: there is nothing to undo")
            last = decided[-1]
            when = time.time() if now is None else now
            _move(connection, number, flag.state, last.before, by, "undone", when, undoes=last.id)
            return _get(connection, number)

    def get(self, number: int) -> Flag:
        """The flag of this number. Raises UnknownFlag."""
        with self._database.transaction(read_only=True) as connection:
            return _get(connection, number)

    def find(self, kind: str, subject: str) -> Flag | None:
        """The flag of a subject, None where it has none."""
        with self._database.transaction(read_only=True) as connection:
            row = connection.execute(select(flags).where(flags.c.kind == kind, flags.c.subject == subject)).first()
        return _flag(row._mapping) if row else None

    def history(self, number: int) -> list[Change]:
        """All changes of a flag, oldest first. Raises UnknownFlag."""
        with self._database.transaction(read_only=True) as connection:
            _get(connection, number)
            return _changes(connection, number)

    def queue(
        self, state: str = "", kind: str = "", contains: str = "", limit: int = 100, offset: int = 0
    ) -> list[Flag]:
        """Flags, the highest score first. An empty filter takes all."""
        chosen = _filtered(select(flags), state, kind, contains)
        chosen = chosen.order_by(flags.c.score.desc(), flags.c.id).limit(limit).offset(offset)
        with self._database.transaction(read_only=True) as connection:
            return [_flag(row._mapping) for row in connection.execute(chosen)]

    def count(self, state: str = "", kind: str = "", contains: str = "") -> int:
        """How many :meth:`queue` would give without a limit."""
        chosen = _filtered(select(func.count()).select_from(flags), state, kind, contains)
        with self._database.transaction(read_only=True) as connection:
            return int(connection.execute(chosen).scalar() or 0)

    def counts(self) -> dict[str, dict[str, int]]:
        """Flags by kind and state."""
        chosen = select(flags.c.kind, flags.c.state, func.count()).group_by(flags.c.kind, flags.c.state)
        found: dict[str, dict[str, int]] = {kind: dict.fromkeys(STATES, 0) for kind in KINDS}
        with self._database.transaction(read_only=True) as connection:
            for kind, state, number in connection.execute(chosen):
                found[kind][state] = int(number)
        return found

    def labels(self, kind: str = "shopper") -> dict[str, bool]:
        """What people decided: subject -> True for fraud, False for genuine."""
        chosen = select(flags.c.subject, flags.c.state).where(
            flags.c.kind == kind, flags.c.state.in_((CONFIRMED, DISMISSED))
        )
        with self._database.transaction(read_only=True) as connection:
            return {subject: state == CONFIRMED for subject, state in connection.execute(chosen)}

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction in which this process alone writes flags."""
        with self._database.transaction() as connection:
            take_turns(connection, _WRITERS)
            yield connection


def _suspect(connection: Connection, one: Suspicion, known: tuple[int, str] | None, source: str, now: float) -> int:
    values = {
        "score": float(one.score),
        "reasons": orjson.dumps(list(one.reasons)),
        "evidence": orjson.dumps(dict(one.evidence), option=orjson.OPT_SERIALIZE_NUMPY),
        "updated": now,
    }
    if known is None:
        row = {"kind": one.kind, "subject": one.subject, "state": SUSPECTED, "source": source, "created": now, **values}
        made = connection.execute(insert(flags).values(row)).inserted_primary_key
        assert made is not None
        _log(connection, int(made[0]), "", SUSPECTED, source, "", now)
        return 1
    number, state = known
    connection.execute(update(flags).where(flags.c.id == number).values(values))
    if state != LAPSED:
        return 0
    connection.execute(update(flags).where(flags.c.id == number).values(source=source))
    _move(connection, number, LAPSED, SUSPECTED, source, "found again", now)
    return 1


def _move(
    connection: Connection, number: int, before: str, after: str, by: str, note: str, now: float,
    decision: bool = False, undoes: int | None = None,
) -> None:  # fmt: skip
    connection.execute(update(flags).where(flags.c.id == number).values(state=after, updated=now))
    _log(connection, number, before, after, by, note, now, decision, undoes)


def _log(
    connection: Connection, number: int, before: str, after: str, by: str, note: str, now: float,
    decision: bool = False, undoes: int | None = None,
) -> None:  # fmt: skip
    row = {
        "flag": number, "time": now, "by": by, "before": before, "after": after, "note": note,
        "decision": decision, "undoes": undoes,
    }  # fmt: skip
    connection.execute(insert(flag_changes).values(row))


def _filtered(chosen: Any, state: str, kind: str, contains: str) -> Any:
    if state:
        chosen = chosen.where(flags.c.state == state)
    if kind:
        chosen = chosen.where(flags.c.kind == kind)
    if contains:
        chosen = chosen.where(flags.c.subject.contains(contains, autoescape=True))
    return chosen


def _get(connection: Connection, number: int) -> Flag:
    row = connection.execute(select(flags).where(flags.c.id == number)).first()
    if row is None:
        raise UnknownFlag(f"there is no flag {number}")
    return _flag(row._mapping)


def _changes(connection: Connection, number: int) -> list[Change]:
    chosen = select(flag_changes).where(flag_changes.c.flag == number).order_by(flag_changes.c.id)
    return [
        Change(**{name: value for name, value in row._mapping.items() if name != "flag"})
        for row in connection.execute(chosen)
    ]


def _flag(row: Any) -> Flag:
    fields = dict(row)
    return Flag(
        reasons=tuple(orjson.loads(fields.pop("reasons"))), evidence=orjson.loads(fields.pop("evidence")), **fields
    )
