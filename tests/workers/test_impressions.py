"""Training lists from what was really shown: the features that were served, what was wanted, and for whom it counts."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from endcap.bundles import load_bundle
from endcap.catalog.table import ProductTable
from endcap.events import Action, Event
from endcap.features import AFFINITY, FEATURES, INDEX
from endcap.features.names import OWN, SHELF, TASTE
from endcap.personalizer import Personalizer
from endcap.policy.examination import assumed
from endcap.popularity import Popularity
from endcap.runtime import open_runtime
from endcap.scoring.baseline import BaselineScorer
from endcap.serving_log import ServingLog
from endcap.settings import Settings
from endcap.stores.rankings import Rankings, Served
from endcap_workers.training.cases import TEST, TRAIN, VALID, Cases, CaseWriter
from endcap_workers.training.impressions import Impressions, impressions
from endcap_workers.training.lists import Lists
from endcap_workers.training.plan import Plan
from endcap_workers.training.replay import Replay
from endcap_workers.training.train import Request, train
from tests.workers.train_support import DAY_S, START, events, shop

#: A day after everything in the log.
DAY = np.ceil((START + 61 * DAY_S) / DAY_S) * DAY_S
PLAN = Plan(DAY - DAY_S, DAY + DAY_S, DAY + 2 * DAY_S, DAY + 3 * DAY_S, (DAY,), (int(Action.PURCHASE),), 100)
SHOPPERS = 12
_SERVED = FEATURES.index(AFFINITY[0])
#: Profiles keep decayed weights to 2 %, and round whenever events are added: in one go or one by one is not the same.
_ROUNDED = [
    INDEX[name] for name in (*OWN, *SHELF, *TASTE)
    if not name.endswith(("buys", "recency", "any", "age", "trips", "distinct", "candidates", "price_relative"))
]  # fmt: skip
_EXACT = np.setdiff1d(np.arange(_SERVED), _ROUNDED)


def serve(settings: Settings, day: float, features: float) -> None:
    """Each shopper searches, is shown ten of sixteen products, and buys the third."""
    runtime = open_runtime(settings, start=False)
    try:
        table = ProductTable.collect(runtime.engine.scan())
        columns = runtime.log.lines_by_time(limit=1_000_000).columns
        popularity = Popularity(settings.popularity_half_life_days)
        popularity.add(columns.keys, columns.times, columns.actions)
        lists = Lists(table, popularity, runtime.engine)
        bought = []
        for number in range(SHOPPERS):
            now = day + 3_600.0 + number
            clock = partial(float, now)
            found = lists.of_query(f"shelf{number % 5}")
            assert found is not None
            ranker = Personalizer(BaselineScorer(), runtime.profiles, popularity, table, deadline_ms=1e4, clock=clock)
            ranking = ranker.rank(f"s{number}", found.query, found.ids, found.scores)
            ranker.close()
            assert not ranking.degraded
            order = ranking.order[:10]
            page = [found.ids[place] for place in order.tolist()]
            log = ServingLog(runtime.rankings, feature_share=features, clock=clock)
            assert log.shown(ranking, f"s{number}", page, order, endpoint="search", query=found.query) == "logged"
            log.queue.turn()
            bought.append(Event(f"{now}", now + 60.0, f"s{number}", Action.PURCHASE, page[2], query_id=ranking.id))
        runtime.log.append(bought)
    finally:
        runtime.close()


def cases(settings: Settings, folder: Path, plan: Plan = PLAN) -> tuple[Cases, Impressions]:
    runtime = open_runtime(settings, start=False)
    try:
        table = ProductTable.collect(runtime.engine.scan())
        popularity = Popularity(settings.popularity_half_life_days)
        pages, _ = impressions(runtime.database, plan, (100, 100, 100), runtime.flags.excluded_shoppers(), enough=1)
        assert pages is not None
        lists = Lists(table, popularity, runtime.engine)
        with CaseWriter(folder, 50) as writer:
            Replay(table, settings, plan, lists, popularity, impressions=pages).run(runtime.log, writer.add)
        writer.finish({})
        return Cases(folder), pages
    finally:
        runtime.close()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """The same shop and the same searches, logged with the features that were served, and without."""
    made = []
    for features in (1.0, 0.0):
        folder = tmp_path_factory.mktemp("shop")
        settings = shop(folder, events(shoppers=SHOPPERS, days=60))
        for day in (DAY, DAY + DAY_S):
            serve(settings, day, features)
        made.append(settings)
    return made[0], made[1]


def test_features_made_once_more_are_those_that_were_served(logs: tuple[Settings, Settings], tmp_path: Path) -> None:
    """Of ten products out of sixteen, for shoppers who had bought before, with what they then bought unknown."""
    (served, _), (made, _) = (cases(one, tmp_path / str(number)) for number, one in enumerate(logs))
    assert len(served.lists) == len(made.lists) == 2 * SHOPPERS
    np.testing.assert_array_equal(served.lists["moment"], made.lists["moment"])
    np.testing.assert_array_equal(served.rows, made.rows)
    assert served.features[:, INDEX["own_buys"]].any()
    assert served.features[:, INDEX["recent_share"]].max() <= 1.0
    one, other = (found.features.astype(np.float32) for found in (served, made))
    np.testing.assert_allclose(one[:, _EXACT], other[:, _EXACT], atol=1e-3, rtol=1e-3)  # float16
    np.testing.assert_allclose(one[:, _ROUNDED], other[:, _ROUNDED], atol=0.04)
    wanted = served.wanted.reshape(-1, 10)
    assert (wanted[:, 2] > 1.0).all(), "the third place counts more"
    assert not wanted[:, [0, 1, *range(3, 10)]].any()
    assert made.features[:, _SERVED:].any(), "what the affinity says is made anew, whatever was live then"
    np.testing.assert_array_equal(served.features[:, _SERVED:], made.features[:, _SERVED:])


def test_what_was_logged_counts_rather_than_what_is_made_anew(logs: tuple[Settings, Settings], tmp_path: Path) -> None:
    shutil.copytree(logs[1].data_dir, tmp_path / "shop")
    settings = logs[1].model_copy(update={"data_dir": tmp_path / "shop"})
    runtime = open_runtime(settings, start=False)
    try:
        one = runtime.rankings.since(0, 1)[0]
        odd = np.full((10, len(FEATURES)), 0.25, dtype=np.float16)
        odd[3] = np.nan  # stood behind the candidates
        tampered = replace(one, id="odd", time=one.time + 30.0, features=odd, feature_names=FEATURES)
        other = replace(tampered, id="other", time=one.time + 31.0, features=odd[:, :5], feature_names=FEATURES[:5])
        runtime.rankings.append([tampered, other])
        runtime.log.append(
            [Event(id, one.time + 40.0, one.shopper, Action.PURCHASE, one.products[0], query_id=id)
             for id in ("odd", "other")]
        )  # fmt: skip
    finally:
        runtime.close()
    found, _ = cases(settings, tmp_path / "cases")
    start = found.lists["start"][np.isin(found.lists["moment"], (one.time + 30.0, one.time + 31.0))]
    assert len(start) == 2
    logged, anew = (found.features[at : at + 10, :_SERVED] for at in start.tolist())
    assert (logged[[0, 1, 2, 4, 9]] == 0.25).all()
    np.testing.assert_allclose(logged[3], anew[3], atol=1e-2)
    assert not (anew == 0.25).all(axis=1).any()


class Pages:
    """A rankings log by hand."""

    def __init__(self, folder: Path) -> None:
        self.settings = shop(folder, [])
        self.rows: list[Served] = []
        self.done: list[Event] = []

    def shown(self, at: float, shopper: str = "ann", bought: str = "", after: float = 60.0, **given: object) -> None:
        id = uuid.uuid5(uuid.NAMESPACE_OID, f"{len(self.rows)}").hex
        one = Served(id, at, shopper, ("p0", "p5", "p10"), query="shelf0", endpoint="hook")
        self.rows.append(replace(one, **given))  # type: ignore[arg-type]
        if bought:
            event = Event(id, at + after, shopper, Action.PURCHASE, bought, query_id=id)
            self.done.append(event)

    def impressions(self, enough: int = 1, limits: tuple[int, int, int] = (100, 100, 100)) -> Impressions | None:
        runtime = open_runtime(self.settings, start=False)
        try:
            Rankings(runtime.database).append(self.rows)
            runtime.log.append(self.done)
            return impressions(runtime.database, PLAN, limits, frozenset({"farmer"}), enough=enough)[0]
        finally:
            runtime.close()


def test_only_what_was_known_within_a_part_and_of_honest_shoppers_teaches(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    pages.shown(DAY + 10, bought="p5")
    pages.shown(DAY + 20, bought="p5", after=DAY_S)  # in the part that validates
    pages.shown(DAY + 30)  # nothing was wanted: no lesson for what trains
    pages.shown(DAY + 40, shopper="farmer", bought="p5")
    pages.shown(DAY + 50, bought="p5", endpoint="home")
    pages.shown(DAY + 60, shopper="", bought="p5")
    pages.shown(DAY + 1.1 * DAY_S, bought="p0")
    pages.shown(DAY + 1.2 * DAY_S)
    pages.shown(DAY + 2 * DAY_S - 60)  # may still come to something
    pages.shown(DAY + 2.5 * DAY_S, bought="p10")
    found = pages.impressions()
    assert found is not None
    assert found.counts == [1, 2, 1]


def test_too_few_are_none_and_too_many_are_drawn(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    for number in range(30):
        pages.shown(DAY + 10 + number, shopper=f"s{number}", bought="p5")
    assert pages.impressions() is None, "nothing to validate on"
    pages.shown(DAY + 1.1 * DAY_S, bought="p0")
    assert pages.impressions(enough=31) is None
    found = pages.impressions(enough=30, limits=(10, 10, 10))
    assert found is not None
    assert found.counts == [10, 1, 0]


def test_what_was_wanted_far_down_counts_more(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    pages.shown(DAY + 10, bought="p10", start=20)
    pages.shown(DAY + 20, bought="p0")
    pages.shown(DAY + 1.1 * DAY_S, bought="p0")
    found = pages.impressions()
    assert found is not None
    runtime = open_runtime(pages.settings, start=False)
    try:
        again = impressions(runtime.database, PLAN, (100, 100, 100), enough=1)[0]
        assert again is not None
        deep, top = again.until(DAY + 100)
        assert not again.until(DAY + 100)
    finally:
        runtime.close()
    assert deep.wanted[:2].tolist() == [0.0, 0.0]
    assert deep.wanted[2] == pytest.approx(1.0 / again.examination.of(np.array([23]))[0], rel=1e-5)
    assert deep.wanted[2] == pytest.approx(1.0 / assumed(40).propensity[22], rel=0.02), "little is known: as usual"
    assert top.wanted.tolist() == [1.0, 0.0, 0.0]


def test_training_takes_them(tmp_path: Path) -> None:
    log = events(shoppers=30, days=60)
    settings = shop(tmp_path, log)
    draw, served = np.random.default_rng(0), []
    for number, one in enumerate(event for event in log if event.time > START + 20 * DAY_S):
        shelf = int(one.product[1:]) % 5
        page = [f"p{row * 5 + shelf}" for row in draw.permutation(16)[:10].tolist()]
        page[0] = one.product if one.product not in page else page[0]
        served.append(Served(f"r{number}", one.time - 1.0, one.shopper, tuple(page), query=f"shelf{shelf}",
                             endpoint="hook"))  # fmt: skip
    runtime = open_runtime(settings, start=False)
    try:
        runtime.rankings.append(served)
    finally:
        runtime.close()
    said: list[str] = []
    for enough in (100, 10_000):
        made = train(settings, Request(lists=400, epochs=2, enough=enough), tmp_path / "run", report=said.append)
        assert made is not None
        about = load_bundle(made.folder).description["training"]
        if enough == 100:
            assert about["shown"][TRAIN] == 400
            assert about["lists"][VALID] == about["shown"][VALID]
            assert about["lists"][TEST] == about["shown"][TEST]
            assert len(about["examination"]) == 10
            assert made.metrics["held-out ndcg@10"] > 0.4
        else:
            assert about["shown"] == [0, 0, 0]
    assert any("pages that were shown" in line for line in said)
    assert any("too few" in line for line in said)
