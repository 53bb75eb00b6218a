"""Rankings joined with what came of them: by the id that an event names, else by shopper, product and time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from itsdangerous import Signer
from sqlalchemy import func, select, text

from endcap.events import Action, Event
from endcap.profiles import MOST_BYTES
from endcap.stores.aliases import Aliases
from endcap.stores.background import Background
from endcap.stores.database import Database
from endcap.stores.erasure import Erasure
from endcap.stores.erasures import note
from endcap.stores.events import EventLog
from endcap.stores.outcomes import Outcomes, Reaction
from endcap.stores.profiles import LogProfiles, Restorer
from endcap.stores.rankings import Rankings, Served
from endcap.stores.rejects import Rejects, reject
from tests.services.postgres import empty
from tests.serving import eventually

NOW = 1_750_000_000.0
HOUR = 3_600.0


class World:
    def __init__(self, folder: Path) -> None:
        self.database = Database.in_folder(folder)
        self.log = EventLog(self.database)
        self.aliases = Aliases(self.database, self.log)
        self.rankings = Rankings(self.database)
        self.number = 0

    def shows(self, id: str, at: float = 0.0, shopper: str = "ann", products: tuple[str, ...] = ("a", "b")) -> None:
        self.rankings.append([Served(id, NOW + at, shopper, products, start=10)])

    def does(
        self, action: Action, product: str, at: float, shopper: str = "ann", ranking: str = "", value: float = 0.0
    ) -> None:
        self.number += 1
        sent = Event(f"e{self.number}", NOW + at, shopper, action, product, query_id=ranking, value=value)
        self.log.append([sent])

    def outcomes(self, hours: float = 24.0) -> dict[str, list[tuple[str, str, bool]]]:
        found = Outcomes(self.database, hours).since(0)
        return {one.ranking.id: [(r.action.name, r.product, r.named) for r in one.reactions] for one in found}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()


def test_an_event_belongs_to_the_ranking_that_it_names(world: World) -> None:
    world.shows("r1")
    world.shows("r2", at=10)
    world.does(Action.CLICK, "b", at=20, ranking="r1", value=2.5)
    (first, second) = Outcomes(world.database).since(0)
    assert first.reactions == (Reaction("b", 12, Action.CLICK, NOW + 20, 1.0, 2.5, True),)
    assert second.reactions == ()


def test_one_that_names_none_belongs_to_the_last_that_showed_the_product(world: World) -> None:
    world.shows("r1")
    world.shows("r2", at=10)
    world.shows("r3", at=15, products=("z",))
    world.shows("of another", at=16, shopper="bob")
    world.does(Action.PURCHASE, "a", at=HOUR)
    assert world.outcomes() == {"r1": [], "r2": [("PURCHASE", "a", False)], "r3": [], "of another": []}


def test_a_ranking_of_the_next_batch_takes_what_is_its_own(world: World) -> None:
    world.shows("r1")
    world.shows("r2", at=10)
    world.does(Action.PURCHASE, "a", at=HOUR)
    (first,) = Outcomes(world.database).since(0, limit=1)
    assert first.reactions == ()


@pytest.mark.parametrize(("at", "counts"), [(-60.0, 0), (HOUR, 1), (25 * HOUR, 0)])
def test_only_for_some_hours_and_never_backwards(world: World, at: float, counts: int) -> None:
    world.shows("r1")
    world.does(Action.CART, "a", at=at)
    assert len(world.outcomes()["r1"]) == counts


def test_what_was_not_shown_is_no_reaction(world: World) -> None:
    world.shows("r1")
    world.does(Action.CLICK, "never shown", at=5, ranking="r1")
    world.does(Action.CLICK, "a", at=5, ranking="a ranking that was not logged")
    assert world.outcomes() == {"r1": []}


def test_impressions_that_are_sent_as_well_count_once(world: World) -> None:
    world.shows("r1")
    world.does(Action.IMPRESSION, "a", at=1, ranking="r1")
    assert world.outcomes() == {"r1": []}
    assert Rankings(world.database).since(0)[0].products == ("a", "b")


def test_a_purchase_after_the_login_belongs_to_what_the_visitor_was_shown(world: World) -> None:
    world.shows("r1", shopper="visitor")
    world.aliases.attach("visitor", "ann", NOW + 5)
    world.does(Action.PURCHASE, "a", at=10, shopper="ann")
    world.does(Action.CLICK, "b", at=8, shopper="visitor", ranking="r1")
    assert world.outcomes() == {"r1": [("CLICK", "b", True), ("PURCHASE", "a", False)]}


def test_everything_about_a_shopper_is_given_out_and_erased(world: World) -> None:
    profiles = LogProfiles(Restorer(world.log, world.aliases, MOST_BYTES, 50, 30.0), 8.0)
    erasure = Erasure(world.database, world.log, world.aliases, profiles)
    world.shows("r1", shopper="visitor")
    world.shows("r2", shopper="bob")
    world.does(Action.CLICK, "a", at=1, shopper="visitor")
    world.does(Action.CLICK, "a", at=1, shopper="bob")
    world.aliases.attach("visitor", "ann", NOW + 5)
    world.does(Action.PURCHASE, "b", at=10)
    assert len(profiles.get("ann").counters) == 2
    refused = Rejects(world.database)
    for who in ("ann", Signer("secret").sign("visitor").decode(), "annette", "ANN", "ann.smith", "bob"):
        refused.append([reject(NOW, "product", "no product", {"client_id": who, "action_name": "click"})])
    out = list(erasure.export("ann"))
    assert [one["kind"] for one in out] == [
        "shopper",
        "profile",
        "event",
        "event",
        "event",
        "ranking",
        "rejects",
        "rejects",
    ]
    assert out[0]["also_known_as"] == ["visitor"]
    assert out[-3]["products"] == ["a", "b"]
    elsewhere = LogProfiles(Restorer(world.log, world.aliases, MOST_BYTES, 50, 30.0), 8.0)
    other = Erasure(world.database, world.log, world.aliases, elsewhere)
    other.follow()
    assert elsewhere.get("ann")
    assert elsewhere.get("bob")
    gone = erasure.erase("ann")
    assert (gone["events"], gone["rankings"], gone["aliases"], gone["rejects"]) == (3, 1, 1, 2)
    assert len(refused.latest()) == 4
    assert not profiles.get("ann")
    assert elsewhere.kept() == ["ann", "bob"]
    other.follow()
    assert elsewhere.kept() == ["bob"], "other processes forget him as well"
    assert [one["kind"] for one in erasure.export("ann")] == ["shopper", "profile"]
    assert sum(erasure.erase("ann").values()) == 0
    assert world.log.count() == world.rankings.count() == 1, "others keep what is theirs"


def test_what_was_on_its_way_at_the_erasure_is_erased_when_it_has_arrived(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = LogProfiles(Restorer(world.log, world.aliases, MOST_BYTES, 50, 30.0), 8.0)
    erasure = Erasure(world.database, world.log, world.aliases, profiles)
    queue, refused = Background(world.rankings.append), Background(Rejects(world.database).append)
    for who in ("ann", "bob"):
        queue.offer(Served(f"of {who}", NOW, who, ("a",)))
        refused.offer(reject(NOW, "product", "no product", {"client_id": who}))
    erasure.erase("ann")
    erasure.follow()
    assert len(erasure._late) == 1, "others may take a while to write"
    erasure._late.clear()
    monkeypatch.setattr("endcap.stores.erasure.LATE_S", 0.0)
    erasure.erase("ann")
    queue.turn()
    refused.turn()
    world.shows("afterwards", at=1_000 * 365 * 24 * HOUR)
    erasure.follow()
    assert [one.id for one in world.rankings.since(0)] == ["of bob", "afterwards"]
    assert [one.event for one in Rejects(world.database).latest()] == ['{"client_id":"bob"}']
    assert not erasure._late


def test_two_erased_at_once_are_forgotten_by_all_processes(postgres: str) -> None:
    """The number that is given first may be stored last: whoever follows must not be past it by then."""
    empty(postgres)
    database = Database(postgres)
    log = EventLog(database)
    aliases = Aliases(database, log)
    log.append([Event(f"of {one}", NOW, one, Action.CLICK, "p") for one in ("ann", "bob")])
    profiles, elsewhere = (LogProfiles(Restorer(log, aliases, MOST_BYTES, 50, 30.0), 8.0) for _ in range(2))
    erasure, other = Erasure(database, log, aliases, profiles), Erasure(database, log, aliases, elsewhere)
    other.follow()
    assert all(elsewhere.get(one) for one in ("ann", "bob"))
    waiting = select(func.count()).select_from(text("pg_locks")).where(text("locktype = 'advisory' AND NOT granted"))

    def waits() -> bool:
        with database.transaction(read_only=True) as connection:
            return bool(connection.execute(waiting).scalar())

    second = threading.Thread(target=erasure.erase, args=("bob",))
    with database.transaction() as connection:
        note(connection, ("ann",))
        second.start()
        assert eventually(lambda: waits() or not second.is_alive())
        other.follow()
    second.join()
    other.follow()
    assert elsewhere.kept() == []
    database.close()
    empty(postgres)
