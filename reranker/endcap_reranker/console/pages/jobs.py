"""Background jobs: what there is, when it runs, what runs now and how far it is, what came of it."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import orjson
from flask import Response, make_response, request, url_for

from endcap.jobs import Job, load_jobs
from endcap.schedule import next_time, schedule_of
from endcap.stores.runs import ENDED, Runs
from endcap.stores.workers import Workers
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.runs import known_job
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import Page, Routes

_LATEST = 30


@cache
def _fields(job: Job) -> list[dict[str, Any]]:
    """The job's parameters as a form can ask for them; what is no plain value is left to the API."""
    schema = job.takes.model_json_schema() if job.takes else {}
    found = []
    for name, one in schema.get("properties", {}).items():
        kinds = [one.get("type"), *(part.get("type") for part in one.get("anyOf", []))]
        kind = next((kind for kind in kinds if kind in ("integer", "number", "boolean", "string")), None)
        if kind:
            default = one.get("default")
            found.append(
                {
                    "name": name,
                    "kind": kind,
                    "text": one.get("description", ""),
                    "choices": one.get("enum", []),
                    "default": "" if default is None else default,
                }
            )
    return found


def _routes(routes: Routes) -> None:
    settings = routes.runtime.settings
    runs = Runs(routes.runtime.database, settings.worker_lease_s, settings.run_attempts)
    workers = Workers(routes.runtime.database)

    def latest() -> dict[str, Any]:
        found = runs.list(limit=_LATEST)
        return {"runs": found, "busy": [one for one in found if one.state not in ENDED], "workers": workers.alive()}

    @routes.get()
    def show() -> str:
        jobs, fired, now = load_jobs(), runs.fired(), time.time()
        crontabs = schedule_of(jobs.values(), settings)
        rows = [
            {
                "job": job,
                "crontab": crontabs.get(job.name, ""),
                "next": next_time(crontabs[job.name], now) if job.name in crontabs else None,
                "last": fired.get(job.name),
                "fields": _fields(job),
            }
            for job in jobs.values()
        ]
        return render("console/jobs.html", rows=rows, **latest())

    @routes.get("/part")
    def part() -> str:
        return render("console/jobs_part.html", **latest())

    @routes.get("/runs/<run_id>")
    def run(run_id: str) -> str:
        return render("console/run.html", **one_run(run_id))

    @routes.get("/runs/<run_id>/part")
    def run_part(run_id: str) -> Response:
        found = one_run(run_id)
        response = make_response(render("console/run_part.html", **found))
        if found["ended"]:
            response.headers["X-Endcap-Done"] = "1"
        return response

    def one_run(run_id: str) -> dict[str, Any]:
        found = runs.get(run_id)
        return {
            "one": found,
            "ended": found.state in ENDED,
            "parameters": orjson.dumps(found.parameters, option=orjson.OPT_INDENT_2).decode(),
            "result": orjson.dumps(found.result, option=orjson.OPT_INDENT_2).decode() if found.result else "",
        }

    @routes.post("/<job>/start")
    def start(job: str) -> Response:
        chosen = known_job(load_jobs(), job)
        known = {field["name"] for field in _fields(chosen)}
        given = {name: value.strip() for name, value in request.form.items() if name in known and value.strip()}
        run_id = runs.submit(chosen, given, caller().name)
        return back(f"{chosen.title}: asked for.", url_for("endcap_console.jobs_run", run_id=run_id))

    @routes.post("/runs/<run_id>/cancel")
    def cancel(run_id: str) -> Response:
        runs.cancel(run_id)
        return back("Asked to stop: it does when the job next looks.")

    @routes.post("/runs/<run_id>/retry")
    def retry(run_id: str) -> Response:
        again = runs.retry(run_id, caller().name)
        return back("Asked for again.", url_for("endcap_console.jobs_run", run_id=again.id))


PAGE = Page("jobs", "Jobs", "Learning", _routes)
