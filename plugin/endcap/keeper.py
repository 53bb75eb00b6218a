"""Keeping a process of ours alive: started, watched, started anew with growing pauses when it dies, stopped well."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

#: Seconds before it is started anew, doubled each time up to the most; from the first again once it has lived so long.
_FIRST_PAUSE_S, _MOST_PAUSE_S, _WELL_S = 1.0, 60.0, 60.0
_LOOK_S = 0.25
#: A process that is forked while another one is being started (gunicorn forks its workers) would hold that one's pipes
#: open, and whoever starts it would wait for their end for ever: forks wait until it has started.
_starting = threading.Lock()
os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release)


class Keeper:
    """Keeps one process alive. Its standard input is held open for as long as this process lives, so that it can tell
    when nobody keeps it any more."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], stop_s: float) -> None:
        """``name``: for people. ``stop_s``: told to stop (SIGTERM), it is given so many seconds."""
        self._name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._stop_s = stop_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.keep, name=f"endcap-{name}", daemon=True)

    def start(self) -> None:
        """Start it, and watch over it from a thread."""
        self._thread.start()

    def tell(self) -> None:
        """Have it stopped, without waiting for that."""
        self._stop.set()

    def close(self) -> None:
        """Stop it in good order."""
        self._stop.set()
        self._thread.join(self._stop_s + 5)

    def keep(self) -> None:
        """Watch over it in this thread, until told to stop it."""
        pause = _FIRST_PAUSE_S
        while not self._stop.is_set():
            started = time.monotonic()
            process = self._spawn()
            while process is not None and process.poll() is None:
                if self._stop.wait(_LOOK_S):
                    self._end(process)
                    return
            if time.monotonic() - started > _WELL_S:
                pause = _FIRST_PAUSE_S
            if not self._stop.is_set():
                log.warning("the %s has ended; another one is started in %.0f s", self._name, pause)
            self._stop.wait(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        try:
            with _starting:
                return subprocess.Popen(  # noqa: S603 - our own command
                    self._command, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
                )
        except OSError as error:
            log.warning("no %s could be started: %s", self._name, error)
            return None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            log.warning("the %s does not stop by itself: it is stopped", self._name)
            process.kill()
            process.wait()
