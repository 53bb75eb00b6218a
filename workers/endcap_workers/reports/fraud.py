"""The fraud report: who is suspected and why, what people decided, which purchases look wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from sqlalchemy import select

from endcap.events import Action
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.events import events
from endcap.stores.flags import CONFIRMED, DISMISSED, KINDS, SUSPECTED, Flag, Flags
from endcap_workers.fraud.label_free import LabelFreeDetector
from endcap_workers.fraud.sales import sales_features
from endcap_workers.reports.looked import Looked
from endcap_workers.reports.model import Chart, Column, Report, Table, Tile

#: Days whose purchases are looked through one by one, and how many of them at most.
ORDER_DAYS, MOST_ORDERS = 30, 100_000
_STRANGE_ORDERS, _MOST_FLAGS, _SHOWN_DAYS = 100, 5_000, 30
_DAY_S = 86_400.0

Progress = Callable[[float, float, str], None]


def fraud_report(
    database: Database,
    settings: Settings,
    titles: Mapping[str, str],
    sellers: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total, phase: None,
    now: float | None = None,
    days: float = 1.0,
) -> Report:
    """What the flags say now, and single purchases that are strange for their product.

    ``titles``: product -> title; ``sellers``: product -> seller; ``days``: what counts as new.

    Raises:
        LogUnavailable: the database cannot be read.
    """
    now = time.time() if now is None else now
    flags = Flags(database)
    progress(0.05, 1.0, "reading flags")
    found = {kind: flags.queue(kind=kind, limit=_MOST_FLAGS) for kind in KINDS}
    everything = [flag for kind in KINDS for flag in found[kind]]
    left_out = flags.excluded_shoppers()
    progress(0.2, 1.0, "counting what is left out")
    total, excluded = _actions(database, left_out, now - settings.fraud_window_days * _DAY_S)
    looked, zone = Looked.last(database, now), ZoneInfo(settings.time_zone)
    progress(0.5, 1.0, "looking at purchases")
    orders = _orders(database, titles, sellers or {}, now)
    progress(0.95, 1.0, "writing")
    labels = flags.labels()
    open_ = [flag for flag in everything if flag.state == SUSPECTED]
    new = [flag for flag in everything if flag.created >= now - days * _DAY_S]
    counts = flags.counts()
    tables = [
        _flag_table(kind, [one for one in found[kind] if one.state != DISMISSED], titles, looked) for kind in KINDS
    ]
    tables += [orders, _decided(everything)]
    share = excluded / total if total else 0.0
    decided = len(labels)
    precision = sum(labels.values()) / decided if decided else None
    said = "" if precision is None else f"{precision:.0%} of the decided were fraud"
    tiles = [
        looked.tile(zone),
        Tile(
            "Waiting for a decision", f"{len(open_):,}", "suspected", "warn" if open_ else "good" if looked.when else ""
        ),
        Tile("New", f"{len(new):,}", "in the last day" if days <= 1 else f"in the last {days:.0f} days"),
        Tile("Shoppers left out", f"{len(left_out):,}", "suspected or confirmed"),
        Tile("Actions left out", f"{share:.2%}", f"{excluded:,} of {total:,}", "bad" if share > 0.05 else ""),
        Tile("Confirmed", f"{sum(kinds[CONFIRMED] for kinds in counts.values()):,}"),
        Tile("Dismissed", f"{sum(kinds[DISMISSED] for kinds in counts.values()):,}", said),
    ]
    notes = looked.notes(_actions(database, frozenset(), looked.when)[0] if looked.stale else 0)
    for kind in KINDS:
        every = sum(counts[kind].values())
        if every > _MOST_FLAGS:
            notes.append(f"of {every:,} flagged {kind}s the {_MOST_FLAGS:,} with the highest score are listed")
    if not total:
        notes.append("there is no behaviour in the window: nothing could be found")
    line = f"Behaviour of the last {settings.fraud_window_days:.0f} days; {looked.line(zone)}"
    return Report(
        "fraud", "Fraud", line, now,
        settings.time_zone, settings.currency, tiles, _charts(everything, now, zone), tables, notes,
    )  # fmt: skip


def _actions(database: Database, left_out: frozenset[str], since: float) -> tuple[int, int]:
    """Actions in the window, and those of shoppers who are left out."""
    from sqlalchemy import func

    total, excluded = 0, 0
    recent = events.c.time >= since
    with database.transaction(read_only=True) as connection:
        total = int(connection.execute(select(func.count()).select_from(events).where(recent)).scalar() or 0)
        names = sorted(left_out)
        for start in range(0, len(names), 500):
            some = events.c.shopper.in_(names[start : start + 500])
            counted = select(func.count()).select_from(events).where(some, recent)
            excluded += int(connection.execute(counted).scalar() or 0)
    return total, excluded


def _orders(database: Database, titles: Mapping[str, str], sellers: Mapping[str, str], now: float) -> Table:
    """The purchases of the last month that are strangest for their product and seller."""
    columns = events.c
    chosen = select(columns.id, columns.time, columns.shopper, columns.product, columns.quantity, columns.value)
    chosen = chosen.where(columns.action == int(Action.PURCHASE), columns.time >= now - ORDER_DAYS * _DAY_S)
    with database.transaction(read_only=True) as connection:
        rows = connection.execute(chosen.order_by(columns.sequence.desc()).limit(MOST_ORDERS)).all()
    listed: list[dict[str, Any]] = []
    if len(rows) >= 50:
        products, values = [row[3] for row in rows], [row[5] or None for row in rows]
        shops = [sellers.get(product, "") for product in products]
        features = sales_features(products, shops, [row[4] for row in rows], values)
        detector = LabelFreeDetector(trees=100).fit(features)
        scores = detector.score(features)
        best = np.argsort(-scores, kind="stable")[:_STRANGE_ORDERS]
        reasons = detector.reasons(features.rows(best), 2)
        listed = [
            {
                "id": rows[row][0],
                "title": titles.get(rows[row][3], rows[row][3]),
                "shopper": rows[row][2],
                "time": rows[row][1],
                "quantity": rows[row][4],
                "value": rows[row][5],
                "score": float(scores[row]),
                "why": "; ".join(reason.text for reason in why),
            }
            for row, why in zip(best.tolist(), reasons)
        ]
    return Table(
        "orders",
        "Purchases to look at",
        [Column("title", "Product"), Column("shopper", "Shopper"), Column("time", "When (UTC)", "time"),
         Column("quantity", "Pieces", "number"), Column("value", "Value", "money"), Column("score", "Strange", "share"),
         Column("why", "Why")],
        listed,
        f"The strangest of the last {ORDER_DAYS} days' purchases (at most {MOST_ORDERS:,}) by price and quantity. "
        "Being here proves nothing.",
    )  # fmt: skip


def _flag_table(kind: str, found: Sequence[Flag], titles: Mapping[str, str], looked: Looked) -> Table:
    rows = [
        {
            "id": flag.subject,
            "title": titles.get(flag.subject, flag.subject) if kind == "product" else flag.subject,
            "state": flag.state,
            "score": flag.score,
            "since": flag.created,
            "actions": flag.evidence.get("actions"),
            "why": "; ".join(flag.reasons),
            "flag": flag.id,
        }
        for flag in sorted(found, key=lambda one: (one.state != SUSPECTED, -one.score))
    ]
    columns = [
        Column("title", kind.capitalize()), Column("state", "State"), Column("score", "Score", "share"),
        Column("since", "Since (UTC)", "time"),
    ]  # fmt: skip
    if kind == "shopper":
        columns.append(Column("actions", "Actions", "count"))
    columns += [Column("why", "Why"), Column("flag", "Flag", "count")]
    line = "" if rows else looked.nothing(kind)
    return Table(f"{kind}s", f"Flagged {kind}s", columns, rows, line or "Those that wait for a decision first.")


def _decided(found: Sequence[Flag]) -> Table:
    rows = [
        {"id": one.subject, "title": one.subject, "kind": one.kind, "state": one.state, "when": one.updated}
        for one in sorted(found, key=lambda one: -one.updated)
        if one.state in (CONFIRMED, DISMISSED)
    ]
    columns = [
        Column("title", "Who"), Column("kind", "Kind"), Column("state", "Decided"),
        Column("when", "When (UTC)", "time"),
    ]  # fmt: skip
    return Table("decided", "What people decided", columns, rows, "The latest first.")


def _charts(found: Sequence[Flag], now: float, zone: ZoneInfo) -> list[Chart]:
    today = datetime.fromtimestamp(now, zone).date()
    days = [today - timedelta(days=number) for number in range(_SHOWN_DAYS - 1, -1, -1)]
    made = Counter(datetime.fromtimestamp(one.created, zone).date() for one in found)
    kinds = Counter(one.kind for one in found if one.state in (SUSPECTED, CONFIRMED))
    why: Counter[str] = Counter()
    for one in found:
        if one.state in (SUSPECTED, CONFIRMED) and one.kind == "shopper":
            why[_said(one)] += 1
    products = Counter(
        str(one.evidence["product"])
        for one in found
        if one.kind == "shopper" and one.evidence.get("product") and one.state in (SUSPECTED, CONFIRMED)
    )
    return [
        Chart(
            "lines", "New flags a day", [f"{day:%d %b}" for day in days],
            [("flags", [float(made.get(day, 0)) for day in days])],
        ),
        Chart("bars", "Flagged now", [kind for kind in KINDS if kinds[kind]],
              [("flags", [float(kinds[kind]) for kind in KINDS if kinds[kind]])]),
        Chart("bars", "Why shoppers are flagged", [name for name, _ in why.most_common(8)],
              [("shoppers", [float(count) for _, count in why.most_common(8)])]),
        Chart("bars", "Products that flagged shoppers share", [name for name, _ in products.most_common(10)],
              [("shoppers", [float(count) for _, count in products.most_common(10)])]),
    ]  # fmt: skip


def _said(flag: Flag) -> str:
    """The first reason, without its numbers."""
    first = flag.reasons[0] if flag.reasons else "no reason given"
    if first.startswith("chose product"):
        return "many new shoppers on one product"
    if "within a minute" in first:
        return "too many events a minute"
    return first.split(":")[0].split(",")[0]
