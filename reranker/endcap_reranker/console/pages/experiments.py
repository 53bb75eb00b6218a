"""Experiments: what runs, what the last look said, and how the difference moved."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone
from typing import Any

from flask import Response, request, url_for

from endcap import charts
from endcap.errors import InvalidInput
from endcap.experiments.definition import METRICS
from endcap.experiments.looking import look
from endcap.experiments.models import BASELINE
from endcap.experiments.power import detectable_effect
from endcap.policy.opening import profiles_of
from endcap.registry import INTEREST, Registry, open_registry
from endcap.stores.experiments import RUNNING, StoredExperiment
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.experiments import open_experiments
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

#: Metrics as people call them.
TITLES = {
    "conversion": "Conversion", "ctr": "Click rate", "revenue": "Revenue per search", "ndcg": "NDCG of clicks",
    "zero_results": "Searches without results", "latency_ms": "Milliseconds",
}  # fmt: skip


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    experiments = open_experiments(runtime)
    registry = open_registry(runtime.settings, runtime.database)

    @routes.get()
    def show() -> str:
        profiles = [one.name for one in profiles_of(runtime.settings)]
        return render(
            "console/experiments.html",
            experiments=experiments.store.all(),
            profiles=profiles,
            models=_models(registry),
            problem=runtime.upkeep.problems.get("experiment models", ""),
            metrics=[(name, TITLES[name]) for name in METRICS],
            control_share=runtime.settings.control_share,
        )

    @routes.get("/<name>")
    def one(name: str) -> str:
        found = experiments.store.get(name)
        return render("console/experiment.html", one=found, now=time.time(), **_drawn(found))

    @routes.post("")
    def define() -> Response:
        form = request.form
        arms = [
            {
                "name": form.get(f"arm{number}", "").strip(),
                "profile": form.get(f"profile{number}", "").strip(),
                "model": form.get(f"model{number}", "").strip(),
            }
            for number in (1, 2)
        ]
        share = _number(form.get("share", "50"), "share of the second arm") / 100
        for arm, weight in zip(arms, (1 - share, share)):
            arm["weight"] = weight  # type: ignore[assignment]
        made = experiments.define(
            {
                "name": form.get("name", "").strip(),
                "hypothesis": form.get("hypothesis", "").strip(),
                "design": form.get("design", "ab"),
                "metric": form.get("metric", "conversion"),
                "planned": int(_number(form.get("planned", "10000"), "planned shoppers")),
                "arms": arms,
            },
            by=caller().name,
        )
        return back(f"{made.name} is a draft; start it when you like.", url_for(".experiments_one", name=made.name))

    @routes.post("/<name>/start")
    def start(name: str) -> Response:
        experiments.start(name)
        return back(f"{name} runs.")

    @routes.post("/<name>/stop")
    def stop(name: str) -> Response:
        experiments.stop(name)
        return back(f"{name} is stopped; its numbers stay.")

    @routes.post("/<name>/look")
    def look_now(name: str) -> Response:
        look(runtime.database, runtime.settings.reward_hours, name)
        return back("Judged anew. Looking often does no harm: the intervals hold at every look.")


def _models(registry: Registry) -> list[tuple[str, str]]:
    """What an arm may be scored by, and how the list calls it."""
    versions = [one for one in registry.versions(INTEREST, limit=50) if one.folder]
    return [
        ("", "what is live"),
        *((one.version, f"model {one.version} ({one.state})") for one in versions),
        (BASELINE, "the baseline, no model"),
    ]


def _number(text: str, what: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(f"{what}: a number, not {text!r:.40}")
    return found


def _drawn(found: StoredExperiment) -> dict[str, Any]:
    """Charts and rows of a report; nothing where nobody has looked yet."""
    planned = int(found.definition["planned"])
    drawn: dict[str, Any] = {
        "titles": TITLES, "running": found.state == RUNNING, "curve": None, "forest": None, "rows": [],
        "before_start": detectable_effect(planned, 0.05 * 0.95), "planned": planned,
    }  # fmt: skip
    report = found.report
    if report is None:
        return drawn
    points = [one for one in report.get("curve", []) if None not in one["difference"]]
    if points:
        labels = [datetime.fromtimestamp(one["time"], timezone.utc).strftime("%d %b %H:%M") for one in points]
        names = ("difference", "at least", "at most")
        series = [(name, [one["difference"][number] for one in points]) for number, name in enumerate(names)]
        drawn["curve"] = charts.lines(series, labels, "The difference at every look", from_zero=False)
    if "metrics" in report:
        # Metrics have units of their own: per cent of the first arm is what they share.
        base = found.definition["arms"][0]["name"]
        rows = [
            (f"{TITLES[metric]}: {one['arm']}", *(100.0 * part / mean for part in one["difference"]))
            for metric, values in report["metrics"].items()
            for one in values["comparisons"]
            if None not in one["difference"] and (mean := values["arms"][base]["mean"]) > 0
        ]
        title = f"Per cent more or less than {base}, with the intervals that always hold"
        drawn["forest"] = charts.intervals(rows, title, digits=1)
        drawn["rows"] = [(TITLES[metric], values) for metric, values in report["metrics"].items()]
    return drawn


PAGE = Page("experiments", "Experiments", "Ranking", _routes)
