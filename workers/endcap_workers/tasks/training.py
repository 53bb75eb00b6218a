"""The job that trains an interest model from the event log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.errors import BundleRefused, InvalidInput
from endcap.jobs import Job, JobContext
from endcap.settings import Settings


class Parameters(BaseModel):
    """What to train, and on how much."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("interest", max_length=60, description="Which kind of network.")
    seed: int = Field(0, ge=0, description="Of everything random.")
    days: float = Field(120.0, gt=0, description="Days of the log, up to its latest event.")
    lists: int = Field(60_000, ge=1, description="At most so many searches to learn from.")
    epochs: int = Field(0, ge=0, description="Passes over them; 0: as many as help.")
    parts: str = Field(
        "",
        max_length=60,
        description="Of an interest model, comma-separated; empty: those of the live one, or features alone.",
    )
    promote: bool = Field(False, description="Judge it afterwards, and put it into force where the gate lets it.")


def run(context: JobContext) -> Mapping[str, Any]:
    """Parameters: see :class:`Parameters`."""
    from endcap_workers.training.promotion import finish
    from endcap_workers.training.train import Request, train

    given = Parameters.model_validate(context.parameters)
    parts = _parts(context.settings, given)
    request = Request(given.model, given.seed, given.days, given.lists, given.epochs, parts=parts)
    made = train(context.settings, request, context.folder / "training", context.progress)
    assert made is not None  # a job is one process
    return finish(context, made, given.promote)


def _parts(settings: Settings, given: Parameters) -> tuple[str, ...]:
    """Parts of an interest model: what is asked for, else those of the live one: a nightly run trains it again."""
    from endcap.bundles import live_bundle, load_bundle
    from endcap_workers.models.interest import PARTS

    if given.parts:
        parts = tuple(part.strip() for part in given.parts.split(","))
        if not set(parts) <= set(PARTS):
            raise InvalidInput(f"parameter parts: {given.parts!r}; there are {', '.join(PARTS)}")
        return parts
    try:
        folder = live_bundle(settings.models_folder)
        about = load_bundle(folder).description.get("model") if folder is not None else None
    except BundleRefused:
        about = None  # what is live is broken: a new model is what heals it
    if given.model != "interest" or not about or about.get("name") != given.model:
        return ("features",)
    return tuple(about["spec"]["parts"])


JOB = Job(
    "train",
    "Train a model of the shoppers' interest from the event log",
    run,
    queue="heavy",
    # Nightly; the job `promote` then judges what came of it.
    schedule="30 1 * * *",
    time_limit_s=6 * 3600,
    takes=Parameters,
)
