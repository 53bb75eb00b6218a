"""The job that goes on from the live model with the latest events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.errors import TooLittle
from endcap.jobs import Job, JobContext


class Parameters(BaseModel):
    """How much of the log to go on with."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="Of everything random.")
    days: float = Field(30.0, gt=0, description="Days of the log, up to its latest event.")
    lists: int = Field(20_000, ge=1, description="At most so many searches to learn from.")
    epochs: int = Field(0, ge=0, description="Passes over them; 0: as many as help.")
    promote: bool = Field(False, description="Judge it afterwards, and put it into force where the gate lets it.")


def run(context: JobContext) -> Mapping[str, Any]:
    """Parameters: see :class:`Parameters`."""
    from endcap.bundles import live_bundle
    from endcap_workers.training.promotion import finish
    from endcap_workers.training.train import Request, train

    given = Parameters.model_validate(dict(context.parameters))
    live = live_bundle(context.settings.models_folder)
    if live is None:
        raise TooLittle("no model is live that could be gone on from: train one first")
    request = Request(seed=given.seed, days=given.days, lists=given.lists, epochs=given.epochs, base=str(live))
    made = train(context.settings, request, context.folder / "training", context.progress)
    assert made is not None  # a job is one process
    return {"base": live.name, **finish(context, made, given.promote)}


JOB = Job(
    "update",
    "Go on training the live model with the latest events",
    run,
    queue="heavy",
    time_limit_s=2 * 3600,
    takes=Parameters,
)
