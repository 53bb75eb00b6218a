"""The job that retrains the generator for products without history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext


class Parameters(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="Of everything random.")


def run(context: JobContext) -> Mapping[str, Any]:
    """Parameters: see :class:`Parameters`."""
    from endcap_workers.augmentation.job import augment

    given = Parameters.model_validate(dict(context.parameters))
    return augment(context.settings, given.seed, context.progress)


JOB = Job(
    "augment",
    "Generate embeddings for products that nobody has bought",
    run,
    queue="heavy",
    schedule="40 3 * * *",
    time_limit_s=3_600.0,
    takes=Parameters,
)
