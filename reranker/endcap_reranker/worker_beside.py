"""The worker that ``endcap serve`` runs beside itself: started, watched, restarted when it dies, stopped with it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

from endcap.settings import Settings, settings_environment

log = logging.getLogger(__name__)

#: ``endcap worker`` in this interpreter; it stops when its standard input ends, should this process be killed.
_COMMAND = (sys.executable, "-c", "from endcap.cli import main; main()", "worker", "--watched")
#: Told to stop, it gives back what it is at.
_STOP_S = 15.0
#: Seconds before it is started anew, doubled each time up to the most; from the first again once it has lived so long.
_FIRST_PAUSE_S, _MOST_PAUSE_S, _WELL_S = 1.0, 60.0, 60.0
_LOOK_S = 0.25


class WorkerBeside:
    """Keeps one worker process alive."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**os.environ, **settings_environment(settings)}
        # Its numbers are none of the server's.
        self._environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="endcap-worker", daemon=True)

    def start(self) -> None:
        """Start it, and watch over it from a thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop it in good order."""
        self._stop.set()
        self._thread.join(_STOP_S + 5)

    def _watch(self) -> None:
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
                log.warning("the worker has ended; another one is started in %.0f s", pause)
            self._stop.wait(pause)
            pause = min(2 * pause, _MOST_PAUSE_S)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        try:
            return subprocess.Popen(  # noqa: S603 - our own command
                _COMMAND, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            log.warning("no worker could be started: %s", error)
            return None

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            log.warning("the worker does not stop by itself: it is stopped, its run is taken up again later")
            process.kill()
