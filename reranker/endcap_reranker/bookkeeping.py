"""What is kept of every request: an id, a line in the log, counts for Prometheus and the console, a span."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from contextlib import ExitStack

from flask import Flask, Response, g, request

from endcap.logs import REQUEST_ID
from endcap.runtime import Runtime
from endcap.stores.traffic import bucket
from endcap.tracing import server_span
from endcap_reranker import telemetry

log = logging.getLogger("endcap.access")

HEADER = "X-Request-Id"
_GOOD_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
#: Asked every few seconds by machines: counted, but no traffic.
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Routes whose times the console draws: what a shopper waits for.
_SEARCHES = ("/<index>/_search", "/<index>/_msearch", "/_search", "/_msearch", "/v1/search")


def keep_books(app: Flask, runtime: Runtime) -> None:
    """Install it in an application."""
    log_lines = runtime.settings.access_log

    @app.before_request
    def begin() -> None:
        g.endcap_began = time.perf_counter()
        given = request.headers.get(HEADER, "")
        g.endcap_request_id = given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex
        REQUEST_ID.set(g.endcap_request_id)
        g.endcap_span = ExitStack()
        opened = server_span(f"{_method()} {_route()}", dict(request.headers))
        g.endcap_live_span = g.endcap_span.enter_context(opened)

    @app.after_request
    def end(response: Response) -> Response:
        if "endcap_began" not in g:
            return response
        took_ms = (time.perf_counter() - g.endcap_began) * 1000.0
        route, status = _route(), response.status_code
        response.headers[HEADER] = g.endcap_request_id
        telemetry.HTTP.labels(route, _method(), str(status)).inc()
        telemetry.HTTP_SECONDS.labels(route).observe(took_ms / 1000.0)
        degraded = list(dict.fromkeys(telemetry.noted("degraded")))
        if route not in _PROBES:
            runtime.traffic.add(_counts(route, status, took_ms, degraded))
        if g.endcap_live_span is not None:
            g.endcap_live_span.set_attributes(
                {"http.route": route, "http.response.status_code": status, "endcap.request_id": g.endcap_request_id}
            )
            if degraded:
                g.endcap_live_span.set_attribute("endcap.degraded", ",".join(degraded))
        if log_lines:
            extra = {
                "method": request.method, "route": route, "status": status, "ms": round(took_ms, 2),
                "address": request.remote_addr, "degraded": ",".join(degraded),
            }  # fmt: skip
            log.info("%s %s %d", request.method, request.path, status, extra=extra)
        return response

    @app.teardown_request
    def close(error: BaseException | None) -> None:
        if "endcap_span" in g:
            g.pop("endcap_span").close()
        REQUEST_ID.set("")


def _route() -> str:
    """The rule that answers, never the path: there must not be a counter for every name that someone tries."""
    return request.url_rule.rule if request.url_rule is not None else "none"


def _method() -> str:
    """One of those that there are: a client may make up any word, and each would be a counter for ever."""
    return request.method if request.method in _METHODS else "other"


def _counts(route: str, status: int, took_ms: float, degraded: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter({"requests": 1})
    if status >= 500:
        counts["failed"] = 1
    elif status >= 400:
        counts["refused"] = 1
    for outcome in telemetry.noted("searched"):
        counts[f"searches:{outcome}"] += 1
    if empty := len(telemetry.noted("empty")):
        counts["searches without results"] = empty
    for reason in degraded:
        counts[f"degraded:{reason}"] += 1
    for outcome, count in telemetry.noted("events"):
        counts[f"events:{outcome}"] += count
    if route in _SEARCHES and status < 400:
        counts[f"ms:{bucket(took_ms)}"] = 1
    return counts
