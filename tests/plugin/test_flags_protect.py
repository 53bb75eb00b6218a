"""A flagged shopper's behaviour leaves what everybody sees; dismissing the flag brings all of it back."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import Product
from endcap.catalog.product import product_keys
from endcap.engines.embedded import EmbeddedEngine
from endcap.events import Action, Event
from endcap.recommend.behaviour import Behaviour, shopper_key
from endcap.recommend.discovery import FILE
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings, load_settings
from endcap.stores.flags import Suspicion
from tests.serving import eventually

KEYS = product_keys(["honey", "junk"])


def bought(shopper: str, basket: int, *products: str) -> list[Event]:
    now = time.time() - 3600 + basket
    found = [
        Event(f"{shopper}-{basket}-{name}", now, shopper, Action.PURCHASE, name, session=f"s{basket}")
        for name in products
    ]
    return [*found, Event(f"{shopper}-{basket}-q", now, shopper, Action.SEARCH, query=f"best {products[-1]} ever")]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = load_settings(data_dir=tmp_path, text_encoder="none", tail_interval_s=0.02, product_refresh_s=0.05)
    engine = EmbeddedEngine(settings.data_dir, settings.index)
    engine.ensure(None, "none")
    engine.upsert([(Product(one, one.title(), price=1.0), None, "") for one in ("honey", "junk", "tea")])
    engine.refresh()
    engine.close()
    return settings


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    opened = open_runtime(settings)
    assert opened.upkeep.wait_ready(120.0)
    genuine = [event for number in range(4) for event in bought(f"ann{number}", number, "tea", "honey")]
    farm = [event for number in range(9) for event in bought("bot", 100 + number, "honey", "junk")]
    farm += [event for number in range(4) for event in bought(f"bot{number}", 200 + number, "honey", "junk")]
    opened.record(genuine + farm)
    yield opened
    opened.close()


def seen(runtime: Runtime) -> tuple[float, float, float, bool]:
    """Total weight of honey and of junk, how often both were bought together, whether junk's query is suggested."""
    total = runtime.popularity.read(KEYS, time.time())[:, 0]
    runtime.discovery.behaviour.merge()
    pairs = runtime.discovery.behaviour.pairs
    short = KEYS.astype(np.uint32).astype(np.uint64)
    together = pairs.read(np.array([(short[0] << np.uint64(32)) | short[1]], dtype=np.uint64))
    suggested = "best junk ever" in runtime.discovery.queries.best(time.time())
    return float(total[0]), float(total[1]), float(together[0]), suggested


def test_flagging_takes_the_farm_out_and_dismissing_brings_it_back(runtime: Runtime) -> None:
    attacked = (17.0, 13.0, 13.0, True)
    assert eventually(lambda: seen(runtime) == attacked)
    farm = ["bot", *(f"bot{number}" for number in range(4))]
    runtime.flags.suspect([Suspicion("shopper", name, 0.99, ["too many"]) for name in farm], "fraud")
    assert eventually(lambda: seen(runtime) == (4.0, 0.0, 0.0, False)), seen(runtime)
    runtime.record(bought("bot", 300, "honey", "junk"))  # and what it does from now on
    assert eventually(lambda: runtime.popularity.sequence >= runtime.log.last_sequence())
    assert seen(runtime)[:2] == (4.0, 0.0)
    for flag in runtime.flags.queue():
        runtime.flags.decide(flag.id, "dismissed", "eve")
    assert eventually(lambda: seen(runtime) == (18.0, 14.0, 14.0, True)), seen(runtime)


def test_who_is_left_out_survives_a_restart(runtime: Runtime, settings: Settings) -> None:
    runtime.flags.suspect([Suspicion("shopper", "bot", 0.99, ["too many"])], "fraud")
    assert eventually(lambda: seen(runtime)[:2] == (8.0, 4.0))
    runtime.upkeep.close()
    again = open_runtime(settings)
    try:
        assert again.upkeep.wait_ready(120.0)
        assert seen(again)[:2] == (8.0, 4.0)
        again.flags.decide(again.flags.queue()[0].id, "dismissed", "eve")
        assert eventually(lambda: seen(again)[:2] == (17.0, 13.0))
    finally:
        again.close()


def remembered(runtime: Runtime, shopper: str) -> int:
    """Products that are kept as bought by a shopper."""
    runtime.discovery.behaviour.merge()
    return len(runtime.discovery.behaviour.repeats.of(shopper_key(shopper)))


def test_what_an_erased_shopper_bought_is_forgotten_also_on_disk(runtime: Runtime, settings: Settings) -> None:
    assert eventually(lambda: seen(runtime)[2] == 13.0)
    assert remembered(runtime, "bot") == 2
    file = settings.data_dir / FILE
    runtime.discovery.behaviour.save(file, runtime.discovery.queries.to_bytes())
    other = open_runtime(settings)  # another process
    try:
        assert other.upkeep.wait_ready(120.0)
        assert eventually(lambda: remembered(other, "bot") == 2)
        runtime.erasure.erase("bot")
        for one in (runtime, other):
            assert eventually(lambda one=one: remembered(one, "bot") == 0 and seen(one)[2] == 4.0)
            assert remembered(one, "bot1") == 2, "the others are still known"

        def written() -> bool:
            found = Behaviour()
            assert found.restore(file, newest=2**40) is not None
            return found.erased > 0 and not len(found.repeats.of(shopper_key("bot")))

        assert eventually(written)
    finally:
        other.close()


def test_an_erasure_while_no_server_ran_is_made_up_for(runtime: Runtime, settings: Settings) -> None:
    assert eventually(lambda: seen(runtime)[2] == 13.0)
    runtime.upkeep.close()
    runtime.discovery.behaviour.save(settings.data_dir / FILE, runtime.discovery.queries.to_bytes())
    runtime.erasure.erase("bot")
    again = open_runtime(settings)
    try:
        assert again.upkeep.wait_ready(120.0)
        assert eventually(lambda: remembered(again, "bot") == 0 and seen(again)[2] == 4.0)
        assert eventually(lambda: again.discovery.behaviour.erased == again.erasure.version())
    finally:
        again.close()


def test_a_shopper_who_sends_too_much_is_flagged_at_the_door_and_refused_nothing(runtime: Runtime) -> None:
    now, most = time.time(), runtime.settings.fraud_rate_per_minute
    burst = [Event(f"r{number}", now, "robot", Action.CLICK, "tea") for number in range(most + 1)]
    old = [Event(f"o{number}", now - 86_400, "archive", Action.CLICK, "tea") for number in range(most + 1)]
    assert all(runtime.record(burst))
    assert all(runtime.record(old)), "a history that is sent later"
    assert eventually(lambda: runtime.flags.find("shopper", "robot") is not None)
    flag = runtime.flags.find("shopper", "robot")
    assert flag is not None
    assert flag.source == "ingest"
    assert "within a minute" in flag.reasons[0]
    assert runtime.flags.count() == 1


def test_the_rates_take_the_same_memory_whatever_ids_are_made_up(runtime: Runtime) -> None:
    now = time.time()
    runtime.rates.seen([Event("x", now, "first", Action.CLICK, "tea")])
    size = len(runtime.rates._cells)
    runtime.rates.seen([Event("x", now, f"made-up-{number}", Action.CLICK, "tea") for number in range(50_000)])
    assert len(runtime.rates._cells) == size
    assert not runtime.rates._waiting
