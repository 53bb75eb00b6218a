"""Crontabs, in UTC."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from endcap.errors import ConfigurationError
from endcap.jobs import Job
from endcap.schedule import last_time, next_time, schedule_of
from endcap.settings import load_settings


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("crontab", "now", "last", "following"),
    [
        ("*/15 * * * *", "2026-03-01T10:07:30", "2026-03-01T10:00", "2026-03-01T10:15"),
        ("0 3 * * *", "2026-03-01T03:00", "2026-03-01T03:00", "2026-03-02T03:00"),
        ("0 3 * * *", "2026-03-01T02:59:59", "2026-02-28T03:00", "2026-03-01T03:00"),
        ("30 1 * * 1", "2026-11-27T12:00", "2026-11-23T01:30", "2026-11-30T01:30"),
        ("0 0 29 2 *", "2026-11-27T12:00", "2024-02-29T00:00", "2028-02-29T00:00"),
    ],
)
def test_the_slots_before_and_after(crontab: str, now: str, last: str, following: str) -> None:
    assert last_time(crontab, at(now)) == at(last)
    assert next_time(crontab, at(now)) == at(following)


def test_a_setting_goes_before_the_job_s_own_schedule() -> None:
    jobs = [
        Job(name, name, lambda context: {}, schedule=crontab)
        for name, crontab in (("own", "1 * * * *"), ("other", "2 * * * *"), ("off", "3 * * * *"), ("none", ""))
    ]
    settings = load_settings(schedule={"other": "5 4 * * *", "off": "off", "unknown": "1 1 * * *"})
    assert schedule_of(jobs, settings) == {"own": "1 * * * *", "other": "5 4 * * *"}


@pytest.mark.parametrize("crontab", ["61 * * * *", "* * *", "@daily", "every day", "0 0 31 2 *"])
def test_what_is_no_crontab_is_refused_when_the_settings_are_read(crontab: str) -> None:
    with pytest.raises(ConfigurationError, match=r"schedule.*train"):
        load_settings(schedule={"train": crontab})
