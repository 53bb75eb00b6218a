"""The job that retrains the generator for products without history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endcap.jobs import Job, JobContext


def run(context: JobContext) -> Mapping[str, Any]:
    """Parameter ``seed`` (0): of everything random."""
    from endcap_workers.augmentation.job import augment

    return augment(context.settings, int(context.parameters.get("seed", 0)), context.progress)


JOB = Job(
    "augment", "Generate embeddings for products that nobody has bought", run, queue="heavy", schedule="40 3 * * *",
    time_limit_s=3_600.0,
)  # fmt: skip
