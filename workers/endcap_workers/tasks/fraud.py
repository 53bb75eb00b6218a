"""The jobs that look for fraud: all behaviour every night, the latest two days every hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endcap.jobs import Job, JobContext


def run(context: JobContext) -> Mapping[str, Any]:
    """Judge the window, flag, let suspicions lapse that no longer hold."""
    return _watch(context, light=False)


def run_light(context: JobContext) -> Mapping[str, Any]:
    """Look for what is far beyond the usual in the latest two days."""
    return _watch(context, light=True)


def _watch(context: JobContext, light: bool) -> Mapping[str, Any]:
    from endcap.runtime import open_database
    from endcap_workers.fraud.watch import watch
    from endcap_workers.reports.making import catalogue

    settings = context.settings
    sellers: dict[str, str] = {}
    if settings.fraud_seller_attribute and not light:
        _, sellers = catalogue(settings)
    database = open_database(settings)
    try:
        return watch(database, settings, context.progress, light, sellers).summary
    finally:
        database.close()


JOB = Job("fraud", "Look for fraud in all behaviour", run, queue="heavy", schedule="20 2 * * *", time_limit_s=7_200.0)
LIGHT = Job("fraud-light", "Look for fraud in the latest two days", run_light, schedule="35 * * * *")
