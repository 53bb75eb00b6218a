"""The inventory report: demand, what to order, what may run out, what does not move, what people look for in vain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from endcap.catalog.product import PATH_SEPARATOR
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.flags import Flags
from endcap_workers.demand.plan import MOST_LEAD_DAYS, Drivers, Item, Plan, Terms, make_plan
from endcap_workers.demand.prices import price_bands
from endcap_workers.demand.sales_log import SalesLog, read_sales
from endcap_workers.reports.inventory_parts import backtest_table, category_table, charts, columns_of, price_table
from endcap_workers.reports.model import Report, Table, Tile
from endcap_workers.reports.searches import DAYS, Searched, searches

#: A product moves slowly where its stock lasts longer than this, or nobody bought it for that long.
SLOW_COVER_DAYS, SLOW_SALE_DAYS = 180.0, 60
#: A gap in steady sales that chance makes less often than this is taken for a stock-out.
_GAP_CHANCE = 1e-3
_MOST_LOST_DAYS = 90
#: Ten years: what lasts longer is as good as never sold.
_MOST_COVER_DAYS = 3_650.0

Progress = Callable[[float, float, str], None]


def inventory_report(
    database: Database,
    settings: Settings,
    items: Sequence[Item],
    progress: Progress = lambda done, total, phase: None,
    now: float | None = None,
) -> Report:
    """Read the log, plan every product, put together what people need to see.

    ``items``: the catalogue; products that were sold but are not in it are planned too, under their id. A product that
    was renamed is one product: its id counts.

    Raises:
        LogUnavailable: the log cannot be read.
    """
    now = time.time() if now is None else now
    left_out = Flags(database).excluded_shoppers()
    sales = read_sales(
        database, settings.time_zone, left_out, now, progress=lambda share: progress(0.4 * share, 1.0, "reading sales")
    )
    rows = _items(sales, items)
    weekly, revenue = sales.weekly(), sales.weekly(sales.revenue)
    terms = Terms(
        settings.lead_time_days, settings.lead_time_deviation_days, settings.review_days, settings.service_level
    )
    drivers = Drivers(revenue, sales.looks.astype(np.float64), settings.forecast_top_sellers)
    plan = make_plan(
        weekly, rows, terms, lambda share, phase: progress(0.4 + 0.45 * share, 1.0, phase), drivers=drivers
    )
    progress(0.86, 1.0, "prices")
    leaf = {path: number for number, path in enumerate(dict.fromkeys(item.category for item in rows))}
    codes = np.array([leaf[item.category] for item in rows], dtype=np.int64)
    bands = price_bands(weekly, revenue, codes) if len(rows) else {}
    progress(0.92, 1.0, "searches")
    stock = {item.id: item.stock for item in items}
    asked = searches(database, stock, left_out, now, settings.reward_hours)
    progress(0.96, 1.0, "writing")
    return _assembled(sales, rows, plan, bands, asked, settings, items, now)


def _items(sales: SalesLog, items: Sequence[Item]) -> list[Item]:
    known = {item.id: item for item in items}
    return [known.get(product, Item(product, product)) for product in sales.products]


def lost_units(sales: SalesLog, plan: Plan, rows: Sequence[Item]) -> np.ndarray:
    """Units that were probably not sold for want of stock, float64 (n,).

    Where the stock is known to be gone: what is expected a day, for the days since the last sale. Where it is not
    known: gaps in otherwise steady sales that are too long for chance (a Poisson process of the product's own rate).
    """
    found = np.zeros(len(rows))
    recent = sales.units[:, -_MOST_LOST_DAYS:] > 0
    # Before its first sale a product was not missing, but not there.
    began = np.clip(sales.first - (sales.units.shape[1] - recent.shape[1]), 0, recent.shape[1] - 1)
    for row, item in enumerate(rows):
        rate = float(plan.mean[row].mean()) / 7
        if rate <= 0:
            continue
        if item.stock is not None and item.stock <= 0:
            found[row] = rate * min(int(sales.since_sale[row]), _MOST_LOST_DAYS)
        elif item.stock is None and (sold := recent[row, began[row] :]).mean() > 0.3:
            gap = np.log(_GAP_CHANCE / _MOST_LOST_DAYS) / np.log1p(-min(float(sold.mean()), 0.99))
            lengths = _gaps(sold)
            found[row] = rate * float(lengths[lengths > gap].sum())
    return found


def _gaps(sold: np.ndarray) -> np.ndarray:
    """Lengths of the runs of days without a sale, int64, those at the ends included."""
    edges = np.flatnonzero(np.r_[True, sold, True])
    return np.diff(edges) - 1


def _assembled(
    sales: SalesLog, rows: Sequence[Item], plan: Plan, bands: dict[int, Any], asked: Searched,
    settings: Settings, items: Sequence[Item], now: float,
) -> Report:  # fmt: skip
    lost = lost_units(sales, plan, rows)
    products = [_row(row, item, sales, plan, float(lost[row])) for row, item in enumerate(rows)]
    unsold = len({item.id for item in items} - {item.id for item in rows})
    stocked = [one for one in products if one["stock"] is not None]
    order = sorted((one for one in stocked if one["order"] > 0), key=lambda one: (-one["risk"], -one["demand"]))
    risky = [one for one in stocked if one["risk"] > 1 - settings.service_level and one["demand"] > 0]
    listed = {item.id for item in items}
    slow = [one for one in products if _is_slow(one) and (not listed or one["id"] in listed)]
    slow += _never_asked_for(items, {item.id for item in rows}, sales.units.shape[1])
    # The longest lasting first; of those, what most money lies in.
    slow.sort(key=lambda one: (-(one["cover"] or one["quiet"]), -(one["stock"] or 0) * (one["price"] or 0)))
    losing = sorted((one for one in products if one["lost"] >= 0.5), key=lambda one: -one["lost"])
    tiles = _tiles(sales, plan, products, stocked, order, risky, slow, settings)
    if asked.searches:
        share, state = asked.empty / asked.searches, "warn" if asked.empty else "good"
        line = f"{asked.empty:,} of {asked.searches:,} in {DAYS} days"
        tiles.append(Tile("Searches without a result", f"{share:.1%}", line, state))
    by_demand = sorted(products, key=lambda one: float(str(one["demand"])), reverse=True)
    tables = [
        Table(
            "order",
            "To order now",
            columns_of("title category stock coming demand reorder safety order cover risk"),
            order,
            f"Stock, with what is coming, at or below the reorder point (service level {settings.service_level:.0%}); "
            "the most urgent first.",
        ),
        Table(
            "demand",
            "Demand of every product",
            columns_of("title category class demand low high last cover stock reorder safety by"),
            by_demand,
            "Units a week, forecast over the lead time and review period, with a 90 % interval.",
        ),
        Table(
            "lost",
            "Sales probably lost",
            columns_of("title category lost demand quiet stock"),
            losing,
            "In the last 90 days: stock gone while demand went on, or gaps in steady sales that chance hardly makes.",
        ),
        Table(
            "slow",
            "What hardly moves",
            columns_of("title category stock cover quiet demand interest"),
            slow,
            f"Stock for more than {SLOW_COVER_DAYS:.0f} days, or not bought for {SLOW_SALE_DAYS} days; what was never "
            f"bought stands with {sales.units.shape[1]}, the days that were looked back on.",
        ),
        *asked.tables,
        price_table(rows, bands),
        category_table(plan),
        backtest_table(plan),
    ]
    notes = [*sales.notes]
    if unsold:
        notes.append(f"{unsold:,} products of the catalogue were not sold in the last {sales.units.shape[1]} days")
    if len(stocked) < len(products):
        notes.append(
            f"{len(products) - len(stocked):,} products have no stock in the catalogue: what to order cannot be said "
            "of them, only the reorder point"
        )
    endless = sum((item.lead_time_days or 0.0) > MOST_LEAD_DAYS for item in rows)
    if endless:
        notes.append(f"{endless:,} products have a lead time of more than ten years: the shop's usual one is taken")
    below = sum(one["stock"] < 0 for one in stocked)
    if below:
        notes.append(f"{below:,} products have a stock below 0: counted as owed to shoppers")
    day = date(1970, 1, 1) + timedelta(days=sales.last_day)
    return Report(
        "inventory", "Demand and stock", f"Sales up to {day:%d %B %Y}", now, settings.time_zone, settings.currency,
        tiles, charts(plan, sales, products), tables, notes,
    )  # fmt: skip


def _row(row: int, item: Item, sales: SalesLog, plan: Plan, lost: float) -> dict[str, Any]:
    advice = plan.advice[row]
    known = item.stock is not None
    last = float(np.nan_to_num(plan.weekly[row, -4:]).mean()) if plan.weekly.shape[1] else 0.0
    return {
        "id": item.id,
        "title": item.title or item.id,
        "category": PATH_SEPARATOR.join(item.category),
        "class": plan.classes[row],
        "by": plan.by[row],
        "demand": round(float(plan.mean[row].mean()), 3),
        "low": round(float(plan.low[row].mean()), 3),
        "high": round(float(plan.high[row].mean()), 3),
        "last": round(last, 3),
        "stock": item.stock,
        "coming": item.on_order,
        "reorder": round(advice.reorder_point, 2),
        "safety": round(advice.safety_stock, 2),
        "order": advice.order_quantity if known else None,
        "cover": min(round(advice.days_of_cover, 1), _MOST_COVER_DAYS)
        if known and advice.days_of_cover is not None
        else None,
        "risk": round(advice.stockout_risk, 4) if known else None,
        "lost": round(lost, 1),
        "quiet": int(sales.since_sale[row]),
        "interest": int(sales.interest[row]),
        "method": advice.method,
        "price": item.price,
    }


def _never_asked_for(items: Sequence[Item], known: set[str], days: int) -> list[dict[str, Any]]:
    """What lies on the shelf and was neither bought nor looked at in all these days."""
    return [
        {
            "id": item.id,
            "title": item.title or item.id,
            "category": PATH_SEPARATOR.join(item.category),
            "stock": item.stock,
            "cover": None,
            "quiet": days,
            "demand": 0.0,
            "interest": 0,
            "price": item.price,
        }
        for item in items
        if item.id not in known and item.stock is not None and item.stock > 0
    ]


def _is_slow(one: dict[str, Any]) -> bool:
    if one["stock"] is not None and one["stock"] <= 0:
        return False
    return one["quiet"] >= SLOW_SALE_DAYS or (one["cover"] is not None and one["cover"] > SLOW_COVER_DAYS)


def _tiles(
    sales: SalesLog, plan: Plan, products: Sequence[Any], stocked: Sequence[Any], order: Sequence[Any],
    risky: Sequence[Any], slow: Sequence[Any], settings: Settings,
) -> list[Tile]:  # fmt: skip
    week, before = float(sales.units[:, -7:].sum()), float(sales.units[:, -14:-7].sum())
    money = float(sales.revenue[:, -7:].sum())
    ahead = float(plan.mean[:, :1].sum())
    change = f"{week / before - 1:+.1%} on the week before" if before else ""
    found = [
        Tile("Products sold", f"{len(products):,}", f"in {sales.units.shape[1]} days"),
        Tile("Units last week", f"{week:,.0f}", change),
        Tile("Revenue last week", f"{money:,.0f} {settings.currency}".strip()),
        Tile("Forecast next week", f"{ahead:,.0f}", "units"),
    ]
    if stocked:
        gone = sum(one["stock"] <= 0 for one in stocked)
        found += [
            Tile("To order", f"{len(order):,}", "at or below the reorder point", "warn" if order else "good"),
            Tile("May run out", f"{len(risky):,}", "before the next delivery", "warn" if risky else "good"),
            Tile("Out of stock", f"{gone:,}", "", "bad" if gone else "good"),
        ]
    found.append(Tile("Hardly moving", f"{len(slow):,}", f"no sale in {SLOW_SALE_DAYS} days, or too much stock"))
    return found
