"""The one error format of ``/v1`` and ``/admin/v1``: RFC 9457, ``application/problem+json``."""

from __future__ import annotations

import logging

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from endcap.errors import EndcapError

logger = logging.getLogger(__name__)


def problem(status: int, kind: str, detail: str) -> Response:
    """An error answer. ``kind`` is the short stable name that a program can act on; ``detail`` is for people."""
    body = {
        "type": f"urn:endcap:error:{kind}",
        "title": kind.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    return Response(orjson.dumps(body), status=status, content_type="application/problem+json")


def problem_of(error: EndcapError) -> Response:
    """The answer to one of Endcap's own errors; a fault that passes says when to try again."""
    response = problem(error.status, error.kind, str(error))
    if error.status == 503:
        response.headers["Retry-After"] = "1"
    response.headers.update(getattr(error, "headers", {}))
    return response
