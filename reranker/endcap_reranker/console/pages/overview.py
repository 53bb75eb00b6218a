"""What goes on now: traffic, times, faults, freshness."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from flask import Response, make_response, request

from endcap.registry import INTEREST, open_registry
from endcap.runtime import Runtime
from endcap.stores.runs import Runs
from endcap.stores.traffic import BOUNDS_MS, quantile
from endcap_reranker.console.frame import render
from endcap_reranker.console.pages import Page, Routes

#: Name in the address -> (title, minutes, minutes per step).
SPANS = {"hour": ("Last hour", 60, 1), "day": ("Last 24 hours", 1_440, 15), "week": ("Last 7 days", 10_080, 120)}
_SEARCHES = ("ranked", "degraded", "untouched", "refused")


@dataclass(frozen=True, slots=True)
class Flow:
    """The traffic of a span of time, in steps. ``empty``: searches without a result. Arrays float64 (n,); times
    milliseconds, None where nobody searched."""

    labels: list[str]
    per_minute: np.ndarray
    searches: dict[str, np.ndarray]
    empty: float
    degraded: list[tuple[str, float]]
    failed: float
    requests: float
    median: list[float | None]
    high: list[float | None]
    overall: tuple[float | None, float | None]
    events: dict[str, np.ndarray]
    minutes: int
    step: int

    @property
    def searched(self) -> float:
        """Searches of the whole span."""
        return float(sum(row.sum() for row in self.searches.values()))

    @property
    def degraded_share(self) -> list[float | None]:
        """Degraded searches per hundred, step by step."""
        total = np.sum(list(self.searches.values()), axis=0)
        share = 100.0 * self.searches["degraded"] / np.maximum(total, 1.0)
        return [float(value) if of else None for value, of in zip(share, total)]


def flow(runtime: Runtime, span: str) -> Flow:
    """The traffic over all servers of the shop, as of the last few seconds."""
    _, minutes, step = SPANS[span]
    starts, counts = runtime.traffic.sums(minutes, step)
    form = "%H:%M" if minutes <= 1_440 else "%a %H:%M"
    none = np.zeros(len(starts))
    times = _times(counts, len(starts))
    return Flow(
        labels=[datetime.fromtimestamp(int(at), timezone.utc).strftime(form) for at in starts],
        per_minute=counts.get("requests", none) / step,
        searches={name: counts.get(f"searches:{name}", none) for name in _SEARCHES},
        empty=float(counts.get("searches without results", none).sum()),
        degraded=_by_reason(counts, "degraded:"),
        failed=float(counts.get("failed", none).sum()),
        requests=float(counts.get("requests", none).sum()),
        median=[quantile(row, 0.5) for row in times],
        high=[quantile(row, 0.95) for row in times],
        overall=(quantile(times.sum(axis=0), 0.5), quantile(times.sum(axis=0), 0.95)),
        events={name: counts.get(f"events:{name}", none) for name in ("accepted", "duplicate", "rejected")},
        minutes=minutes,
        step=step,
    )


def _times(counts: Mapping[str, np.ndarray], steps: int) -> np.ndarray:
    """Counts of times by step and bucket."""
    table = np.zeros((steps, len(BOUNDS_MS) + 1))
    for name, row in counts.items():
        if name.startswith("ms:"):
            table[:, min(int(name[3:]), len(BOUNDS_MS))] += row
    return table


def _by_reason(counts: Mapping[str, np.ndarray], prefix: str) -> list[tuple[str, float]]:
    found = [(name.removeprefix(prefix), float(row.sum())) for name, row in counts.items() if name.startswith(prefix)]
    return sorted(found, key=lambda one: -one[1])


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    registry = open_registry(runtime.settings, runtime.database)
    runs = Runs(runtime.database, runtime.settings.worker_lease_s, runtime.settings.run_attempts)

    def context(span: str) -> dict[str, object]:
        table = runtime.personalizer.table
        sequence = runtime.log.last_sequence()
        last = runtime.log.since(sequence - 1, 1).times
        return {
            "span": span,
            "spans": SPANS,
            "flow": flow(runtime, span),
            "products": len(table) if table is not None else None,
            "events": sequence,
            "behind": max(0, sequence - runtime.popularity.sequence),
            "last_event": float(last[0]) if len(last) else None,
            "live": registry.live(INTEREST),
            "scorer": runtime.personalizer.scorer.name,
            "problems": dict(runtime.upkeep.problems),
            "ready": runtime.upkeep.ready,
            "recommending": runtime.discovery.caught_up,
            "runs": runs.count(),
            "now": time.time(),
        }

    @routes.get()
    def show() -> str:
        return render("console/overview.html", **context(_span()))

    @routes.get("/part")
    def part() -> Response:
        return make_response(render("console/overview_part.html", **context(_span())))

    def _span() -> str:
        wanted = request.args.get("span", "hour")
        return wanted if wanted in SPANS else "hour"


PAGE = Page("overview", "Overview", "Now", _routes)
