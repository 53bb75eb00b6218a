"""Watching over one run: starts its process, stops it when it must be stopped, notices when it dies."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from endcap.errors import EndcapError
from endcap.jobs import Job
from endcap.settings import Settings, settings_environment
from endcap.stores.database import LogUnavailable
from endcap.stores.runs import CANCELLED, DONE, RUNNING, SKIPPED, Run, RunLost, Runs
from endcap_workers.running.child import BEATS_PER_LEASE, LOG_FILE

log = logging.getLogger("endcap.worker")

#: Seconds that a run gets to give itself back when its worker goes down.
STOP_GRACE_S = 8.0
_LOOK_S = 0.2


class Stop(Protocol):
    """An event of :mod:`threading` or :mod:`multiprocessing`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or the time is over."""

    def is_set(self) -> bool:
        """Whether it is."""


def run_folder(settings: Settings, run_id: str) -> Path:
    """The folder that belongs to a run."""
    return settings.data_dir / "runs" / run_id


def tidy(settings: Settings, runs: Runs) -> None:
    """Forget the oldest ended runs, with what they left on the disk."""
    for run_id in runs.prune(settings.keep_runs):
        shutil.rmtree(run_folder(settings, run_id), ignore_errors=True)


def watch_over(
    run: Run,
    job: Job | None,
    settings: Settings,
    runs: Runs,
    stop: Stop,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Have a claimed run done in a process of its own; returns when it has ended, whichever way.

    Args:
        stop: set when the worker goes down: the run is given back, to be taken up by the next one.
        look: called several times a second while it runs.
    """
    folder = run_folder(settings, run.id)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "endcap_workers.running.child", run.id, run.owner, str(folder.resolve())]
    environment = {**os.environ, **settings_environment(settings), "PYTHONUNBUFFERED": "1"}
    log.info("run %s: %s, attempt %d", run.id, run.job, run.attempt)
    with (folder / LOG_FILE).open("ab") as printed:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, env=environment, stdin=subprocess.PIPE, stdout=printed, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    limit_s = job.time_limit_s if job is not None else 60.0
    beaten = time.monotonic()
    until = beaten + limit_s
    try:
        while process.poll() is None:
            look()
            if stop.wait(_LOOK_S):
                _stop(process)
                break
            # The process tells for itself that it lives, once it has begun; on a busy machine that takes a while.
            if time.monotonic() - beaten > runs.lease_s / BEATS_PER_LEASE:
                beaten = time.monotonic()
                if not _still_ours(run, runs):
                    log.warning("run %s belongs to another worker by now: it is stopped here", run.id)
                    break
            if time.monotonic() > until:
                _kill(process)
                _quietly(lambda: runs.fail(run.id, run.owner, f"stopped: it took longer than {limit_s:.0f} s"))
    finally:
        _kill(process)
    _settle(run, runs, process.returncode, stop.is_set())
    _tidy(run, runs, folder)


def _still_ours(run: Run, runs: Runs) -> bool:
    try:
        try:
            runs.beat(run.id, run.owner)
        except RunLost:
            return runs.get(run.id).owner == run.owner  # it may just have ended
    except LogUnavailable as error:
        log.warning("the run's heartbeat could not be written: %s", error)
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        log.warning("a run does not stop by itself: it is stopped, and goes on from its last checkpoint")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started itself
        except ProcessLookupError:
            pass
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _settle(run: Run, runs: Runs, status: int, stopping: bool) -> None:
    """Where the process has ended without a word, say what became of the run."""

    def settle() -> None:
        now = runs.get(run.id)
        if now.state != RUNNING or now.owner != run.owner:
            log.info("run %s: %s %s", run.id, now.state, now.error)
        elif stopping:
            runs.release(run.id, run.owner)
        else:
            cause = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
            if status == -signal.SIGKILL:
                cause += " (out of memory?)"
            log.warning("run %s: its process was %s", run.id, cause)
            runs.fail(run.id, run.owner, f"its process was {cause}", passing=True)

    _quietly(settle)


def _tidy(run: Run, runs: Runs, folder: Path) -> None:
    """What a run has left is of use only to its next attempt."""

    def tidy() -> None:
        if runs.get(run.id).state in (DONE, SKIPPED, CANCELLED):
            shutil.rmtree(folder, ignore_errors=True)

    _quietly(tidy)


def _quietly(work: Callable[[], None]) -> None:
    try:
        work()
    except RunLost as error:
        log.info("%s", error)
    except LogUnavailable as error:
        log.warning("%s: the run is taken up again when its lease is over", error)
    except EndcapError as error:
        log.warning("%s", error)
