"""The one error format of ``/v1`` and ``/admin/v1``: RFC 9457, ``application/problem+json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from endcap.errors import EndcapError

logger = logging.getLogger(__name__)


def problem(status: int, kind: str, detail: str, members: Mapping[str, Any] | None = None) -> Response:
    """An error answer. ``kind`` is the short stable name that a program can act on; ``detail`` is for people;
    ``members`` are extensions."""
    body = {
        **(members or {}),
        "type": f"urn:endcap:error:{kind}",
        "title": kind.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    return Response(orjson.dumps(body), status=status, content_type="application/problem+json")


def problem_of(error: EndcapError) -> Response:
    """The answer to one of Endcap's own errors; a fault that passes says when to try again."""
    response = problem(error.status, error.kind, str(error), getattr(error, "members", None))
    if error.status == 503:
        response.headers["Retry-After"] = "1"
    response.headers.update(getattr(error, "headers", {}))
    return response


def answer_problems(blueprint: Blueprint) -> None:
    """Have a blueprint answer every error in this format. Bugs are logged with their trace and told without it."""

    @blueprint.errorhandler(EndcapError)
    def own_error(error: EndcapError) -> Response:
        if error.status >= 500:
            logger.warning("%s: %s", error.kind, error)
        return problem_of(error)

    @blueprint.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.name.lower().replace(" ", "_"), error.description or error.name)
        for name, value in error.get_headers():
            if name.lower() in {"allow", "retry-after"}:
                response.headers[name] = value
        return response

    @blueprint.errorhandler(Exception)
    def any_error(error: Exception) -> Response:
        logger.exception("unexpected error in %s", request.path)
        return problem(500, "internal_error", "Endcap could not answer; its log holds the reason.")
