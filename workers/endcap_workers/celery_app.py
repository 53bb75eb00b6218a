"""The Celery application: ``endcap worker --celery``, or ``celery -A endcap_workers.celery_app worker -Q light,heavy``.

There is one task, which does a run by its id. Which runs there are stands in the table of runs. Each worker also looks
at the schedule, and sends what is due and has not been sent, so no run depends on the server being up. Whoever would
rather have the schedule in a process of its own adds ``celery -A endcap_workers.celery_app beat``. Any number of beats
and workers may run: a slot is fired once, a run is claimed once.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import socket
import threading
import time
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from celery import Celery
from celery.exceptions import Ignore
from celery.schedules import BaseSchedule, schedstate
from celery.signals import worker_process_init, worker_ready, worker_shutting_down

from endcap.dispatch import AGAIN_S, SWEEP_S, TASK, Dispatcher, celery_configuration
from endcap.errors import ConfigurationError, EndcapError
from endcap.jobs import load_jobs
from endcap.logs import set_up_logs
from endcap.runtime import open_database
from endcap.schedule import last_time, next_time, schedule_of
from endcap.settings import Settings, load_settings
from endcap.stores.database import Database
from endcap.stores.runs import DONE, FAILED, RUNNING, SKIPPED, Runs
from endcap.stores.workers import Workers
from endcap_workers.running.watch import tidy, watch_over
from endcap_workers.running.worker import Scheduler

log = logging.getLogger("endcap.worker")

FIRE = "endcap.fire"
#: Seconds between looks at whether the worker goes down.
_LOOK_S = 0.05


class _Stop:
    """Shared with the processes that the worker forks: a warm shutdown must not wait for the end of a long training.

    A byte and no :class:`multiprocessing.Event`: to set that one waits for those who wait for it, one who was killed
    meanwhile included, and so for ever.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._shared[0] = 1

    def is_set(self) -> bool:
        return bool(self._shared[0])

    def wait(self, timeout: float | None = None) -> bool:
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
        return self.is_set()


_stop = _Stop()


class Crontab(BaseSchedule):  # type: ignore[misc, unused-ignore]
    """A crontab as :mod:`endcap.schedule` reads it, for Celery's beat."""

    def __init__(self, crontab: str) -> None:
        super().__init__()
        self.crontab = crontab

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether a slot lies between the last run and now, and the seconds until the next."""
        now = time.time()
        due = last_time(self.crontab, now) > last_run_at.timestamp()
        return schedstate(due, max(0.5, next_time(self.crontab, now) - now))

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time until the next slot."""
        return timedelta(seconds=next_time(self.crontab, last_run_at.timestamp()) - time.time())

    def __reduce__(self) -> Any:
        return Crontab, (self.crontab,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crontab) and other.crontab == self.crontab

    def __hash__(self) -> int:
        return hash(self.crontab)


def _made() -> Celery:
    settings = load_settings()
    if not settings.redis_url:
        raise ConfigurationError("Celery's workers need the setting redis_url: the broker's address (ENDCAP_REDIS_URL)")
    set_up_logs(settings)
    made = Celery("endcap")
    made.conf.update(celery_configuration(settings))
    made.conf.beat_schedule = {
        # What a beat that was away missed fires once when it is back: a slot that is older than that is of no use.
        name: {"task": FIRE, "schedule": Crontab(crontab), "args": (name,), "options": {"queue": "light"}}
        for name, crontab in schedule_of(load_jobs().values(), settings).items()
    }
    made.conf.beat_schedule_filename = str(settings.data_dir / "celerybeat")
    return made


app = _made()


@lru_cache(maxsize=1)
def _opened(pid: int) -> tuple[Settings, Database, Runs]:
    """Per process: connections do not survive a fork."""
    settings = load_settings()
    database = open_database(settings, limited=True)
    return settings, database, Runs(database, settings.worker_lease_s, settings.run_attempts)


