"""The job that brings the copy of an attached index up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext


class How(BaseModel):
    """How it is read."""

    model_config = ConfigDict(extra="forbid")

    rate: float = Field(0.0, ge=0, description="Documents read a second, at most; 0: no limit.")


def _run(context: JobContext) -> Mapping[str, Any]:
    from contextlib import closing
    from dataclasses import asdict

    from endcap.attach import SyncReport, synchronise
    from endcap.encoders import text_encoder_at_hand
    from endcap.runtime import open_engine
    from endcap.stores.database import open_database

    settings = context.settings
    how = How.model_validate(dict(context.parameters))

    def show(report: SyncReport, total: int) -> None:
        context.progress(report.read, total, "reading")

    with closing(open_engine(settings)) as engine, closing(open_database(settings)) as database:
        report = synchronise(
            settings, engine, database, text_encoder_at_hand(settings), rate=how.rate, on_progress=show
        )
    return {**asdict(report), "seconds": round(report.seconds, 2)}


# `endcap attach` puts it on the schedule: without an attached index there is nothing to do.
JOB = Job("attach-sync", "Bring the copy of the attached index up to date", _run, takes=How, time_limit_s=12 * 3_600.0)
