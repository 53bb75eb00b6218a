"""What the inventory report is made of, beside its rows: columns, charts, tables on prices, categories, forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from endcap_workers.demand.plan import Item, Plan
from endcap_workers.demand.sales_log import INTEREST_DAYS, SalesLog
from endcap_workers.reports.model import Chart, Column, Table

_SHOWN_WEEKS = 26

_TITLES = {
    "title": Column("title", "Product"),
    "category": Column("category", "Category", "path"),
    "class": Column("class", "Kind of demand"),
    "by": Column("by", "Forecast by"),
    "demand": Column("demand", "Forecast a week", "number"),
    "low": Column("low", "5 %", "number"),
    "high": Column("high", "95 %", "number"),
    "last": Column("last", "Last four weeks", "number"),
    "stock": Column("stock", "Stock", "number"),
    "coming": Column("coming", "On order", "number"),
    "reorder": Column("reorder", "Reorder point", "number"),
    "safety": Column("safety", "Safety stock", "number"),
    "order": Column("order", "Order", "count"),
    "cover": Column("cover", "Days of cover", "number"),
    "risk": Column("risk", "Risk of running out", "share"),
    "lost": Column("lost", "Units lost", "number"),
    "quiet": Column("quiet", "Days since last sale", "count"),
    "interest": Column("interest", f"Looks in {INTEREST_DAYS} days", "count"),
}


def columns_of(names: str) -> list[Column]:
    """The columns of these names, with a space between two."""
    return [_TITLES[name] for name in names.split()]


def charts(plan: Plan, sales: SalesLog, products: Sequence[Any]) -> list[Chart]:
    """Sales and forecast, days, categories, kinds of demand."""
    if not len(products):
        return []
    past = plan.history_sums[-1][0][-_SHOWN_WEEKS:]
    ahead = plan.forecast_sums[-1][0]
    weeks = [f"week {number - len(past) + 1}" for number in range(len(past))]
    labels = [*weeks[:-1], "last week", *[f"week +{number + 1}" for number in range(len(ahead))]]
    actual: list[float | None] = [*(float(value) for value in past), *[None] * len(ahead)]
    forecast: list[float | None] = [*[None] * (len(past) - 1), float(past[-1]), *(float(value) for value in ahead)]
    kinds: dict[str, int] = {}
    for name in plan.classes:
        kinds[name] = kinds.get(name, 0) + 1
    ordered = sorted(kinds.items(), key=lambda one: -one[1])
    level = min(len(plan.tree.names) - 1, max(0, len(plan.tree.names) - 2))
    top = np.nan_to_num(plan.history_sums[level + 1][:, -4:]).sum(axis=1)
    best = np.argsort(-top)[:12].tolist()
    days = sales.units.shape[1]
    daily = sales.units[:, max(days - 60, 0) :].sum(axis=0)
    start = date(1970, 1, 1) + timedelta(days=sales.last_day - len(daily) + 1)
    return [
        Chart("lines", "Units a week, all products", labels, [("sold", actual), ("forecast", forecast)]),
        Chart(
            "lines",
            "Units a day, last 60 days",
            [f"{start + timedelta(days=number):%d %b}" for number in range(len(daily))],
            [("sold", [float(value) for value in daily])],
        ),
        Chart(
            "bars", "Units of the last four weeks by category", [plan.tree.names[level][row] or "all" for row in best],
            [("units", [float(top[row]) for row in best])],
        ),
        Chart("bars", "Kinds of demand", [one for one, _ in ordered], [("products", [n for _, n in ordered])]),
    ]  # fmt: skip


def price_table(rows: Sequence[Item], bands: dict[int, Any]) -> Table:
    """How demand follows prices, the clearest first."""
    found = [
        {
            "id": rows[row].id,
            "title": rows[row].title or rows[row].id,
            "elasticity": round(band.elasticity, 2),
            "from": round(band.low, 2),
            "to": round(band.high, 2),
            "cheap": round(band.observed[0], 2),
            "dear": round(band.observed[1], 2),
            "low": round(band.recommended[0], 2),
            "high": round(band.recommended[1], 2),
            "verdict": band.verdict,
            "weeks": band.weeks,
        }
        for row, band in bands.items()
    ]
    found.sort(key=lambda one: (one["verdict"].startswith("not clear"), one["to"] - one["from"]))
    columns = [
        Column("title", "Product"), Column("elasticity", "Elasticity", "number"), Column("from", "5 %", "number"),
        Column("to", "95 %", "number"), Column("cheap", "Price seen, low", "money"),
        Column("dear", "Price seen, high", "money"), Column("low", "Range, from", "money"),
        Column("high", "Range, to", "money"), Column("verdict", "What it says"), Column("weeks", "Weeks", "count"),
    ]  # fmt: skip
    line = "Percent more units for one percent more price. For people to weigh: no price is changed by it."
    return Table("prices", "Price bands", columns, found, line)


def category_table(plan: Plan) -> Table:
    """The forecast of every category, the largest first."""
    found = []
    for names, past, ahead in zip(plan.tree.names, plan.history_sums[1:], plan.forecast_sums[1:]):
        for number, name in enumerate(names):
            found.append(
                {
                    "id": name,
                    "title": name or "All products",
                    "last": round(float(np.nan_to_num(past[number, -4:]).mean()), 1) if past.shape[1] else 0.0,
                    "demand": round(float(ahead[number].mean()), 1),
                }
            )
    unique = {one["title"]: one for one in found}
    columns = [Column("title", "Category"), _TITLES["last"], _TITLES["demand"]]
    rows = sorted(unique.values(), key=lambda one: float(str(one["demand"])), reverse=True)
    return Table("categories", "Demand by category", columns, rows, "Forecasts add up: products, categories, shop.")


def backtest_table(plan: Plan) -> Table:
    """Who forecast what, and how wrong it would have been."""
    rows = [
        {
            "title": test.name,
            "products": test.products,
            "chosen": test.chosen,
            "mase": None if np.isnan(test.mase) else round(test.mase, 3),
            "coverage": None if np.isnan(test.coverage) else round(test.coverage, 4),
            "tried": ", ".join(f"{name} {error:.3f}" for name, error in test.rmsse.items()),
        }
        for test in plan.backtests
    ]
    columns = [
        Column("title", "Kind of demand"), Column("products", "Products", "count"), Column("chosen", "Forecast by"),
        Column("mase", "MASE", "number"), Column("coverage", "90 % interval holds", "share"),
        Column("tried", "RMSSE of all tried"),
    ]  # fmt: skip
    line = "Judged on the latest weeks as if they had not happened yet; the least RMSSE is taken."
    return Table("backtest", "How good the forecasts are", columns, rows, line)
