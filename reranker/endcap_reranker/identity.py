"""Who is searching: the shopper's id from a header, a cookie or the search's ``ext``, checked and, if set, signed.

A bad id never fails a search. The shopper is then anonymous, and ``problem`` says why (``shopper_id``,
``shopper_signature``); the answer shows it in ``X-Endcap-Degraded``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flask import Request
from itsdangerous import BadSignature, Signer

from endcap.events import MAX_ID_LENGTH
from endcap.policy.context import NO_VISIT, Visit, device_of
from endcap.settings import Settings


@dataclass(frozen=True, slots=True)
class Identity:
    """``shopper`` is empty for an anonymous one, ``session`` where the storefront names none. ``visit``: what else the
    request says of him: his device, his segment."""

    shopper: str = ""
    problem: str = ""
    session: str = ""
    visit: Visit = NO_VISIT


ANONYMOUS = Identity()


#: Names the visit that a request belongs to: the UBI ``session_id`` of its events. Optional.
SESSION_HEADER = "X-Endcap-Session"
#: Values of the `personalize_header` that ask for the engine's own order.
_OFF = frozenset({"off", "0", "false", "no"})


def personalization_off(request: Request, settings: Settings) -> bool:
    """Whether the request asks for the engine's own order."""
    return request.headers.get(settings.personalize_header, "").strip().lower() in _OFF


class Identifier:
    """Reads shopper ids by the settings. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.header = settings.shopper_header
        self.cookie = settings.shopper_cookie
        self._segment_header = settings.segment_header
        self._internal = frozenset(settings.internal_segments)
        secret = settings.shopper_secret.get_secret_value()
        self._signer = Signer(secret) if secret else None

    def of_request(self, request: Request) -> Identity:
        """The header's shopper, else the cookie's, else nobody; with the session of ``X-Endcap-Session``."""
        session = request.headers.get(SESSION_HEADER, "").strip()[:MAX_ID_LENGTH]
        session = session if session.isprintable() else ""
        segment = request.headers.get(self._segment_header, "").strip()[:MAX_ID_LENGTH]
        device = device_of(request.headers.get("User-Agent", ""))
        visit = Visit(device, segment, session, segment in self._internal)
        return replace(self._of_request(request), session=session, visit=visit)

    def _of_request(self, request: Request) -> Identity:
        value = request.headers.get(self.header)
        if value:
            # WSGI hands headers over as latin-1; ids are UTF-8.
            try:
                value = value.encode("latin-1").decode()
            except UnicodeError:
                return Identity(problem="shopper_id")
        else:
            value = request.cookies.get(self.cookie)
        return self.check(value) if value else ANONYMOUS

    def check(self, value: Any) -> Identity:
        """The identity that an id as it was sent stands for."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            return Identity(problem="shopper_id")
        if self._signer is not None:
            # A signature adds some 30 characters; far longer values are not worth the hashing.
            if len(value) > 2 * MAX_ID_LENGTH:
                return Identity(problem="shopper_id")
            try:
                value = self._signer.unsign(value).decode()
            except (BadSignature, UnicodeError):
                return Identity(problem="shopper_signature")
        value = value.strip()
        if not value:
            return ANONYMOUS
        if len(value) > MAX_ID_LENGTH or not value.isprintable():
            return Identity(problem="shopper_id")
        return Identity(value)

    def sign(self, shopper: str) -> str:
        """The id as a storefront's server hands it to the browser: signed where a secret is set."""
        return self._signer.sign(shopper).decode() if self._signer is not None else shopper
