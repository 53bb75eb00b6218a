"""Fraud in the event log: found, told in words, let go when it ends; in bounded memory."""

from pathlib import Path

import numpy as np
import pytest

from endcap.events import Action, Event
from endcap.settings import Settings, load_settings
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.flags import Flags, Suspicion
from endcap_workers.fraud.behaviour import BehaviourStream
from endcap_workers.fraud.lockstep import pushes
from endcap_workers.fraud.pairs import Pairs
from endcap_workers.fraud.rhythm import Rhythm
from endcap_workers.fraud.watch import Watched, watch
from endcap_workers.log_lines import read_log

DAY = 86_400.0
#: A moment of its own: what is done at night, or within one hour, hangs on the time of day.
NOW = 1_795_795_200.0


def genuine(shoppers: int = 300, seed: int = 0) -> list[Event]:
    """Regulars, there for months, and some that come for the first time."""
    random = np.random.default_rng(seed)
    found = []
    for shopper in range(shoppers):
        start = NOW - (200 if shopper % 4 else 20 * random.random()) * DAY
        for visit in range(int(random.integers(3, 12))):
            when = start + (NOW - DAY - start) * random.random()
            for line in range(int(random.integers(1, 8))):
                product = f"p{int(random.zipf(1.6)) % 60}"
                action = Action.PURCHASE if random.random() < 0.3 else Action.CLICK
                key = f"{shopper}-{visit}-{line}"
                found.append(
                    Event(key, when + 40 * line, f"ann{shopper}", action, product, session=f"{shopper}-{visit}")
                )
    return sorted(found, key=lambda event: event.time)


def farm(accounts: int = 40, device: str = "") -> list[Event]:
    random = np.random.default_rng(1)
    attributes = {"fingerprint": device} if device else {}
    return [
        Event(f"farm-{account}-{line}", NOW - 3 * DAY * random.random() - 60, f"new{account}", Action.PURCHASE, product,
              session=f"farm-{account}", attributes=attributes)
        for account in range(accounts)
        for line, product in enumerate(["p1", "p2", "junk"])
    ]  # fmt: skip


