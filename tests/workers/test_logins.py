"""Ids that were joined to a shopper, in everything that is learned from the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import ProductTable
from endcap.events import Action, Event
from endcap.popularity import Popularity
from endcap.runtime import Runtime, open_runtime
from endcap.stores.flags import Suspicion
from endcap_workers.fraud.watch import _streamed
from endcap_workers.reports.searches import searches
from endcap_workers.training.cases import Case
from endcap_workers.training.lists import Lists
from endcap_workers.training.plan import Plan
from endcap_workers.training.replay import Replay, World
from tests.workers.train_support import DAY_S, START, shop

LOGIN = START + 5.5 * DAY_S


def bought(number: int, who: str, day: float, product: int) -> Event:
    return Event(f"e{number}", START + day * DAY_S, who, Action.PURCHASE, f"p{product}")


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    log = [
        bought(0, "ann", 1.0, 0),
        bought(1, "device", 2.0, 5),
        bought(2, "device", 5.45, 10),  # the day of the log-in, before it
        bought(3, "ann", 5.4, 15),
        bought(4, "ann", 5.6, 20),  # after it
        bought(5, "device", 8.0, 25),  # the device still sends its old id
        bought(6, "ann", 9.0, 30),
        bought(7, "bob", 9.5, 35),
    ]
    opened = open_runtime(shop(tmp_path, log), start=False)
    opened.aliases.attach("device", "ann", LOGIN)
    return opened


def replayed(runtime: Runtime) -> tuple[World, dict[float, Case]]:
    table = ProductTable.collect(runtime.engine.scan())
    end = START + 10 * DAY_S
    plan = Plan(START, end, end, end, (), (int(Action.PURCHASE),), 10)
    popularity = Popularity(30.0)
    lists = Lists(table, popularity, None)
    found: dict[float, Case] = {}
    replay = Replay(table, runtime.settings, plan, lists, popularity, logins=runtime.aliases.logins())
    world = replay.run(runtime.log, lambda case: found.__setitem__(round((case.moment - START) / DAY_S, 3), case))
    return world, found


def remembered(case: Case, table: ProductTable) -> set[str]:
    rows, actions, _ = case.history
    return {table.ids[row] for row in np.asarray(rows)[np.asarray(actions) > 0].tolist()}


def test_training_knows_a_visitor_from_the_log_in_on_and_not_before(runtime: Runtime) -> None:
    try:
        world, cases = replayed(runtime)
        table = ProductTable.collect(runtime.engine.scan())
        seen = {moment: remembered(case, table) for moment, case in cases.items()}
        assert seen == {
            1.0: set(), 2.0: set(), 5.4: {"p0"}, 5.45: {"p5"}, 5.6: {"p0", "p15", "p5", "p10"},
            8.0: {"p0", "p15", "p5", "p10", "p20"}, 9.0: {"p0", "p15", "p5", "p10", "p20", "p25"}, 9.5: set(),
        }  # fmt: skip
        # In the end it is the profile that is served.
        made, served = world.profiles.look("ann"), runtime.profiles.get("ann")
        np.testing.assert_array_equal(made.counters["key"], served.counters["key"])
        np.testing.assert_array_equal(made.buys(), served.buys())
    finally:
        runtime.close()


def test_fraud_is_looked_for_in_shoppers_and_not_in_their_devices(runtime: Runtime) -> None:
    try:
        found = _streamed(runtime.log.database, runtime.settings, lambda *_: None, False, START + 10 * DAY_S)
        assert dict(zip(found.names, found.seen.tolist(), strict=True)) == {"ann": 7, "bob": 1}  # no log-in
    finally:
        runtime.close()


def test_what_was_joined_to_a_flagged_shopper_is_left_out_with_him(runtime: Runtime) -> None:
    try:
        runtime.flags.suspect([Suspicion("shopper", "ann", 1.0, ["a farm"])], "test")
        assert runtime.flags.excluded_shoppers() == {"ann", "device"}
        runtime.aliases.attach("telephone", "ann", LOGIN + 1.0)  # changes no flag
        assert runtime.flags.excluded_shoppers() == {"ann", "device", "telephone"}
        runtime.flags.decide(runtime.flags.queue()[0].id, "dismissed", "eve")
        assert runtime.flags.excluded_shoppers() == frozenset()
    finally:
        runtime.close()


def test_a_shopper_and_his_device_are_one_of_those_who_searched(runtime: Runtime) -> None:
    def titles() -> list[str]:
        return [row["title"] for row in searches(runtime.log.database, {}, (), LOGIN + 60.0).tables[0].rows]

    asked = [Event(f"q-{who}", LOGIN, who, Action.SEARCH, query="unicorn") for who in ("ann", "device", "bob", "eve")]
    try:
        runtime.log.append(asked[:3])
        assert titles() == [], "two shoppers are too few"
        runtime.log.append(asked[3:])
        assert titles() == ["unicorn"]
    finally:
        runtime.close()
