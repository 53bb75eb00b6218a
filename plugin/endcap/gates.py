"""Whether a candidate may replace the live version: the gate's verdict, and what a gate is.

A gate is named by its kind in the entry-point group ``endcap.gates``; it is a factory that takes the settings. The
thresholds of all gates are settings (``gate_*``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol

from endcap.errors import ConfigurationError, EndcapError
from endcap.settings import Settings
from endcap.stores.versions import Version

ENTRY_POINTS = "endcap.gates"


class GateFailed(EndcapError):
    """The candidate may not replace the live version; the message says why."""

    status = 409
    kind = "gate_failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says.

    ``reasons`` are sentences for people: each thing that speaks against the candidate, or, where it passed, what was
    found. ``numbers`` is plain JSON: everything that the judgement rests on.
    """

    passed: bool
    reasons: tuple[str, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Gate(Protocol):
    """Judges versions of one kind."""

    def judge(self, candidate: Version, live: Version | None) -> Verdict:
        """Compare the candidate with the live version on behaviour that neither has seen; ``live`` is None where there
        is none yet: then with whatever answers without a model.

        Raises:
            EndcapError: it cannot be judged now (too little behaviour yet is a verdict, not an error).
        """


def load_gate(kind: str, settings: Settings) -> Gate:
    """The gate of a kind.

    Raises:
        ConfigurationError: no installed package brings one.
    """
    for entry in entry_points(group=ENTRY_POINTS, name=kind):
        gate: Gate = entry.load()(settings)
        return gate
    raise ConfigurationError(f"no gate judges {kind!r}: the package that does is not installed")


def check_passed(candidate: Version) -> None:
    """Raises GateFailed where a candidate has not been judged, or was refused."""
    verdict = candidate.verdict
    if verdict is None:
        raise GateFailed(
            f"{candidate.kind} {candidate.version} has not been judged: start the job `promote`, which does it, "
            "or promote it with force"
        )
    if not verdict["passed"]:
        raise GateFailed(f"the gate refused {candidate.kind} {candidate.version}: {'; '.join(verdict['reasons'])}")
