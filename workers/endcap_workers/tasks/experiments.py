"""The job ``experiments``: look at what runs, judge it, keep what was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext


class Parameters(BaseModel):
    """Which experiment."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=100, description="Only this one; empty: all that run.")


def run(context: JobContext) -> Mapping[str, Any]:
    """The verdicts, by experiment."""
    from endcap.experiments.looking import look
    from endcap.runtime import open_database

    database = open_database(context.settings)
    try:
        reports = look(
            database,
            context.settings.reward_hours,
            str(context.parameters.get("name", "")),
            lambda share: context.progress(share, 1.0, "reading rankings"),
        )
    finally:
        database.close()
    return {"looked_at": len(reports), "verdicts": {name: one["words"] for name, one in reports.items()}}


JOB = Job("experiments", "Judge the running experiments", run, schedule="*/10 * * * *", takes=Parameters)
