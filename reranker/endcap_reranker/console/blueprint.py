"""The console as a Flask blueprint: log-in, who may see what, the frame around every page."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from endcap import __version__, charts
from endcap.errors import EndcapError
from endcap.runtime import Runtime
from endcap.stores.tokens import TokenRefused, allows
from endcap_reranker.admin.access import access, caller, guarded
from endcap_reranker.console import words
from endcap_reranker.console.frame import back, render
from endcap_reranker.console.pages import PAGES, Page, Routes, role_of
from endcap_reranker.console.sessions import PATH, Sessions

log = logging.getLogger(__name__)

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def create_console(runtime: Runtime) -> Blueprint:
    """The console over a runtime.

    Raises:
        ConfigurationError: the key that signs its sessions can be neither read nor made.
    """
    console = Blueprint(
        "endcap_console", __name__, url_prefix=PATH, static_folder="static", template_folder="templates"
    )
    if runtime.settings.admin == "off":
        return Blueprint("endcap_no_console", __name__)
    sessions = Sessions(runtime.settings)
    pages = [importlib.import_module(name).PAGE for name in PAGES]
    guarded(console, runtime)

    @console.before_request
    def admit() -> Any:
        """Forms first: whoever sends one from elsewhere learns nothing, not even whether he is logged in."""
        g.endcap_session = sessions.of(request)
        view = current_app.view_functions.get(request.endpoint or "")
        if request.method == "POST":
            sessions.check_form(request, g.endcap_session)
        role = role_of(view)
        if role is None:
            return None
        if g.endcap_session is None or not g.endcap_session.token_id:
            raise TokenRefused("token_missing", "log in first")
        access().admit(access().session(g.endcap_session.token_id), role)
        g.endcap_page = getattr(view, "endcap_page", "")
        return None

    @console.context_processor
    def frame() -> dict[str, Any]:
        token = g.get("endcap_caller")
        session = g.get("endcap_session")
        return {
            "proof": sessions.proof(session) if session else "",
            "token": token,
            "may": lambda role: token is not None and allows(token.role, role),
            "navigation": _navigation(pages, token),
            "here": g.get("endcap_page", ""),
            "note": sessions.note(request),
            "version": __version__,
            "shop": runtime.settings.index,
            "charts": charts,
            "words": words,
        }

    @console.get("")
    @console.get("/")
    def start() -> Any:
        return redirect(url_for(f"endcap_console.{pages[0].name}_show"))

    @console.get("/login")
    def login() -> Response:
        # The form's proof needs a session before there is anyone to belong to it.
        response = make_response()
        if g.endcap_session is None or g.endcap_session.token_id:
            g.endcap_session = sessions.begin(response, request)
        response.set_data(render("console/login.html", known=access().any_token))
        return response

    @console.post("/login")
    def log_in() -> Response:
        found = access().log_in(request.form.get("token", "").strip())
        g.endcap_caller = found
        response = make_response(redirect(url_for("endcap_console.start"), 303))
        sessions.begin(response, request, access().session_name(found))
        return response

    @console.post("/logout")
    def log_out() -> Response:
        if g.endcap_session.token_id:
            g.endcap_caller = access().session(g.endcap_session.token_id)
        response = make_response(redirect(url_for("endcap_console.login"), 303))
        sessions.end(response)
        return response

    for page in pages:
        page.routes(Routes(console, runtime, page))

    @console.errorhandler(TokenRefused)
    def refused(error: TokenRefused) -> Any:
        g.endcap_outcome = error.kind
        g.endcap_note = None if error.kind == "token_missing" else ("bad", str(error))
        if request.headers.get("X-Endcap-Part"):
            return make_response("", 401)
        response = make_response(redirect(url_for("endcap_console.login"), 303))
        if g.get("endcap_session") and g.endcap_session.token_id:
            sessions.end(response)
        return response

    @console.errorhandler(EndcapError)
    def own_error(error: EndcapError) -> Any:
        g.endcap_outcome = error.kind
        if error.status >= 500:
            log.warning("%s: %s", error.kind, error)
        if request.method == "POST":
            return back(str(error), kind="bad")
        return _error_page(error.status, error.kind.replace("_", " ").capitalize(), str(error))

    @console.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Any:
        if error.response is not None or (error.code or 500) < 400:
            return error.get_response()
        return _error_page(error.code or 500, error.name, error.description or "")

    @console.errorhandler(Exception)
    def bug(error: Exception) -> Any:
        log.exception("unexpected error in %s", request.path)
        g.endcap_outcome = "internal_error"
        return _error_page(500, "Something went wrong", "The server's log has the reason.")

    @console.route("/<path:path>", methods=["GET", "POST"])
    def unknown(path: str) -> Any:
        return _error_page(404, "No such page", f"There is no page {path:.80} in the console.")

    @console.after_request
    def harden(response: Response) -> Response:
        note = g.get("endcap_note")
        if note:
            sessions.leave_note(response, request, *note)
        elif request.method == "GET" and response.mimetype == "text/html" and sessions.note(request):
            sessions.drop_note(response)
        # A report's page has a policy of its own: its styles stand in it.
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        if request.endpoint != "endcap_console.static":
            response.headers["Cache-Control"] = "no-store"
        return response

    return console


def _error_page(status: int, title: str, text: str) -> Response:
    return make_response(render_template("console/error.html", status=status, title=title, text=text), status)


def _navigation(pages: list[Page], token: Any) -> list[tuple[str, list[Page]]]:
    groups: dict[str, list[Page]] = {}
    for page in pages:
        if token is not None and allows(token.role, page.role):
            groups.setdefault(page.group, []).append(page)
    return list(groups.items())


__all__ = ["caller", "create_console"]
