"""Counters and timings for Prometheus, right across several server processes too.

With more than one process ``PROMETHEUS_MULTIPROC_DIR`` must be set before this module is imported (``endcap serve``
does so): prometheus_client then keeps its values in files there and any process answers for all of them.
"""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_FAST_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
_SLOW_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter("endcap_hook_requests", "HTTP requests to the hook.", ["endpoint", "status"])
SEARCHES = Counter("endcap_hook_searches", "Searches by what became of them.", ["outcome", "reason"])
DEGRADED = Counter("endcap_degraded", "Searches that went out in the engine's order because of a fault.", ["reason"])
FALLBACKS = Counter("endcap_fallbacks", "Rankings by another scorer than the first in line.", ["reason"])
RANKINGS = Counter("endcap_rankings", "Rankings that were shown, by what the rankings log did.", ["outcome"])
TWO_PHASE = Counter("endcap_hook_two_phase", "Searches fetched in two phases, by what became of them.", ["outcome"])
ENGINE_SECONDS = Histogram("endcap_hook_engine_seconds", "Time spent waiting for the engine.", buckets=_SLOW_S)
OWN_SECONDS = Histogram("endcap_hook_own_seconds", "Endcap's own time in a search.", buckets=_FAST_S)


def exposition() -> tuple[bytes, str]:
    """The metrics of all processes and their media type."""
    if os.environ.get(MULTIPROCESS_VARIABLE):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
