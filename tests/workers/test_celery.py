"""Celery's workers on a real Redis: progress, cancel, kill -9, a broker that goes away and forgets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client

from endcap.dispatch import BrokerUnavailable, Dispatcher
from endcap.settings import load_settings
from endcap.stores.database import Database, LogUnavailable
from endcap.stores.runs import ENDED, Run, Runs
from endcap.stores.workers import Workers
from tests.services import redis as redis_service
from tests.services.process import ServiceMissing
from tests.serving import eventually
from tests.workers.job_support import QUICK, QUIET, STEPS, environment, install_jobs, start

LEASE_S = 3.0
pytestmark = pytest.mark.redis


class Shop:
    """A Redis of its own (it is stopped and flushed), the table of runs, and one Celery worker of three processes."""

    def __init__(self, folder: Path) -> None:
        self.server, url = redis_service.start()
        self.port = int(url.rpartition(":")[2].partition("/")[0])
        self.client = redis_client.Redis.from_url(url)
        self.jobs, self.gates = install_jobs(folder), folder
        self.settings = load_settings(
            data_dir=folder / "data", redis_url=url, embedded_worker=False, worker_lease_s=LEASE_S,
            schedule=QUIET,
        )  # fmt: skip
        self.database = Database.in_folder(self.settings.data_dir)
        self.runs = Runs(self.database, LEASE_S)
        self.worker = self.start_worker()

    def start_worker(self) -> subprocess.Popen[bytes]:
        """``endcap worker --celery``, which keeps Celery's own process alive."""
        worker = start(self.settings, self.jobs, "worker", "--celery")
        assert eventually(lambda: any(one.kind == "celery" for one in Workers(self.database).alive()))
        return worker

    def submitted_while_stopped(self, pid: int) -> str:
        """Stop the processes of a group, and submit a run that they do not see."""
        while True:
            os.killpg(pid, signal.SIGSTOP)
            try:
                return self.runs.submit(QUICK, {"steps": 1})
            except LogUnavailable:  # they were stopped amid a write, and hold the database
                os.killpg(pid, signal.SIGCONT)

    def restart_broker(self) -> None:
        self.server, _ = redis_service.start(self.port)

    def begun(self) -> tuple[str, Path]:
        """A run that has done its first step, and the gate at which it waits."""
        gate = self.gates / f"gate-{uuid.uuid4().hex}"
        run_id = self.runs.submit(STEPS, {"steps": 3, "gate": str(gate)})
        assert eventually(lambda: (self.folder(run_id) / "count").exists()), self.runs.get(run_id)
        return run_id, gate

    def ended(self, run_id: str) -> Run:
        assert eventually(lambda: self.runs.get(run_id).state in ENDED), self.runs.get(run_id)
        return self.runs.get(run_id)

    def folder(self, run_id: str) -> Path:
        return self.settings.data_dir / "runs" / run_id

    def close(self) -> None:
        self.worker.terminate()
        self.worker.wait()
        self.database.close()
        self.server.stop()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    try:
        made = Shop(tmp_path_factory.mktemp("celery"))
    except ServiceMissing as reason:
        from tests.services.fixtures import missing

        missing(f"redis: {reason}")
        return
    yield made
    made.close()


def test_a_run_its_progress_and_its_result_are_a_task_s_too(shop: Shop) -> None:
    from celery import Celery

    from endcap.dispatch import celery_configuration

    client = Celery("client")
    client.conf.update(celery_configuration(shop.settings))
    run_id, gate = shop.begun()
    second = shop.runs.submit(STEPS, {"steps": 1})
    task = client.AsyncResult(run_id)
    assert eventually(lambda: task.state == "PROGRESS" and task.info["done"] > 0)
    assert task.info["phase"] == "counting"
    assert shop.runs.get(second).state == "queued", "two trainings at once"
    gate.touch()
    assert (shop.ended(run_id).result or {})["count"] == 3
    assert eventually(lambda: task.state == "SUCCESS")
    assert shop.ended(second).state == "done"
    client.close()


