"""Who may call the admin API: bearer tokens, roles, rate limits, and the audit log of what was changed.

A view says what it needs by :func:`needs`; :class:`Access` does the rest::

    guarded(admin, runtime)  # a blueprint

    @admin.post("/runs")
    @needs("operator")
    def start() -> Response:
        who = caller().name
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import orjson
from flask import Blueprint, Flask, Response, current_app, g, request
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from endcap.runtime import Runtime
from endcap.stores.audit import AuditLog, Entry, without_secrets
from endcap.stores.database import LogUnavailable
from endcap.stores.tokens import Role, RoleTooLow, Token, TokenRefused, Tokens, allows
from endcap_reranker.admin.limits import RateLimit, TooManyRequests
from endcap_reranker.exposure import admin_address, is_loopback

log = logging.getLogger("endcap.audit")

View = TypeVar("View", bound=Callable[..., Any])
_EXTENSION = "endcap_access"
#: Lines a minute that the audit log takes about refused strangers of one address.
_MOST_LINES = 30
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Access:
    """Knows the tokens, counts the calls, writes the audit log. One per application."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self.tokens = Tokens(runtime.database)
        self.audit = AuditLog(runtime.database)
        self._fixed = settings.admin_token.get_secret_value()
        self._alone = is_loopback(admin_address(settings)[0])
        self._calls = RateLimit("calls", settings.admin_calls_per_minute, settings.redis_url)
        self._failures = RateLimit("failures", settings.login_failures_per_minute, settings.redis_url)
        self._lines = RateLimit("lines", _MOST_LINES, settings.redis_url)

    @property
    def any_token(self) -> bool:
        """Whether there is a token that opens anything."""
        return bool(self._fixed or self.tokens.usable())

    def log_in(self, text: str) -> Token:
        """The token that a text is.

        Raises:
            TokenRefused: it is none, or not one that may be used now.
            TooManyRequests: too many wrong ones came from this address lately; this one was not looked at.
        """
        address = request.remote_addr or ""
        self._failures.check(address)
        try:
            if self._fixed and hmac.compare_digest(self._fixed.encode(), text.encode()):
                return FIXED
            return self._here(self.tokens.check(text))
        except TokenRefused:
            self._failures.hit(address)
            raise

    def session_name(self, token: Token) -> str:
        """What a console session remembers of its token: the id. The setting ``admin_token`` has no row that could be
        revoked, so a digest stands for its text, and another text ends the sessions of the one before."""
        if token is not FIXED:
            return token.id
        return f"{FIXED.id}:{hashlib.sha256(self._fixed.encode()).hexdigest()[:32]}"

    def session(self, name: str) -> Token:
        """The token behind a console session, as it is now.

        Args:
            name: by :meth:`session_name`.

        Raises:
            TokenRefused: it may not be used any more.
        """
        if name.partition(":")[0] == FIXED.id:
            if not self._fixed or not hmac.compare_digest(name.encode(), self.session_name(FIXED).encode()):
                raise TokenRefused("token_unknown", "the setting admin_token has changed: log in again")
            return FIXED
        return self._here(self.tokens.by_id(name))

    def _here(self, token: Token) -> Token:
        """The server looks for tokens that are for one machine only before it starts; they may be made later, too."""
        if token.local and not self._alone:
            raise TokenRefused("token_local", f"the token {token.id} ({token.name}) is for a server on 127.0.0.1 only")
        return token

    def require(self, role: Role) -> Token:
        """The token of the request's ``Authorization`` header, which must have at least this role.

        Raises:
            TokenRefused, RoleTooLow, TooManyRequests
        """
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise TokenRefused("token_missing", "send a token: `Authorization: Bearer …` (endcap token create)")
        return self.admit(self.log_in(text.strip()), role)

    def admit(self, token: Token, role: Role) -> Token:
        """Let the bearer of a checked token do what needs ``role``: counts the call, remembers who it is.

        Raises:
            RoleTooLow, TooManyRequests
        """
        g.endcap_caller = token
        if not allows(token.role, role):
            raise RoleTooLow(token.role, role)
        self._calls.hit(token.id)
        return token

    def written(self, response: Response) -> Response:
        """Write a line for a call that is not a mere look, a refused one included; gives back its answer."""
        if request.method in _READING or response.status_code == 429 or "endcap_unaudited" in g:
            return response
        token: Token | None = g.get("endcap_caller")
        if token is None:
            try:
                self._lines.hit(request.remote_addr or "")
            except TooManyRequests:  # strangers must not be able to fill the disk
                return response
        entry = Entry(
            action=f"{request.method} {request.url_rule.rule if request.url_rule else request.path}",
            path=request.full_path.rstrip("?"),
            status=response.status_code,
            outcome=_outcome(response),
            token=token.id if token else "",
            who=token.name if token else "",
            role=token.role if token else "",
            address=request.remote_addr or "",
            parameters=_parameters(known=token is not None),
            request_id=g.get("endcap_request_id", ""),
        )
        try:
            self.audit.write(entry)
            log.info("%s by %s from %s: %s", entry.action, entry.who or "nobody", entry.address, entry.outcome)
        except LogUnavailable as error:
            log.error("could not be stored (%s): %s", error, entry)
        return response


def access_of(app: Flask, runtime: Runtime) -> Access:
    """The application's one :class:`Access`, made at the first call."""
    if _EXTENSION not in app.extensions:
        app.extensions[_EXTENSION] = Access(runtime)
    return cast(Access, app.extensions[_EXTENSION])


def access() -> Access:
    """That of the application which answers the request."""
    return cast(Access, current_app.extensions[_EXTENSION])


def guarded(blueprint: Blueprint, runtime: Runtime) -> None:
    """Make :func:`needs` work in a blueprint's views, and have its changes written to the audit log."""

    def know(state: BlueprintSetupState) -> None:
        access_of(cast(Flask, state.app), runtime)

    blueprint.record_once(know)
    blueprint.after_request(lambda response: access().written(response))


#: Who comes with the setting ``admin_token``.
FIXED = Token("environment", "admin_token", "admin", False, 0.0)


def needs(role: Role) -> Callable[[View], View]:
    """Decorates a view: only for tokens of at least this role. The role stays readable as ``view.endcap_role``."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: Any, **parts: Any) -> Any:
            access().require(role)
            return view(*args, **parts)

        guarded.endcap_role = role  # type: ignore[attr-defined]
        return cast(View, guarded)

    return decorate


def caller() -> Token:
    """Whose call this is; only inside a view that :func:`needs` a role, or of the console."""
    return cast(Token, g.endcap_caller)


def _outcome(response: Response) -> str:
    if "endcap_outcome" in g:
        return str(g.endcap_outcome)
    if response.status_code < 400:
        return "done"
    if response.mimetype == "application/problem+json":
        kind = orjson.loads(response.get_data()).get("type", "")
        return str(kind).rpartition(":")[2]
    return str(response.status_code)


def _parameters(known: bool) -> Mapping[str, Any]:
    found: dict[str, Any] = {**(request.view_args or {}), **request.args.to_dict()}
    if known:  # what a stranger sends is not even read
        try:
            found |= request.form.to_dict()
            body = orjson.loads(request.get_data(cache=True) or b"{}") if request.is_json else {}
        except (orjson.JSONDecodeError, HTTPException):  # no JSON; too long, or broken off
            body = {"unreadable": True}
        found |= body if isinstance(body, dict) else {"body": body}
    found.pop("csrf", None)
    return cast(Mapping[str, Any], without_secrets(found))
