"""What a background job is: the one description that the embedded worker, Celery, the API and the console share.

A job is a plain function; packages name theirs as entry points of the group ``endcap.jobs``, so that the server can
list and start jobs without knowing the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from endcap.settings import Settings

ENTRY_POINTS = "endcap.jobs"


class JobCancelled(Exception):
    """Raised out of :meth:`JobContext.progress` where somebody cancelled the run. A job lets it pass."""


class JobContext(Protocol):
    """What a running job is given.

    ``folder`` lies in the data folder and belongs to this run; a run that is taken up again after its worker died
    finds there what it left (checkpoints). ``parameters`` are plain JSON, as whoever started the run gave them.
    """

    settings: Settings
    run_id: str
    parameters: Mapping[str, Any]
    folder: Path

    def progress(self, done: float, total: float, phase: str = "") -> None:
        """Say how far the run is; also tells the others that its worker lives. Call it every few seconds.

        Raises:
            JobCancelled: the run was cancelled.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of background work.

    Attributes:
        name: short, ``kebab-case``; what the API and the schedule call it.
        title: one line for people.
        run: does it; the result is plain JSON, kept with the run and shown in the console. Errors of
            :class:`endcap.errors.EndcapError` are for people to read; any other exception is a bug. A job that finds
            too little to go on raises :class:`endcap.errors.TooLittle`: its run is *skipped*, which is no failure.
        queue: ``light`` (seconds) or ``heavy`` (minutes and more); a worker serves one or both.
        schedule: default crontab (minute hour day month weekday, UTC); empty: only when asked for.
        time_limit_s: a run that takes longer is stopped and marked failed.
        alone: at most one run of this job at a time; a second one waits.
        takes: model of the parameters: whoever starts a run is told at once what is wrong with his, defaults are filled
            in, and the API's document and the console's form show them. None: any JSON object.
    """

    name: str
    title: str
    run: Callable[[JobContext], Mapping[str, Any]]
    queue: str = "light"
    schedule: str = ""
    time_limit_s: float = 3_600.0
    alone: bool = True
    takes: type[BaseModel] | None = None


def load_jobs() -> dict[str, Job]:
    """All jobs that are installed, by name."""
    return dict(_installed())


@lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, Job], ...]:
    """Looked up once per process: it reads every package's metadata."""
    found = (entry.load() for entry in entry_points(group=ENTRY_POINTS))
    return tuple((job.name, job) for job in sorted(found, key=lambda job: job.name))