def test_cancel(shop: Shop) -> None:
    run_id, _ = shop.begun()
    shop.runs.cancel(run_id)
    assert shop.ended(run_id).state == "cancelled"


def test_a_worker_process_killed_in_the_middle_goes_on_from_the_checkpoint(shop: Shop) -> None:
    run_id, gate = shop.begun()
    # The process that Celery's pool forked for the task; the run's own process is its child.
    owner = shop.runs.get(run_id).owner
    os.kill(int(owner.split(":")[1]), signal.SIGKILL)
    assert eventually(lambda: shop.runs.get(run_id).owner != owner), "nobody gave it back"
    gate.touch()  # not before: the orphan might be done by then
    run = shop.ended(run_id)
    assert run.state == "done"
    assert (run.result or {})["began"] >= 1, "it began anew instead of where it was"


def test_a_broker_that_goes_away_and_forgets_loses_no_run(shop: Shop) -> None:
    shop.server.stop()
    waiting = shop.runs.submit(QUICK, {"steps": 1})
    dispatcher = Dispatcher(shop.settings, shop.runs)

    def in_vain() -> bool:
        """The worker sweeps, too: now and then it is just trying to send the run, and nothing is left to this one."""
        try:
            dispatcher.sweep()
        except BrokerUnavailable as error:
            return "jobs wait" in str(error)
        return False

    assert eventually(in_vain)
    assert shop.runs.get(waiting).state == "queued"
    shop.restart_broker()
    assert shop.ended(waiting).state == "done"

    # Sent, and then forgotten by the broker before any worker had seen it.
    pid = max(Workers(shop.database).alive(), key=lambda one: one.seen).pid
    flushed = shop.submitted_while_stopped(pid)
    assert dispatcher.sweep() == 1
    shop.client.flushall()
    os.killpg(pid, signal.SIGCONT)
    assert shop.ended(flushed).state == "done"


def test_a_worker_told_to_stop_gives_the_run_back_even_where_a_process_of_its_pool_was_killed(shop: Shop) -> None:
    run_id, gate = shop.begun()
    owner = shop.runs.get(run_id).owner
    os.kill(int(owner.split(":")[1]), signal.SIGKILL)
    assert eventually(lambda: shop.runs.get(run_id).owner not in ("", owner))
    shop.worker.terminate()
    assert shop.worker.wait(90) == 0
    run = shop.runs.get(run_id)
    assert (run.state, run.attempt) == ("queued", 0)
    gate.touch()
    shop.worker = shop.start_worker()
    assert (shop.ended(run_id).result or {})["began"] >= 1


EARLY = """
import sys, threading
from endcap.settings import load_settings
from endcap.stores.database import Database
from endcap.stores.runs import Runs
from endcap_workers import celery_app
celery_app._tell(None, Runs(Database.in_folder(load_settings().data_dir, upgrade=False)), "a run under way")
threading.Thread(target=celery_app._upkeep, args=(["light"],), daemon=True).start()
sys.stdin.read()
"""


def test_a_database_that_is_away_ends_no_run_and_a_worker_that_comes_up_before_it_waits(tmp_path: Path) -> None:
    data, ready, there = tmp_path / "data", tmp_path / "ready", tmp_path / "there"
    settings = load_settings(data_dir=data, redis_url="redis://127.0.0.1:1/0", embedded_worker=False, schedule=QUIET)
    Database.in_folder(ready).close()
    data.mkdir()
    (data / "endcap.sqlite").symlink_to(there / "endcap.sqlite")  # which is not there yet
    command = [sys.executable, "-c", EARLY]
    with subprocess.Popen(
        command, env=environment(settings, tmp_path), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stderr is not None
        assert "the progress of a run under way could not be told" in worker.stderr.readline()
        assert "cannot open the event log" in worker.stderr.readline()
        ready.rename(there)
        database = Database.in_folder(there)
        assert eventually(lambda: [one.kind for one in Workers(database).alive()] == ["celery"])
        database.close()
        worker.stdin.close()
