"""``endcap worker``: do what the queue holds."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from types import FrameType

import click

from endcap.keeper import Keeper
from endcap.logs import set_up_logs
from endcap.settings import Settings, load_settings, settings_environment
from endcap_workers.running.worker import QUEUES

#: Told to stop, Celery waits for its tasks, and those give back what they are at.
_CELERY_STOP_S = 30.0


@click.command()
@click.option(
    "--queue", "queues", multiple=True, type=click.Choice(QUEUES), help="Serve only this queue; may be repeated."
)
@click.option("--celery", is_flag=True, help="As a Celery worker: runs come over the broker (setting `redis_url`).")
@click.option("--watched", is_flag=True, hidden=True, help="Stop when standard input ends.")
def worker(queues: tuple[str, ...], celery: bool, watched: bool) -> None:
    """Run background jobs: those asked for, and those the schedule says.

    `endcap serve` runs one beside itself (setting `embedded_worker`); more may run anywhere with the same database,
    data folder and models.
    """
    settings = load_settings()
    set_up_logs(settings)
    if celery:
        _celery(settings, queues or QUEUES)
        return
    from endcap.runtime import open_database
    from endcap_workers.running.worker import Worker

    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        if stop.is_set():  # a second time: at once
            os._exit(1)
        stop.set()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    if watched:
        threading.Thread(target=_until_input_ends, args=(stop,), daemon=True).start()
    database = open_database(settings, limited=True)
    try:
        Worker(settings, database, queues or QUEUES).work(stop)
    finally:
        database.close()


def _until_input_ends(stop: threading.Event) -> None:
    os.read(0, 1)
    stop.set()


def _celery(settings: Settings, queues: tuple[str, ...]) -> None:
    """Celery's worker, kept alive: it gives up where its broker goes away at the wrong moment."""
    from endcap_workers import celery_app

    application = celery_app.__name__
    command = [
        *(sys.executable, "-m", "celery", "-A", application, "worker", "-Q", ",".join(queues)),
        *("-c", str(settings.worker_light + 1), "--loglevel", "INFO", "-n", f"{secrets.token_hex(3)}@%h"),
    ]
    keeper = Keeper("Celery worker", command, {**os.environ, **settings_environment(settings)}, _CELERY_STOP_S)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.tell())
    keeper.keep()