def bot(count: int = 600) -> list[Event]:
    return [Event(f"bot-{n}", NOW - 7_000 + 5 * n, "bot", Action.CLICK, "p55", session="b") for n in range(count)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


def look(database: Database, settings: Settings, **more: object) -> Watched:
    return watch(database, settings, lambda done, total, phase: None, now=NOW, **more)  # type: ignore[arg-type]


def test_a_quiet_shop_is_left_alone(database: Database, settings: Settings) -> None:
    EventLog(database).append(genuine())
    found = look(database, settings)
    assert [one.subject for one in found.suspicions if one.kind == "product"] == []
    assert found.summary["actions of suspects"] < 0.01 * found.summary["actions"]


def test_a_farm_is_found_with_its_product_device_and_seller(database: Database, settings: Settings) -> None:
    EventLog(database).append(genuine() + farm(device="phone-1"))
    sellers = {"junk": "Honest Joe", **{f"p{number}": f"shop {number % 7}" for number in range(60)}}
    found = look(database, settings, sellers=sellers)
    flags = Flags(database)
    excluded = flags.excluded_shoppers()
    assert {f"new{account}" for account in range(40)} <= excluded
    assert len([name for name in excluded if name.startswith("ann")]) <= 6
    flag = flags.find("shopper", "new7")
    assert flag is not None
    assert "product junk" in flag.reasons[0]
    assert flag.evidence["product"] == "junk"
    assert flags.find("product", "junk") is not None
    assert flags.find("product", "p1") is None, "what the farm hides behind is not blamed"
    assert flags.find("device", "phone-1") is not None
    seller = flags.find("seller", "Honest Joe")
    assert seller is not None
    assert seller.evidence["products"] == ["junk"]
    assert found.summary["suspected"]["shopper"] == len(excluded)


def test_a_machine_is_found_by_the_hourly_look_too(database: Database, settings: Settings) -> None:
    EventLog(database).append(genuine() + bot())
    found = look(database, settings, light=True)
    assert [one.subject for one in found.suspicions] == ["bot"]
    assert any(
        "in the busiest hour: " in reason or "on one product" in reason for reason in found.suspicions[0].reasons
    )


def test_suspicions_lapse_when_the_window_has_passed_but_decisions_stay(database: Database, settings: Settings) -> None:
    EventLog(database).append(genuine() + farm())
    look(database, settings)
    flags = Flags(database)
    kept = flags.find("shopper", "new0")
    assert kept is not None
    flags.decide(kept.id, "confirmed", "eve")
    later = watch(database, settings, lambda *_: None, now=NOW + 120 * DAY)
    assert later.lapsed > 0
    assert flags.excluded_shoppers() == {"new0"}


def test_what_is_usual_is_worked_out_once_for_all_suspects(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large farm has tens of thousands of accounts: a look at all shoppers for the reasons of each never ends."""
    EventLog(database).append(sorted(genuine() + farm(), key=lambda event: event.time))
    judgement = look(database, settings).judgement
    for name in ("median", "nanmedian"):
        monkeypatch.setattr(np, name, lambda *given, **more: pytest.fail("all shoppers were looked at"))
    said = [judgement.reasons(row) for row in np.flatnonzero(judgement.suspected).tolist()]
    assert len(said) >= 40
    assert all(said)
    assert judgement._label_free is not None
    judgement._label_free.reasons(judgement._judged.rows([0]))


def test_labels_teach_the_detector(database: Database, settings: Settings) -> None:
    EventLog(database).append(genuine() + farm() + bot())
    assert look(database, settings).judgement.detector == "label-free"
    flags = Flags(database)
    for account in range(20):
        flag = flags.find("shopper", f"new{account}")
        assert flag is not None
        flags.decide(flag.id, "confirmed", "eve")
    flags.suspect([Suspicion("shopper", f"ann{n}", 0.5, ["looked at"]) for n in range(20)], "person")
    for flag in flags.queue(contains="ann"):
        flags.decide(flag.id, "dismissed", "eve")
    learned = look(database, settings)
    assert learned.judgement.detector == "supervised"
    scores = dict(zip(learned.judgement.behaviour.names, learned.judgement.score))
    others = [scores[f"new{account}"] for account in range(20, 40)]
    assert np.median(others) > 0.5 > np.median([score for name, score in scores.items() if name.startswith("ann")])


def test_batches_make_no_difference(database: Database) -> None:
    EventLog(database).append(genuine(60) + bot(50))
    whole, pieces = BehaviourStream(NOW - 90 * DAY), BehaviourStream(NOW - 90 * DAY)
    for lines in read_log(database):
        whole.add(lines)
    for lines in read_log(database, batch=37):
        pieces.add(lines)
    one, other = whole.features(NOW), pieces.features(NOW)
    order, place = np.argsort(one.names), np.argsort(other.names)
    assert sorted(one.names) == sorted(other.names)
    np.testing.assert_allclose(one.features.values[order], other.features.values[place], rtol=1e-5)


def test_logging_in_is_no_behaviour(database: Database) -> None:
    log = EventLog(database)
    log.append(genuine(60))
    plain = BehaviourStream(NOW - 90 * DAY)
    for lines in read_log(database):
        plain.add(lines)
    log.append([Event(f"in-{n}", NOW - (n // 2) * DAY, "ann1", Action.LOGIN) for n in range(1, 40)])
    named = BehaviourStream(NOW - 90 * DAY)
    for lines in read_log(database):
        named.add(lines)
    np.testing.assert_array_equal(named.features(NOW).features.values, plain.features(NOW).features.values)


def test_made_up_shoppers_do_not_fill_the_memory(database: Database) -> None:
    log = EventLog(database)
    log.append([Event(f"x{n}", NOW - DAY + n, f"made-up-{n}", Action.CLICK, f"q{n}") for n in range(3_000)])
    stream = BehaviourStream(most_shoppers=500, most_pairs=1_000)
    for lines in read_log(database, batch=200):
        stream.add(lines)
    assert len(stream) <= 500
    found = stream.features(NOW)
    assert "made-up-2999" in found.names
    assert len(found.pairs) <= 1_000


def test_what_a_farm_copies_is_not_taken_for_pushed() -> None:
    """Every new account chose the target and one of two bestsellers; old shoppers choose bestsellers all the time."""
    pairs = Pairs(100_000)
    old, new = np.arange(400), np.arange(400, 500)
    first_seen = np.r_[np.full(400, NOW - 300 * DAY), np.full(100, NOW - DAY)]
    for product in range(30):
        pairs.add(old, np.full(400, product, np.uint32), np.full(400, NOW - DAY / 2))
    pairs.add(new, (new % 2).astype(np.uint32), np.full(100, NOW - DAY / 2))
    pairs.add(new, np.full(100, 77, np.uint32), np.full(100, NOW - DAY / 2))
    found = pushes(pairs, first_seen, 500)
    assert int(found.products[np.argmax(found.surprise)]) == 77
    assert found.surprise[:2].max() < 3
    assert (found.shoppers[400:] > 20).all()
    assert (found.shoppers[:400] == 0).all()


def test_an_empty_log_is_no_error(database: Database, settings: Settings) -> None:
    assert look(database, settings).summary["shoppers"] == 0


def test_returns_of_one_observation_and_strange_values_are_taken(database: Database, settings: Settings) -> None:
    log = EventLog(database)
    log.append(
        [
            Event("a", NOW - DAY, "one", Action.RETURN, "p", quantity=3.0, value=-5.0),
            Event("b", NOW - DAY, "two", Action.PURCHASE, "p", quantity=0.0, value=0.0),
            Event("c", NOW + DAY / 2, "future", Action.PURCHASE, "p"),
            Event("d", NOW - DAY, "three", Action.SEARCH, query="q"),
        ]
    )
    found = look(database, settings)
    assert np.isfinite(found.judgement.score).all()


def lived_in(shoppers: int = 250) -> list[Event]:
    """A shop where some use a coupon, put things back, give one back, or share a tablet."""
    found = genuine(shoppers, seed=3)
    random = np.random.default_rng(4)
    for shopper in range(0, shoppers, 5):
        when = NOW - (2 + 60 * random.random()) * DAY
        for n, action in enumerate([Action.CART, Action.CART, Action.UNCART, Action.PURCHASE, Action.RETURN]):
            attributes = {"fingerprint": f"tablet-{shopper // 10}", **({"coupon": "WELCOME"} if n == 3 else {})}
            found.append(
                Event(f"life-{shopper}-{n}", when + 60 * n, f"ann{shopper}", action, f"p{n % 3}", attributes=attributes)
            )
    return found


def acts(name: str, actions: list[Action], gap: float, products: int, **attributes: str) -> list[Event]:
    """One shopper's actions, ``gap`` seconds apart, over so many products."""
    start = NOW - 3_600 - gap * len(actions)
    return [
        Event(f"{name}-{n}", start + gap * n, name, action, f"p{n % products}", attributes=attributes)
        for n, action in enumerate(actions)
    ]


def misuses() -> dict[str, tuple[list[Event], str]]:
    """What is done -> events of shoppers called "evil…", and a word of the reason that they must be given."""
    buy, back = Action.PURCHASE, Action.RETURN
    ordinary = [
        one
        for n in range(25)
        for one in acts(f"evil{n}", [Action.VIEW, buy, Action.VIEW], 50_000, 60, fingerprint="rack")
    ]
    return {
        "rate": (acts("evil", [Action.CLICK] * 900, 3, 40), "busiest hour"),
        "clicks on one product": (acts("evil", [Action.CLICK] * 120, 9_000, 1), "on one product"),
        "scraping": (acts("evil", [Action.VIEW] * 2_500, 1_500, 2_500), "different products"),
        "carts": (acts("evil", [Action.CART] * 150, 20_000, 50), "never bought"),
        "taken out again": (acts("evil", [Action.CART, Action.UNCART] * 60, 20_000, 50), "taken out"),
        "coupons": (acts("evil", [buy] * 80, 30_000, 55, coupon="WELCOME"), "with a coupon"),
        "bought and given back": (acts("evil", [buy, back] * 50, 30_000, 55), "returns"),
        "fingerprint reuse": (ordinary, "same device"),
    }


@pytest.mark.parametrize("kind", sorted(misuses()))
def test_every_kind_of_misuse_is_found_and_named(database: Database, settings: Settings, kind: str) -> None:
    events, word = misuses()[kind]
    EventLog(database).append(sorted(lived_in() + events, key=lambda event: event.time))
    found = {one.subject: one for one in look(database, settings).suspicions if one.kind == "shopper"}
    evil = {event.shopper for event in events}
    assert evil <= set(found)
    assert len(set(found) - evil) <= 3, "of 250 genuine ones"
    assert all(any(word in reason for reason in found[name].reasons) for name in evil)
    flag = Flags(database).find("shopper", min(evil))
    assert flag is not None
    assert flag.evidence["actions"] == sum(event.shopper == min(evil) for event in events)


def test_nothing_of_ordinary_life_is_misuse(database: Database, settings: Settings) -> None:
    EventLog(database).append(sorted(lived_in(), key=lambda event: event.time))
    found = [one for one in look(database, settings).suspicions if one.kind == "shopper"]
    assert len(found) <= 3


def sleepers(accounts: int = 30) -> list[Event]:
    """Made half a year ago; now and then they buy something; in the last month each buys a lot, and all buy "rare"."""
    random = np.random.default_rng(2)
    found = []
    for account in range(accounts):
        times = [NOW - (190 - 25 * visit + 5 * random.random()) * DAY for visit in range(6)]
        bought = [(when, f"p{int(random.zipf(1.6)) % 60}") for when in times]
        for _ in range(6):
            when = NOW - (1 + 27 * random.random()) * DAY
            bought += [(when + n, f"p{int(random.zipf(1.6)) % 60}") for n in range(5)] + [(when + 9, "rare")]
        found += [
            Event(f"sleeper-{account}-{n}", when, f"old{account}", Action.PURCHASE, product)
            for n, (when, product) in enumerate(sorted(bought))
        ]
    return found


def test_old_accounts_that_wake_up_together_are_found(database: Database, settings: Settings) -> None:
    EventLog(database).append(sorted(genuine() + sleepers(), key=lambda event: event.time))
    found = look(database, settings)
    suspects = {one.subject for one in found.suspicions if one.kind == "shopper"}
    caught = {name for name in suspects if name.startswith("old")}
    assert len(caught) >= 27
    assert len(suspects - caught) <= 3, "of 300 genuine ones"
    products = [one for one in found.suspicions if one.kind == "product"]
    pushed = max(products, key=lambda one: one.score)
    assert pushed.subject == "rare"
    assert "do far more than they used to" in pushed.reasons[-1]
    told = next(one for one in found.suspicions if one.subject in caught)
    assert "chose product rare while doing" in told.reasons[0]
    assert told.evidence["product"] == "rare"


def test_doing_more_is_no_crime(database: Database, settings: Settings) -> None:
    """The same rise, without the one product that all have in common."""
    alone = [event for event in sleepers() if event.product != "rare"]
    EventLog(database).append(sorted(genuine() + alone, key=lambda event: event.time))
    suspects = {one.subject for one in look(database, settings).suspicions}
    assert not any(name.startswith("old") for name in suspects)


def test_when_a_shopper_began_to_do_as_much_as_now() -> None:
    rhythm = Rhythm(NOW - 90 * DAY)
    steady = np.arange(240, 0, -3.0)
    waking = np.r_[np.arange(200, 40, -20.0), np.linspace(30, 0.1, 60)]
    fresh = np.linspace(20, 0.1, 60)
    falling = np.r_[np.linspace(200, 150, 60), 20.0]
    one_visit = np.array([150.0])
    every = [steady, waking, fresh, falling, one_visit]
    rows = np.repeat(np.arange(len(every)), [len(one) for one in every])
    days = np.concatenate(every)
    order = np.argsort(-days)
    for part in np.array_split(order, 3):  # as batches come
        rhythm.add(rows[part], NOW - days[part] * DAY, len(every))
    first = np.array([NOW - one.max() * DAY for one in every])
    began, rise = rhythm.rises(np.arange(len(every)), first, NOW)
    assert (rise > 1).tolist() == [False, True, False, False, False]
    assert (NOW - began[1]) / DAY == pytest.approx(30, abs=10)
    assert rise[1] > 10
    assert began[[0, 2, 3, 4]].tolist() == first[[0, 2, 3, 4]].tolist()
    assert [len(part) for part in Rhythm(0.0).rises(np.empty(0, np.int64), np.empty(0), NOW)] == [0, 0]
