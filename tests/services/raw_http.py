"""A tiny HTTP server over plain sockets, for what no real engine does on demand: silence, dripping, breaking off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType


class RawServer:
    """Answers each request by ``behave(request, connection)``; the connection is closed when that returns False.

    ``requests`` are the raw bytes received, ``connections`` how many were accepted.
    """

    def __init__(self, behave: Callable[[bytes, socket.socket], bool]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.connections = 0

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._open):
            # Closing alone does not wake a thread that waits on it.
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while (request := _request(connection)) is not None:
                self.requests.append(request)
                if not self._behave(request, connection):
                    break
        except OSError:
            pass
        finally:
            connection.close()


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """An HTTP answer; ``_`` in a header's name stands for ``-``."""
    lines = {"content-length": str(len(body)), **{key.replace("_", "-"): value for key, value in headers.items()}}
    head = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def header(request: bytes, name: str) -> str | None:
    """A header's value in a raw request."""
    for line in request.split(b"\r\n\r\n", 1)[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name.lower().encode():
            return value.strip().decode("latin-1")
    return None


def _request(connection: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    length = len(data.split(b"\r\n\r\n", 1)[0]) + 4 + int(header(data, "content-length") or 0)
    while len(data) < length:
        data += connection.recv(65536)
    return data
