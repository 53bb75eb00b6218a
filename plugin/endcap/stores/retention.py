"""Rows older than they may become are deleted, a few at a time, so that nobody who writes waits long.

Why not by dropping partitions? PostgreSQL keeps an index unique within a partition only, unless the partition's key is
part of it. An event's id must be unique whenever the event happened (a phone may send it again next month), so a log
partitioned by month would need a second table of all ids, written with every event, to save a deletion that runs at
night. Deleting through the index on ``time`` costs no ingest, needs no table maintenance of Endcap's own, and works
the same on SQLite; PostgreSQL's autovacuum and SQLite's free list give the space back to later events.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Table, delete, func, select

from endcap.profiles import DAY_S
from endcap.stores.database import Database
from endcap.stores.events import events
from endcap.stores.rankings import rankings

#: What grows with the traffic and is kept for a limited time.
KEPT_BY_TIME: tuple[Table, ...] = (events, rankings)
#: Rows deleted in one transaction: some 20 ms.
BATCH = 2_000
#: Seconds left to the others between two of them.
_PAUSE_S = 0.02


def expire(
    database: Database,
    days: float,
    now: float | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, table: None,
) -> dict[str, int]:
    """Delete events and rankings whose ``time`` lies more than ``days`` days before ``now``.

    Args:
        now: seconds since 1970.
        progress: called after each batch with rows done, rows in all, and the table; may raise to stop.

    Returns:
        Rows deleted by table. What was deleted when it is stopped stays deleted; call it again for the rest.

    Raises:
        ValueError: ``days`` is not positive.
        LogUnavailable: the database failed.
    """
    if days <= 0:
        raise ValueError("days must be positive: 0 keeps everything, so there is nothing to call")
    before = (time.time() if now is None else now) - days * DAY_S
    with database.transaction(read_only=True) as connection:
        old = {
            table.name: int(connection.execute(select(func.count()).where(table.c.time < before)).scalar() or 0)
            for table in KEPT_BY_TIME
        }
    total, done = sum(old.values()), 0
    gone = dict.fromkeys(old, 0)
    for table in KEPT_BY_TIME:
        while True:
            with database.transaction() as connection:
                some = select(table.c.sequence).where(table.c.time < before).order_by(table.c.time).limit(BATCH)
                count = connection.execute(delete(table).where(table.c.sequence.in_(some))).rowcount
            if count < 1:
                break
            gone[table.name] += count
            done += count
            progress(done, max(total, done), table.name)
            time.sleep(_PAUSE_S)
    return gone
