"""The demo's stock and searches: made up from real sales, the same every time, said so, and seen in its reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from endcap.catalog.product import Product
from endcap.runtime import Runtime
from endcap_reranker.demo.command import demo_settings
from endcap_reranker.demo.prepare import REPORT_NOTE
from endcap_reranker.demo.searches import MARKS, replay
from endcap_reranker.demo.stock import LEAD_TIME, simulate, with_stock
from endcap_workers.reports.making import build_report
from tests.reranker.demo_support import open_shop, searched_journey, set_up_shop


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("shop")
    own = {name: value for name, value in demo_settings(folder).model_dump().items() if name in
           ("lead_time_attribute", "on_order_attribute", "review_days", "report_note")}  # fmt: skip
    with open_shop(set_up_shop(folder, text_encoder="none", **own)) as opened:
        yield opened


def test_stock_is_the_same_every_time_and_makes_sense() -> None:
    journey = searched_journey()
    once, again = (with_stock(journey.products, journey.purchases) for _ in range(2))
    assert once == again
    stock = np.array([one.stock for one in once])
    leads = np.array([one.attributes[LEAD_TIME] for one in once])
    assert (stock >= 0).all()
    assert (stock == np.round(stock)).all()
    assert leads.min() >= 1
    assert leads.max() <= 10
    assert not any(one.stock for one in journey.products), "what evaluations read knows no stock"
    suppliers: dict[tuple[str, str], set[float]] = {}
    for one in once:
        suppliers.setdefault((one.brand, one.categories[0]), set()).add(one.attributes[LEAD_TIME])
    assert all(len(found) == 1 for found in suppliers.values())
    shelves = simulate(journey.products, journey.purchases)
    late = shelves.empty[:, -90:].mean()
    assert 0.001 < late < 0.15, "shelves are empty now and then, and seldom"


def test_a_shelf_is_refilled_after_the_lead_time() -> None:
    import pandas as pd

    days = np.arange(120)
    bought = pd.DataFrame({"product": "tea", "time": days * 86_400.0, "quantity": 1.0})
    shelves = simulate([Product("tea", brand="b", categories=("Pantry",))], bought)
    lead = float(shelves.lead_days[0])
    # One a day: the level swings between what lasts for the lead time and two weeks more.
    assert 0 <= shelves.stock[0] <= lead + 1 + 14
    assert shelves.empty.mean() < 0.3
    nothing = simulate([Product("tea")], bought.iloc[:0])
    assert nothing.stock.tolist() == [0.0]


def test_searches_are_replayed_once_and_marked(runtime: Runtime) -> None:
    journey = searched_journey()
    recent = journey.purchases[journey.purchases["time"] > journey.purchases["time"].iloc[-1] - 3 * 86_400.0]
    # The most bought kind goes by a name here that the shop does not know.
    kind = recent["product"].map(dict(journey.types)).mode()[0]
    types = {product: "Xyzzyplugh" if name == kind else name for product, name in journey.types.items()}
    some = replace(journey, purchases=recent, types=types)
    shift = journey.shift_to_yesterday()
    made = replay(runtime, some, shift)
    assert made > 50
    assert replay(runtime, some, shift) == made
    found = runtime.rankings.since(0, made + 1)
    assert len(found) == made
    assert all(one.context == MARKS and not one.personalized for one in found)
    last = float(journey.purchases["time"].iloc[-1]) + shift
    assert max(one.time for one in found) < last
    assert {one.shopper for one in found} <= set(recent["household"])

    report = build_report("inventory", runtime.database, runtime.settings, lambda done, total, phase: None)
    assert report.notes[0] == REPORT_NOTE
    assert "simulated" in REPORT_NOTE
    assert report.table("order").rows
    assert all(row["stock"] is not None for row in report.table("demand").rows)
    vain = report.table("searches").rows[0]
    assert (vain["title"], vain["chosen"]) == ("xyzzyplugh", 0)
    assert vain["empty"] == vain["searches"] >= 3
