"""What becomes of a bundle that training wrote: a candidate in the registry, judged, put into force."""

from __future__ import annotations

from pathlib import Path

from endcap.bundles import load_bundle
from endcap.gates import Verdict
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


def promote_bundle(
    settings: Settings,
    folder: Path,
    force: bool = False,
    by: str = "endcap train",
    progress: Progress = lambda *_: None,
) -> Verdict | None:
    """Have the gate judge a registered bundle and put it into force where it passes; ``force``: without a judgement,
    then the verdict is None.

    Raises:
        VersionConflict: another version is pinned.
        BundleRefused, PublishingFailed: it cannot be served; what was live stays live.
    """
    version = str(load_bundle(folder).version)
    database = open_database(settings)
    try:
        registry = open_registry(settings, database)
        if force:
            registry.promote(INTEREST, version, by, force=True)
            return None
        verdict = InterestGate(settings, progress).judge(registry.get(INTEREST, version), registry.live(INTEREST))
        registry.judged(INTEREST, version, verdict, by)
        if verdict.passed:
            registry.promote(INTEREST, version, by)
        return verdict
    finally:
        database.close()
