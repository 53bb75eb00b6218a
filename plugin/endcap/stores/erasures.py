"""That somebody was erased, or an id parted from him, and when, without saying who: by which all processes, and Redis,
know that what they keep of him is no longer so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from sqlalchemy import Column, Connection, Float, String, Table, func, insert, select

from endcap.stores.database import NUMBER, metadata, take_turns

erasures = Table(
    "erasures",
    metadata,
    Column("sequence", NUMBER, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("digest", String, nullable=False),
)

#: Name of the lock that PostgreSQL's writers take in turn.
_WRITERS = 0x656E6578


def digest(shopper: str) -> str:
    """A shopper's name where it must not say who he is."""
    return hashlib.blake2b(shopper.encode("utf-8", "replace"), digest_size=16).hexdigest()


def note(connection: Connection, ids: Iterable[str]) -> None:
    """Say, as the last thing in a transaction, that what is kept of these ids is no longer so."""
    take_turns(connection, _WRITERS)  # as in the event log: who has seen a number has missed none before it
    now = time.time()
    connection.execute(insert(erasures), [{"time": now, "digest": digest(one)} for one in ids])


def newest(connection: Connection) -> int:
    """Number of the newest; 0 where there is none."""
    return int(connection.execute(select(func.max(erasures.c.sequence))).scalar() or 0)


def digests_after(connection: Connection, number: int) -> set[str]:
    """Of whom something was noted after this number."""
    return {row.digest for row in connection.execute(select(erasures.c.digest).where(erasures.c.sequence > number))}
