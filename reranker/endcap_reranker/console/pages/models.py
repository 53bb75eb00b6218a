"""Models: versions with their figures, what the gate said, what is live; promote, pin, roll back, train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, make_response, request, url_for

from endcap.jobs import load_jobs
from endcap.registry import INTEREST, open_registry
from endcap.stores.runs import ENDED, Runs
from endcap.stores.versions import LIVE, Version
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.runs import known_job
from endcap_reranker.admin.versions import VersionAnswer, compared
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

#: Jobs whose runs are shown here while they last.
_MAKERS = ("train", "update", "evaluate", "promote", "publish", "augment")
_NAMES = {"train": "Train now", "update": "Update", "promote": "Judge and promote", "augment": "Train augmentation"}
#: Figures that say most about a model come first; the others follow by name.
_FIRST = ("ndcg@10", "ndcg", "hit@10", "hit", "mrr", "loss")
_MOST_COLUMNS = 4


def _numbers(version: Version) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in version.metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _columns(versions: Sequence[Version]) -> list[str]:
    """Figures to show in the table: the most telling ones that any version has."""
    names = {name for version in versions for name in _numbers(version)}
    order = {name: place for place, name in enumerate(_FIRST)}
    return sorted(names, key=lambda name: (order.get(name.lower(), len(order)), name))[:_MOST_COLUMNS]


def _answer(version: Version) -> VersionAnswer:
    return VersionAnswer.model_validate({name: getattr(version, name) for name in Version.__slots__} | {"usable": True})


def _routes(routes: Routes) -> None:
    settings = routes.runtime.settings
    registry = open_registry(settings, routes.runtime.database)
    runs = Runs(routes.runtime.database, settings.worker_lease_s, settings.run_attempts)

    def at_work() -> dict[str, Any]:
        found = [one for name in _MAKERS for one in runs.list(job=name, limit=3)]
        found.sort(key=lambda one: one.submitted, reverse=True)
        busy = [one for one in found if one.state not in ENDED]
        return {"busy": busy, "latest": None if busy or not found else found[0]}

    @routes.get()
    def show() -> str:
        versions = registry.versions()
        kinds: dict[str, list[Version]] = {INTEREST: []}
        for one in versions:
            kinds.setdefault(one.kind, []).append(one)
        tables = [
            {
                "kind": kind,
                "versions": found,
                "columns": _columns(found),
                "headings": [f">{name.replace('_', ' ')}" for name in _columns(found)],
                "numbers": {one.version: _numbers(one) for one in found},
                "live": next((one for one in found if one.state == "live"), None),
                "charts": _charts(found),
            }
            for kind, found in kinds.items()
        ]
        jobs = load_jobs()
        return render(
            "console/models.html",
            tables=tables,
            changes=registry.history(limit=20),
            names=_NAMES,
            makers=[jobs[name] for name in _MAKERS if name in jobs],
            **at_work(),
        )

    @routes.get("/part")
    def part() -> Response:
        state = at_work()
        response = make_response(render("console/models_part.html", **state))
        if not state["busy"]:
            response.headers["X-Endcap-Done"] = "1"
        return response

    @routes.get("/<kind>/<version>")
    def version(kind: str, version: str) -> str:
        one = registry.get(kind, version)
        with_ = request.args.get("with", "")
        live = registry.live(kind)
        other = registry.get(kind, with_) if with_ else live
        if other is not None and other.version == one.version:
            other = None
        return render(
            "console/model.html",
            one=one,
            live=live,
            other=other,
            others=[found for found in registry.versions(kind) if found.version != version],
            numbers=_numbers(one),
            compared=compared(_answer(one), _answer(other)) if other is not None else None,
        )

    @routes.post("/<kind>/<version>/promote")
    def promote(kind: str, version: str) -> Response:
        registry.promote(kind, version, caller().name, force=request.form.get("force") == "yes")
        return back(f"{kind} {version} is live. All servers switch within two seconds.")

    @routes.post("/<kind>/<version>/pin")
    def pin(kind: str, version: str) -> Response:
        registry.pin(kind, version, caller().name)
        return back(f"{kind} {version} is live and pinned: nothing replaces it until you unpin it.")

    @routes.post("/<kind>/<version>/shadow")
    def shadow(kind: str, version: str) -> Response:
        registry.shadow(kind, version, caller().name)
        return back(f"{kind} {version} is scored beside the live version, without effect.")

    @routes.post("/<kind>/unpin")
    def unpin(kind: str) -> Response:
        one = registry.unpin(kind, caller().name)
        return back(f"{kind} {one.version} may be replaced by newer versions again.")

    @routes.post("/<kind>/roll-back")
    def roll_back(kind: str) -> Response:
        one = registry.roll_back(kind, caller().name)
        if one.state != LIVE:
            return back(f"Rolled back: {one.version} was the first of {kind}; no model is in force now.")
        return back(f"Rolled back: {kind} {one.version} is live.")

    @routes.post("/start/<job>")
    def start(job: str) -> Response:
        chosen = known_job({name: one for name, one in load_jobs().items() if name in _MAKERS}, job)
        known = chosen.takes.model_fields if chosen.takes else {}
        runs.submit(chosen, {"promote": True} if "promote" in known else {}, caller().name)
        return back(f"{chosen.title}: asked for.", url_for("endcap_console.models_show"))


def _charts(versions: Sequence[Version]) -> list[tuple[str, list[str], list[float | None]]]:
    """For the first figures that several versions have: their values, the oldest version first."""
    rows = list(reversed(versions[:30]))
    found = []
    for name in _columns(versions)[:2]:
        values = [_numbers(one).get(name) for one in rows]
        if sum(value is not None for value in values) >= 2:
            found.append((name, [one.version for one in rows], values))
    return found


PAGE = Page("models", "Models", "Learning", _routes)
