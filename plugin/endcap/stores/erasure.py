"""All that is kept about one shopper: given out, and erased (GDPR articles 15, 17 and 20).

Every table that has a column ``shopper`` takes part by itself, so that no store can be forgotten. A table whose rows
have to outlive the shopper says so: ``info={"erase": False}``. Rejected events, kept as they were sent, are
searched for his ids.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Table, delete, or_, select

from endcap.events import to_ubi
from endcap.stores.aliases import Aliases, aliases, separations
from endcap.stores.database import Database, metadata
from endcap.stores.erasures import digests_after, newest, note
from endcap.stores.events import EventLog, event_of, events
from endcap.stores.profiles import ProfileStore
from endcap.stores.rankings import Rankings, rankings
from endcap.stores.rejects import rejects

#: Rows deleted in one transaction: others may write in between.
_BATCH = 2_000

#: Seconds after which what was on its way to the database at the erasure has arrived, and is erased, too.
LATE_S = 10.0
#: Rows named in one statement.
_CHUNK = 500

#: So many of the latest erasures a process that has just started says again: one that died may have told nobody.
_SAID_AGAIN = 1_000


class Erasure:
    """Thread-safe."""

    def __init__(self, database: Database, log: EventLog, aliases: Aliases, profiles: ProfileStore) -> None:
        self._database = database
        self._log = log
        self._aliases = aliases
        self._profiles = profiles
        self._seen: int | None = None
        self._late: deque[tuple[float, float, Sequence[str]]] = deque()

    def export(self, shopper: str) -> Iterator[dict[str, Any]]:
        """Everything about the shopper as plain JSON objects, each with its ``kind``: ``shopper``, ``profile``,
        ``event`` (as UBI), ``ranking``, or a table's name (``rejects``: events that were refused).
        Streamed in bounded memory; oldest first.

        Raises:
            LogUnavailable: the database cannot be read.
        """
        ids = [shopper, *self._aliases.of(shopper)]
        yield {"kind": "shopper", "shopper": shopper, "also_known_as": ids[1:], "exported": time.time()}
        profile = self._profiles.get(shopper)
        yield {
            "kind": "profile",
            "products": len(profile.counters),
            "latest_actions": len(profile.recent),
            "bytes": profile.nbytes,
        }
        for row in self._pages(events, ids):
            yield {"kind": "event", **to_ubi(event_of(row))}
        log = Rankings(self._database)
        for row in self._pages(rankings, ids):
            one = log.by_id(row["id"])
            if one is not None:
                yield {"kind": "ranking", **_plain_ranking(one)}
        for table in _tables():
            if table not in (events, rankings, aliases, separations):
                with self._database.transaction(read_only=True) as connection:
                    rows = connection.execute(select(table).where(table.c.shopper.in_(ids))).all()
                for row in rows:
                    yield {"kind": table.name, **{name: _plain(value) for name, value in row._mapping.items()}}
        with self._database.transaction(read_only=True) as connection:
            refused = _refused(connection, ids)
        for row in refused:
            yield {"kind": rejects.name, **row._mapping}

    def erase(self, shopper: str) -> dict[str, int]:
        """Delete all of it, the ids that were joined to the shopper included. Gives rows deleted by table.

        What is bought together and again, which is kept by a key made of the id, every server learns anew from the log.
        Counts without names (what sells) keep what they learned. Doing it again is no harm; what the shopper's browser
        sends afterwards is a new shopper's.

        Raises:
            LogUnavailable: the database failed; what is left can be erased by calling again.
        """
        gone: Counter[str] = Counter()
        while not self._erased([shopper, *self._aliases.of(shopper)], gone):
            pass  # somebody logged in as him meanwhile, with one more id
        return dict(gone)

    def _erased(self, ids: Sequence[str], gone: Counter[str]) -> bool:
        for table in _tables():
            if table is not aliases:
                gone[table.name] += self._delete(table, ids)
        gone[rejects.name] += self._delete_refused(ids)
        # Last, since a run that was cut short must find the ids again; and while nobody can log in.
        with self._log.writing() as connection:
            own = aliases.c.shopper.in_(ids) | aliases.c.alias.in_(ids)
            joined = connection.execute(select(aliases.c.alias, aliases.c.shopper).where(own)).all()
            if not {row.alias for row in joined} <= set(ids):
                return False
            gone[aliases.name] += connection.execute(delete(aliases).where(own)).rowcount
            gone[separations.name] += connection.execute(
                delete(separations).where(separations.c.alias.in_(ids))
            ).rowcount
            # Where one of them was joined to another shopper, that one's profile held what is gone.
            concerned = {*ids, *(row.shopper for row in joined)}
            note(connection, concerned)
        self._profiles.forgotten(concerned)
        self._late.append((time.monotonic() + LATE_S, time.time(), ids))
        return True

    def separate(self, anonymous: str, shopper: str) -> None:
        """An id was joined to a shopper wrongly: its events no longer count for him, in any process, in his profile nor
        in what is bought together, and a login does not join the two again. Both keep what is their own.

        Raises:
            UnknownAlias: it is not joined to this shopper.
            LogUnavailable: nothing was changed.
        """
        with self._log.writing() as connection:
            self._aliases.detach(connection, anonymous, shopper)
            note(connection, (anonymous, shopper))
        self._profiles.forgotten((anonymous, shopper))

    def follow(self) -> float:
        """Forget the profiles of those whom other processes erased or parted, and erase what came late of those whom
        this one erased; called every second or so by the upkeep.

        Raises:
            LogUnavailable: the database cannot be read now.
        """
        while self._late and time.monotonic() >= self._late[0][0]:
            _, until, ids = self._late[0]
            # Processes write what they showed, and refused, a moment later.
            self._delete(rankings, ids, until)
            self._delete_refused(ids, until)
            self._late.popleft()
        with self._database.transaction(read_only=True) as connection:
            latest = newest(connection)
            if latest == self._seen:
                return 0.0
            erased = digests_after(connection, latest - _SAID_AGAIN if self._seen is None else self._seen)
        self._profiles.erased(erased)
        self._seen = latest
        return 0.0

    def version(self) -> int:
        """Changes with every erasure, and only then: what was learned before has to be learned anew.

        Raises:
            LogUnavailable: the database cannot be read now.
        """
        with self._database.transaction(read_only=True) as connection:
            return newest(connection)

    def _delete_refused(self, ids: Sequence[str], until: float = math.inf) -> int:
        with self._database.transaction() as connection:
            numbers = [row.sequence for row in _refused(connection, ids) if row.time <= until]
            for start in range(0, len(numbers), _CHUNK):
                connection.execute(delete(rejects).where(rejects.c.sequence.in_(numbers[start : start + _CHUNK])))
        return len(numbers)

    def _delete(self, table: Table, ids: Sequence[str], until: float | None = None) -> int:
        key = next(iter(table.primary_key.columns))
        some = select(key).where(table.c.shopper.in_(ids)).limit(_BATCH)
        if until is not None:
            some = some.where(table.c.time <= until)
        total = 0
        while True:
            with self._database.transaction() as connection:
                gone = connection.execute(delete(table).where(key.in_(some))).rowcount
            total += gone
            if gone < 1:
                return total

    def _pages(self, table: Table, ids: Sequence[str]) -> Iterator[Any]:
        last = 0
        while True:
            chosen = select(table).where(table.c.shopper.in_(ids), table.c.sequence > last)
            with self._database.transaction(read_only=True) as connection:
                rows = connection.execute(chosen.order_by(table.c.sequence).limit(_BATCH)).all()
            if not rows:
                return
            for row in rows:
                yield row._mapping
            last = rows[-1]._mapping["sequence"]


def _tables() -> list[Table]:
    return [table for table in metadata.sorted_tables if "shopper" in table.c and table.info.get("erase", True)]


def _refused(connection: Connection, ids: Sequence[str]) -> list[Any]:
    """Rejected events that name one of the ids, signed or not, oldest first."""
    texts = [orjson.dumps(one).decode()[:-1] for one in ids]
    chosen = select(rejects).where(or_(*(rejects.c.event.contains(text, autoescape=True) for text in texts)))
    # LIKE knows no difference between ann and ANN everywhere, and ann is no annette: what is another's stays.
    exact = re.compile(f'(?:{"|".join(map(re.escape, texts))})(?:\\.[A-Za-z0-9_-]{{27}})?"(?!:)')
    return [row for row in connection.execute(chosen.order_by(rejects.c.sequence)) if exact.search(row.event)]


def _plain_ranking(one: Any) -> dict[str, Any]:
    features = None
    if one.features is not None:
        features = [dict(zip(one.feature_names, row.tolist())) for row in one.features]
    return {
        "id": one.id, "time": one.time, "shopper": one.shopper, "session": one.session, "query": one.query,
        "endpoint": one.endpoint, "products": list(one.products), "positions": list(one.positions),
        "scorer": one.scorer, "arm": one.arm, "propensity": one.propensity, "degraded": one.degraded,
        "context": dict(one.context), "features": features,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, (bytes, memoryview)) else value