@app.task(name=TASK, bind=True)
def run(self: Any, run_id: str) -> dict[str, Any]:
    """Do a run, if it is still to be had. The task's state follows the run's, its progress included."""
    settings, _, runs = _opened(os.getpid())
    owner = f"{socket.gethostname()}:{os.getpid()}:celery"
    claimed = runs.claim(owner, run_id=run_id)
    if claimed is None:
        # Ended, at someone else's, or waiting for another run of its job (it is sent again in time): not this
        # message's business, and no reason to touch the task's state.
        raise Ignore
    told = 0.0

    def look() -> None:
        nonlocal told
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            _tell(self, runs, run_id)

    watch_over(claimed, load_jobs().get(claimed.job), settings, runs, _stop, look)
    ended = runs.get(run_id)
    if ended.state == FAILED:
        raise RunFailed(ended.error)
    if ended.state in (DONE, SKIPPED):
        return {"run": run_id, "state": ended.state, "result": ended.result}
    return {"run": run_id, "state": ended.state if ended.state != RUNNING else "lost"}


def _tell(task: Any, runs: Runs, run_id: str) -> None:
    """How far a run is, as the task's state. Nothing depends on it: a fault of the table must not end the run."""
    try:
        found = runs.get(run_id)
        task.update_state(state="PROGRESS", meta={"phase": found.phase, "done": found.done, "total": found.total})
    except Exception as error:  # the result backend or the table is away
        log.warning("the progress of %s could not be told: %s", run_id, error)


class RunFailed(Exception):
    """The run has failed: the task shows why."""


@app.task(name=FIRE)
def fire(job: str) -> str | None:
    """Submit a scheduled run for the slot that has come; None where another beat has."""
    settings, _, runs = _opened(os.getpid())
    jobs = load_jobs()
    crontab = schedule_of(jobs.values(), settings).get(job)
    return runs.fire(jobs[job], last_time(crontab, time.time())) if crontab else None


@worker_process_init.connect
def _fresh(**_: Any) -> None:
    _opened.cache_clear()


@worker_ready.connect
def _begin(sender: Any, **_: Any) -> None:
    """In the worker's first process: send what is due, say that the worker lives."""
    names = sorted(queue.name for queue in sender.task_consumer.queues)
    threading.Thread(target=_upkeep, args=(names,), name="endcap-dispatch", daemon=True).start()


class _Upkeep:
    """What a worker's first process does beside its tasks."""

    def __init__(self, settings: Settings, queues: list[str]) -> None:
        """Raises LogUnavailable where the database is away."""
        database = open_database(settings, limited=True)
        self._settings, self._queues = settings, queues
        self._runs = Runs(database, settings.worker_lease_s, settings.run_attempts)
        self._dispatcher = Dispatcher(settings, self._runs, min(AGAIN_S, 2 * settings.worker_lease_s))
        self._workers, self._name = Workers(database), f"{socket.gethostname()}:{os.getpid()}"
        self._scheduler = Scheduler(settings, load_jobs(), self._runs)
        self._told, self._tidied = 0.0, time.monotonic()

    def turn(self) -> None:
        """Once a second."""
        self._scheduler.tick()
        self._dispatcher.sweep()
        if time.monotonic() - self._told > self._settings.worker_lease_s / 3:
            self._told = time.monotonic()
            self._workers.seen(self._name, "celery", self._queues, [])
        if time.monotonic() - self._tidied > 600:
            self._tidied = time.monotonic()
            tidy(self._settings, self._runs)

    def end(self) -> None:
        """Say that the worker has gone."""
        try:
            self._workers.gone(self._name)
        except EndcapError:
            pass


def _upkeep(queues: list[str]) -> None:
    settings, problem = load_settings(), ""
    upkeep: _Upkeep | None = None
    while not _stop.wait(SWEEP_S):
        try:
            # Not before the loop: a worker may come up before its database does.
            upkeep = upkeep or _Upkeep(settings, queues)
            upkeep.turn()
            problem = ""
        except EndcapError as error:
            if str(error) != problem:
                log.warning("%s", error)
            problem = str(error)
        except Exception:
            log.exception("unexpected; trying again")
    if upkeep is not None:
        upkeep.end()


@worker_shutting_down.connect
def _end(**_: Any) -> None:
    _stop.set()
