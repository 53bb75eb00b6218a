"""The job that deletes what is older than ``retention_days``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endcap.jobs import Job, JobContext


def _run(context: JobContext) -> Mapping[str, Any]:
    from endcap.stores.database import open_database
    from endcap.stores.retention import expire

    days = context.settings.retention_days
    if days <= 0:
        return {"kept": "everything", "why": "retention_days is 0"}
    database = open_database(context.settings)
    try:
        return {"days": days, "deleted": expire(database, days, progress=context.progress)}
    finally:
        database.close()


JOB = Job(
    "retention",
    "Delete events and rankings older than retention_days",
    _run,
    queue="light",
    schedule="10 3 * * *",
    time_limit_s=6 * 3_600.0,
)
