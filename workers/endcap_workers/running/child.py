"""The process of one run: ``python -m endcap_workers.running.child RUN OWNER FOLDER``.

A run has a process to itself. What it leaks goes with it, a crash in native code harms nobody else, and it can be
stopped at any moment. It ends when its standard input does, so it never outlives the worker that watches over it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endcap.errors import ConfigurationError, EndcapError, IndexBusy, TooLittle
from endcap.jobs import Job, JobCancelled, load_jobs
from endcap.logs import set_up_logs
from endcap.runtime import open_database
from endcap.settings import Settings, load_settings
from endcap.stores.database import LogUnavailable
from endcap.stores.runs import LOG_BYTES, Run, RunLost, Runs

#: Seconds that a cancelled job gets to come to a good end by itself.
CANCEL_GRACE_S = 15.0
#: A heartbeat comes this often within a lease.
BEATS_PER_LEASE = 6
LOG_FILE = "log.txt"

log = logging.getLogger("endcap.worker")


class Stopped(BaseException):
    """The worker goes down: the run is given back. Not an Exception, so that no job swallows it."""


class RunContext:
    """What the job gets; see :class:`endcap.jobs.JobContext`."""

    def __init__(self, settings: Settings, runs: Runs, run: Run, folder: Path) -> None:
        self.settings = settings
        self.run_id = run.id
        self.parameters: Mapping[str, Any] = run.parameters
        self.folder = folder
        self.stopping = threading.Event()
        self._runs = runs
        self._owner = run.owner
        self._told: dict[str, Any] = {}
        self._sent: dict[str, Any] = {}
        self._cancelled = 0.0
        self._lost = False
        self._lock = threading.Lock()
        self._beaten = 0.0

    def progress(self, done: float, total: float, phase: str = "") -> None:
        """See :meth:`endcap.jobs.JobContext.progress`."""
        self._told = {"done": float(done), "total": float(total), "phase": phase[:200]}
        # Jobs may call this as often as they like: it is written about once a second.
        if time.monotonic() - self._beaten > 1.0 or phase != self._sent.get("phase"):
            self.beat()
        if self._lost:
            raise Stopped
        if self._cancelled:
            raise JobCancelled(f"run {self.run_id} was cancelled")
        if self.stopping.is_set():
            raise Stopped

    def beat(self) -> None:
        """Tell that the run lives, how far it is and what it printed; hear whether it should end."""
        with self._lock:
            self._beaten = time.monotonic()
            told = {**self._told, "log": tail(self.folder / LOG_FILE)}
            news = {name: value for name, value in told.items() if value != self._sent.get(name)}
            try:
                wanted = self._runs.beat(self.run_id, self._owner, **news)
            except RunLost:
                self._lost = True
                return
            except LogUnavailable as error:
                log.warning("the run's progress could not be written: %s", error)
                return
            self._sent |= news
            if not wanted and not self._cancelled:
                self._cancelled = time.monotonic()

    def watch(self) -> None:
        """Beat until the process ends; end it where the job does not heed that it should."""
        while True:
            time.sleep(self._runs.lease_s / BEATS_PER_LEASE if not self._cancelled else 1.0)
            self.beat()
            if self._lost:
                log.error("run %s belongs to another worker by now", self.run_id)
                os._exit(1)
            if self._cancelled and time.monotonic() - self._cancelled > CANCEL_GRACE_S:
                try:
                    self._runs.cancelled(self.run_id, self._owner)
                finally:
                    os._exit(0)


def execute(context: RunContext, job: Job, runs: Runs, owner: str) -> None:
    """Run the job and write down how it ended."""
    try:
        try:
            result = job.run(context)
            context.beat()
            runs.finish(context.run_id, owner, result)
        except JobCancelled:
            context.beat()
            runs.cancelled(context.run_id, owner)
        except Stopped:
            runs.release(context.run_id, owner)
        except TooLittle as error:
            log.info("skipped: %s", error)
            context.beat()
            runs.skip(context.run_id, owner, str(error)[:4_000], error.numbers)
        except ConfigurationError as error:
            _failed(context, runs, owner, str(error), passing=False)
        except EndcapError as error:
            log.warning("%s: %s", error.kind, error)
            passing = error.status in (502, 503, 504) or isinstance(error, IndexBusy)
            _failed(context, runs, owner, str(error), passing)
        except OSError as error:  # a full disk, a server that is away
            traceback.print_exc()
            _failed(context, runs, owner, f"{type(error).__name__}: {error}", passing=True)
        except ModuleNotFoundError as error:
            traceback.print_exc()
            _failed(context, runs, owner, _missing(job, error), passing=False)
        except Exception as error:
            traceback.print_exc()
            _failed(context, runs, owner, f"{type(error).__name__}: {error} (a bug: the log has the trace)", False)
    except RunLost as error:
        log.error("%s", error)


def _missing(job: Job, error: ModuleNotFoundError) -> str:
    if (error.name or "endcap").startswith("endcap"):
        return f"{error} (a bug: the log has the trace)"
    return (
        f"the job {job.name} needs {error.name}, which is not installed where the worker runs: models need "
        "pip install 'endcap[train]', reports and fraud pip install 'endcap[reports]', "
        "pictures pip install 'endcap[images]'"
    )


def _failed(context: RunContext, runs: Runs, owner: str, text: str, passing: bool) -> None:
    context.beat()
    runs.fail(context.run_id, owner, text[:4_000], passing)


def tail(file: Path) -> str:
    """The end of what a run printed."""
    try:
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - LOG_BYTES))
            # What a terminal would overwrite (progress bars) is not worth keeping; PostgreSQL takes no NUL.
            text = content.read().decode(errors="replace").replace("\x00", "")
    except OSError:
        return ""
    return "\n".join(line.rpartition("\r")[2] for line in text.split("\n"))


def _end_with_parent(release: Any) -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when the interpreter ends
    try:
        release()
    finally:
        os._exit(1)


def main(run_id: str, owner: str, folder: str) -> None:
    """See the module."""
    settings = load_settings()
    set_up_logs(settings)
    runs = Runs(open_database(settings, limited=True), settings.worker_lease_s, settings.run_attempts)
    run = runs.get(run_id)

    def release() -> None:
        runs.release(run_id, owner)

    threading.Thread(target=_end_with_parent, args=(release,), daemon=True).start()
    if run.owner != owner:
        log.error("run %s belongs to another worker", run_id)
        return
    context = RunContext(settings, runs, run, Path(folder))
    signal.signal(signal.SIGTERM, lambda *_: context.stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the worker, which tells this process
    threading.Thread(target=context.watch, daemon=True, name="heartbeat").start()
    job = load_jobs().get(run.job)
    if job is None:
        runs.fail(run_id, owner, f"no installed package brings the job {run.job}")
        return
    execute(context, job, runs, owner)


if __name__ == "__main__":
    main(*sys.argv[1:])
