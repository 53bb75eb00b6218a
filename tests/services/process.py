"""Starting a real server for tests: a free port, its own folder, a guard that takes it down, a wait until ready."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")


class ServiceMissing(Exception):
    """What the server needs is not installed. The message says what, and how to get it."""


class ServiceFailed(Exception):
    """The server is installed but did not come up. The message ends with its log."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now, and that the kernel gives to nobody meanwhile: it lies below
    those that it takes for connections (Linux's usual 32,768 and above)."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = secrets.choice(range(10_000, lowest)) if lowest > 11_000 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # somebody is there
                continue
            return int(probe.getsockname()[1])


def service_user(*names: str) -> str | None:
    """The account to run a server as that refuses to run as root: None where this process is not root anyway.

    Raises:
        ServiceMissing: this is root and none of the accounts exists.
    """
    import pwd

    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in names:
        if name in known:
            return name
    raise ServiceMissing(f"running as root and there is no user {' or '.join(names)} to run the server as")


class Server:
    """A running server. ``folder`` is its own, removed when it stops; ``log`` is what it printed."""

    def __init__(self, name: str, user: str | None = None) -> None:
        self.name = name
        self.user = user
        # Not under pytest's own folder: that one is closed to other users, and some servers run as another one.
        self.folder = Path(tempfile.mkdtemp(prefix=f"endcap-{name}-"))
        self.log = self.folder / "server.log"
        self._guard: subprocess.Popen[bytes] | None = None
        self.own(self.folder)

    def own(self, path: Path) -> None:
        """Give a file or folder (and all in it) to the user that the server runs as."""
        if self.user is None:
            return
        for one in (path, *path.rglob("*")):
            shutil.chown(one, self.user)

    def start(
        self, command: Sequence[str], ready: Callable[[], bool], timeout_s: float, env: Mapping[str, str] | None = None
    ) -> None:
        """Run the command and wait until ``ready`` answers True.

        Raises:
            ServiceFailed: it ended, or was not ready in time.
        """
        guarded = [sys.executable, "-I", str(GUARD), "--log", str(self.log), "--remove", str(self.folder)]
        if self.user is not None:
            guarded += ["--user", self.user]
        self._guard = subprocess.Popen(
            [*guarded, "--", *command],
            stdin=subprocess.PIPE,
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder), **(env or {})},
            start_new_session=True,
        )
        until = time.monotonic() + timeout_s
        while not ready():
            ended = self._guard.poll() is not None
            if ended or time.monotonic() > until:
                log = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else "(its folder is gone)"
                self.stop()
                reason = "ended while starting" if ended else f"was not ready after {timeout_s:.0f} s"
                raise ServiceFailed(f"{self.name} {reason}:\n{log}")
            time.sleep(0.2)

    def children(self) -> list[int]:
        """The server's process, which leads a group of its own; empty where it has ended."""
        if self._guard is None:
            return []
        pid = self._guard.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> None:
        """End the server and remove its folder. Safe to call twice."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(timeout=120)
            self._guard = None
        shutil.rmtree(self.folder, ignore_errors=True)


def answers(url: str) -> bool:
    """Whether an HTTP server answers there with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status < 400)
    except (OSError, urllib.error.URLError, ValueError):
        return False
