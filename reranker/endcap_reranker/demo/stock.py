"""Stock for the demo: the data set knows sales, no stock, so shelves are refilled here as a shop would have done.

Each product is kept by an (s, S) policy with daily review over its real daily sales: where what is on the shelf and on
order falls to s (mean demand over the lead time and a day, and 1.645 deviations of it), it is ordered up to S (two
weeks more). A supplier is a manufacturer on one aisle: one lead time, which varies by some days, and now and then weeks
in which nothing arrives. A level below nothing cannot be: what was really sold is sold, and the shelf is then empty.
What the last day's sales call for is not ordered yet: that is for whoever reads the report. Every draw follows from a
seed and the supplier's name, so that the same data always gives the same stock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from endcap.catalog.product import Product, product_key

if TYPE_CHECKING:
    import pandas as pd

#: The product attributes with the lead time, and with what is ordered and has not arrived.
LEAD_TIME, ON_ORDER = "lead_time_days", "on_order"
#: Days between two looks at the shelf, and standard deviation of a lead time (days).
REVIEW_DAYS, LEAD_DEVIATION_DAYS = 1.0, 2.0
DAY_S = 86_400.0
#: Days that a rate is taken over; days of demand that an order covers beyond s; normal deviations of safety.
_RATE_DAYS, _COVER_DAYS, _SAFETY = 56, 14, 1.645
#: Days between order and delivery, from and to (both possible): what spoils comes often.
_FRESH, _OTHER = (1, 3), (3, 10)
_FRESH_AISLES = ("Produce", "Deli", "Bakery", "Meat", "Seafood", "Salad", "Floral", "Pastry", "Dairy")
#: How likely a supplier's outage is to begin on a day, and its days.
_OUTAGE, _OUTAGE_DAYS = 1 / 350, (7, 35)
_LONGEST = _OTHER[1] + _OUTAGE_DAYS[1] + int(4 * LEAD_DEVIATION_DAYS)


@dataclass(frozen=True, slots=True)
class Shelves:
    """``stock``, ``on_order`` (pieces) and ``lead_days``: float64 (products,); ``empty``: bool (products, days),
    whether a shelf was empty."""

    stock: np.ndarray
    on_order: np.ndarray
    lead_days: np.ndarray
    empty: np.ndarray


def with_stock(products: Sequence[Product], purchases: pd.DataFrame, seed: int = 0) -> list[Product]:
    """The products with what the simulation left on the shelf after the last day, and their lead times."""
    shelves = simulate(products, purchases, seed)
    return [
        replace(one, stock=stock, attributes={**one.attributes, LEAD_TIME: lead, ON_ORDER: ordered})
        for one, stock, lead, ordered in zip(
            products, shelves.stock.tolist(), shelves.lead_days.tolist(), shelves.on_order.tolist()
        )
    ]


def simulate(products: Sequence[Product], purchases: pd.DataFrame, seed: int = 0) -> Shelves:
    """Refill the shelves day by day. ``purchases``: columns product, time, quantity."""
    sold = _daily(products, purchases)
    count, days = sold.shape
    lead, late = _suppliers(products, days, seed)
    total = np.concatenate([np.zeros((count, 1)), np.cumsum(sold, axis=1)], axis=1)
    squares = np.concatenate([np.zeros((count, 1)), np.cumsum(sold**2, axis=1)], axis=1)
    arriving = np.zeros((count, days + _LONGEST))
    empty = np.zeros((count, days), dtype=bool)
    on_order = np.zeros(count)
    on_hand: np.ndarray | None = None
    every = np.arange(count)
    for day in range(days):
        # On the first days the shop knows what the first weeks will bring: it has been there before.
        begin, end = max(0, day - _RATE_DAYS), max(day, min(_RATE_DAYS, days))
        rate = (total[:, end] - total[:, begin]) / (end - begin)
        deviation = np.sqrt(np.maximum((squares[:, end] - squares[:, begin]) / (end - begin) - rate**2, 0.0))
        spread = np.sqrt((lead + REVIEW_DAYS) * deviation**2 + (rate * LEAD_DEVIATION_DAYS) ** 2)
        low = np.ceil(rate * (lead + REVIEW_DAYS) + _SAFETY * spread)
        high = low + np.ceil(rate * _COVER_DAYS)
        on_hand = high.copy() if on_hand is None else on_hand + arriving[:, day]
        on_order -= arriving[:, day]
        on_hand = np.maximum(on_hand - sold[:, day], 0.0)
        empty[:, day] = on_hand <= 0
        if day == days - 1:
            break
        wanted = np.where((on_hand + on_order <= low) & (rate > 0), high - on_hand - on_order, 0.0)
        at = day + np.clip(lead.astype(np.int64) + late[:, day], 1, _LONGEST - 1)
        arriving[every, at] += wanted
        on_order += wanted
    return Shelves(np.zeros(count) if on_hand is None else on_hand, on_order, lead, empty)


def _daily(products: Sequence[Product], purchases: pd.DataFrame) -> np.ndarray:
    """Whole units a product and day, float64 (products, days)."""
    row = {one.id: number for number, one in enumerate(products)}
    known = purchases[purchases["product"].isin(row)]
    day = np.floor(known["time"].to_numpy() / DAY_S).astype(np.int64)
    if not len(day):
        return np.zeros((len(products), 0))
    last = int(np.floor(purchases["time"].iloc[-1] / DAY_S))
    first = int(day.min())
    sold = np.zeros((len(products), last - first + 1))
    np.add.at(sold, (known["product"].map(row).to_numpy(), day - first), np.round(known["quantity"].to_numpy()))
    return sold


def _suppliers(products: Sequence[Product], days: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lead times (days), float64 (products,), and days that an order of each day comes late, int64 (products, days)."""
    lead, late = np.zeros(len(products)), np.zeros((len(products), days), dtype=np.int64)
    known: dict[str, np.ndarray] = {}
    for row, one in enumerate(products):
        aisle = one.categories[0] if one.categories else ""
        least, most = _FRESH if any(name in aisle for name in _FRESH_AISLES) else _OTHER
        supplier = f"{one.brand}, {aisle}"
        lead[row] = least + product_key(f"{seed} lead {supplier}") % (most - least + 1)
        if supplier not in known:
            random = np.random.default_rng([seed, product_key(f"late {supplier}") & 0xFFFFFFFF])
            some = np.round(random.normal(0.0, LEAD_DEVIATION_DAYS, days)).astype(np.int64)
            known[supplier] = some + _outages(random, days)
        late[row] = known[supplier]
    return lead, late


def _outages(random: np.random.Generator, days: int) -> np.ndarray:
    """Of an order made on each day, the days until the supplier delivers again; int64 (days,)."""
    until = np.zeros(days, dtype=np.int64)
    for start in np.flatnonzero(random.random(days) < _OUTAGE).tolist():
        end = start + int(random.integers(_OUTAGE_DAYS[0], _OUTAGE_DAYS[1] + 1))
        part = np.arange(start, min(end, days))
        until[part] = np.maximum(until[part], end - part)
    return until
