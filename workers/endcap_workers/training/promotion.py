"""What becomes of a bundle that training wrote: a candidate in the registry, judged, put into force."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from endcap.bundles import load_bundle
from endcap.jobs import JobContext
from endcap.registry import INTEREST, open_registry
from endcap.runtime import open_database
from endcap.settings import Settings
from endcap_workers.training.gate import InterestGate
from endcap_workers.training.replay import Progress
from endcap_workers.training.train import Trained


def register(settings: Settings, made: Trained, run: str = "") -> str:
    """Add it to the registry as a candidate; gives its version there."""
    bundle = load_bundle(made.folder)
    provenance = {
        name: bundle.description.get(name)
        for name in ("created", "seed", "data_window", "libraries", "specification_digest", "model", "training")
    }
    database = open_database(settings)
    try:
        registry = open_registry(settings, database)
        metrics = {**made.metrics, "held_out": made.segments}
        registry.add_candidate(INTEREST, str(bundle.version), made.folder, metrics, {**provenance, "run": run})
    finally:
        database.close()
    return str(bundle.version)


def finish(context: JobContext, made: Trained, promote: bool) -> Mapping[str, Any]:
    """What a job does once it has trained: register, and with ``promote`` have it judged and put into force where the
    gate lets it. Gives the job's result. Raises as :func:`promote_bundle`."""
    from endcap_workers.augmentation.job import augment_after

    settings, by = context.settings, f"run {context.run_id}"
    result: dict[str, Any] = {
        "version": register(settings, made, context.run_id), "bundle": made.folder.name, "metrics": made.metrics,
        "held_out": made.segments, "seconds": round(made.seconds, 1),
    }  # fmt: skip
    if promote:
        promotion = promote_bundle(settings, made.folder, by=by, progress=context.progress)
        result |= {"promoted": promotion.live, "gate": list(promotion.reasons)}
        if promotion.live:
            # The new model has no generator yet: without one, new products would wait for the nightly job.
            seed = int(load_bundle(made.folder).description.get("seed", 0))
            result["augmentation"] = augment_after(settings, seed, context.progress)
    return result


class Promotion(NamedTuple):
    """Whether a bundle went live, and why (not): what its gate said, and what stood in the way besides."""

    live: bool
    reasons: tuple[str, ...]


def promote_bundle(
    settings: Settings,
    folder: Path,
    force: bool = False,
    by: str = "endcap train",
    progress: Progress = lambda *_: None,
) -> Promotion:
    """Have the gate judge a registered bundle and put it into force where it passes and no other version is pinned;
    ``force``: without a judgement, and whatever is pinned.

    Raises:
        BundleRefused, PublishingFailed: it cannot be served; what was live stays live.
    """
    version = str(load_bundle(folder).version)
    database = open_database(settings)
    try:
        registry = open_registry(settings, database)
        if force:
            registry.promote(INTEREST, version, by, force=True)
            return Promotion(True, ())
        live = registry.live(INTEREST)
        against = live.version if live else ""
        verdict = InterestGate(settings, progress).judge(registry.get(INTEREST, version), live)
        registry.judged(INTEREST, version, verdict, by, against)
        if not verdict.passed:
            return Promotion(False, verdict.reasons)
        kept = registry.promote_unless_pinned(INTEREST, version, by, against)
        return Promotion(not kept, (*verdict.reasons, kept) if kept else verdict.reasons)
    finally:
        database.close()
