"""The jobs that judge candidates, and put those into force that pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext


class Which(BaseModel):
    """What is judged."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field("", max_length=64, description="Only this kind of model; empty: all that have a gate.")
    version: str = Field(
        "", max_length=64, description="This version; empty: the newest candidate, where it is not judged yet."
    )


def evaluate(context: JobContext) -> Mapping[str, Any]:
    """Judge, and keep the verdict."""
    return _judge(context, promote=False)


def promote(context: JobContext) -> Mapping[str, Any]:
    """Judge, and put into force what passes. What is pinned stays, whatever a candidate's verdict."""
    return _judge(context, promote=True)


def _judge(context: JobContext, promote: bool) -> Mapping[str, Any]:
    from endcap.errors import TooLittle
    from endcap.registry import open_registry
    from endcap.runtime import open_database
    from endcap_workers.judging import judge_candidates

    which = Which.model_validate(dict(context.parameters))
    database = open_database(context.settings)
    try:
        registry = open_registry(context.settings, database)
        found = judge_candidates(
            registry, context.settings, which.kind, which.version, promote, f"run {context.run_id}", context.progress
        )
    finally:
        database.close()
    if not found:
        raise TooLittle("there is no new candidate to judge")
    return {"judged": found}


EVALUATE = Job(
    "evaluate", "Judge the newest candidates on later behaviour", evaluate, queue="heavy", time_limit_s=3_600.0,
    takes=Which,
)  # fmt: skip
PROMOTE = Job(
    "promote", "Judge the newest candidates and put into force what passes", promote, queue="heavy",
    schedule="12 * * * *", time_limit_s=3_600.0, takes=Which,
)  # fmt: skip
