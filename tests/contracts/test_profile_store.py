"""What every profile store promises, whichever keeps the profiles: the log is the truth and each event counts once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Table

from endcap.events import Action, Event
from endcap.profiles import MOST_BYTES, Profile
from endcap.stores import redis_profiles
from endcap.stores.aliases import Aliases, AliasRefused, UnknownAlias
from endcap.stores.database import Database, LogUnavailable
from endcap.stores.erasure import Erasure
from endcap.stores.events import EventLog, events
from endcap.stores.profiles import LogProfiles, ProfileStore, Restorer
from endcap.stores.redis_profiles import RedisProfiles

NOW = 1_750_000_000.0


class World:
    """A log and a store of profiles over it; ``other()`` is the store of a second process over the same log."""

    def __init__(self, folder: Path, url: str) -> None:
        self.database = Database.in_folder(folder)
        self.log = EventLog(self.database)
        self.aliases = Aliases(self.database, self.log)
        self.url = url
        self.opened: list[ProfileStore] = []
        self.store = self.other()

    def other(self) -> ProfileStore:
        restorer = Restorer(self.log, self.aliases, MOST_BYTES, 50, 30.0)
        inner = LogProfiles(restorer, 8.0)
        made: ProfileStore = RedisProfiles(self.url, restorer, inner) if self.url else inner
        self.opened.append(made)
        return made

    def does(self, shopper: str, *products: str, tell: tuple[ProfileStore, ...] | None = None) -> None:
        """Events as a server takes them in: stored, then told to the store."""
        sent = [Event(uuid.uuid4().hex, NOW, shopper, Action.PURCHASE, product) for product in products]
        _, last = self.log.append_numbered(sent)
        for store in (self.store,) if tell is None else tell:
            store.touched({shopper: last})

    def close(self) -> None:
        for one in self.opened:
            one.close()
        self.database.close()


@pytest.fixture(params=["in process", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(redis_profiles, "TIMEOUT_S", 30.0)  # a busy machine is not the point
    url = request.getfixturevalue("redis") if request.param == "redis" else ""
    made = World(tmp_path, url)
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """A shopper whom no other test knows: Redis is shared."""
    return f"ann {uuid.uuid4().hex} {{x}} 紅"


def products(profile: Profile) -> int:
    return len(profile.counters)


def test_a_new_shopper_has_an_empty_profile(world: World, name: str) -> None:
    assert not world.store.get(name)


def test_an_event_counts_in_the_very_next_get_and_only_once(world: World, name: str) -> None:
    for number in range(1, 4):
        world.does(name, f"p{number}")
        profile = world.store.get(name)
        assert products(profile) == number
        assert profile.buys().tolist() == [1.0] * number
        assert profile.sequence == world.log.last_sequence()
    assert products(world.store.get(name)) == 3


def test_a_profile_that_was_handed_out_does_not_change(world: World, name: str) -> None:
    world.does(name, "a")
    before = world.store.get(name)
    world.does(name, "b")
    assert (products(before), products(world.store.get(name))) == (1, 2)


def test_what_was_derived_is_kept_while_nothing_changes(world: World, name: str) -> None:
    world.does(name, "a")
    world.store.get(name).cache["derived"] = 1
    assert world.store.get(name).cache == {"derived": 1}
    world.does(name, "b")
    assert world.store.get(name).cache == {}


def test_events_that_another_process_took_in_count(world: World, name: str) -> None:
    other = world.other()
    world.does(name, "a")
    assert products(other.get(name)) == 1
    world.does(name, "b", tell=(world.store, other))
    assert products(other.get(name)) == products(world.store.get(name)) == 2


def test_a_million_events_stay_within_four_kilobytes(world: World, name: str) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 10**9, 20_000)
    sent = [Event(f"{name}{n}", NOW + n, name, Action.CLICK, str(one)) for n, one in enumerate(ids)]
    list(world.log.append_many(sent))
    world.store.touched({name: world.log.last_sequence()})
    profile = world.store.get(name)
    assert profile.nbytes <= 4_000
    assert len(profile.to_bytes()) <= 4_050
    assert profile.sequence == world.log.last_sequence(), "the latest events are the ones that count"


def test_what_an_anonymous_visitor_did_counts_since_the_login_and_ever_after(world: World, name: str) -> None:
    visitor, other = f"visitor {name}", world.other()
    world.does(visitor, "seen before")
    world.does(name, "known")
    assert products(world.store.get(name)) == products(other.get(name)) == 1
    assert world.aliases.attach(visitor, name, NOW) is True
    for store in (world.store, other):
        store.forgotten({name})
    assert products(world.store.get(name)) == products(other.get(name)) == 2
    # The device keeps its old id for a while.
    world.does(visitor, "afterwards", tell=(world.store, other))
    assert products(world.store.get(name)) == products(other.get(name)) == 3
    assert world.store.get(name).buys().tolist() == [1.0] * 3


def test_a_wrong_join_is_undone_everywhere_and_does_not_come_back_by_itself(world: World, name: str) -> None:
    victim, other = f"victim {name}", world.other()
    erasures = [Erasure(world.database, world.log, world.aliases, store) for store in (world.store, other)]
    for one in erasures:
        one.follow()
    world.does(victim, "private")
    world.does(name, "own")
    world.aliases.attach(victim, name, NOW)
    for store in (world.store, other):
        store.forgotten({name})
        assert products(store.get(name)) == 2
    erasures[0].separate(victim, name)
    erasures[1].follow()  # another process, a second later
    for store in (world.store, other):
        assert products(store.get(name)) == 1
        assert products(store.get(victim)) == 1
    world.does(victim, "afterwards", tell=(world.store, other))
    assert products(world.store.get(name)) == products(other.get(name)) == 1
    assert (world.aliases.of(name), world.aliases.parted(name)) == ([], [victim])
    assert [one.action for one in world.log.history(name)] == [Action.PURCHASE], "a log that is restored joins them"
    with pytest.raises(UnknownAlias):
        erasures[0].separate(victim, name)
    with pytest.raises(AliasRefused, match="a person has parted"):
        world.aliases.attach(victim, name, NOW)
    assert world.aliases.attach(victim, name, NOW, by_hand=True)
    assert (world.aliases.of(name), world.aliases.parted(name)) == ([victim], [])
    erasures[0].separate(victim, name)
    erasures[0].erase(victim)
    assert world.aliases.parted(name) == [], "an erased id stands nowhere"


def test_a_login_while_the_profile_is_being_read_is_not_lost(world: World, name: str) -> None:
    world.does(f"v {name}", "seen before")
    world.does(name, "known")
    reading, attached = threading.Event(), threading.Event()
    restorer = world.store._restorer  # type: ignore[attr-defined]
    read = restorer.caught_up

    def slowly(shopper: str, old: Profile | None) -> tuple[Profile, list[str]]:
        found = read(shopper, old)
        reading.set()
        attached.wait(90)
        return found

    restorer.caught_up = slowly
    thread = threading.Thread(target=world.store.get, args=(name,))
    thread.start()
    assert reading.wait(90)
    restorer.caught_up = read
    world.aliases.attach(f"v {name}", name, NOW)
    world.store.forgotten({name})
    attached.set()
    thread.join(90)
    assert products(world.store.get(name)) == 2


def test_an_erased_shopper_is_unknown(world: World, name: str) -> None:
    world.does(name, "a")
    world.store.get(name)
    with world.database.transaction() as connection:
        connection.execute(events.delete().where(events.c.shopper == name))
    world.store.forgotten({name})
    assert not world.store.get(name)


def test_an_erasure_by_another_process_while_the_profile_is_being_read(world: World, name: str) -> None:
    other = world.other()
    erasures = [Erasure(world.database, world.log, world.aliases, store) for store in (world.store, other)]
    for one in erasures:
        one.follow()
    world.does(name, "private")
    restorer = other._restorer  # type: ignore[attr-defined]
    read = restorer.caught_up

    def erased_meanwhile(shopper: str, old: Profile | None) -> tuple[Profile, list[str]]:
        found: tuple[Profile, list[str]] = read(shopper, old)
        erasures[0].erase(name)
        erasures[1].follow()
        return found

    restorer.caught_up = erased_meanwhile
    other.get(name)
    restorer.caught_up = read
    assert not other.get(name)


def test_erasing_an_id_erases_it_from_the_profile_of_whom_it_was_joined_to(world: World, name: str) -> None:
    visitor = f"visitor {name}"
    world.does(visitor, "private")
    world.does(name, "own")
    world.aliases.attach(visitor, name, NOW)
    assert products(world.store.get(name)) == 2
    Erasure(world.database, world.log, world.aliases, world.store).erase(visitor)
    assert products(world.store.get(name)) == 1


def test_who_logs_in_while_he_is_erased_is_erased_under_all_his_ids(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = f"visitor {name}"
    world.does(visitor, "private")
    world.does(name, "own")
    erasure = Erasure(world.database, world.log, world.aliases, world.store)
    delete = erasure._delete

    def log_in(table: Table, ids: Sequence[str]) -> int:
        if not world.aliases.owners({visitor}):
            world.aliases.attach(visitor, name, NOW)
        return delete(table, ids)

    monkeypatch.setattr(erasure, "_delete", log_in)
    erasure.erase(name)
    assert world.log.history(visitor) == []
    assert world.log.history(name) == []
    assert world.aliases.mapping() == {}


def test_who_may_be_joined_to_whom(world: World, name: str) -> None:
    attach = world.aliases.attach
    assert attach(f"v {name}", name, NOW) is True
    assert attach(f"v {name}", name, NOW) is False, "saying it again changes nothing"
    refused = [
        (f"v {name}", f"thief {name}"),  # it belongs to somebody
        (name, f"thief {name}"),  # an account is no anonymous visitor
        (f"w {name}", f"v {name}"),  # nor is a visitor an account
        (name, name),
        ("", name),
    ]
    for anonymous, shopper in refused:
        with pytest.raises(AliasRefused):
            attach(anonymous, shopper, NOW)
    assert world.aliases.of(name) == [f"v {name}"]
    assert world.aliases.owners({f"v {name}", name, "nobody"}) == {f"v {name}": name}
    (login,) = world.log.history(name)
    assert (login.action, login.attributes) == (Action.LOGIN, {"anonymous_id": f"v {name}"})


def test_without_the_log_a_changed_profile_cannot_be_had(world: World, name: str) -> None:
    world.does(name, "a")
    world.store.get(name)
    with world.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
    assert products(world.store.get(name)) == 1, "nothing changed, so nothing has to be read"
    world.store.touched({name: 10**6})
    with pytest.raises(LogUnavailable):
        world.store.get(name)
    with world.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO events")
    assert products(world.store.get(name)) == 1


def test_threads_may_read_and_write_at_once(world: World, name: str) -> None:
    def shop(number: int) -> None:
        for turn in range(5):
            world.does(name, f"{number}-{turn}")
            world.store.get(name)

    threads: list[threading.Thread] = []
    make: Callable[[int], threading.Thread] = lambda number: threading.Thread(target=shop, args=(number,))  # noqa: E731
    for number in range(4):
        threads.append(make(number))
        threads[-1].start()
    for thread in threads:
        thread.join()
    profile = world.store.get(name)
    assert products(profile) == 20
    assert profile.buys().tolist() == [1.0] * 20
