"""A real Redis that keeps nothing on disk."""

from __future__ import annotations

import shutil
import socket

from tests.services.process import Server, ServiceMissing, free_port


def start(port: int = 0, *options: str) -> tuple[Server, str]:
    """Start one, with further options of ``redis-server``; gives the server and its URL."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if not program:
        raise ServiceMissing("redis-server is not installed (`make services` does it)")
    server = Server("redis")
    port = port or free_port()
    try:
        server.start(
            [
                program,
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                ".",
                *options,
            ],
            lambda: _pong(port),
            timeout_s=300,
        )
    except BaseException:
        server.stop()
        raise
    return server, f"redis://127.0.0.1:{port}/0"


def _pong(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7).startswith(b"+PONG")
    except OSError:
        return False
