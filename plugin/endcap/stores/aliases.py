"""Who an anonymous visitor turned out to be: the ids that count for a shopper since he logged in.

The events stay as they were sent. An alias says for good that what its id did, and still does, is the shopper's:
profiles, export and erasure read both. Only a person can part the two again; the same two are then not joined by a
login any more.
"""

from __future__ import annotations

import hashlib
import time as clock
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    String,
    Table,
    UniqueConstraint,
    and_,
    delete,
    func,
    insert,
    select,
)

from endcap.errors import EndcapError
from endcap.events import Action, Event
from endcap.stores.database import NUMBER, Database, metadata
from endcap.stores.events import EventLog, events, store

#: Ids that one shopper can collect: a device has one, and nobody has more devices than this.
MOST_ALIASES = 100

aliases = Table(
    "aliases",
    metadata,
    Column("alias", String, primary_key=True),
    Column("shopper", String, nullable=False),
    Column("time", Float, nullable=False),
    Index("aliases_by_shopper", "shopper"),
)


#: Pairs that a person has parted: a login that joins them again is refused.
separations = Table(
    "separations",
    metadata,
    Column("sequence", NUMBER, primary_key=True, autoincrement=True),
    Column("alias", String, nullable=False),
    Column("shopper", String, nullable=False),
    Column("time", Float, nullable=False),
    UniqueConstraint("shopper", "alias"),
)


class UnknownAlias(EndcapError):
    """The id is not joined to this shopper."""

    status = 404
    kind = "unknown_alias"


class AliasRefused(EndcapError):
    """The anonymous id cannot be joined to this shopper."""

    status = 409
    kind = "alias_refused"


class Login(NamedTuple):
    """Whose an id is, and since when (seconds since 1970) that is known."""

    shopper: str
    time: float


class Aliases:
    """Thread-safe."""

    def __init__(self, database: Database, log: EventLog) -> None:
        self._database = database
        self._log = log

    def attach(
        self, anonymous: str, shopper: str, time: float, event: Event | None = None, by_hand: bool = False
    ) -> bool:
        """From now on the anonymous id's events count for the shopper. True if that is new; saying it again is no harm.

        A ``LOGIN`` event of the shopper is stored in the same transaction, by which every process learns of it.

        Args:
            event: the login as it was sent; made up where there is none.
            by_hand: a person joins them, who may have parted them before.

        Raises:
            AliasRefused: the id belongs to another shopper, is a shopper with ids of his own, or the shopper is himself
                such an id, or has too many, or a person has parted the two.
            LogUnavailable: nothing was stored.
        """
        if not anonymous or not shopper or anonymous == shopper:
            raise AliasRefused("an anonymous id and, different from it, the id that the shopper has since")
        with self._log.writing() as connection:
            owner = _owner(connection, anonymous)
            if owner == shopper:
                return False
            if owner is not None:
                raise AliasRefused("this anonymous id was joined to another shopper before")
            if _owner(connection, shopper) is not None:
                raise AliasRefused("the shopper's id is itself an anonymous one that was joined to a shopper")
            if _count(connection, anonymous):
                raise AliasRefused("the id to be joined is no anonymous one: others were joined to it")
            if _count(connection, shopper) >= MOST_ALIASES:
                raise AliasRefused(f"{MOST_ALIASES} ids were joined to this shopper before; no further ones are taken")
            if by_hand:
                connection.execute(delete(separations).where(_pair(separations, anonymous, shopper)))
            elif connection.execute(select(separations.c.time).where(_pair(separations, anonymous, shopper))).first():
                raise AliasRefused("these two were joined before, and a person has parted them")
            connection.execute(insert(aliases).values(alias=anonymous, shopper=shopper, time=time))
            store(connection, [event or login_event(anonymous, shopper, time)])
        return True

    def detach(self, connection: Connection, anonymous: str, shopper: str) -> None:
        """The id's events no longer count for the shopper, and a login does not join the two again. The login event
        goes, too: a log that is read anew knows nothing of it. Inside :meth:`EventLog.writing`.

        Raises:
            UnknownAlias: it is not joined to this shopper.
        """
        if not connection.execute(delete(aliases).where(_pair(aliases, anonymous, shopper))).rowcount:
            raise UnknownAlias(f"{anonymous[:100]!r} is not joined to this shopper")
        logins = select(events.c.sequence, events.c.attributes).where(
            events.c.shopper == shopper, events.c.action == int(Action.LOGIN)
        )
        for row in connection.execute(logins).all():
            if orjson.loads(row.attributes or b"{}").get("anonymous_id") == anonymous:
                connection.execute(delete(events).where(events.c.sequence == row.sequence))
        connection.execute(insert(separations).values(alias=anonymous, shopper=shopper, time=clock.time()))

    def parted(self, shopper: str) -> list[str]:
        """The ids that a person has parted from the shopper."""
        with self._database.transaction(read_only=True) as connection:
            found = connection.execute(select(separations.c.alias).where(separations.c.shopper == shopper))
            return [row[0] for row in found]

    def of(self, shopper: str) -> list[str]:
        """The ids that count for the shopper besides his own."""
        with self._database.transaction(read_only=True) as connection:
            found = connection.execute(select(aliases.c.alias).where(aliases.c.shopper == shopper))
            return [row[0] for row in found]

    def owners(self, shoppers: Collection[str]) -> dict[str, str]:
        """For those of the ids that were joined to a shopper: which one."""
        if not shoppers:
            return {}
        with self._database.transaction(read_only=True) as connection:
            return owners_in(connection, shoppers)

    def mapping(self) -> Mapping[str, str]:
        """Every alias and its shopper: for those who read the whole log."""
        with self._database.transaction(read_only=True) as connection:
            return {row.alias: row.shopper for row in connection.execute(select(aliases.c.alias, aliases.c.shopper))}

    def logins(self) -> Mapping[str, Login]:
        """As :meth:`mapping`, with the moments: for those who live through the log once more."""
        chosen = select(aliases.c.alias, aliases.c.shopper, aliases.c.time)
        with self._database.transaction(read_only=True) as connection:
            return {row.alias: Login(row.shopper, float(row.time)) for row in connection.execute(chosen)}


def login_event(anonymous: str, shopper: str, time: float) -> Event:
    """The event that says who an anonymous visitor turned out to be; the same two ids make the same event."""
    digest = hashlib.blake2b(orjson.dumps([anonymous, shopper]), digest_size=16).hexdigest()
    return Event(f"login:{digest}", time, shopper, Action.LOGIN, attributes={"anonymous_id": anonymous})


def owners_in(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """See :meth:`Aliases.owners`."""
    wanted = list(ids)
    if connection.dialect.name == "postgresql":
        found = connection.exec_driver_sql("SELECT alias, shopper FROM aliases WHERE alias = ANY(%s)", (wanted,))
    else:
        asked = "SELECT alias, shopper FROM aliases WHERE alias IN (SELECT value FROM json_each(?))"
        found = connection.exec_driver_sql(asked, (orjson.dumps(wanted).decode(),))
    return {row[0]: row[1] for row in found}


def _pair(table: Table, alias: str, shopper: str) -> Any:
    return and_(table.c.alias == alias, table.c.shopper == shopper)


def _owner(connection: Connection, alias: str) -> Any:
    return connection.execute(select(aliases.c.shopper).where(aliases.c.alias == alias)).scalar()


def _count(connection: Connection, shopper: str) -> int:
    chosen = select(func.count()).select_from(aliases).where(aliases.c.shopper == shopper)
    return int(connection.execute(chosen).scalar() or 0)
