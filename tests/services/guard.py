"""Runs one server and takes it down when whoever asked for it is gone, even by SIGKILL.

Run as a script. It holds the read end of a pipe (its standard input): end of file means that the test run has ended or
died. The server gets its own process group, which is ended as a whole, and its folder is removed afterwards.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import subprocess
import sys
import time

GRACE_S = 8.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", help="run the server as this user")
    parser.add_argument("--log", required=True)
    parser.add_argument("--remove", action="append", default=[], help="folder to remove at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    # Ctrl-C in a terminal ends the test run, which then closes the pipe: the server must not go first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    account: dict[str, object] = {}
    if options.user:
        import pwd

        entry = pwd.getpwnam(options.user)
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with open(options.log, "ab") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **account
        )  # type: ignore[call-overload]
    try:
        while server.poll() is None:
            if select.select([sys.stdin], [], [], 0.2)[0] and not os.read(sys.stdin.fileno(), 1024):
                break
        return server.poll() or 0
    finally:
        _end(server)
        for folder in options.remove:
            shutil.rmtree(folder, ignore_errors=True)


def _end(server: subprocess.Popen[bytes]) -> None:
    # The leader may have ended while the group lives on, so the group is signalled in any case.
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 2.0)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            server.poll()
            try:
                os.killpg(server.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
