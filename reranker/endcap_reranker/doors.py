"""Which doors are open to whom: the admin API, the console, the metrics; and what is never opened to the world.

Admin API and console always ask for a token. Besides, they are only there where that is sensible (setting ``admin``),
on a port of their own where one is set (``admin_port``), and the server does not start where a token that was made for
one machine, or none at all, would stand between them and the world.
"""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address

from flask import Flask, Response, request
from werkzeug.exceptions import NotFound

from endcap.errors import ConfigurationError, EndcapError
from endcap.runtime import Runtime, open_database
from endcap.settings import Settings
from endcap.stores.tokens import Tokens
from endcap_reranker.admin.access import access, access_of
from endcap_reranker.api.problems import problem
from endcap_reranker.proxies import FORWARDED

#: First parts of the paths that belong on ``admin_port``.
_ADMIN, _CONSOLE, _METRICS = "/admin/v1", "/console", "/metrics"
_PROBES = frozenset({"/healthz", "/readyz"})
#: Seconds for which the answer to "is there a token?" holds.
_REMEMBERED_S = 3.0


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this address can be reached from this machine only."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
        return bool(found) and all(ip_address(str(one).partition("%")[0]).is_loopback for one in found)
    except (OSError, ValueError):
        return False


def admin_address(settings: Settings) -> tuple[str, int]:
    """Where the admin API and the console listen."""
    return (settings.admin_host, settings.admin_port) if settings.admin_port else (settings.host, settings.port)


def check_doors(settings: Settings) -> None:
    """Look at who could come in, before the server starts.

    Raises:
        ConfigurationError: the admin API would be open to the world, or has no port.
    """
    if settings.admin_port and settings.admin_port == settings.port:
        raise ConfigurationError(
            f"admin_port: {settings.port} is the shop's own port; choose another, or 0 to share it"
        )
    host, _ = admin_address(settings)
    if settings.admin == "off" or is_loopback(host):
        return
    database = open_database(settings)
    try:
        usable = Tokens(database).usable()
    finally:
        database.close()
    local = [token for token in usable if token.local]
    if local:
        names = ", ".join(f"{token.id} ({token.name})" for token in local)
        raise ConfigurationError(
            f"the admin API would be open on {host} to a token that was made for this machine only: {names}. "
            "Revoke it (endcap token revoke ID), listen on 127.0.0.1 (admin_host with admin_port, or host), or set "
            "admin=off"
        )
    if settings.admin == "on" and not usable and not settings.admin_token.get_secret_value():
        raise ConfigurationError(
            f"the admin API would be open on {host}, and nobody has a token: endcap token create --role admin, or set "
            "admin=auto"
        )


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


def may_see_details(settings: Settings) -> bool:
    """Whether the request may see the metrics and what is wrong inside: by ``open_metrics``, on the admin port, from
    this machine where the server is open to no other, or with a token."""
    if settings.open_metrics or (settings.admin_port and _on_admin_port(settings)):
        return True
    if not settings.admin_port and is_loopback(settings.host) and not request.environ.get(FORWARDED):
        return True
    if request.headers.get("Authorization"):
        try:
            access().require("reader")
        except EndcapError:
            return False
        return True
    return False


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
    """The pages of the server's own; a search of an index that is called ``console`` is none of them."""
    if path == _METRICS:
        return True
    for door in (_ADMIN, _CONSOLE):
        if path == door or (path.startswith(f"{door}/") and not path.startswith(f"{door}/_")):
            return True
    return False


def _on_admin_port(settings: Settings) -> bool:
    return request.environ.get("SERVER_PORT") == str(settings.admin_port)
