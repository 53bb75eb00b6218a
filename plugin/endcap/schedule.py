"""When a job is due: crontabs, read in one way by every kind of worker (Debian's cron, in UTC)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from endcap.jobs import Job
from endcap.settings import Settings

#: What stands for "only when asked for".
OFF = ("", "off")


def check_crontab(crontab: str) -> None:
    """Raises ValueError for what is neither a crontab of five fields nor ``off``."""
    from cronsim import CronSim, CronSimError

    if crontab.strip() in OFF:
        return
    try:
        if len(crontab.split()) != 5:
            raise CronSimError("needs five fields")
        next(CronSim(crontab, datetime(2026, 1, 1, tzinfo=timezone.utc)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{crontab!r} is no crontab (minute hour day month weekday, or off): {error}") from None


def schedule_of(jobs: Iterable[Job], settings: Settings) -> dict[str, str]:
    """Job -> crontab of the jobs that are started by themselves, as the settings have it."""
    found = {job.name: settings.schedule.get(job.name, job.schedule).strip() for job in jobs}
    return {name: crontab for name, crontab in found.items() if crontab not in OFF}


def next_time(crontab: str, after: float) -> float:
    """The first time (seconds since 1970) after ``after``."""
    from cronsim import CronSim

    return float(next(CronSim(crontab, _utc(after))).timestamp())


def last_time(crontab: str, until: float) -> float:
    """The latest time that is not after ``until``."""
    from cronsim import CronSim

    # The reverse walk gives times before its start: one second later counts ``until`` itself.
    return float(next(CronSim(crontab, _utc(int(until) + 1), reverse=True)).timestamp())


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
