"""Where the search engine is and how Endcap identifies itself there: one reading of the settings for all callers."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from endcap.errors import ConfigurationError
from endcap.settings import Settings


@dataclass(frozen=True, slots=True)
class Address:
    """An engine's address. ``prefix`` is the path in front of the engine's own ("" or "/search"); ``authorization`` is
    the value of that header for Endcap's own calls, empty where the settings name no credentials."""

    scheme: str
    host: str
    port: int
    prefix: str
    authorization: str
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        """Without credentials: fit for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


def engine_address(settings: Settings) -> Address:
    """Read ``engine_url`` and the settings that go with it.

    A user name and password in the URL are used where no others are set.

    Raises:
        ConfigurationError: no URL, or it or the CA file cannot be used.
    """
    if not settings.engine_url:
        raise ConfigurationError("engine_url is not set: name the search engine, such as http://127.0.0.1:9200")
    try:
        parts = urlsplit(settings.engine_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ConfigurationError(f"engine_url cannot be read: {error}") from None
    if not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError("engine_url must be scheme://host[:port][/path], nothing else")
    return Address(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        prefix=parts.path.rstrip("/"),
        authorization=_authorization(settings, unquote(parts.username or ""), unquote(parts.password or "")),
        tls=_tls(settings) if parts.scheme == "https" else None,
    )


def _authorization(settings: Settings, username: str, password: str) -> str:
    key = settings.engine_api_key.get_secret_value()
    if key:
        # Elasticsearch hands out both forms: "id:secret", and the same in base64.
        return f"ApiKey {_base64(key) if ':' in key else key}"
    if settings.engine_username:
        username, password = settings.engine_username, settings.engine_password.get_secret_value()
    return f"Basic {_base64(f'{username}:{password}')}" if username else ""


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.engine_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"engine_ca_file {settings.engine_ca_file!r} cannot be used: {error}") from None
