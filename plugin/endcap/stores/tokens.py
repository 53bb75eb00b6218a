"""Tokens of the admin API and the console: who may do what, kept as digests only.

A token reads ``endcap_ID_SECRET``. The id finds the row; the secret is 256 random bits, so a single SHA-256 keeps it
(there is nothing to guess that a slow hash would protect) and comparing takes constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Boolean, Column, Float, String, Table, func, insert, select, update

from endcap.errors import EndcapError, InvalidInput
from endcap.stores.database import Database, LogUnavailable, metadata

log = logging.getLogger(__name__)

Role = Literal["reader", "operator", "admin"]
#: From the least to the most; each may do what those before it may.
ROLES: tuple[Role, ...] = get_args(Role)

DAY_S = 86_400.0
#: ``last_used`` is written at most this often per token, so that reading stays reading.
_NOTED_EVERY_S = 60.0
_FORM = re.compile(r"endcap_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_MAX_NAME = 80

tokens = Table(
    "admin_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("local", Boolean, nullable=False, default=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=True),
    Column("revoked", Float, nullable=True),
    Column("last_used", Float, nullable=True),
)


class TokenRefused(EndcapError):
    """The token is missing, unknown, expired or revoked. ``kind`` says which."""

    status = 401

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def headers(self) -> dict[str, str]:
        """How to do better, as RFC 6750 has it."""
        error = "" if self.kind == "token_missing" else f', error="invalid_token", error_description="{self.kind}"'
        return {"WWW-Authenticate": f'Bearer realm="endcap"{error}'}


class RoleTooLow(EndcapError):
    """The token is good, but may not do this."""

    status = 403
    kind = "role_too_low"

    def __init__(self, role: Role, wanted: Role) -> None:
        super().__init__(f"this needs the role {wanted}; the token has {role}")
        self.headers = {"WWW-Authenticate": f'Bearer realm="endcap", error="insufficient_scope", scope="{wanted}"'}


class UnknownToken(EndcapError):
    """There is no token of this id."""

    status = 404
    kind = "token_not_found"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; never its secret. Times are seconds since 1970; None: never.

    ``local``: only for a server that listens on this machine alone (the demo's); others refuse to start with it.
    """

    id: str
    name: str
    role: Role
    local: bool
    created: float
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None

    def usable(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def allows(role: Role, wanted: Role) -> bool:
    """Whether ``role`` may do what ``wanted`` may."""
    return ROLES.index(role) >= ROLES.index(wanted)


class Tokens:
    """The tokens of a database. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def create(self, name: str, role: str, days: float | None = None, local: bool = False) -> tuple[str, Token]:
        """A new token: the text to hand over, which cannot be had again, and what is kept of it.

        Raises:
            InvalidInput: the name, the role or the days are no good.
        """
        # What cannot be printed must not reach a terminal from the list of tokens or the audit log.
        name = "".join(one if one.isprintable() else "?" for one in name.strip())
        if not name or len(name) > _MAX_NAME:
            raise InvalidInput(f"name: 1 to {_MAX_NAME} characters that say whose token it is")
        if role not in ROLES:
            raise InvalidInput(f"role: {role:.40} is none of {', '.join(ROLES)}")
        if days is not None and not 0 < days <= 3_660:
            raise InvalidInput("days: more than 0, at most 3660")
        now = self._clock()
        secret = secrets.token_urlsafe(32)
        token = Token(
            secrets.token_hex(6), name, role, local, now, None if days is None else now + days * DAY_S  # type: ignore[arg-type, unused-ignore]
        )  # fmt: skip
        row = {
            "id": token.id, "name": name, "role": role, "digest": _digest(secret), "local": local, "created": now,
            "expires": token.expires,
        }  # fmt: skip
        with self._database.transaction() as connection:
            connection.execute(insert(tokens), row)
        return f"endcap_{token.id}_{secret}", token

    def check(self, text: str) -> Token:
        """The token that a text is, and note that it was used.

        Raises:
            TokenRefused: it is none, or not one that may be used now.
        """
        found = _FORM.fullmatch(text)
        row: Any = None
        if found:
            with self._database.transaction(read_only=True) as connection:
                row = connection.execute(select(tokens).where(tokens.c.id == found[1])).mappings().first()
        # An unknown id is compared, too: how long an answer takes says nothing about which ids there are.
        same = hmac.compare_digest(row["digest"] if row else "0" * 64, _digest(found[2] if found else text))
        if row is None or not same:
            raise TokenRefused("token_unknown", "this token is not known here: `endcap token create` makes one")
        return self._used(_token(row))

    def by_id(self, token_id: str) -> Token:
        """The token of an id that was checked before (a console session's), as it is now.

        Raises:
            TokenRefused: it may not be used any more.
        """
        with self._database.transaction(read_only=True) as connection:
            row = connection.execute(select(tokens).where(tokens.c.id == token_id)).mappings().first()
        if row is None:
            raise TokenRefused("token_unknown", "the token of this session is gone: log in with another")
        return self._used(_token(row))

    def all(self) -> list[Token]:
        """All tokens, the newest first, those that cannot be used any more included."""
        with self._database.transaction(read_only=True) as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.created.desc())).mappings()
            return [_token(row) for row in rows]

    def revoke(self, token_id: str) -> Token:
        """Make a token useless at once, for every server on this database. Doing it twice changes nothing.

        Raises:
            UnknownToken: there is none of this id.
        """
        with self._database.transaction() as connection:
            chosen = update(tokens).where(tokens.c.id == token_id)
            connection.execute(chosen.values(revoked=func.coalesce(tokens.c.revoked, self._clock())))
            row = connection.execute(select(tokens).where(tokens.c.id == token_id)).mappings().first()
        if row is None:
            raise UnknownToken(f"there is no token {token_id:.40}; `endcap token list` shows them all")
        return _token(row)

    def usable(self) -> list[Token]:
        """Those that open something now."""
        now = self._clock()
        return [token for token in self.all() if token.usable(now)]

    def _used(self, token: Token) -> Token:
        now = self._clock()
        if token.revoked is not None:
            raise TokenRefused("token_revoked", f"the token {token.id} ({token.name}) was revoked")
        if not token.usable(now):
            raise TokenRefused("token_expired", f"the token {token.id} ({token.name}) has expired")
        if token.last_used is None or now - token.last_used >= _NOTED_EVERY_S:
            try:
                with self._database.transaction() as connection:
                    connection.execute(update(tokens).where(tokens.c.id == token.id).values(last_used=now))
            except LogUnavailable as error:  # a full disk must not lock out those who come to see what is wrong
                log.warning("token %s: its use could not be noted: %s", token.id, error)
        return token


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Any) -> Token:
    return Token(**{name: row[name] for name in Token.__slots__})
