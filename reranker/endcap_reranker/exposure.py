"""What is never opened to the world: looked at before the server starts.

Imports nothing that brings threads of its own along: the server's first process forks after this.
"""

from __future__ import annotations

import logging
import socket
from ipaddress import ip_address

from endcap.errors import ConfigurationError
from endcap.settings import Settings
from endcap.stores.database import open_database
from endcap.stores.tokens import Tokens

log = logging.getLogger(__name__)


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
    if not is_loopback(settings.host) and not settings.shopper_secret.get_secret_value():
        log.warning(
            "shopper ids are taken as they come on %s: anyone can act as any shopper, and join another's history to "
            "his own by /v1/identify. Set ENDCAP_SHOPPER_SECRET and sign them, or see to it that only the storefront "
            "can reach this address",
            settings.host,
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
