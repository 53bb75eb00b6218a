"""Who is really calling, where trusted proxies stand in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


class TrustedProxies:
    """WSGI middleware: takes address and scheme from ``X-Forwarded-For`` and ``-Proto`` where the peer is trusted.

    The list is read from its end, over trusted proxies, to the first address that is none: what stands before that,
    the client may have written himself.
    """

    def __init__(self, application: Application, trusted: Sequence[str]) -> None:
        self._application = application
        self._trusted = [ip_network(one, strict=False) for one in trusted]

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """See WSGI."""
        if self._trusted and self._known(environ.get("REMOTE_ADDR", "")):
            chain = [one.strip() for one in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if one.strip()]
            client = next((one for one in reversed(chain) if not self._known(one)), chain[0] if chain else "")
            if _address(client):
                environ["REMOTE_ADDR"] = client
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").split(",")[-1].strip().lower()
            if scheme in {"http", "https"}:
                environ["wsgi.url_scheme"] = scheme
        return self._application(environ, start_response)

    def _known(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks(address.version))

    def _networks(self, version: int) -> list[IPv4Network | IPv6Network]:
        return [network for network in self._trusted if network.version == version]


def _address(text: str) -> Any:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
