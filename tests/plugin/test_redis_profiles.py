"""Profiles in Redis when Redis is slow, flushed, killed, restarted, or a cluster: the log answers, and it heals."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis as client

from endcap.errors import ConfigurationError
from endcap.events import Action, Event
from endcap.profiles import MOST_BYTES
from endcap.runtime import open_runtime
from endcap.settings import load_settings
from endcap.stores import redis_profiles
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.erasure import Erasure
from endcap.stores.events import EventLog, events
from endcap.stores.profiles import LogProfiles, Restorer
from endcap.stores.redis_profiles import ProfilesUnavailable, RedisProfiles
from tests.services import redis as redis_service
from tests.services.process import Server, free_port
from tests.serving import eventually

NOW = 1_750_000_000.0


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is given up after a moment that a busy machine may well take: only where it is the point."""
    if "never_answers" not in request.node.name:
        monkeypatch.setattr(redis_profiles, "TIMEOUT_S", 30.0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    database = Database.in_folder(tmp_path)
    yield EventLog(database)
    database.close()


Open = Callable[..., RedisProfiles]


@pytest.fixture
def opened(log: EventLog) -> Iterator[Open]:
    made: list[RedisProfiles] = []

    def one(url: str, **changes: object) -> RedisProfiles:
        restorer = Restorer(log, Aliases(log.database, log), int(str(changes.pop("most_bytes", MOST_BYTES))), 50, 30.0)
        made.append(RedisProfiles(url, restorer, LogProfiles(restorer, 8.0), **changes))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for store in made:
        store.close()


def buys(log: EventLog, shopper: str, product: str, *stores: RedisProfiles) -> None:
    _, last = log.append_numbered([Event(uuid.uuid4().hex, NOW, shopper, Action.PURCHASE, product)])
    for store in stores:
        store.touched({shopper: last})


def commands(url: str) -> int:
    """Commands that Redis has processed."""
    with client.Redis.from_url(url) as connection:
        return int(connection.info("stats")["total_commands_processed"])


def test_a_search_costs_one_command_and_no_look_into_the_log(redis: str, log: EventLog, opened: Open) -> None:
    store, shopper = opened(redis), uuid.uuid4().hex
    buys(log, shopper, "a", store)
    store.get(shopper)
    with log.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
    before, other = commands(redis), opened(redis)
    for _ in range(20):
        assert len(store.get(shopper).counters) == 1
    # The command that asks for the number counts, too, and so does the greeting of its connection.
    assert 20 <= commands(redis) - before <= 28
    assert len(other.get(shopper).counters) == 1, "a process that has just started finds the profile"


def test_what_is_stored_is_small_expires_and_names_nobody(redis: str, log: EventLog, opened: Open) -> None:
    store, shopper = opened(redis), f"ann-{uuid.uuid4().hex}"
    log.append([Event(f"{shopper}{n}", NOW + n, shopper, Action.CLICK, f"p{n}") for n in range(3_000)])
    store.touched({shopper: log.last_sequence()})
    store.get(shopper)
    with client.Redis.from_url(redis) as connection:
        key = redis_profiles._key(shopper)
        assert "ann" not in key
        assert len(connection.hget(key, "p") or b"") <= 4_096
        assert 0 < int(connection.ttl(key)) <= 30 * 86_400


def test_a_flushed_redis_heals_from_the_log(redis: str, log: EventLog, opened: Open) -> None:
    store, shopper = opened(redis), uuid.uuid4().hex
    buys(log, shopper, "a", store)
    store.get(shopper)
    with client.Redis.from_url(redis) as connection:
        connection.flushall()
    assert len(store.get(shopper).counters) == 1
    buys(log, shopper, "b", store)
    assert len(store.get(shopper).counters) == 2


def test_a_mark_that_was_lost_is_found_out_after_a_while(redis: str, log: EventLog, opened: Open) -> None:
    now = [NOW]
    store, shopper = opened(redis, clock=lambda: now[0]), uuid.uuid4().hex
    buys(log, shopper, "a", store)
    store.get(shopper)
    buys(log, shopper, "b")  # and the process died before it said so
    assert len(store.get(shopper).counters) == 1
    now[0] += redis_profiles.CHECK_S
    assert len(store.get(shopper).counters) == 2


def test_a_clock_that_went_back_does_not_put_that_off(redis: str, log: EventLog, opened: Open) -> None:
    now = [NOW + 86_400.0]
    store, shopper = opened(redis, clock=lambda: now[0]), uuid.uuid4().hex
    buys(log, shopper, "a", store)
    store.get(shopper)
    now[0] = NOW
    buys(log, shopper, "b")
    assert len(store.get(shopper).counters) == 2


def test_what_a_process_did_not_say_before_it_died_is_found_out(redis: str, log: EventLog, opened: Open) -> None:
    """An erasure, a log-in and a parting, of which the log knows and Redis was never told."""
    now = [NOW]
    aliases = Aliases(log.database, log)
    dead = Erasure(log.database, log, aliases, LogProfiles(Restorer(log, aliases, MOST_BYTES, 50, 30.0), 8.0))
    store, shopper, visitor = opened(redis, clock=lambda: now[0]), uuid.uuid4().hex, uuid.uuid4().hex
    buys(log, shopper, "a", store)
    buys(log, visitor, "b", store)
    assert len(store.get(shopper).counters) == 1

    def found_out(products: int) -> None:
        now[0] += redis_profiles.CHECK_S
        assert len(store.get(shopper).counters) == products

    aliases.attach(visitor, shopper, NOW)
    found_out(2)
    dead.separate(visitor, shopper)
    found_out(1)
    dead.erase(visitor)  # another's erasure changes nothing
    found_out(1)
    dead.erase(shopper)
    found_out(0)
    # At once where another process lives, or is started.
    for _ in range(2):
        buys(log, shopper, "c", store)
        assert len(store.get(shopper).counters) == 1
        dead.erase(shopper)
        Erasure(log.database, log, aliases, opened(redis)).follow()
        with client.Redis.from_url(redis) as connection:
            assert connection.hget(redis_profiles._key(shopper), "p") is None, "nor do its bytes stay"
        assert not store.get(shopper)


def test_a_log_that_was_put_back_to_an_earlier_state_is_read_anew(redis: str, log: EventLog, opened: Open) -> None:
    now = [NOW]
    store, shopper = opened(redis, clock=lambda: now[0]), uuid.uuid4().hex
    for product in "abc":
        buys(log, shopper, product, store)
    assert len(store.get(shopper).counters) == 3
    with log.database.transaction() as connection:
        connection.execute(events.delete().where(events.c.sequence > 1))
    now[0] += redis_profiles.CHECK_S
    assert len(store.get(shopper).counters) == 1


def test_a_process_without_a_past_does_not_tell_redis_of_everybody(redis: str, log: EventLog, tmp_path: Path) -> None:
    shoppers = [uuid.uuid4().hex for _ in range(20)]
    for shopper in shoppers:
        buys(log, shopper, "a")
    settings = load_settings(data_dir=tmp_path, redis_url=redis, text_encoder="none", tail_interval_s=0.02)
    with closing(open_runtime(settings)) as runtime, client.Redis.from_url(redis) as connection:
        assert eventually(lambda: runtime.popularity.sequence == 20)
        assert not connection.exists(*map(redis_profiles._key, shoppers))
        assert len(runtime.profiles.get(shoppers[0]).counters) == 1
        buys(log, shoppers[0], "b")  # by another process, and this is news
        assert eventually(lambda: len(runtime.profiles.get(shoppers[0]).counters) == 2)


def test_bytes_of_another_shape_or_none_at_all_are_read_anew(redis: str, log: EventLog, opened: Open) -> None:
    store, shopper = opened(redis), uuid.uuid4().hex
    buys(log, shopper, "a", store)
    store.get(shopper)
    assert len(opened(redis, most_bytes=3_000).get(shopper).counters) == 1
    with client.Redis.from_url(redis) as connection:
        for junk in (b"", b"x" * 5_000, (connection.hget(redis_profiles._key(shopper), "p") or b"")[:-3]):
            connection.hset(redis_profiles._key(shopper), "p", junk)
            assert len(store.get(shopper).counters) == 1


def test_killed_and_restarted_it_is_missed_by_nobody(
    log: EventLog, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_profiles, "COOL_DOWN_S", 0.05)
    server, url = redis_service.start()
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    again: Server | None = None
    try:
        store, other = opened(url), opened(url)
        buys(log, "ann", "a", store)
        assert len(store.get("ann").counters) == 1
        server.stop()
        assert len(store.get("ann").counters) == 1, "from the log"
        buys(log, "ann", "b", store)
        assert len(store.get("ann").counters) == 2
        store.forgotten({"bob"})
        with pytest.raises(ProfilesUnavailable, match="read from the log"):
            store.turn()
        again, _ = redis_service.start(port)
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                store.turn()
                break
            except ProfilesUnavailable:
                time.sleep(0.1)
        assert len(store.get("ann").counters) == 2
        # Both are back to sharing: what one takes in, the other knows.
        other.get("ann")
        time.sleep(0.1)
        buys(log, "ann", "c", store)
        assert len(other.get("ann").counters) == 3
    finally:
        server.stop()
        if again is not None:
            again.stop()


def test_marks_made_while_it_was_away_reach_it_later(redis: str, log: EventLog, opened: Open) -> None:
    store, other, shopper = opened(redis), opened(redis), uuid.uuid4().hex
    buys(log, shopper, "a", store)
    assert len(other.get(shopper).counters) == 1
    store._again = time.monotonic() + 3_600  # it has just failed
    buys(log, shopper, "b", store)
    store.forgotten({f"{shopper} 2"})
    assert len(store.get(shopper).counters) == 2, "this process reads the log meanwhile"
    assert len(other.get(shopper).counters) == 1
    store.turn()
    assert len(other.get(shopper).counters) == 2
    assert not store._pending
    assert not store._void


def test_one_that_never_answers_costs_a_moment_and_then_nothing(log: EventLog, opened: Open) -> None:
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        store = opened(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        buys(log, "ann", "a", store)
        before = time.monotonic()
        assert len(store.get("ann").counters) == 1
        assert store._again > before, "it is left alone for a while"


def test_a_cluster_works_as_well(log: EventLog, opened: Open) -> None:
    server, url = redis_service.start(0, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    try:
        with client.Redis.from_url(url) as connection:
            connection.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
            until = time.monotonic() + 90
            while connection.cluster("INFO")["cluster_state"] != "ok":
                assert time.monotonic() < until
                time.sleep(0.1)
        store = opened(url.replace("redis://", "redis+cluster://").removesuffix("/0"))
        for shopper in ("ann", "bob", "cem"):
            buys(log, shopper, "a", store)
        store.turn()
        assert [len(store.get(one).counters) for one in ("ann", "bob", "cem")] == [1, 1, 1]
        store.forgotten({"ann"})
        assert not store._void
        assert not store._pending
        assert len(store.get("ann").counters) == 1
    finally:
        server.stop()


def test_an_address_that_is_none_is_said_so(opened: Open) -> None:
    with pytest.raises(ConfigurationError, match="redis_url"):
        opened("http://somewhere")
