"""Who is logged in to the console: a signed cookie that names a token, and the proof that a form is one of ours.

The cookie holds the token's id, never the token; whether that may still be used is looked up at every request, so a
revoked token ends its sessions at once.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flask import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from endcap.errors import ConfigurationError, EndcapError
from endcap.settings import Settings

log = logging.getLogger(__name__)

COOKIE = "endcap_console"
NOTE_COOKIE = "endcap_console_note"
PATH = "/console"
KEY_FILE = "console.key"
_MOST_NOTE = 600


class ForgedForm(EndcapError):
    """The form did not come from a page of this console's, or from one that is too old."""

    status = 403
    kind = "forged_form"

    def __init__(self) -> None:
        super().__init__("this form is too old or was not sent from the console: load the page and try again")


@dataclass(frozen=True, slots=True)
class Session:
    """``token_id`` is empty before the log-in. ``nonce`` is what the forms' proof is made of."""

    token_id: str
    nonce: str


class Sessions:
    """Reads and writes the cookies. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where the key can be neither read nor made."""
        self._key = settings.console_secret.get_secret_value().encode() or key_of(settings.data_dir)
        self._signer = URLSafeTimedSerializer(self._key, salt="endcap-console")
        self._age_s = int(settings.console_hours * 3600)

    def of(self, request: Request) -> Session | None:
        """The session that the request comes with; None where there is none, a forged one or one too old."""
        try:
            token_id, nonce = self._signer.loads(request.cookies.get(COOKIE, ""), max_age=self._age_s)
        except (BadSignature, ValueError, TypeError):
            return None
        return Session(str(token_id), str(nonce))

    def begin(self, response: Response, request: Request, token_id: str = "") -> Session:
        """A new session, for ``token_id`` once that is known: its number changes with the log-in."""
        session = Session(token_id, secrets.token_urlsafe(16))
        self._set(response, request, COOKIE, self._signer.dumps([session.token_id, session.nonce]), self._age_s)
        return session

    def end(self, response: Response) -> None:
        """Log out."""
        response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="Strict")

    def proof(self, session: Session) -> str:
        """What every form of the session carries."""
        return hmac.new(self._key, f"form:{session.nonce}".encode(), hashlib.sha256).hexdigest()

    def check_form(self, request: Request, session: Session | None) -> None:
        """Raises ForgedForm unless the request's form is one of the session's, sent from a page of this origin."""
        given = request.form.get("csrf", "")
        if session is None or not hmac.compare_digest(given.encode(), self.proof(session).encode()):
            raise ForgedForm
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
            raise ForgedForm
        origin = request.headers.get("Origin", "")
        if origin and origin != "null" and urlsplit(origin).netloc != request.host:
            raise ForgedForm

    def leave_note(self, response: Response, request: Request, kind: str, text: str) -> None:
        """A line that the next page shows once; ``kind`` is ``good`` or ``bad``."""
        self._set(response, request, NOTE_COOKIE, self._signer.dumps([kind, text[:_MOST_NOTE]]), 60)

    def note(self, request: Request) -> tuple[str, str] | None:
        """The line left by the page before."""
        try:
            kind, text = self._signer.loads(request.cookies.get(NOTE_COOKIE, ""), max_age=60)
        except (BadSignature, ValueError, TypeError):
            return None
        return str(kind), str(text)

    def drop_note(self, response: Response) -> None:
        """It was shown."""
        response.delete_cookie(NOTE_COOKIE, path=PATH, httponly=True, samesite="Strict")

    def _set(self, response: Response, request: Request, name: str, value: str, age_s: int) -> None:
        response.set_cookie(
            name, value, max_age=age_s, path=PATH, httponly=True, samesite="Strict", secure=request.is_secure
        )


def key_of(data_dir: Path) -> bytes:
    """The key in the data folder, made where there is none: readable for its owner only.

    Raises:
        ConfigurationError: it cannot be read or made.
    """
    file = data_dir / KEY_FILE
    fresh = secrets.token_hex(32)
    beside = data_dir / f".{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        if not file.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
                out.write(fresh)
            try:
                os.link(beside, file)  # of several processes that start at once, one wins and all use its key
            except FileExistsError:
                pass
            finally:
                beside.unlink()
        if file.stat().st_mode & 0o077:
            log.warning("%s may be read by others: chmod 600", file)
        key = file.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the console's key {file} cannot be made or read ({error}); set console_secret"
        ) from None
    if len(key) < 32:
        raise ConfigurationError(f"the console's key {file} is too short: delete it, and another is made")
    return key
