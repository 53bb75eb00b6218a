"""The job that goes on from the live model with the latest events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endcap.errors import InvalidInput, TooLittle
from endcap.jobs import Job, JobContext


def run(context: JobContext) -> Mapping[str, Any]:
    """Parameters: ``seed``, ``days`` (default 30), ``epochs``, ``promote`` (default false)."""
    from endcap.bundles import live_bundle
    from endcap_workers.training.promotion import finish
    from endcap_workers.training.train import Request, train

    given = context.parameters
    live = live_bundle(context.settings.models_folder)
    if live is None:
        raise TooLittle("no model is live that could be gone on from: train one first")
    try:
        request = Request(
            seed=int(given.get("seed", 0)),
            days=float(given.get("days", 30.0)),
            lists=20_000,
            epochs=int(given.get("epochs", 0)),
            base=str(live),
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"parameters of update: {error}") from error
    made = train(context.settings, request, context.folder / "training", context.progress)
    assert made is not None  # a job is one process
    return {"base": live.name, **finish(context, made, bool(given.get("promote")))}


JOB = Job("update", "Go on training the live model with the latest events", run, queue="heavy", time_limit_s=2 * 3600)
