"""The job that trains an interest model from the event log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endcap.errors import InvalidInput
from endcap.jobs import Job, JobContext


def run(context: JobContext) -> Mapping[str, Any]:
    """Parameters: ``model``, ``seed``, ``days``, ``lists``, ``epochs``, ``promote`` (default false)."""
    from endcap_workers.training.promotion import promote_bundle, register
    from endcap_workers.training.train import Request, train

    given = context.parameters
    try:
        request = Request(
            model=str(given.get("model", "interest")),
            seed=int(given.get("seed", 0)),
            days=float(given.get("days", 120.0)),
            lists=int(given.get("lists", 60_000)),
            epochs=int(given.get("epochs", 0)),
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"parameters of train: {error}") from error
    made = train(context.settings, request, context.folder / "training", context.progress)
    assert made is not None  # a job is one process
    version = register(context.settings, made, context.run_id)
    result: dict[str, Any] = {
        "version": version, "bundle": made.folder.name, "metrics": made.metrics, "held_out": made.segments,
        "seconds": round(made.seconds, 1),
    }  # fmt: skip
    if given.get("promote"):
        verdict = promote_bundle(context.settings, made.folder, by=f"run {context.run_id}", progress=context.progress)
        assert verdict is not None
        result |= {"promoted": verdict.passed, "gate": list(verdict.reasons)}
    return result


JOB = Job(
    "train", "Train a model of the shoppers' interest from the event log", run, queue="heavy", time_limit_s=6 * 3600
)
