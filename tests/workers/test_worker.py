"""The worker without a broker: real processes, killed, stopped, restarted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from endcap.settings import Settings, load_settings
from endcap.stores.database import Database
from endcap.stores.runs import ENDED, Run, Runs
from endcap.stores.workers import Workers
from endcap_workers.running.watch import run_folder, tidy
from tests.serving import eventually
from tests.workers.job_support import DEAF, FAILS, QUICK, QUIET, STEPS, install_jobs, start


class Shop:
    """A data folder, its runs, and the workers started on it."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        self.jobs = install_jobs(folder)
        self.settings = load_settings(data_dir=folder / "data", worker_lease_s=lease_s, run_attempts=2, schedule=QUIET)
        self.database = Database.in_folder(self.settings.data_dir)
        self.runs = Runs(self.database, lease_s, 2)
        self.gate = folder / "gate"
        self.started: list[subprocess.Popen[bytes]] = []

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.started.append(start(self.settings, self.jobs, "worker", *arguments))
        return self.started[-1]

    def begun(self) -> str:
        """A run that has done its first step and waits at the gate."""
        run_id = self.runs.submit(STEPS, {"steps": 3, "gate": str(self.gate)})
        assert eventually(self.has_begun(run_id)), self.runs.get(run_id)
        return run_id

    def ended(self, run_id: str) -> Run:
        assert eventually(lambda: self.runs.get(run_id).state in ENDED), self.runs.get(run_id)
        return self.runs.get(run_id)

    def printed(self, run_id: str) -> str:
        return (self.settings.data_dir / "runs" / run_id / "log.txt").read_text()

    def has_begun(self, run_id: str) -> Callable[[], bool]:
        return lambda: (self.settings.data_dir / "runs" / run_id / "count").exists()


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Its lease is long, so that nobody loses a run on a busy machine; a test of the lease names its own."""
    made = Shop(tmp_path, getattr(request, "param", 60.0))
    yield made
    for one in made.started:
        if one.poll() is None:
            one.kill()
        one.wait()
    made.database.close()


def test_runs_are_done_and_end_as_they_should(shop: Shop) -> None:
    # Looked at first: it is tried again in some seconds.
    passing = shop.runs.submit(FAILS, {"kind": "passing"})
    shop.worker()
    assert eventually(lambda: shop.runs.get(passing).attempt == 1 and shop.runs.get(passing).state == "queued")
    waiting = shop.runs.get(passing)
    assert waiting.error == "the engine is away"
    assert waiting.due > waiting.started

    done = shop.runs.submit(QUICK, {"steps": 4})
    wrong = shop.runs.submit(FAILS, {"kind": "input"})
    little = shop.runs.submit(FAILS, {"kind": "little"})
    bug = shop.runs.submit(FAILS, {"kind": "bug"})
    extra = shop.runs.submit(FAILS, {"kind": "extra"})

    run = shop.ended(done)
    assert (run.state, run.attempt, run.done) == ("done", 1, 3.0)
    assert run.result is not None
    assert run.result["count"] == 4
    assert "step 4" in run.log
    assert eventually(lambda: not (shop.settings.data_dir / "runs" / done).exists())

    assert (shop.ended(wrong).state, shop.ended(wrong).error) == ("failed", "there is nothing to train on")
    skipped = shop.ended(little)
    assert (skipped.state, skipped.attempt, skipped.error) == ("skipped", 1, "")
    assert skipped.result == {"purchases": 0, "reason": "nobody has bought anything yet"}
    assert eventually(lambda: not (shop.settings.data_dir / "runs" / little).exists())
    failed = shop.ended(bug)
    assert failed.attempt == 1, "a bug does not heal: it is not tried again"
    assert "two and two are five" in failed.error
    assert "Traceback" in failed.log
    assert "pip install 'endcap[" in shop.ended(extra).error
    assert "nobody_has_installed_this" in shop.ended(extra).error

    alive = Workers(shop.database).alive()
    assert [one.kind for one in alive] == ["embedded"]


def test_a_worker_killed_in_the_middle_is_replaced_and_the_run_goes_on(shop: Shop) -> None:
    first = shop.worker()
    run_id = shop.begun()
    first.kill()
    first.wait()
    assert eventually(lambda: shop.runs.get(run_id).state == "queued"), "nobody gave it back"
    shop.gate.touch()  # not before: the orphan might be done by then
    shop.worker()
    run = shop.ended(run_id)
    assert run.state == "done"
    assert run.result is not None
    assert run.result["began"] >= 1, "it began anew instead of where it was"


def test_a_run_whose_process_is_killed_is_tried_again_and_then_given_up(shop: Shop) -> None:
    shop.worker()
    run_id = shop.runs.submit(FAILS, {"kind": "killed"})
    assert eventually(lambda: shop.runs.get(run_id).attempt == 1 and shop.runs.get(run_id).state == "queued")
    assert "killed by signal 9" in shop.runs.get(run_id).error


@pytest.mark.parametrize("shop", [3.0], indirect=True)
def test_everything_killed_at_once_is_taken_up_when_the_lease_is_over(shop: Shop) -> None:
    first = shop.worker()
    run_id = shop.begun()
    child = int(shop.printed(run_id).rpartition("in process ")[2].split()[0])
    os.kill(child, signal.SIGSTOP)  # or it would give the run back when its worker goes
    first.kill()
    os.kill(child, signal.SIGKILL)
    first.wait()
    assert shop.runs.get(run_id).state == "running"
    shop.gate.touch()
    shop.worker()
    run = shop.ended(run_id)
    assert (run.state, run.attempt) == ("done", 2)
    assert run.result is not None
    assert run.result["began"] >= 1


def test_a_worker_told_to_stop_gives_the_run_back(shop: Shop) -> None:
    first = shop.worker()
    run_id = shop.begun()
    first.terminate()
    assert first.wait(90) == 0
    run = shop.runs.get(run_id)
    assert (run.state, run.attempt) == ("queued", 0), "a stop is not the run's fault"
    assert Workers(shop.database).alive() == []
    shop.gate.touch()
    shop.worker()
    assert (shop.ended(run_id).result or {})["began"] >= 1


def test_cancel_and_time_limit(shop: Shop) -> None:
    shop.worker()
    deaf = shop.runs.submit(DEAF, {"kind": "deaf"})
    cancelled = shop.begun()
    waiting = shop.runs.submit(STEPS, {"steps": 1})
    assert shop.runs.get(waiting).state == "queued", "two of a job that runs alone run at once"
    shop.runs.cancel(cancelled)
    assert shop.ended(cancelled).state == "cancelled"
    assert shop.ended(waiting).state == "done"
    late = shop.ended(deaf)
    assert late.state == "failed"
    assert "longer than 3 s" in late.error


@pytest.mark.parametrize("shop", [3.0], indirect=True)
def test_two_workers_fire_a_scheduled_job_once(shop: Shop, tmp_path: Path) -> None:
    # Its latest slot is due, and none comes while the test runs.
    settings: Settings = shop.settings.model_copy(update={"schedule": {**QUIET, "test-timed": "0 0 29 2 *"}})
    long_ago = 1_000_000.0
    with shop.database.transaction() as connection:  # as if fired before
        from endcap.stores.runs import firings

        connection.execute(firings.insert().values(job="test-timed", last=long_ago))
    for _ in range(2):
        shop.started.append(start(settings, shop.jobs, "worker"))
    # Each says that it lives again and again, and looks at the schedule in between.
    assert eventually(lambda: sum(one.seen > one.started for one in Workers(shop.database).alive()) == 2)
    assert [run.by for run in shop.runs.list(job="test-timed")] == ["schedule"]


def test_the_server_keeps_a_worker_beside_itself(shop: Shop) -> None:
    settings = shop.settings.model_copy(update={"embedded_worker": True, "text_encoder": "none", "port": 0})
    server = start(settings, shop.jobs, "serve")
    shop.started.append(server)
    alive = Workers(shop.database).alive
    assert eventually(lambda: len(alive()) == 1)
    first = alive()[0]
    os.kill(first.pid, signal.SIGKILL)
    assert eventually(lambda: any(one.name != first.name for one in alive())), "a dead worker is not replaced"
    second = next(one for one in alive() if one.name != first.name)
    run_id = shop.begun()
    server.terminate()
    assert server.wait(90) == 0
    assert shop.runs.get(run_id).state == "queued"
    with pytest.raises(ProcessLookupError):
        os.kill(second.pid, 0)


def test_old_runs_go_with_their_folders(shop: Shop) -> None:
    made = [shop.runs.submit(QUICK, {"steps": 1}) for _ in range(3)]
    for run_id in made:
        run_folder(shop.settings, run_id).mkdir(parents=True)
        shop.runs.cancel(run_id)
    tidy(shop.settings.model_copy(update={"keep_runs": 1}), shop.runs)
    left = [run_id for run_id in made if run_folder(shop.settings, run_id).exists()]
    assert len(left) == 1
    assert [run.id for run in shop.runs.list()] == left
