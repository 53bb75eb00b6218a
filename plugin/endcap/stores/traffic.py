"""What went through the servers, counted per minute: what the console's charts are drawn from.

Every process counts in memory and adds its counts to the table every few seconds, so the table holds the sum over all
servers of a shop. Counts that were not yet written when a process is killed are lost; nothing else depends on them.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Column, Float, Integer, String, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from endcap.stores.database import Database, metadata

#: Seconds between two writings.
WRITE_EVERY_S = 5.0
KEEP_MINUTES = 8 * 24 * 60
#: Upper bounds of the buckets that times are counted in, milliseconds: each a quarter larger than the one before.
BOUNDS_MS: tuple[float, ...] = tuple(float(f"{0.25 * 1.25**n:.3g}") for n in range(49))
#: Names and minutes that may wait in memory while the database is away.
_MOST_WAITING = 20_000

traffic = Table(
    "traffic",
    metadata,
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("name", String, primary_key=True),
    Column("count", Float, nullable=False),
)


class Traffic:
    """Thread-safe. Names are short and few, ``searches``, ``degraded:deadline``."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._waiting: Counter[tuple[int, str]] = Counter()
        self._cleaned = 0

    def add(self, counts: Mapping[str, float]) -> None:
        """Count in the current minute. Never raises and never waits for the database."""
        minute = int(self._clock() // 60)
        with self._lock:
            for name, count in counts.items():
                self._waiting[minute, name] += count  # type: ignore[assignment]

    def turn(self) -> float:
        """Write what waits; gives 0: no rest is wanted beyond the usual. What was counted before the call is written
        after it, whoever else writes.

        Raises:
            LogUnavailable: it goes on waiting.
        """
        with self._writing:
            with self._lock:
                taken, self._waiting = self._waiting, Counter()
            try:
                self._write(taken)
            except BaseException:
                with self._lock:
                    if len(self._waiting) < _MOST_WAITING:
                        self._waiting.update(taken)
                raise
        return 0.0

    def sums(self, minutes: int, step: int = 1) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The counts of the last ``minutes``, summed over steps of so many.

        Returns:
            The steps' beginnings, seconds since 1970, int64 (n,), and each name's counts, float64 (n,), zeros included.
        """
        last = int(self._clock() // 60) // step
        first = last - max(1, minutes // step) + 1
        column = (traffic.c.minute - traffic.c.minute % step).label("at") if step > 1 else traffic.c.minute.label("at")
        chosen = select(column, traffic.c.name, func.sum(traffic.c.count)).where(traffic.c.minute >= first * step)
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(chosen.group_by(column, traffic.c.name)).all()
        steps = np.arange(first, last + 1, dtype=np.int64)
        found: dict[str, np.ndarray] = {}
        for at, name, count in rows:
            place = int(at) // step - first
            if 0 <= place < len(steps):
                found.setdefault(name, np.zeros(len(steps)))[place] += count
        return steps * step * 60, found

    def _write(self, taken: Mapping[tuple[int, str], float]) -> None:
        minute = int(self._clock() // 60)
        if not taken and minute - self._cleaned < 60:
            return
        rows = [{"minute": at, "name": name, "count": float(count)} for (at, name), count in sorted(taken.items())]
        insert: Any = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        statement = insert(traffic)
        adding = statement.on_conflict_do_update(
            index_elements=["minute", "name"], set_={"count": traffic.c.count + statement.excluded.count}
        )
        with self._database.transaction() as connection:
            if rows:
                connection.execute(adding, rows)
            if minute - self._cleaned >= 60:
                connection.execute(delete(traffic).where(traffic.c.minute < minute - KEEP_MINUTES))
                self._cleaned = minute


def bucket(milliseconds: float) -> int:
    """Number of the bucket that a time is counted in."""
    return bisect.bisect_left(BOUNDS_MS, milliseconds)


def quantile(buckets: Sequence[float] | np.ndarray, share: float) -> float | None:
    """The time, milliseconds, below which a share of those counted lies, straight within its bucket; None for none.

    ``buckets``: counts by :func:`bucket`, (len(BOUNDS_MS) + 1,).
    """
    counts = np.asarray(buckets, dtype=float)
    total = counts.sum()
    if total <= 0:
        return None
    reached = np.cumsum(counts)
    place = int(np.searchsorted(reached, share * total))
    if place >= len(BOUNDS_MS):
        return BOUNDS_MS[-1]
    below = reached[place - 1] if place else 0.0
    low = BOUNDS_MS[place - 1] if place else 0.0
    return float(low + (BOUNDS_MS[place] - low) * (share * total - below) / counts[place])
