"""The personalizer: the right order, in time, and the engine's order on any fault."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.errors import ScorerUnavailable
from endcap.events import Action, Event
from endcap.features import RankingInputs
from endcap.personalizer import Personalizer
from endcap.policy.arrange import Treatment
from endcap.policy.context import Visit
from endcap.popularity import Popularity
from endcap.profiles import MOST_BYTES, Profile
from endcap.scoring.baseline import BaselineScorer
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.profiles import LogProfiles, Restorer
from tests.serving import eventually

IDS = [f"p{number}" for number in range(6)]
SCORES = np.linspace(2.0, 1.5, 6, dtype=np.float32)
TABLE = ProductTable(
    [Product(one, f"Honey {one}", brand=f"b{number % 2}", categories=("Honey",)) for number, one in enumerate(IDS)]
)


def restorer(log: EventLog) -> Restorer:
    return Restorer(log, Aliases(log.database, log), MOST_BYTES, 50, 30.0)


class Shop:
    """A personalizer over a real log."""

    def __init__(self, folder: Path, deadline_ms: float = 60_000.0) -> None:
        self.log = EventLog(Database.in_folder(folder))
        self.profiles = LogProfiles(restorer(self.log), 8.0)
        self.personalizer = Personalizer(BaselineScorer(), self.profiles, Popularity(), TABLE, deadline_ms, threads=2)
        self.number = 0

    def does(self, shopper: str, action: Action, product: str) -> None:
        self.number += 1
        self.log.append([Event(f"e{self.number}", time.time(), shopper, action, product)])
        self.profiles.touched({shopper: self.log.last_sequence()})

    def order(self, shopper: str) -> list[str]:
        ranking = self.personalizer.rank(shopper, "honey", IDS, SCORES)
        assert ranking.degraded == ""
        assert sorted(ranking.order.tolist()) == list(range(6))
        return [IDS[place] for place in ranking.order]

    def close(self) -> None:
        self.personalizer.close()
        self.log.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with closing(Shop(tmp_path)) as made:
        yield made


def test_a_purchase_moves_the_product_up_in_the_very_next_search(shop: Shop) -> None:
    assert shop.order("ann")[0] == "p0"
    shop.does("ann", Action.PURCHASE, "p4")
    assert shop.order("ann")[0] == "p4"
    assert shop.order("bob")[0] == "p0", "one shopper's taste is not another's"


def test_a_click_counts_less_than_a_purchase(shop: Shop) -> None:
    shop.does("ann", Action.CLICK, "p2")
    shop.does("ann", Action.PURCHASE, "p5")
    order = shop.order("ann")
    assert order.index("p5") < order.index("p2") < order.index("p1")


def test_reasons_state_facts(shop: Shop) -> None:
    for _ in range(3):
        shop.does("ann", Action.PURCHASE, "p4")
    said = dict(zip(IDS, shop.personalizer.reasons("ann", "honey", IDS)))
    assert said["p4"][0] == "You bought this 3 times"
    assert "You often choose b0 here" in said["p2"]
    assert said["p1"] == []
    assert shop.personalizer.reasons("", "honey", IDS) == [[]] * 6


def test_without_a_shopper_the_engines_order_stands(shop: Shop) -> None:
    ranking = shop.personalizer.rank("", "honey", IDS, SCORES)
    assert ranking.order.tolist() == list(range(6))
    assert not ranking.personalized
    assert ranking.degraded == ""


def test_nothing_to_rank(shop: Shop) -> None:
    assert shop.personalizer.rank("ann", "honey", [], np.empty(0, np.float32)).order.shape == (0,)


class Slow:
    name = "slow"

    def __init__(self) -> None:
        self.free = threading.Event()

    def score(self, inputs: RankingInputs) -> np.ndarray:
        self.free.wait(120)
        return np.zeros(len(inputs.rows), dtype=np.float32)


class Broken:
    name = "broken"

    def __init__(self, fault: Exception | np.ndarray) -> None:
        self.fault = fault

    def score(self, inputs: RankingInputs) -> np.ndarray:
        if isinstance(self.fault, Exception):
            raise self.fault
        return self.fault


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ScorerUnavailable("down"), "scorer_unavailable"),
        (ValueError("a bug"), "internal_error"),
        (np.full(6, np.nan, dtype=np.float32), "scorer_unavailable"),
        (np.zeros(5, dtype=np.float32), "scorer_unavailable"),
    ],
)
def test_a_fault_leaves_the_engines_order_and_says_why(shop: Shop, fault: Exception | np.ndarray, reason: str) -> None:
    shop.personalizer.scorer = Broken(fault)
    ranking = shop.personalizer.rank("ann", "honey", IDS, SCORES)
    assert (ranking.degraded, ranking.order.tolist(), ranking.personalized) == (reason, list(range(6)), False)
    shop.personalizer.scorer = BaselineScorer()
    assert shop.personalizer.rank("ann", "honey", IDS, SCORES).degraded == ""


def test_a_search_that_fails_stays_in_its_experiment(shop: Shop) -> None:
    """Or an arm whose model is late would lose just those of its searches that went badly."""

    class Assigned:
        def treatment(self, shopper: str, visit: Visit) -> Treatment:
            return Treatment(noted={"order": "new"})

    shop.personalizer.arranger.assigner = Assigned()
    shop.personalizer.scorer = Broken(ScorerUnavailable("gone"))
    ranking = shop.personalizer.rank("ann", "honey", IDS, SCORES, Visit(internal=True))
    assert ranking.degraded
    assert ranking.context == {"experiments": {"order": "new"}, "took_ms": ranking.context["took_ms"], "internal": True}
    assert not shop.personalizer.rank("ann", "honey", IDS, SCORES).context, "no search: no experiment"
    assert not shop.personalizer.rank("", "honey", IDS, SCORES, Visit()).context


class Brief:
    name = "brief"

    def score(self, inputs: RankingInputs) -> np.ndarray:
        time.sleep(0.02)
        return np.zeros(len(inputs.rows), dtype=np.float32)


@pytest.mark.parametrize("said", [ValueError("a bug"), np.full(6, np.nan), np.zeros(5)])
def test_a_calibration_that_fails_costs_the_probabilities_and_not_the_order(
    shop: Shop, said: Exception | np.ndarray
) -> None:
    class Calibration:
        def probability(self, scores: np.ndarray) -> np.ndarray:
            if isinstance(said, Exception):
                raise said
            return said

    class Calibrated(Broken):
        name = "calibrated"
        calibration = Calibration()

    shop.personalizer.scorer = Calibrated(np.arange(6, dtype=np.float32))
    ranking = shop.personalizer.rank("ann", "honey", IDS, SCORES)
    assert ranking.order.tolist() == [5, 4, 3, 2, 1, 0]
    assert (ranking.scorer, ranking.degraded, ranking.interest) == ("calibrated", "", None)
    assert ranking.fallback == "calibration:internal_error"


def test_more_searches_than_threads_wait_for_their_turn(shop: Shop) -> None:
    shop.personalizer.scorer = Brief()
    with ThreadPoolExecutor(8) as pool:
        rankings = list(pool.map(lambda _: shop.personalizer.rank("ann", "honey", IDS, SCORES), range(24)))
    assert {(ranking.degraded, ranking.scorer) for ranking in rankings} == {("", "brief")}


def test_a_hanging_scorer_costs_no_more_than_the_deadline_and_heals(tmp_path: Path) -> None:
    shop = Shop(tmp_path, deadline_ms=50)
    slow = Slow()
    shop.personalizer.scorer = slow

    def degraded() -> str:
        return shop.personalizer.rank("ann", "honey", IDS, SCORES).degraded

    # A search that a busy machine had not even begun gives its place back when its time is over: as often as it takes.
    while shop.personalizer._places._value:
        assert degraded() == "deadline"
    assert [degraded() for _ in range(2)] == ["busy", "busy"], "two threads hang, further searches give up in time"
    slow.free.set()
    shop.personalizer.scorer = BaselineScorer()
    assert eventually(lambda: degraded() == "")
    shop.personalizer.close()


def test_before_the_products_are_loaded(shop: Shop) -> None:
    shop.personalizer.table = None
    assert shop.personalizer.rank("ann", "honey", IDS, SCORES).degraded == "warming_up"


def test_a_log_that_cannot_be_read_degrades_the_search(shop: Shop, tmp_path: Path) -> None:
    shop.log.close()
    with (tmp_path / "endcap.sqlite").open("r+b") as file:
        file.write(b"not a database at all" * 10)
    for name in ("endcap.sqlite-wal", "endcap.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    ranking = shop.personalizer.rank("new shopper", "honey", IDS, SCORES)
    assert (ranking.degraded, ranking.order.tolist()) == ("log_unavailable", list(range(6)))
    assert not shop.profiles._stale, "a log that is down must not make memory grow with every new shopper"


def test_the_cache_of_profiles_is_bounded_and_refills_from_the_log(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    small = LogProfiles(restorer(shop.log), memory_mb=0.001)
    shop.does("shopper 0", Action.PURCHASE, "p4")
    for number in range(100):
        small.get(f"shopper {number}")
    assert len(small) <= 16
    assert small.get("shopper 0").buys().tolist() == [1.0]


def test_an_event_counts_though_others_push_its_shopper_out_while_he_is_read(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    of = restorer(shop.log)
    small, read = LogProfiles(of, memory_mb=0.001), of.caught_up
    shop.does("ann", Action.PURCHASE, "p4")
    small.get("ann")

    def meanwhile(shopper: str, old: Profile | None) -> tuple[Profile, list[str]]:
        found = read(shopper, old)
        of.caught_up = read  # type: ignore[method-assign]
        shop.does("ann", Action.PURCHASE, "p5")
        small.touched({"ann": shop.log.last_sequence()})
        for number in range(20):
            small.get(f"other {number}")
        return found

    of.caught_up = meanwhile  # type: ignore[method-assign]
    small.touched({"ann": 1})
    small.get("ann")
    assert len(small.get("ann").counters) == 2


def test_what_is_kept_takes_the_memory_that_was_given(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log.append(
        [Event(f"{s}-{p}", time.time(), f"s{s}", Action.PURCHASE, f"{s}-{p}") for s in range(300) for p in range(10)]
    )
    store = LogProfiles(restorer(shop.log), memory_mb=0.2)
    tracemalloc.start()
    for number in range(300):
        store.get(f"s{number}").cache["derived"] = np.zeros(500)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 0.25e6
    assert 150 < len(store) < 300, "most are kept as bytes"
    assert len(store._at_hand) < 20
    oldest = store.kept()[0]
    with shop.log.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
    profile = store.get(oldest)
    assert len(profile.counters) == 10, "without a look into the log"
    assert store.get(oldest) is profile


def test_events_of_another_process_arrive_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    other = LogProfiles(restorer(EventLog(Database.in_folder(tmp_path))), 8.0)
    shop.does("ann", Action.PURCHASE, "p4")
    assert other.get("ann").buys().tolist() == [1.0]
    shop.does("ann", Action.PURCHASE, "p4")
    for _ in range(3):
        other.touched({"ann": 1})
        assert other.get("ann").buys().tolist() == [2.0]
