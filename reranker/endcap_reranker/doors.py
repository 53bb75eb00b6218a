"""Which doors are open to whom: the admin API, the console, the metrics.

Admin API and console always ask for a token. Besides, they are only there where that is sensible (setting ``admin``),
and on a port of their own where one is set (``admin_port``).
"""

from __future__ import annotations

import hmac
import time

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound

from endcap.errors import EndcapError
from endcap.runtime import Runtime
from endcap.settings import Settings
from endcap_reranker.admin.access import access, access_of
from endcap_reranker.api.problems import problem
from endcap_reranker.exposure import admin_address, is_loopback

#: First parts of the paths that belong on ``admin_port``.
_ADMIN, _CONSOLE, _METRICS = "/admin/v1", "/console", "/metrics"
_PROBES = frozenset({"/healthz", "/readyz"})
#: Seconds for which the answer to "is there a token?" holds.
_REMEMBERED_S = 3.0


def hang_doors(app: Flask, runtime: Runtime) -> None:
    """Refuse what does not belong on the port that a request came by, and what is switched off."""
    settings = runtime.settings
    shared = not settings.admin_port
    guests = settings.admin == "auto" and not is_loopback(admin_address(settings)[0])
    known = _AnyToken()
    access_of(app, runtime)

    @app.before_request
    def look() -> Response | None:
        path = request.path
        private = _private(path)
        if private:
            # Whoever it is, known or not: forms, bodies and what the audit log reads of them stay small.
            request.max_content_length = settings.max_body_bytes
        if not shared and path not in _PROBES and private != _on_admin_port(settings):
            if private:
                return problem(404, "not_found", "This is on another port (setting admin_port).")
            raise NotFound(f"{path:.100} is on the shop's port; here are {_CONSOLE}, {_ADMIN} and {_METRICS}")
        if private and path != _METRICS:
            if settings.admin == "off":
                return problem(404, "admin_off", "The admin API and the console are switched off (setting admin).")
            if guests and not known.now():
                return problem(404, "admin_off", "There is no token yet: endcap token create --role admin.")
        return None


def check_details(settings: Settings) -> None:
    """Whether the request may see the metrics and what is wrong inside: with a token, unless ``open_metrics``.

    Its address says nothing: a proxy on this machine that adds no header looks like somebody who sits before it.

    Raises:
        TokenRefused, RoleTooLow, TooManyRequests, LogUnavailable
    """
    if settings.open_metrics:
        return
    own = settings.metrics_token.get_secret_value()
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    # Without the database: what is wrong with it is what somebody wants to know just then.
    if not (own and hmac.compare_digest(own.encode(), given.encode())):
        access().require("reader")


def may_see_details(settings: Settings) -> bool:
    """As :func:`check_details`, for those who answer strangers with less."""
    try:
        check_details(settings)
    except EndcapError:
        return False
    return True


class _AnyToken:
    """Whether there is any token, remembered for a moment."""

    def __init__(self) -> None:
        self._until = 0.0
        self._answer = False

    def now(self) -> bool:
        if time.monotonic() >= self._until:
            self._answer = access().any_token
            self._until = time.monotonic() + _REMEMBERED_S
        return self._answer


def _private(path: str) -> bool:
    return path in (_METRICS, _ADMIN, _CONSOLE) or path.startswith((f"{_ADMIN}/", f"{_CONSOLE}/"))


def _on_admin_port(settings: Settings) -> bool:
    return request.environ.get("SERVER_PORT") == str(settings.admin_port)
