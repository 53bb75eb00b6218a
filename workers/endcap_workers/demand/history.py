"""Sales as demand histories: returns, gaps, future dates, time zones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np


@dataclass(frozen=True, slots=True)
class Histories:
    """``units``: float64 (products, periods), oldest first; NaN before a product's first sale.

    ``products``: as given, in the order of their first appearance. ``notes``: what was left out or changed, in words.
    """

    products: list[Any]
    units: np.ndarray
    notes: tuple[str, ...]


def histories(
    product: Any, time: Any, quantity: Any, now: float, period_days: int = 7, zone: str = "UTC", most: int = 160
) -> Histories:
    """Units sold per product and period. The last period ends with the local day before ``now``'s.

    ``time``: Unix seconds; ``quantity``: units, negative for returns; ``zone``: whose days they are, so that a day of
    23 or 25 hours is a day; ``most``: periods that are kept. A return takes from its own period, then from the latest
    earlier ones: it undoes sales that were no demand. Sales of the current day and later are left out, as are rows
    without a product, a time or a finite quantity.

    Raises:
        ValueError: the columns differ in length, or a period is shorter than a day.
        zoneinfo.ZoneInfoNotFoundError: there is no such time zone.
    """
    products, times = list(product), np.asarray(time, dtype=np.float64)
    units = np.asarray(quantity, dtype=np.float64)
    if not len(products) == len(times) == len(units):
        raise ValueError("product, time and quantity differ in length")
    if period_days < 1 or most < 1:
        raise ValueError("a period has at least one day, and at least one is kept")
    notes = []
    usable = np.isfinite(times) & np.isfinite(units) & np.array([one is not None for one in products], dtype=bool)
    if not usable.all():
        notes.append(f"{int((~usable).sum())} rows without product, time or quantity left out")
    today = int(local_days(np.array([now]), zone)[0])
    ago = np.full(len(times), -1, dtype=np.int64)
    ago[usable] = today - 1 - local_days(times[usable], zone)
    future = usable & (ago < 0)
    late = int((times[future] > now).sum())
    if late:
        notes.append(f"{late} sales dated in the future left out")
    kept = usable & ~future & (ago < most * period_days)
    names: dict[Any, int] = {}
    rows = np.array([names.setdefault(one, len(names)) for one, keep in zip(products, kept) if keep], dtype=np.int64)
    columns = most - 1 - ago[kept] // period_days
    table, sold = np.zeros((len(names), most)), np.zeros((len(names), most), dtype=bool)
    np.add.at(table, (rows, columns), units[kept])
    sold[rows, columns] = True
    returned = take_back(table)
    if returned:
        notes.append(f"{returned} products with returns of sales before the history: those returns are left out")
    started = np.maximum.accumulate(sold, axis=1)
    first = int(np.argmax(started.any(axis=0))) if len(names) else most - 1
    return Histories(list(names), np.where(started, table, np.nan)[:, first:], tuple(notes))


def take_back(table: np.ndarray) -> int:
    """Carry what is below 0 to earlier periods, in place; the number of products with something left over."""
    for column in range(table.shape[1] - 1, 0, -1):
        owed = np.minimum(table[:, column], 0.0)
        table[:, column] -= owed
        table[:, column - 1] += owed
    left = table[:, 0] < 0
    table[left, 0] = 0.0
    return int(left.sum())


def local_days(times: np.ndarray, zone: str) -> np.ndarray:
    """Days since 1970-01-01 on the local calendar, int64. The zone's offset is looked up once an hour."""
    place = ZoneInfo(zone)
    hours, position = np.unique(np.floor(times / 3600), return_inverse=True)
    offsets = [
        datetime.fromtimestamp(hour * 3600, timezone.utc).astimezone(place).utcoffset().total_seconds()  # type: ignore[union-attr]
        for hour in hours.tolist()
    ]
    return np.floor((times + np.array(offsets)[position]) / 86_400).astype(np.int64)
