"""Demand and stock from the event log: returns, gaps, time zones, odd values; forecasts that add up; price bands."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from endcap.events import Action, Event
from endcap.settings import load_settings
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.flags import Flags, Suspicion
from endcap.stores.rankings import Rankings, Served
from endcap_workers.demand.hierarchy import reconcile, tree_of
from endcap_workers.demand.plan import Item, Terms, classify, make_plan
from endcap_workers.demand.prices import price_bands
from endcap_workers.demand.sales_log import SalesLog, read_sales
from endcap_workers.reports.inventory import inventory_report
from endcap_workers.reports.making import write_files
from endcap_workers.reports.model import Report

DAY = 86_400.0
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 4, 15, 12, 0, tzinfo=BERLIN).timestamp()
_number = iter(range(10**9))


def sale(product: str, ago: float, quantity: float = 1.0, value: float | None = None, **more: object) -> Event:
    action = more.pop("action", Action.PURCHASE)
    when = more.pop("time", NOW - ago * DAY)
    return Event(f"s{next(_number)}", when, str(more.pop("shopper", "ann")), action, product, quantity=quantity,
                 value=quantity * 2.0 if value is None else value, **more)  # type: ignore[arg-type]  # fmt: skip


def read(database: Database, batch: list[Event], zone: str = "Europe/Berlin", **more: object) -> SalesLog:
    EventLog(database).append(batch)
    return read_sales(database, zone, now=NOW, **more)  # type: ignore[arg-type]


def units(sales: SalesLog, product: str) -> dict[int, float]:
    """Days ago -> units, where there were any."""
    row = sales.units[sales.products.index(product)]
    return {len(row) - place: float(row[place]) for place in np.flatnonzero(row)}


def test_returns_take_back_what_was_sold_before(database: Database) -> None:
    sales = read(database, [sale("a", 5, 4), sale("a", 3, 1), sale("a", 2, 3, action=Action.RETURN),
                            sale("b", 4, 1), sale("b", 3, 9, action=Action.RETURN)])  # fmt: skip
    assert units(sales, "a") == {5: 2.0}
    assert units(sales, "b") == {}
    assert any("more returns than sales" in note for note in sales.notes)
    assert sales.revenue[sales.products.index("a")].sum() == 4.0, "two of five stay sold, at 2 each"
    assert sales.revenue[sales.products.index("b")].sum() == 0.0


def test_returns_make_no_price(database: Database) -> None:
    """Twenty a week for 5 each, of which up to eleven come back: fewer are kept, not dearer ones."""
    random = np.random.default_rng(0)
    batch = [sale("a", 7 * week - 3, 20, 100.0) for week in range(1, 40)]
    batch += [
        sale("a", 7 * week - 3, int(random.integers(1, 12)), action=Action.RETURN) for week in range(1, 40)
    ]  # fmt: skip
    sales = read(database, batch)
    units, revenue = sales.weekly(), sales.weekly(sales.revenue)
    known = units > 0
    np.testing.assert_allclose(revenue[known] / units[known], 5.0, rtol=1e-6)
    assert price_bands(units, revenue, np.zeros(1, dtype=np.int64)) == {}


def test_what_was_not_there_yet_is_no_lost_sale(database: Database, tmp_path: Path) -> None:
    EventLog(database).append([sale("new", day + 0.5) for day in range(1, 41)])
    EventLog(database).append([sale("gap", day + 0.5) for day in range(1, 300) if not 20 < day < 50])
    items = [Item("new"), Item("gap", lead_time_days=1e9)]
    report = inventory_report(
        database, load_settings(data_dir=tmp_path, time_zone="Europe/Berlin"), items, now=NOW
    )  # fmt: skip
    assert [row["id"] for row in report.table("lost").rows] == ["gap"]
    assert any("more than ten years" in note for note in report.notes)


def test_negative_quantities_are_returns_and_nothing_of_today_or_the_future_counts(database: Database) -> None:
    sales = read(
        database, [sale("a", 3, 5), sale("a", 2, -2), sale("a", 0.1, 7), sale("a", -0.9, 8), sale("a", -40, 9)]
    )
    assert units(sales, "a") == {3: 3.0}
    assert any("negative quantity" in note for note in sales.notes)
    assert any("future" in note for note in sales.notes)


def test_a_price_of_nothing_is_an_unknown_price(database: Database) -> None:
    sales = read(database, [sale("a", 3, 5, value=0.0), sale("a", 3, 1, value=-4.0), sale("a", 2, 1, value=3.0)])
    assert sales.revenue.sum() == 3.0


def test_days_are_the_shops_own_when_the_clocks_change(database: Database) -> None:
    """29 March 2026 has 23 hours in Berlin: half past midnight and half past eleven at night are both that day."""
    early = datetime(2026, 3, 29, 0, 30, tzinfo=BERLIN).timestamp()
    late = datetime(2026, 3, 29, 23, 30, tzinfo=BERLIN).timestamp()
    batch = [sale("a", 0, time=early), sale("a", 0, time=late)]
    assert units(read(database, batch), "a") == {17: 2.0}
    elsewhere = read_sales(database, "America/New_York", now=NOW)
    assert len(units(elsewhere, "a")) == 2


def test_flagged_shoppers_are_no_demand(database: Database) -> None:
    sales = read(database, [sale("a", 3), sale("a", 3, 50, shopper="bot")], left_out={"bot"})
    assert units(sales, "a") == {3: 1.0}


def test_weeks_are_unknown_before_the_first_sale_and_zero_after(database: Database) -> None:
    weekly = read(database, [sale("a", 10), sale("b", 1)], days=28).weekly()
    np.testing.assert_array_equal(weekly[0], [np.nan, np.nan, 1, 0])
    np.testing.assert_array_equal(weekly[1], [np.nan, np.nan, np.nan, 1])


def test_classes_of_demand() -> None:
    random = np.random.default_rng(0)
    rows = [
        np.full(52, 10.0) + random.normal(0, 1, 52),
        np.where(random.random(52) < 0.5, 1.0, 40.0),
        np.where(np.arange(52) % 5, 0.0, 3.0),
        np.where(np.arange(52) % 5, 0.0, random.choice([1.0, 60.0], 52)),
        np.r_[np.full(50, np.nan), 1.0, 2.0],
        np.full(52, np.nan),
    ]
    assert classify(np.array(rows)) == ["smooth", "erratic", "intermittent", "lumpy", "new", "none"]


def test_forecasts_add_up_and_good_ones_move_less() -> None:
    tree = tree_of([("food", "tea"), ("food", "tea"), ("food",), ()])
    leaves = np.array([[10.0], [20.0], [5.0], [1.0]])
    levels = tree.sums(leaves)
    raised = [leaves, *(one * 1.5 for one in levels[1:])]
    spread = [np.array([1.0, 100.0, 1.0, 1.0]), *(np.ones(len(one)) for one in levels[1:])]
    found = reconcile(tree, raised, spread)
    for below, parent, above in zip(found, tree.parents, found[1:]):
        total = np.zeros_like(above)
        np.add.at(total, parent, below)
        np.testing.assert_allclose(total, above, rtol=1e-9)
    assert found[0][1, 0] - 20 > 10 * abs(found[0][0, 0] - 10), "what is uncertain gives way"


def test_a_plan_covers_what_has_one_observation_or_none() -> None:
    weekly = np.full((3, 20), np.nan)
    weekly[0, -1] = 4.0
    weekly[1] = 6.0
    items = [Item("one", stock=-2.0), Item("two", stock=1.0, lead_time_days=21.0), Item("three", stock=9.0)]
    plan = make_plan(weekly, items, Terms())
    assert plan.classes == ["new", "smooth", "none"]
    assert np.isfinite(plan.mean).all()
    assert (plan.low <= plan.mean + 1e-9).all()
    assert plan.advice[0].order_quantity >= 2
    assert "owed" in " ".join(plan.advice[0].notes)
    assert plan.advice[1].reorder_point > 20, "the product's own lead time"
    assert plan.advice[2].order_quantity == 0
    with pytest.raises(ValueError, match="3 histories"):
        make_plan(weekly, items[:2], Terms())


def test_a_lead_time_that_is_a_date_is_none() -> None:
    random = np.random.default_rng(0)
    lumpy = np.where(random.random((2, 52)) < 0.2, random.choice([1.0, 60.0], (2, 52)), 0.0)
    lumpy[1] = lumpy[0]
    plan = make_plan(lumpy, [Item("ms", stock=3.0, lead_time_days=1.79e12), Item("none", stock=3.0)], Terms())
    assert plan.classes[0] == "lumpy"
    assert plan.advice[0] == plan.advice[1]


def test_elasticity_is_found_with_an_interval_that_holds() -> None:
    random = np.random.default_rng(3)
    truth = np.repeat([-2.5, -0.3], 20)
    price = np.exp(random.normal(0, 0.15, (40, 52))) * 5
    units = np.round(np.exp(4 + truth[:, None] * np.log(price / 5) + random.normal(0, 0.1, price.shape)))
    bands = price_bands(units, units * price, np.repeat([0, 1], 20))
    assert len(bands) == 40
    inside = [band.low <= truth[row] <= band.high for row, band in bands.items()]
    assert np.mean(inside) > 0.8
    assert all("follows price strongly" in bands[row].verdict for row in range(20))
    assert all("hardly" in bands[row].verdict for row in range(20, 40))


def test_where_prices_did_not_move_nothing_is_said_of_them() -> None:
    units = np.full((2, 52), 20.0)
    assert price_bands(units, units * 3.0, np.zeros(2, dtype=np.int64)) == {}
    assert price_bands(np.full((1, 5), np.nan), np.full((1, 5), np.nan), np.zeros(1, dtype=np.int64)) == {}


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Report:
    random = np.random.default_rng(0)
    batch = [
        sale(product, day + 0.5, int(random.poisson(rate)) or 1, shopper=f"ann{int(random.integers(50))}")
        for product, rate in (("tea", 4), ("honey", 2), ("junk", 1))
        for day in range(1, 200)
        if day > {"tea": 0, "honey": 5, "junk": 100}[product]
    ]
    batch += [sale("gone", 150, 1), sale("gone", 160, 1)]  # of no catalogue any more: nothing lies on a shelf
    batch += [sale("tea", 2, 500, shopper="bot"), sale("tea", 1.55, 1, shopper="ann1")]
    batch += [Event(f"q{n}", NOW - DAY, f"ann{n}", Action.SEARCH, query="Unicorn food", attributes={"hits": 0})
              for n in range(5)]  # fmt: skip
    EventLog(database).append(batch)
    Flags(database).suspect([Suspicion("shopper", "bot", 1.0, ["500 pieces"])], "fraud")
    Rankings(database).append(
        [Served(f"r{n}", NOW - DAY, f"ann{n}", ("honey", "none"), query="honey") for n in range(4)]
        # The storefront told of two of these itself; nobody told of the dragons.
        + [Served(f"u{n}", NOW - DAY, f"ann{n}", (), query="unicorn  food") for n in range(2)]
        + [Served(f"d{n}", NOW - DAY, "", (), query="dragon food", session=f"visit {n}") for n in range(4)]
        + [Served(f"h{n}", NOW - DAY, "", (), query="a hidden wish", session="one visit") for n in range(4)]
        + [Served(f"t{n}", NOW - 1.6 * DAY, f"ann{n}", ("tea", "junk"), query="tea") for n in range(3)]
    )
    items = [
        Item("tea", "Green tea", ("Food", "Tea"), 2.0, 3.0),
        Item("honey", "Honey, renamed", ("Food",), 2.0, -1.0),
        Item("junk", "=HYPERLINK(1)", (), 2.0, 500.0),
        Item("never", "Never sold", (), 2.0, 5.0),
    ]
    phases: list[float] = []
    settings = load_settings(data_dir=tmp_path, time_zone="Europe/Berlin")
    report = inventory_report(database, settings, items, lambda done, total, phase: phases.append(done), NOW)
    assert phases == sorted(phases)
    return report


def test_the_report_says_what_to_order_what_rests_and_what_is_wanted(shop: Report) -> None:
    order = {row["id"]: row for row in shop.table("order").rows}
    assert set(order) == {"tea", "honey"}
    assert order["tea"]["demand"] < 60, "the bot's 500 pieces are no demand"
    assert order["honey"]["risk"] > 0.99
    assert (order["honey"]["title"], order["honey"]["class"]) == ("Honey, renamed", "smooth"), "its history is its id's"
    assert [(row["id"], (row["cover"] or 0) <= 3_650) for row in shop.table("slow").rows] == [
        ("never", True), ("junk", True)
    ]  # fmt: skip
    assert [row["id"] for row in shop.table("lost").rows] == ["honey"]
    searched = [(row["title"], row["searches"], row["empty"]) for row in shop.table("searches").rows]
    assert searched == [("unicorn food", 5, 5), ("dragon food", 4, 4), ("honey", 4, 0)], "each search counts once"
    assert [tile.value for tile in shop.tiles if tile.title == "Searches without a result"] == ["65.0%"]
    assert [row["title"] for row in shop.table("wanted").rows] == ["honey"]
    assert any("below 0" in note for note in shop.notes)
    assert any("flagged" in note for note in shop.notes)
    assert any("1 products of the catalogue were not sold" in note for note in shop.notes)


def test_pages_show_the_end_of_a_category_and_files_all_of_it(shop: Report, tmp_path: Path) -> None:
    write_files(shop, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert 'title="Food &gt; Tea">Tea</td>' in page
    assert "Food > Tea" in (tmp_path / "demand.csv").read_text(encoding="utf-8-sig")
    assert {row["category"] for row in shop.table("demand").rows} == {"Food > Tea", "Food", ""}


def test_an_empty_shop_has_a_report_too(database: Database, tmp_path: Path) -> None:
    report = inventory_report(database, load_settings(data_dir=tmp_path), [], now=NOW)
    assert report.table("demand").rows == []
    assert Report.from_json(report.to_json()) is not None
