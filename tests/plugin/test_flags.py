"""Flags: suspected, confirmed, dismissed, undone; who is left out because of them. On SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from endcap.errors import InvalidInput
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database, LogUnavailable
from endcap.stores.events import EventLog
from endcap.stores.flags import FlagConflict, Flags, Suspicion, UnknownFlag
from endcap.stores.versions import Versions
from tests.services.postgres import empty


@pytest.fixture
def flags(tmp_path: Path) -> Iterator[Flags]:
    database = Database.in_folder(tmp_path)
    yield Flags(database)
    database.close()


def suspicion(subject: str, score: float = 0.9, kind: str = "shopper") -> Suspicion:
    return Suspicion(kind, subject, score, ["400 actions an hour, usually 3"], {"rate": 400.0})


def lifecycle(flags: Flags) -> None:
    assert flags.suspect([suspicion("bot"), suspicion("ann", 0.5), suspicion("p1", kind="product")], "fraud") == 3
    assert flags.excluded_shoppers() == {"bot", "ann"}  # a product's flag leaves nobody out
    first = flags.queue(kind="shopper")[0]
    assert (first.subject, first.reasons, first.evidence) == ("bot", ("400 actions an hour, usually 3",), {"rate": 400})
    ann = flags.find("shopper", "ann")
    assert ann is not None
    before = flags.version()
    assert flags.decide(ann.id, "dismissed", "eve", "a friend of the house").state == "dismissed"
    assert flags.excluded_shoppers() == {"bot"}
    assert flags.version() > before
    assert flags.undo(ann.id, "eve").state == "suspected"
    assert flags.excluded_shoppers() == {"bot", "ann"}
    with pytest.raises(FlagConflict, match="nothing to undo"):
        flags.undo(ann.id, "eve")
    assert [(one.before, one.after, one.by) for one in flags.history(ann.id)] == [
        ("", "suspected", "fraud"), ("suspected", "dismissed", "eve"), ("dismissed", "suspected", "eve"),
    ]  # fmt: skip


def test_a_flag_is_decided_and_the_decision_taken_back(flags: Flags) -> None:
    lifecycle(flags)


def test_the_same_on_postgresql(postgres: str) -> None:
    database = Database(postgres)
    try:
        lifecycle(Flags(database))
        with pytest.raises(InvalidInput, match="no row"):  # not an outage: nobody should be woken by it
            Flags(database).queue(contains="a\x00b")
    finally:
        database.close()
        empty(postgres)


def test_a_lock_that_somebody_else_holds_is_said_so_and_costs_no_connection(postgres: str) -> None:
    holder, database = Database(postgres), Database(postgres, lock_s=0.05)
    try:
        with Flags(holder)._writing(), Versions(holder).writing():
            with pytest.raises(LogUnavailable, match="lock timeout") as first:
                Flags(database).suspect([suspicion("bot")], "fraud")
            with pytest.raises(LogUnavailable, match="lock timeout") as second, Versions(database).writing():
                pass
        assert first.value.status == second.value.status == 503
        assert database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    finally:
        holder.close()
        database.close()
        empty(postgres)


def test_who_is_parted_from_a_flagged_shopper_counts_again(flags: Flags) -> None:
    log = EventLog(flags._database)
    aliases = Aliases(flags._database, log)
    flags.suspect([suspicion("bot")], "fraud")
    aliases.attach("victim", "bot", 1.0)
    assert flags.excluded_shoppers() == {"bot", "victim"}
    with log.writing() as connection:
        aliases.detach(connection, "victim", "bot")
    assert flags.excluded_shoppers() == {"bot"}


def test_a_detector_does_not_overrule_a_person(flags: Flags) -> None:
    flags.suspect([suspicion("ann")], "fraud")
    number = flags.queue()[0].id
    flags.decide(number, "dismissed", "eve")
    assert flags.suspect([suspicion("ann", 0.99)], "fraud") == 0
    assert flags.get(number).state == "dismissed"
    assert flags.get(number).score == 0.99
    assert flags.labels() == {"ann": False}
    flags.decide(number, "confirmed", "eve")
    assert flags.labels() == {"ann": True}
    assert flags.lapse("shopper", "fraud", set()) == 0


def test_two_decisions_are_taken_back_one_after_the_other(flags: Flags) -> None:
    flags.suspect([suspicion("ann")], "fraud")
    number = flags.queue()[0].id
    flags.decide(number, "confirmed", "eve")
    flags.decide(number, "dismissed", "eve")
    assert flags.undo(number, "eve").state == "confirmed"
    assert flags.undo(number, "eve").state == "suspected"


def test_a_suspicion_that_is_not_found_again_lapses_and_can_come_back(flags: Flags) -> None:
    flags.suspect([suspicion("ann"), suspicion("bot")], "fraud")
    flags.suspect([suspicion("eve")], "ingest")
    assert flags.lapse("shopper", "fraud", {"bot"}) == 1
    assert flags.excluded_shoppers() == {"bot", "eve"}
    assert flags.suspect([suspicion("ann")], "fraud") == 1
    assert flags.excluded_shoppers() == {"bot", "eve", "ann"}


def test_what_another_process_decides_is_seen(flags: Flags, tmp_path: Path) -> None:
    flags.suspect([suspicion("ann")], "fraud")
    assert flags.excluded_shoppers() == {"ann"}
    other = Database.in_folder(tmp_path)
    Flags(other).decide(flags.queue()[0].id, "dismissed", "eve")
    assert flags.excluded_shoppers() == frozenset()
    other.close()


def test_the_queue_is_filtered_and_counted(flags: Flags) -> None:
    flags.suspect([suspicion(f"user_{number}", number / 100) for number in range(50)], "fraud")
    flags.suspect([suspicion("user%1", 0.9)], "fraud")
    assert [one.subject for one in flags.queue(contains="r_4", limit=2)] == ["user_49", "user_48"]
    assert flags.count(contains="%") == 1  # no wildcard
    assert flags.count(state="confirmed") == 0
    assert flags.counts()["shopper"]["suspected"] == 51


def test_what_is_no_flag_is_refused(flags: Flags) -> None:
    for ask in (lambda: flags.decide(7, "confirmed", "eve"), lambda: flags.undo(7, "eve"), lambda: flags.history(7)):
        with pytest.raises(UnknownFlag, match="no flag 7"):
            ask()
    flags.suspect([suspicion("ann")], "fraud")
    number = flags.queue()[0].id
    with pytest.raises(FlagConflict, match="confirmed, dismissed or suspected"):
        flags.decide(number, "guilty", "eve")
    with pytest.raises(FlagConflict, match="suspected already"):
        flags.decide(number, "suspected", "eve")
    with pytest.raises(ValueError, match="cannot flag"):
        flags.suspect([suspicion("x", kind="planet")], "fraud")
