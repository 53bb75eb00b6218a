"""The jobs that make reports: every day, and every week."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from endcap.jobs import Job, JobContext


def _run(context: JobContext, kind: str, period: str) -> Mapping[str, Any]:
    from endcap.errors import TooLittle
    from endcap.runtime import open_database
    from endcap.stores.events import EventLog
    from endcap_workers.reports.making import make_report

    database = open_database(context.settings)
    try:
        if not EventLog(database).last_sequence():
            raise TooLittle("the event log is empty: there is nothing to report on")
        kept = make_report(kind, database, context.settings, context.progress, period)
    finally:
        database.close()
    return {"report": kept.id, "line": kept.line, "delivered": kept.summary["delivered"]}


def _job(kind: str, period: str, schedule: str) -> Job:
    title = {"inventory": "Report on demand and stock", "fraud": "Report on fraud"}[kind]
    run = partial(_run, kind=kind, period=period)
    return Job(f"report-{kind}-{period}", f"{title}, {period}", run, "heavy", schedule, 3_600.0)


INVENTORY_DAILY = _job("inventory", "daily", "10 4 * * *")
INVENTORY_WEEKLY = _job("inventory", "weekly", "40 4 * * 1")
FRAUD_DAILY = _job("fraud", "daily", "30 3 * * *")
FRAUD_WEEKLY = _job("fraud", "weekly", "50 3 * * 1")
