"""What the console's views answer with: a page in its frame, or the way back with a line of news."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask import Response, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from endcap_reranker.console.sessions import PATH


def render(template: str, **context: Any) -> str:
    """A page in the console's frame; ``session`` matters are added by the blueprint."""
    return render_template(template, **context)


def back(text: str, to: str = "", kind: str = "good") -> Response:
    """Answer to a form: go to ``to`` (or back where the form was) and show ``text`` there once."""
    g.endcap_note = (kind, text)
    return _response(redirect(to or _came_from(), 303))


def _came_from() -> str:
    parts = urlsplit(request.headers.get("Referer", ""))
    if parts.netloc == request.host and parts.path.startswith(PATH):
        return parts.path + (f"?{parts.query}" if parts.query else "")
    return url_for("endcap_console.start")


def _response(answer: BaseResponse) -> Response:
    return current_app.make_response(answer)
