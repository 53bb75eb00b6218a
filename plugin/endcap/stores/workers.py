"""Which workers live: each says so from time to time, for people to see, and so that it shows when there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import Column, Float, Integer, String, Table, Text, delete, insert, select, update

from endcap.stores.database import Database, metadata

workers = Table(
    "workers",
    metadata,
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", String, nullable=False),
    Column("runs", Text, nullable=False),
    Column("started", Float, nullable=False),
    Column("seen", Float, nullable=False),
)

#: A worker that has not been seen for so long is left out, and forgotten in the end.
_ALIVE_S, _FORGET_S = 60.0, 86_400.0


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker that lives. ``kind``: ``embedded`` or ``celery``; ``runs``: what it is at; times: seconds since 1970."""

    name: str
    kind: str
    host: str
    pid: int
    queues: tuple[str, ...]
    runs: tuple[str, ...]
    started: float
    seen: float


class Workers:
    """The table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seen(self, name: str, kind: str, queues: Sequence[str], runs: Sequence[str]) -> None:
        """This process's worker lives. Raises LogUnavailable."""
        now = time.time()
        values = {"queues": ",".join(queues), "runs": orjson.dumps(list(runs)).decode(), "seen": now}
        with self._database.transaction() as connection:
            if not connection.execute(update(workers).where(workers.c.name == name).values(values)).rowcount:
                first = {"name": name, "kind": kind, "host": socket.gethostname(), "pid": os.getpid(), "started": now}
                connection.execute(insert(workers).values(**first, **values))
            connection.execute(delete(workers).where(workers.c.seen < now - _FORGET_S))

    def gone(self, name: str) -> None:
        """It goes down in good order. Raises LogUnavailable."""
        with self._database.transaction() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def alive(self) -> list[WorkerSeen]:
        """Those seen lately."""
        chosen = select(workers).where(workers.c.seen > time.time() - _ALIVE_S).order_by(workers.c.started)
        with self._database.transaction(read_only=True) as connection:
            return [
                WorkerSeen(
                    row.name,
                    row.kind,
                    row.host,
                    row.pid,
                    tuple(row.queues.split(",")),
                    tuple(orjson.loads(row.runs)),
                    row.started,
                    row.seen,
                )
                for row in connection.execute(chosen)
            ]
