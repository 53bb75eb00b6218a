"""The worker that ``endcap serve`` runs beside itself: started, watched, restarted when it dies, stopped with it."""

from __future__ import annotations

import os
import sys

from endcap.keeper import Keeper
from endcap.settings import Settings, settings_environment

#: ``endcap worker`` in this interpreter; it stops when its standard input ends, should this process be killed.
_COMMAND = (sys.executable, "-c", "from endcap.cli import main; main()", "worker", "--watched")
#: Told to stop, it gives back what it is at.
_STOP_S = 15.0


def worker_beside(settings: Settings) -> Keeper:
    """The keeper of a worker with the server's settings."""
    environment = {**os.environ, **settings_environment(settings)}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)  # its numbers are none of the server's
    return Keeper("worker", _COMMAND, environment, _STOP_S)
