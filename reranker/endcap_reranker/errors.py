"""Errors of the hook, in the one shape that storefront clients know how to read: Elasticsearch's own error object.

``{"error": {"root_cause": [{"type", "reason"}], "type", "reason"}, "status"}``. The API under ``/v1`` is Endcap's own
and answers in RFC 9457 (``api/problems.py``).
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from endcap.errors import EndcapError, EngineError, InvalidInput

log = logging.getLogger(__name__)


class MalformedBody(InvalidInput):
    """The body is not the JSON (or NDJSON) that it should be."""

    kind = "parsing_exception"


class IllegalArgument(InvalidInput):
    """A well-formed request that asks for more, or for something else, than may be asked."""

    kind = "illegal_argument_exception"


class BodyTooLarge(InvalidInput):
    """The body is over the limit, before or after decompression."""

    status = 413
    kind = "content_too_long_exception"


class UnsupportedEncoding(InvalidInput):
    """The body is compressed in a way that is not understood here."""

    status = 415
    kind = "media_type_header_exception"


class UnsupportedMediaType(InvalidInput):
    """The body is of a type that cannot be read, and therefore not be checked."""

    status = 406
    kind = "media_type_header_exception"


class Forbidden(EndcapError):
    """The request would do or see what is not on the allow-list."""

    status = 403
    kind = "security_exception"


def error_object(kind: str, reason: str, status: int) -> dict[str, Any]:
    """Elasticsearch's error object."""
    return {
        "error": {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason},
        "status": status,
    }


def error_of(error: EndcapError) -> dict[str, Any]:
    """The error object of one of Endcap's errors; an engine's own error object is passed on as it is."""
    if isinstance(error, EngineError) and isinstance(error.body, dict) and "error" in error.body:
        return error.body
    return error_object(error.kind, str(error), error.status)


def error_response(error: EndcapError) -> Response:
    """The answer for an error."""
    return json_response(error_of(error), error.status)


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, content_type="application/json")


def install_error_handlers(app: Flask) -> None:
    """Answer every error of the application in the one shape. Bugs are logged with their trace and told without it."""

    @app.errorhandler(EndcapError)
    def _endcap(error: EndcapError) -> Response:
        if error.status >= 500:
            log.error("%s: %s", error.kind, error)
        return error_response(error)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        if error.response is not None or (error.code or 500) < 400:
            return error.get_response()  # type: ignore[return-value]
        status = error.code or 500
        kind = (error.name or "error").lower().replace(" ", "_")
        answer = json_response(error_object(kind, error.description or error.name, status), status)
        # Allow, Retry-After and WWW-Authenticate say what to do; the rest describes werkzeug's own HTML page.
        for name, value in error.get_headers():
            if name.lower() not in {"content-type", "content-length"}:
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def _bug(error: Exception) -> Response:
        log.exception("unexpected error")
        return json_response(error_object("internal_error", "unexpected error; the server's log has it", 500), 500)
