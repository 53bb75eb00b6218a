"""The job that deletes what is older than ``retention_days``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from endcap.jobs import Job, JobContext


def _run(context: JobContext) -> Mapping[str, Any]:
    from endcap.stores.audit import AuditLog
    from endcap.stores.database import open_database
    from endcap.stores.retention import expire

    days, audit_days = context.settings.retention_days, context.settings.audit_days
    database = open_database(context.settings)
    try:
        lines = AuditLog(database).forget_before(time.time() - 86_400.0 * audit_days) if audit_days > 0 else 0
        if days <= 0:
            return {"kept": "all events and rankings", "why": "retention_days is 0", "audit_lines": lines}
        return {"days": days, "deleted": expire(database, days, progress=context.progress), "audit_lines": lines}
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
