"""Runs of background jobs: who asked for what, who works on it, how far it is, what came of it.

The table is the truth for every kind of worker. A broker (Celery over Redis) only carries run ids to those who may
claim them: a message that is lost, or comes twice, changes nothing.

A run belongs to the *owner* that claimed it for as long as the owner's heartbeat is younger than the lease. After
that anyone may take the run up again, with the same folder and one attempt more; the former owner, should it still
live, is refused everything from then on. The same lease is the lock of the jobs that must run alone, so a dead holder
keeps nobody out.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update

from endcap.jobs import Job
from endcap.stores.database import Database, take_turns
from endcap.stores.run_table import (
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    LOG_BYTES,
    QUEUED,
    RESULT_BYTES,
    RUNNING,
    SKIPPED,
    STATES,
    Run,
    RunConflict,
    RunLost,
    State,
    UnknownRun,
    as_json,
    back_off,
    checked_parameters,
    clean,
    firings,
    run_of,
    runs,
)  # fmt: skip

__all__ = [
    "CANCELLED", "DONE", "ENDED", "FAILED", "LOG_BYTES", "QUEUED", "RUNNING", "SKIPPED", "STATES", "Run", "RunConflict",
    "RunLost", "Runs", "State", "UnknownRun", "back_off", "firings", "runs",
]  # fmt: skip

#: Name of the lock under which PostgreSQL's workers claim in turn. SQLite's writers are in turn anyway.
_CLAIMS = 0x656E6A62
#: Seconds ahead of the clock beyond which no moment is waited for: it was written while the clock was wrong.
_WRONG_S = 3_600.0
#: What may be queued again.
_AGAIN = (FAILED, SKIPPED, CANCELLED)


class Runs:
    """Thread-safe; any number of processes and machines may use one table."""

    def __init__(self, database: Database, lease_s: float = 30.0, attempts: int = 3) -> None:
        """``lease_s``: an owner that has been silent for so long is dead. ``attempts``: most of a run."""
        self._database = database
        self.lease_s = lease_s
        self.attempts = attempts

    def submit(self, job: Job, parameters: Mapping[str, Any] | None = None, by: str = "") -> str:
        """Ask for a run; gives its id. ``by``: who asks, for people (a token's name, ``schedule``, ``cli``).

        Raises:
            InvalidInput: the parameters are not what the job takes.
            LogUnavailable: nothing was stored.
        """
        text = checked_parameters(job, parameters or {})
        with self._database.transaction() as connection:
            return self._insert(connection, job, text, by)

    def fire(self, job: Job, slot: float, now: float | None = None) -> str | None:
        """Submit a scheduled run for the time ``slot``: its id for exactly one caller, None for all the others.

        A job that is still waiting from an earlier slot is not queued twice: the slot is spent, None is given.
        """
        with self._database.transaction() as connection:
            take_turns(connection, _CLAIMS)
            last = connection.execute(select(firings.c.last).where(firings.c.job == job.name)).scalar()
            if last is None:
                # Seen for the first time: from now on, not for what the past would have asked for.
                begun = time.time() if now is None else now
                begun += 0.5 if begun % 60.0 == 0.0 else 0.0
                connection.execute(insert(firings).values(job=job.name, last=max(slot + 0.5, begun)))
                return None
            if slot <= last <= self._now(connection) + _WRONG_S:
                return None
            connection.execute(update(firings).where(firings.c.job == job.name).values(last=slot))
            waiting = select(runs.c.id).where(runs.c.job == job.name, runs.c.state == QUEUED)
            if connection.execute(waiting.limit(1)).first():
                return None
            return self._insert(connection, job, checked_parameters(job, {}), "schedule")

    def fired(self) -> dict[str, float]:
        """When each scheduled job was fired last; those that never were are left out."""
        with self._database.transaction(read_only=True) as connection:
            # Slots are whole minutes; what is between them is when a job was seen for the first time.
            return {row.job: row.last for row in connection.execute(select(firings)) if row.last % 60.0 == 0.0}

    def get(self, run_id: str) -> Run:
        """One run.

        Raises:
            UnknownRun: there is none with this id.
        """
        with self._database.transaction(read_only=True) as connection:
            return self._one(connection, run_id)

    def list(
        self, job: str = "", state: State | Literal[""] = "", limit: int = 50, before: str = "", queue: str = ""
    ) -> list[Run]:
        """The latest runs, newest first; ``before``: those older than the run with this id."""
        chosen = select(runs).order_by(runs.c.id.desc()).limit(limit)
        for column, wanted in ((runs.c.job, job), (runs.c.state, state), (runs.c.queue, queue)):
            if wanted:
                chosen = chosen.where(column == wanted)
        if before:
            chosen = chosen.where(runs.c.id < before)
        with self._database.transaction(read_only=True) as connection:
            return [run_of(row) for row in connection.execute(chosen)]

    def count(self) -> dict[str, int]:
        """How many runs are in each state."""
        chosen = select(runs.c.state, func.count()).group_by(runs.c.state)
        with self._database.transaction(read_only=True) as connection:
            found = {row[0]: row[1] for row in connection.execute(chosen)}
        return {state: int(found.get(state, 0)) for state in STATES}

    def claimable(self, queues: Collection[str]) -> bool:
        """Whether :meth:`claim` may find something: a cheap look that locks nothing."""
        with self._database.transaction(read_only=True) as connection:
            now = self._now(connection)
            chosen = select(runs.c.id).where(or_(_ready(now), self._stale(now)), runs.c.queue.in_(queues)).limit(1)
            return connection.execute(chosen).first() is not None

    def claim(self, owner: str, queues: Collection[str] = (), run_id: str = "") -> Run | None:
        """Take the run that has waited longest (or the one named); None where there is none to be had now.

        Runs of dead owners are taken up again, up to ``attempts``; a job that runs alone waits for its other run.
        """
        with self._database.transaction() as connection:
            take_turns(connection, _CLAIMS)
            now = self._now(connection)
            self._reap(connection, now)
            chosen = select(runs).where(_ready(now), _not_held()).order_by(runs.c.due, runs.c.id).limit(1)
            if queues:
                chosen = chosen.where(runs.c.queue.in_(queues))
            if run_id:
                chosen = chosen.where(runs.c.id == run_id)
            found = connection.execute(chosen).first()
            if found is None:
                return None
            values = {
                "state": RUNNING, "owner": owner, "heartbeat": now, "attempt": found.attempt + 1,
                "started": now, "finished": None, "error": "",
            }  # fmt: skip
            connection.execute(update(runs).where(runs.c.id == found.id).values(values))
            return self._one(connection, found.id)

    def beat(self, run_id: str, owner: str, **values: Any) -> bool:
        """Tell that the owner lives, and how far it is (``phase``, ``done``, ``total``, ``log``). False: somebody
        wants the run cancelled.

        Raises:
            RunLost: it is no longer the owner's.
        """
        with self._database.transaction() as connection:
            now = self._now(connection)
            mine = _mine(run_id, owner)
            if not connection.execute(update(runs).where(mine).values(heartbeat=now, **clean(values))).rowcount:
                raise RunLost(f"run {run_id} has been taken up by another worker, or has ended")
            return not connection.execute(select(runs.c.cancelling).where(runs.c.id == run_id)).scalar()

    def finish(self, run_id: str, owner: str, result: Mapping[str, Any]) -> None:
        """Done. Raises RunLost, and InvalidInput for a result that is not JSON or too large."""
        self._end(run_id, owner, state=DONE, result=as_json(result, "the result", RESULT_BYTES), error="")

    def skip(self, run_id: str, owner: str, reason: str, numbers: Mapping[str, Any] | None = None) -> None:
        """There was too little to go on: ended, neither done nor failed. Raises RunLost, and InvalidInput for numbers
        that are not JSON."""
        found = as_json({**(numbers or {}), "reason": reason}, "what it was skipped for", RESULT_BYTES)
        self._end(run_id, owner, state=SKIPPED, result=found, error="")

    def fail(self, run_id: str, owner: str, error: str, passing: bool = False) -> None:
        """Failed; where the fault may pass it is tried again after a while, up to ``attempts``. Raises RunLost."""
        attempt = self.get(run_id).attempt
        if passing and attempt < self.attempts:
            self._end(run_id, owner, state=QUEUED, error=error, pause_s=back_off(attempt))
        else:
            self._end(run_id, owner, state=FAILED, error=error)

    def cancelled(self, run_id: str, owner: str) -> None:
        """The owner has stopped because it was asked to. Raises RunLost."""
        self._end(run_id, owner, state=CANCELLED, error="")

    def release(self, run_id: str, owner: str) -> None:
        """Give the run back unfinished, as the worker goes down: the next one takes it up at once; this attempt does
        not count. Raises RunLost."""
        self._end(run_id, owner, state=QUEUED, attempt=runs.c.attempt - 1)

    def cancel(self, run_id: str) -> Run:
        """Ask for the end of a run: a waiting one ends at once, a running one when its job next tells its progress.

        Raises:
            UnknownRun: there is none with this id.
            RunConflict: it has ended already.
        """
        with self._database.transaction() as connection:
            waiting = update(runs).where(runs.c.id == run_id, runs.c.state == QUEUED)
            connection.execute(waiting.values(state=CANCELLED, finished=self._now(connection)))
            running = update(runs).where(runs.c.id == run_id, runs.c.state == RUNNING)
            connection.execute(running.values(cancelling=True))
            run = self._one(connection, run_id)
            if run.state in ENDED and run.state != CANCELLED:
                raise RunConflict(f"run {run_id} is {run.state} already")
            return run

    def retry(self, run_id: str, by: str = "") -> Run:
        """Queue a failed, skipped or cancelled run again, with its folder and all its attempts before it.

        Raises:
            UnknownRun: there is none with this id.
            RunConflict: it waits, runs or is done.
        """
        with self._database.transaction() as connection:
            run = self._one(connection, run_id)
            if run.state not in _AGAIN:
                raise RunConflict(
                    f"run {run_id} is {run.state}; only a failed, skipped or cancelled one is tried again"
                )
            values = {
                "state": QUEUED, "attempt": 0, "due": self._now(connection), "sent": 0.0, "owner": "",
                "cancelling": False, "error": "", "result": None, "finished": None, "by": by or run.by,
            }  # fmt: skip
            # Asked for twice at once, it is queued once: it may run by now.
            ended = and_(runs.c.id == run_id, runs.c.state.in_(_AGAIN))
            connection.execute(update(runs).where(ended).values(values))
            return self._one(connection, run_id)

    def to_send(self, again_s: float, limit: int = 100) -> Sequence[Run]:
        """Runs whose ids a broker should carry now: those never sent, and those sent ``again_s`` ago without effect
        (the message was lost, or its worker died). Each is given to one caller, who must send it.

        Runs that wait for another run of their job are left out until it has ended.
        """
        with self._database.transaction() as connection:
            take_turns(connection, _CLAIMS)
            now = self._now(connection)
            self._reap(connection, now)
            ready = select(runs).where(_ready(now), _not_held())
            found = list(connection.execute(ready.order_by(runs.c.due, runs.c.id)))
            heads: set[str] = set()
            due = []
            for row in found:
                # Of a job that runs alone only the first is sent: the others would find it running.
                if row.alone and row.job in heads:
                    continue
                heads.add(row.job)
                if not now - again_s < row.sent <= now + _WRONG_S:
                    due.append(run_of(row))
            del due[limit:]
            if due:
                ids = [run.id for run in due]
                connection.execute(update(runs).where(runs.c.id.in_(ids)).values(sent=now))
            return due

    def not_sent(self, ids: Sequence[str]) -> None:
        """The broker did not take these after all."""
        with self._database.transaction() as connection:
            connection.execute(update(runs).where(runs.c.id.in_(ids)).values(sent=0.0))

    def prune(self, keep: int = 1_000) -> Sequence[str]:
        """Forget all but the latest ``keep`` runs that have ended; gives the ids of the forgotten."""
        with self._database.transaction() as connection:
            ended = select(runs.c.id).where(runs.c.state.in_(ENDED)).order_by(runs.c.id.desc()).offset(keep)
            ids = [row.id for row in connection.execute(ended.limit(10_000))]
            for start in range(0, len(ids), 500):
                connection.execute(delete(runs).where(runs.c.id.in_(ids[start : start + 500])))
            return ids

    def _insert(self, connection: Connection, job: Job, parameters: str, by: str) -> str:
        now = self._now(connection)
        # Sorts by time, to the millisecond; the rest keeps two of one millisecond apart.
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now))
        run_id = f"{stamp}{int(now % 1 * 1_000):03d}-{secrets.token_hex(3)}"
        values = {
            "id": run_id, "job": job.name, "queue": job.queue, "alone": job.alone, "parameters": parameters,
            "by": by[:200], "state": QUEUED, "submitted": now, "due": now,
        }  # fmt: skip
        connection.execute(insert(runs).values(values))
        return run_id

    def _end(self, run_id: str, owner: str, *, state: State, pause_s: float = 0.0, **values: Any) -> None:
        with self._database.transaction() as connection:
            now = self._now(connection)
            if state == QUEUED:
                values |= {"owner": "", "due": now + pause_s, "sent": 0.0}
            else:
                values |= {"finished": now, "cancelling": False}
            changed = connection.execute(update(runs).where(_mine(run_id, owner)).values(state=state, **clean(values)))
            if not changed.rowcount:
                raise RunLost(f"run {run_id} has been taken up by another worker, or has ended")

    def _reap(self, connection: Connection, now: float) -> None:
        """Runs of dead owners wait again, or have failed where they have killed every worker that took them up."""
        dead = self._stale(now)
        gone = {"state": CANCELLED, "finished": now, "cancelling": False, "error": ""}
        connection.execute(update(runs).where(dead, runs.c.cancelling.is_(True)).values(gone))
        lost = f"its worker died {self.attempts} times; its log ends before the last"
        failed = {"state": FAILED, "finished": now, "error": lost}
        connection.execute(update(runs).where(dead, runs.c.attempt >= self.attempts).values(failed))
        waiting = {"state": QUEUED, "owner": "", "sent": 0.0, "error": "its worker died"}
        connection.execute(update(runs).where(dead).values(waiting))

    def _stale(self, now: float) -> Any:
        silent = or_(runs.c.heartbeat < now - self.lease_s, runs.c.heartbeat > now + _WRONG_S)
        return and_(runs.c.state == RUNNING, silent)

    def _now(self, connection: Connection) -> float:
        # One clock for all machines: the database's. SQLite's is that of the one machine it can be on.
        if self._database.dialect == "postgresql":
            return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar() or 0)
        return time.time()

    @staticmethod
    def _one(connection: Connection, run_id: str) -> Run:
        row = connection.execute(select(runs).where(runs.c.id == run_id)).first()
        if row is None:
            raise UnknownRun(f"there is no run {run_id[:100]!r}")
        return run_of(row)


def _ready(now: float) -> Any:
    return and_(runs.c.state == QUEUED, or_(runs.c.due <= now, runs.c.due > now + _WRONG_S))


def _not_held() -> Any:
    other = runs.alias()
    return or_(runs.c.alone.is_(False), ~exists().where(other.c.job == runs.c.job, other.c.state == RUNNING))


def _mine(run_id: str, owner: str) -> Any:
    return and_(runs.c.id == run_id, runs.c.owner == owner, runs.c.state == RUNNING)
