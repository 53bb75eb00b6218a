"""The table of runs, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from endcap.errors import InvalidInput
from endcap.jobs import Job
from endcap.stores.database import Database
from endcap.stores.runs import LOG_BYTES, Run, RunConflict, RunLost, Runs, UnknownRun, back_off, firings, runs
from tests.services.fixtures import either_database

#: Longer than any test: whoever is to be dead is made so.
LEASE_S = 3_600.0


class Takes(BaseModel):
    epochs: int = 3


HEAVY = Job("train", "Train", lambda context: {}, queue="heavy", takes=Takes)
LIGHT = Job("report", "Report", lambda context: {}, alone=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with either_database(request, tmp_path, runs.name, firings.name) as made:
        yield made


@pytest.fixture
def table(database: Database) -> Runs:
    return Runs(database, LEASE_S, attempts=2)


@pytest.fixture
def dies(database: Database) -> Callable[[str], None]:
    """The owner of a run has not been heard of for longer than the lease."""

    def silent(run_id: str) -> None:
        with database.transaction() as connection:
            past = runs.update().where(runs.c.id == run_id).values(heartbeat=runs.c.heartbeat - 2 * LEASE_S)
            connection.execute(past)

    return silent


def claimed(table: Runs, owner: str, *queues: str) -> Run:
    run = table.claim(owner, queues)
    assert run is not None
    return run


def test_a_run_from_its_asking_to_its_end(table: Runs) -> None:
    run_id = table.submit(HEAVY, {"epochs": 5}, "ada")
    waiting = table.get(run_id)
    assert (waiting.state, waiting.by, waiting.parameters) == ("queued", "ada", {"epochs": 5})
    assert table.claim("w", ["light"]) is None
    assert not table.claimable(["light"])
    assert table.claimable(["heavy"])
    run = claimed(table, "w", "heavy")
    assert (run.id, run.state, run.attempt) == (run_id, "running", 1)
    assert table.beat(run_id, "w", phase="epoch 2", done=2.0, total=5.0, log="x" * LOG_BYTES)
    assert table.get(run_id).done == 2.0
    table.finish(run_id, "w", {"ndcg": 0.31})
    done = table.get(run_id)
    assert (done.state, done.result) == ("done", {"ndcg": 0.31})
    assert done.finished >= done.started >= done.submitted
    assert table.count() == {"queued": 0, "running": 0, "done": 1, "skipped": 0, "failed": 0, "cancelled": 0}


def test_too_little_to_go_on_is_an_end_of_its_own_and_not_tried_again_by_itself(table: Runs) -> None:
    run_id = table.submit(HEAVY)
    claimed(table, "w", "heavy")
    table.skip(run_id, "w", "the log holds 3 clicks", {"clicks": 3})
    skipped = table.get(run_id)
    assert (skipped.state, skipped.error, skipped.reason) == ("skipped", "", "the log holds 3 clicks")
    assert skipped.result == {"clicks": 3, "reason": "the log holds 3 clicks"}
    assert not table.claimable(["heavy"])
    with pytest.raises(RunConflict, match="skipped already"):
        table.cancel(run_id)
    assert table.list(state="skipped") == [skipped]
    again = table.retry(run_id)
    assert (again.state, again.result, again.reason) == ("queued", None, "")
    claimed(table, "w", "heavy")
    table.finish(run_id, "w", {})
    assert (table.get(run_id).reason, table.prune(0)) == ("", [run_id])


def test_what_a_job_prints_can_be_anything(table: Runs) -> None:
    run_id = table.submit(LIGHT)
    table.claim("w")
    table.beat(run_id, "w", log="a\x00b \udc80 ü", phase="\x00")
    table.fail(run_id, "w", "\ud800 went wrong\x00")
    failed = table.get(run_id)
    assert (failed.log, failed.phase, failed.error) == ("ab ? ü", "", "? went wrong")


def test_parameters_are_checked_when_the_run_is_asked_for(table: Runs) -> None:
    with pytest.raises(InvalidInput, match="epochs"):
        table.submit(HEAVY, {"epochs": "many"})
    with pytest.raises(InvalidInput, match="JSON"):
        table.submit(LIGHT, {"what": object()})
    assert table.get(table.submit(HEAVY)).parameters == {"epochs": 3}
    assert table.list(job="report") == []


def test_of_many_who_claim_at_once_each_run_has_one(table: Runs) -> None:
    for _ in range(12):
        table.submit(LIGHT)
    taken: list[str] = []

    def work(name: str) -> None:
        while (run := table.claim(name, ["light"])) is not None:
            taken.append(run.id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 12


def test_a_job_that_runs_alone_waits_for_its_other_run(table: Runs) -> None:
    first, second = table.submit(HEAVY), table.submit(HEAVY)
    assert claimed(table, "a", "heavy").id == first
    assert table.claim("b", ["heavy"]) is None
    table.finish(first, "a", {})
    assert claimed(table, "b", "heavy").id == second


def test_a_dead_owner_s_run_is_taken_up_before_others_and_he_is_refused(
    table: Runs, dies: Callable[[str], None]
) -> None:
    first, second = table.submit(HEAVY), table.submit(HEAVY)
    assert claimed(table, "a", "heavy").id == first
    dies(first)
    again = claimed(table, "b", "heavy")
    assert (again.id, again.attempt, again.owner) == (first, 2, "b")
    for told in (
        lambda: table.beat(first, "a"),
        lambda: table.finish(first, "a", {}),
        lambda: table.release(first, "a"),
    ):
        with pytest.raises(RunLost):
            told()
    assert table.get(first).owner == "b"
    dies(first)
    assert claimed(table, "c", "heavy").id == second
    killer = table.get(first)
    assert killer.state == "failed"
    assert "died 2 times" in killer.error


def test_what_may_pass_is_tried_again_after_a_while(table: Runs) -> None:
    run_id = table.submit(LIGHT)
    table.claim("a")
    table.fail(run_id, "a", "the engine is away", passing=True)
    waiting = table.get(run_id)
    assert (waiting.state, waiting.error) == ("queued", "the engine is away")
    assert waiting.due - waiting.started == pytest.approx(back_off(1), abs=back_off(1) / 2)
    assert table.claim("b") is None
    assert back_off(2) == 2 * back_off(1)
    assert back_off(50) == back_off(60)


def test_a_run_given_back_counts_no_attempt(table: Runs) -> None:
    run_id = table.submit(LIGHT)
    table.claim("a")
    table.release(run_id, "a")
    assert table.get(run_id).attempt == 0
    assert claimed(table, "b").attempt == 1


def test_cancel_and_retry(table: Runs) -> None:
    waiting, running = table.submit(LIGHT), table.submit(HEAVY)
    assert table.cancel(waiting).state == "cancelled"
    table.claim("a", run_id=running)
    assert table.cancel(running).cancelling
    assert not table.beat(running, "a"), "the owner is not told"
    table.cancelled(running, "a")
    assert table.get(running).state == "cancelled"
    assert table.retry(running, "eve").state == "queued"
    again = table.claim("b", run_id=running)
    assert again is not None
    assert table.beat(running, "b"), "the old wish to cancel is still there"
    table.finish(running, "b", {})
    with pytest.raises(RunConflict, match="done already"):
        table.cancel(running)
    with pytest.raises(RunConflict, match="only a failed, skipped or cancelled"):
        table.retry(running)
    with pytest.raises(UnknownRun):
        table.cancel("nothing")


def test_of_two_who_retry_at_once_the_second_takes_nothing_from_the_worker(
    table: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = table.submit(LIGHT)
    table.claim("a", run_id=run_id)
    table.fail(run_id, "a", "broken")
    failed, look = table.get(run_id), Runs._one
    table.retry(run_id)
    claimed(table, "b")
    seen = iter([failed])  # the second looked before the first had asked
    monkeypatch.setattr(Runs, "_one", staticmethod(lambda connection, name: next(seen, None) or look(connection, name)))
    table.retry(run_id)
    assert table.get(run_id).owner == "b"
    table.finish(run_id, "b", {})


def test_a_cancelled_run_whose_worker_died_is_cancelled(table: Runs, dies: Callable[[str], None]) -> None:
    run_id = table.submit(HEAVY)
    table.claim("a")
    table.cancel(run_id)
    dies(run_id)
    assert table.claim("b") is None
    assert table.get(run_id).state == "cancelled"


def test_a_slot_is_fired_once_and_never_piles_up(table: Runs) -> None:
    now = time.time()
    assert table.fire(LIGHT, now - 60) is None, "a schedule seen for the first time fires for the past"
    fired: list[str | None] = []
    threads = [threading.Thread(target=lambda: fired.append(table.fire(LIGHT, now + 60))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in fired if one]) == 1
    assert table.fire(LIGHT, now + 120) is None, "it still waits from the slot before"
    assert len(table.list(job="report")) == 1


def test_what_a_wrong_clock_wrote_is_not_waited_for(table: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine woke up in another year, and was put right: its runs and its schedule go on now, not in that year."""
    now, year = table._now, 365 * 86_400.0
    slot = 60.0 * (time.time() // 60)
    table.fire(LIGHT, slot - 60)  # seen for the first time
    monkeypatch.setattr(table, "_now", lambda connection: now(connection) + year)
    held, waits = table.submit(HEAVY), table.submit(LIGHT)
    assert table.claim("dead", ["heavy"]) is not None
    assert [run.id for run in table.to_send(again_s=60)] == [waits]
    monkeypatch.setattr(table, "_now", now)
    with table._database.transaction() as connection:
        connection.execute(firings.update().values(last=slot + year))
    assert {run.id for run in table.to_send(again_s=60)} == {held, waits}, "nor is the dead owner's"
    assert {claimed(table, "w").id for _ in range(2)} == {held, waits}
    fired = table.fire(LIGHT, slot)
    assert fired is not None
    assert table.fire(LIGHT, slot) is None
    assert claimed(table, "w").id == fired


def test_what_a_broker_should_carry(table: Runs) -> None:
    first, _, light = table.submit(HEAVY), table.submit(HEAVY), table.submit(LIGHT)
    assert [run.id for run in table.to_send(again_s=60)] == [first, light], "a run behind another one is sent"
    assert table.to_send(again_s=60) == []
    assert [run.id for run in table.to_send(again_s=0)] == [first, light]
    table.not_sent([light])
    assert [run.id for run in table.to_send(again_s=60)] == [light]


def test_the_history_is_bounded(table: Runs) -> None:
    ids = []
    for _ in range(5):
        ids.append(table.submit(LIGHT))
        table.claim("a", run_id=ids[-1])
        table.finish(ids[-1], "a", {})
        time.sleep(0.002)
    waiting = table.submit(LIGHT)
    assert sorted(table.prune(keep=2)) == sorted(ids[:3])
    assert [run.id for run in table.list()] == [waiting, ids[4], ids[3]]
    assert [run.id for run in table.list(before=ids[4])] == [ids[3]]


def test_a_job_that_was_only_seen_by_the_schedule_was_never_fired(table: Runs) -> None:
    slot = 1_760_000_040.0  # a whole minute, as all slots are
    for seen in (slot, slot + 7.3):
        assert table.fire(LIGHT, slot, now=seen) is None
        assert table.fired() == {}
    assert table.fire(LIGHT, slot + 60) is not None
    assert table.fired() == {LIGHT.name: slot + 60}
