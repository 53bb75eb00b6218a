"""Search engines behind one protocol: ``elasticsearch`` and ``embedded``."""

from endcap.engines.base import (
    Candidates,
    Engine,
    Filter,
    Hit,
    IndexReport,
    Rebuild,
    SearchRequest,
    SearchResponse,
    WireAnswer,
    WireEngine,
)

__all__ = [
    "Candidates",
    "Engine",
    "Filter",
    "Hit",
    "IndexReport",
    "Rebuild",
    "SearchRequest",
    "SearchResponse",
    "WireAnswer",
    "WireEngine",
]
