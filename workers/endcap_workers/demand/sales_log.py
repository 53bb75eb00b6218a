"""Sales per product and day, streamed from the event log: the shop's own days, returns taken back, flagged shoppers
left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import orjson
from sqlalchemy import select

from endcap.events import Action
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.rankings import rankings
from endcap_workers.demand.history import local_days, take_back
from endcap_workers.log_lines import LogLines, keys_of, read_log

HISTORY_DAYS = 420
#: Looking without buying is counted over so many days.
INTEREST_DAYS = 28
#: More products than this are not followed: made-up ids must not fill the memory.
MOST_PRODUCTS = 300_000
DAY_S = 86_400.0
#: Products of a search's answer that count as looked at; searches read at once.
_SHOWN, _BATCH = 10, 20_000


@dataclass(frozen=True, slots=True)
class SalesLog:
    """n products over d days, the last of which is yesterday (local time).

    ``units``, ``revenue``: float32 (n, d), units never negative; ``first``: int64 (n,) the day (column) of the first
    sale in the window, d where there is none; ``looks``: float32 (n, d // 7) views, clicks, carts and searches that
    showed the product, over the same weeks as :meth:`weekly`; ``interest``: float32 (n,) views, clicks and carts of the
    last ``INTEREST_DAYS``; ``since_sale``: int64 (n,) days since the last sale, d where there is none. ``last_day``:
    days since 1970-01-01 of the last column. ``notes``: what was left out or changed, in words.
    """

    products: list[str]
    units: np.ndarray
    revenue: np.ndarray
    first: np.ndarray
    looks: np.ndarray
    interest: np.ndarray
    since_sale: np.ndarray
    last_day: int
    notes: tuple[str, ...]

    def weekly(self, values: np.ndarray | None = None) -> np.ndarray:
        """float64 (n, weeks): sums (of ``units``) over weeks that end yesterday; NaN before a product's first sale."""
        days = self.units if values is None else values
        weeks = days.shape[1] // 7
        found = days[:, days.shape[1] - weeks * 7 :].reshape(len(days), weeks, 7).sum(axis=2, dtype=np.float64)
        begun = (self.first - (days.shape[1] - weeks * 7)) // 7
        return np.where(np.arange(weeks) >= begun[:, None], found, np.nan)


class _Table:
    """Grows with the products."""

    def __init__(self, days: int) -> None:
        self._days = days
        self.slot: dict[int, int] = {}
        self.names: list[str] = []
        self.units = np.zeros((1024, days), dtype=np.float32)
        self.revenue = np.zeros((1024, days), dtype=np.float32)
        self.sold = np.zeros((1024, days), dtype=bool)
        self.looks = np.zeros((1024, days // 7), dtype=np.float32)
        self.interest = np.zeros(1024, dtype=np.float32)
        #: What came back, a batch each: rows, columns, quantities below 0.
        self.back: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.ignored = 0

    def look(self, rows: np.ndarray, ago: np.ndarray) -> None:
        """Count looks at products (rows), ``ago`` days before yesterday."""
        week = self.looks.shape[1] - 1 - ago // 7
        np.add.at(self.looks, (rows[week >= 0], week[week >= 0]), 1.0)

    def rows(self, keys: np.ndarray, names: list[str]) -> np.ndarray:
        unique, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
        found = np.empty(len(unique), dtype=np.int64)
        for number, (key, row) in enumerate(zip(unique.tolist(), index.tolist())):
            slot = self.slot.get(key, -1)
            if slot < 0 and len(self.names) < MOST_PRODUCTS:
                slot = self.slot[key] = len(self.names)
                self.names.append(names[row])
            found[number] = slot
        if len(self.names) > len(self.units):
            for name in ("units", "revenue", "sold", "looks", "interest"):
                old = getattr(self, name)
                grown = np.zeros((len(self.names) * 3 // 2, *old.shape[1:]), dtype=old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        return found[inverse]


def read_sales(
    database: Database,
    zone: str = "UTC",
    left_out: Collection[str] = (),
    now: float | None = None,
    days: int = HISTORY_DAYS,
    progress: Callable[[float], None] = lambda share: None,
) -> SalesLog:
    """Stream the log once. ``left_out``: shoppers whose behaviour counts for nothing; ``progress``: 0 to 1.

    A return takes from its own day, then from earlier ones, units and their part of the money. A purchase of a negative
    quantity is a return; one without a value sells at an unknown price. What is dated today or later is left out: the
    day is not over, or the clock was wrong.

    Raises:
        LogUnavailable: the log cannot be read.
        zoneinfo.ZoneInfoNotFoundError: there is no such time zone.
    """
    now = time.time() if now is None else now
    today = int(local_days(np.array([now]), zone)[0])
    table, counts = _Table(days), {"future": 0, "left out": 0, "negative": 0}
    excluded = frozenset(left_out)
    last_known = max(EventLog(database).last_sequence(), 1)
    wanted = (Action.PURCHASE, Action.RETURN, Action.VIEW, Action.CLICK, Action.CART)
    for lines in read_log(database, since=now - (days + 2) * DAY_S, actions=wanted):
        _add(table, lines, excluded, counts, now, today, days, zone)
        progress(lines.sequence / last_known)
    _add_searches(table, database, excluded, now, today, days, zone)
    return _finished(table, counts, today, days)


def _add_searches(
    table: _Table, database: Database, excluded: frozenset[str], now: float, today: int, days: int, zone: str
) -> None:
    """Count the searches that showed a product among the first ones: of what was sold, the only products here."""
    columns = rankings.c
    chosen = select(columns.sequence, columns.time, columns.shopper, columns.products).where(
        columns.time >= now - days * DAY_S, columns.query != "", columns.start == 0
    )
    for lines in database.pages(chosen, _BATCH):
        ago = today - 1 - local_days(np.array([line[1] for line in lines]), zone)
        names, when = [], []
        for (_, _, shopper, products), back in zip(lines, ago.tolist()):
            if 0 <= back < days and shopper not in excluded:
                shown = orjson.loads(products)[:_SHOWN]
                names += shown
                when += [back] * len(shown)
        keys = keys_of(names)
        rows = np.array([table.slot.get(key, -1) for key in keys.tolist()], dtype=np.int64)
        table.look(rows[rows >= 0], np.array(when, dtype=np.int64)[rows >= 0])


def _add(
    table: _Table, lines: LogLines, excluded: frozenset[str], counts: dict[str, int], now: float, today: int,
    days: int, zone: str,
) -> None:  # fmt: skip
    usable = lines.product != 0
    if excluded:
        kept = np.fromiter((one not in excluded for one in lines.shoppers), dtype=bool, count=len(lines))
        counts["left out"] += int((~kept).sum())
        usable &= kept
    ago = today - 1 - local_days(lines.time, zone)
    counts["future"] += int((usable & (lines.time > now)).sum())
    usable &= (ago >= 0) & (ago < days)
    if not usable.any():
        return
    at = np.flatnonzero(usable)
    rows = table.rows(lines.product[at], [lines.products[row] for row in at.tolist()])
    table.ignored += int((rows < 0).sum())
    at, rows = at[rows >= 0], rows[rows >= 0]
    action, column = lines.action[at], days - 1 - ago[at]
    looked = np.isin(action, (Action.VIEW, Action.CLICK, Action.CART))
    table.look(rows[looked], ago[at][looked])
    looked &= ago[at] < INTEREST_DAYS
    np.add.at(table.interest, rows[looked], 1.0)
    trade = np.isin(action, (Action.PURCHASE, Action.RETURN))
    back = action == Action.RETURN
    quantity = np.where(back, -np.abs(lines.quantity[at]), lines.quantity[at])
    counts["negative"] += int((trade & ~back & (quantity < 0)).sum())
    given = trade & (quantity < 0)
    if given.any():
        table.back.append((rows[given], column[given], quantity[given]))
    sale = trade & (quantity > 0)
    np.add.at(table.units, (rows[sale], column[sale]), quantity[sale])
    table.sold[rows[sale], column[sale]] = True
    np.add.at(table.revenue, (rows[sale], column[sale]), np.maximum(lines.value[at][sale], 0.0))


def _finished(table: _Table, counts: dict[str, int], today: int, days: int) -> SalesLog:
    count = len(table.names)
    units, sold, revenue = table.units[:count].astype(np.float64), table.sold[:count], table.revenue[:count]
    over = _take_back(units, revenue, table.back)
    notes = []
    if counts["future"]:
        notes.append(f"{counts['future']:,} events dated in the future are left out")
    if counts["left out"]:
        notes.append(f"{counts['left out']:,} events of flagged shoppers are left out")
    if counts["negative"]:
        notes.append(f"{counts['negative']:,} purchases of a negative quantity count as returns")
    if table.ignored:
        notes.append(f"{table.ignored:,} events of products beyond the first {MOST_PRODUCTS:,} are left out")
    if over:
        notes.append(f"{over:,} products with more returns than sales in the window: the rest is left out")
    ever = sold.any(axis=1)
    first = np.where(ever, sold.argmax(axis=1), days)
    since = np.where(ever, sold[:, ::-1].argmax(axis=1), days)
    return SalesLog(
        list(table.names), units.astype(np.float32), revenue, first, table.looks[:count],
        table.interest[:count], since,
        today - 1, tuple(notes),
    )  # fmt: skip


def _take_back(
    units: np.ndarray, revenue: np.ndarray, back: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> int:  # fmt: skip
    """Take what came back out of what was sold and, in the same proportion, out of its money, both (n, days), in place:
    or what was kept would seem to have been dear. Gives the products with more of it than sales."""
    if not back:
        return 0
    rows, columns, quantities = (np.concatenate(one) for one in zip(*back))
    these, place = np.unique(rows, return_inverse=True)
    sold = units[these]
    kept = sold.copy()
    np.add.at(kept, (place, columns), quantities)
    over = take_back(kept)
    units[these] = kept
    revenue[these] *= np.divide(kept, sold, out=np.zeros_like(kept), where=sold > 0)
    return over
