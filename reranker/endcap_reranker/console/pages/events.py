"""Events as they come in: how many, which are rejected, and why."""

from __future__ import annotations

import time

from flask import Response, make_response, request

from endcap.stores.rejects import Rejects
from endcap_reranker.console.frame import render
from endcap_reranker.console.pages import Page, Routes
from endcap_reranker.console.pages.overview import SPANS, flow

_SHOWN = 50


def _routes(routes: Routes) -> None:
    runtime = routes.runtime
    rejects = Rejects(runtime.database)

    def context() -> dict[str, object]:
        span = request.args.get("span", "hour")
        span = span if span in SPANS else "hour"
        code = request.args.get("code", "")
        return {
            "span": span,
            "spans": SPANS,
            "code": code,
            "flow": flow(runtime, span),
            "reasons": list(rejects.counts(time.time() - SPANS[span][1] * 60).items()),
            "latest": rejects.latest(_SHOWN, code),
            "count": runtime.log.last_sequence(),
        }

    @routes.get()
    def show() -> str:
        return render("console/events.html", **context())

    @routes.get("/part")
    def part() -> Response:
        return make_response(render("console/events_part.html", **context()))


PAGE = Page("events", "Events", "Now", _routes)
