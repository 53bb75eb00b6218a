"""Counters and timings for Prometheus, right across several server processes too.

With more than one process ``PROMETHEUS_MULTIPROC_DIR`` must be set before this module is imported (``endcap serve``
does so): prometheus_client then keeps its values in files there and any process answers for all of them.

What a request found out about itself (degraded, and why) is also kept with it, for its line in the log and for the
console's charts; see :mod:`endcap_reranker.bookkeeping`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from flask import g, has_app_context
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from endcap import __version__
from endcap.errors import EndcapError
from endcap.runtime import Runtime
from endcap.stores.runs import Runs
from endcap.stores.versions import LIVE, Versions

log = logging.getLogger(__name__)

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_FAST_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
_SLOW_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

HTTP = Counter("endcap_http_requests", "HTTP requests by route and status.", ["route", "method", "status"])
HTTP_SECONDS = Histogram("endcap_http_seconds", "Time from request to answer, by route.", ["route"], buckets=_SLOW_S)
REQUESTS = Counter("endcap_hook_requests", "HTTP requests to the hook.", ["endpoint", "status"])
SEARCHES = Counter("endcap_searches", "Searches by what became of them.", ["outcome", "reason"])
DEGRADED = Counter("endcap_degraded", "Answers that are less than they should be because of a fault.", ["reason"])
FALLBACKS = Counter("endcap_fallbacks", "Rankings by another scorer than the first in line.", ["reason"])
RANKINGS = Counter("endcap_rankings", "Rankings that were shown, by what the rankings log did.", ["outcome"])
TWO_PHASE = Counter("endcap_hook_two_phase", "Searches fetched in two phases, by what became of them.", ["outcome"])
ENGINE_SECONDS = Histogram("endcap_hook_engine_seconds", "Time spent waiting for the engine.", buckets=_SLOW_S)
OWN_SECONDS = Histogram("endcap_hook_own_seconds", "Endcap's own time in a search.", buckets=_FAST_S)
EVENTS = Counter("endcap_events", "Events by what became of them.", ["outcome"])


def degraded(reason: str) -> None:
    """An answer went out that is less than it should be."""
    DEGRADED.labels(reason).inc()
    _note("degraded", reason)


def searched(outcome: str, reason: str = "") -> None:
    """A search was ``ranked``, ``degraded`` (engine's order for a fault), ``untouched`` or ``refused``."""
    SEARCHES.labels(outcome, reason).inc()
    _note("searched", outcome)


def found_nothing() -> None:
    """A search has no product to show, not even on its first page."""
    _note("empty", 1)


def events(outcome: str, count: int) -> None:
    """Events were ``accepted``, ``duplicate`` or ``rejected``."""
    if count:
        EVENTS.labels(outcome).inc(count)
        _note("events", (outcome, count))


def noted(kind: str) -> list[Any]:
    """What the request at hand has noted, in order."""
    found: list[Any] = g.get(f"endcap_{kind}", [])
    return found


def _note(kind: str, value: Any) -> None:
    if has_app_context():
        name = f"endcap_{kind}"
        if name not in g:
            setattr(g, name, [])
        getattr(g, name).append(value)


class State(Collector):
    """What a process knows about itself, asked when Prometheus asks; of several processes, the one that answers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See prometheus_client."""
        runtime = self._runtime
        build = GaugeMetricFamily("endcap_build_info", "The version that runs.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        ready = GaugeMetricFamily("endcap_ready", "Whether a part has caught up since the start.", labels=["part"])
        ready.add_metric(["personalizing"], float(runtime.upkeep.ready))
        ready.add_metric(["recommending"], float(runtime.discovery.caught_up))
        yield ready
        problems = GaugeMetricFamily("endcap_problems", "Faults of background work, 1 while it lasts.", labels=["part"])
        for part in list(runtime.upkeep.problems):
            problems.add_metric([part], 1)
        yield problems
        table = runtime.personalizer.table
        yield GaugeMetricFamily("endcap_products", "Products known.", 0 if table is None else len(table))
        behind = GaugeMetricFamily("endcap_events_behind", "Events stored but not yet counted.")
        models = GaugeMetricFamily("endcap_live_model", "Which version is live.", labels=["kind", "version"])
        runs = GaugeMetricFamily("endcap_runs", "Runs of background jobs.", labels=["state"])
        try:
            behind.add_metric([], max(0, runtime.log.last_sequence() - runtime.popularity.sequence))
            for one in Versions(runtime.database).list(state=LIVE):
                models.add_metric([one.kind, one.version], 1)
            for state, count in Runs(runtime.database).count().items():
                runs.add_metric([state], count)
        except EndcapError as error:  # the others are worth having without the database, too
            log.warning("metrics without those of the database: %s", error)
        yield from (behind, models, runs)


def exposition(runtime: Runtime) -> tuple[bytes, str]:
    """The metrics of all processes and their media type."""
    registry = CollectorRegistry()
    registry.register(State(runtime))
    if os.environ.get(MULTIPROCESS_VARIABLE):
        MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY) + generate_latest(registry), CONTENT_TYPE_LATEST
