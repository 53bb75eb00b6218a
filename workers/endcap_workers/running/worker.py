"""The worker that needs no broker: takes runs from the table, starts what the schedule says, tidies up."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence

from endcap.errors import EndcapError
from endcap.jobs import Job, load_jobs
from endcap.schedule import last_time, schedule_of
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.runs import Run, Runs
from endcap.stores.workers import Workers
from endcap_workers.running.watch import tidy, watch_over

log = logging.getLogger("endcap.worker")

QUEUES = ("light", "heavy")
_POLL_S = 0.5
_TIDY_S = 600.0
_MOST_PAUSE_S = 30.0


class Scheduler:
    """Fires each scheduled job once per slot, however many processes ask."""

    def __init__(self, settings: Settings, jobs: dict[str, Job], runs: Runs) -> None:
        self._jobs = jobs
        self._runs = runs
        self._crontabs = schedule_of(jobs.values(), settings)
        self._asked: dict[str, float] = {}

    def tick(self) -> list[str]:
        """Submit what is due; gives the ids of the new runs. Touches the database only when a slot has come."""
        made = []
        now = time.time()
        for name, crontab in self._crontabs.items():
            slot = last_time(crontab, now)
            if self._asked.get(name) == slot:
                continue
            run_id = self._runs.fire(self._jobs[name], slot)
            self._asked[name] = slot
            if run_id:
                log.info("%s is due: run %s", name, run_id)
                made.append(run_id)
        return made


class Worker:
    """One worker process. ``queues``: what it serves; of heavy runs it has one at a time."""

    def __init__(self, settings: Settings, database: Database, queues: Sequence[str] = QUEUES) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._queues = tuple(queues)
        self._runs = Runs(database, settings.worker_lease_s, settings.run_attempts)
        self._workers = Workers(database)
        self._jobs = load_jobs()
        self._scheduler = Scheduler(settings, self._jobs, self._runs)
        self._slots = {"light": settings.worker_light, "heavy": 1}
        self._busy: dict[str, tuple[str, threading.Thread]] = {}
        self._lock = threading.Lock()
        self._tidied = 0.0
        self._told = 0.0

    def work(self, stop: threading.Event) -> None:
        """Until told to stop; runs under way are then given back."""
        log.info("worker %s serves %s: %s", self.name, ", ".join(self._queues), ", ".join(self._jobs) or "no jobs")
        pause = _POLL_S
        while not stop.wait(pause):
            try:
                self._turn(stop)
                pause = _POLL_S
            except EndcapError as error:
                pause = min(pause * 2, _MOST_PAUSE_S)
                log.warning("%s; trying again in %.0f s", error, pause)
            except Exception:
                pause = min(pause * 2, _MOST_PAUSE_S)
                log.exception("unexpected; trying again in %.0f s", pause)
        for _, thread in list(self._busy.values()):
            thread.join()
        try:
            self._workers.gone(self.name)
        except EndcapError:
            pass  # it will be missed soon enough

    def _turn(self, stop: threading.Event) -> None:
        if time.monotonic() - self._told > self.settings.worker_lease_s / 3:
            self._workers.seen(self.name, "embedded", self._queues, list(self._busy))
            self._told = time.monotonic()
        self._scheduler.tick()
        while not stop.is_set():
            free = [queue for queue in self._queues if self._free(queue)]
            if not free or not self._runs.claimable(free):
                break
            run = self._runs.claim(self.name, free)
            if run is None:  # it waits for another run of its job
                break
            self._begin(run, stop)
        if time.monotonic() - self._tidied > _TIDY_S:
            self._tidied = time.monotonic()
            tidy(self.settings, self._runs)

    def _free(self, queue: str) -> bool:
        with self._lock:
            return sum(one == queue for one, _ in self._busy.values()) < self._slots[queue]

    def _begin(self, run: Run, stop: threading.Event) -> None:
        def work() -> None:
            try:
                watch_over(run, self._jobs.get(run.job), self.settings, self._runs, stop)
            except Exception:
                log.exception("run %s", run.id)
            finally:
                with self._lock:
                    self._busy.pop(run.id, None)

        thread = threading.Thread(target=work, name=f"run {run.id}")
        with self._lock:
            self._busy[run.id] = (run.queue, thread)
        thread.start()
