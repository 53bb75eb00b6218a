"""From a candidate to the live version: its gate judges it, the registry puts it into force."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from endcap.errors import InvalidInput
from endcap.gates import ENTRY_POINTS, load_gate
from endcap.registry import Registry
from endcap.settings import Settings
from endcap.stores.versions import CANDIDATE, SHADOW, Version


def judge_candidates(
    registry: Registry,
    settings: Settings,
    kind: str = "",
    version: str = "",
    promote: bool = False,
    by: str = "",
    progress: Callable[[float, float, str], None] = lambda done, total, phase: None,
) -> list[dict[str, Any]]:
    """Have gates judge candidates, and (``promote``) put into force what passes.

    Args:
        kind: only of this kind; empty: of every kind that has a gate.
        version: this one, whether it was judged before or not; empty: the newest candidate that is newer than what is
            live, and was not judged yet, or passed against another version than what is live now.

    Returns:
        For each that was judged ``kind``, ``version``, ``passed``, ``reasons``, ``against``, and ``promoted``.

    Raises:
        UnknownVersion: there is no such version, or its files are gone.
        InvalidInput: a version without its kind.
        ConfigurationError: nothing judges this kind.
        EndcapError: it cannot be judged or served now; what was live stays live.
    """
    if version and not kind:
        raise InvalidInput("a version needs its kind: parameters kind and version")
    kinds = [kind] if kind else sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)})
    chosen = [(one, _chosen(registry, one, version)) for one in kinds]
    todo = [(one, candidate) for one, candidate in chosen if candidate is not None]
    answers = []
    for place, (one, candidate) in enumerate(todo):
        progress(place, len(todo), f"judging {one} {candidate.version}")
        answers.append(_judged(registry, settings, candidate, promote, by))
    for one in kinds:  # those too that their own jobs judge
        registry.prune(one)
    return answers


def _judged(registry: Registry, settings: Settings, candidate: Version, promote: bool, by: str) -> dict[str, Any]:
    kind, version = candidate.kind, candidate.version
    registry.folder(candidate)
    live = registry.live(kind)
    against = live.version if live else ""
    verdict = load_gate(kind, settings).judge(candidate, live)
    registry.judged(kind, version, verdict, by, against)
    answer: dict[str, Any] = {
        "kind": kind, "version": version, "passed": verdict.passed, "reasons": list(verdict.reasons),
        "against": against, "promoted": False,
    }  # fmt: skip
    if promote and verdict.passed:
        kept = registry.promote_unless_pinned(kind, version, by, against)
        answer["promoted"] = not kept
        if kept:
            answer["reasons"] = [*answer["reasons"], kept]
    return answer


def _chosen(registry: Registry, kind: str, version: str) -> Version | None:
    if version:
        return registry.get(kind, version)
    live = registry.live(kind)
    for one in registry.versions(kind, limit=20):
        if one.state in (CANDIDATE, SHADOW):
            fresh = one.verdict is None or _outdated(one, live)
            newer = live is None or one.created > live.created
            return one if fresh and newer and one.folder else None
    return None


def _outdated(one: Version, live: Version | None) -> bool:
    """Whether it passed against a version that is not live any more: another was put into force while it was judged."""
    verdict = one.verdict or {}
    return bool(verdict.get("passed")) and verdict.get("against") != (live.version if live else "")
