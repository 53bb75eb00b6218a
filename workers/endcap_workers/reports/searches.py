"""What people search for and do not get: searches that end with nothing, products in demand that are out of stock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson
from sqlalchemy import select

from endcap.events import Action
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog, events
from endcap.stores.rankings import rankings
from endcap.suggest import shown_query
from endcap_workers.reports.model import Column, Table

DAYS = 28
#: Searches by fewer shoppers than this are somebody's own business.
FEWEST_SHOPPERS = 3
_MOST_QUERIES = 50_000
_BATCH = 20_000
_TOP = 10


class _Query:
    __slots__ = ("chosen", "empty", "gone", "searches", "shoppers", "shown")

    def __init__(self) -> None:
        self.searches = self.chosen = self.shown = self.gone = self.empty = 0
        self.shoppers: set[str] = set()


def searches(
    database: Database, stock: Mapping[str, float | None], left_out: Collection[str], now: float
) -> list[Table]:
    """Two tables: searches that lead to nothing, and searches whose first products are mostly out of stock.

    ``stock``: product -> pieces, None unknown. Reads the last 28 days of search events and of the rankings log; at
    most 50,000 different searches are followed.
    """
    found: dict[str, _Query] = {}
    owners = Aliases(database, EventLog(database)).mapping()  # a shopper and his devices are one
    _events(database, found, left_out, owners, now)
    _rankings(database, found, stock, left_out, owners, now)
    asked = {text: one for text, one in found.items() if len(one.shoppers) >= FEWEST_SHOPPERS}
    nothing: list[dict[str, Any]] = [
        {
            "title": text,
            "searches": one.searches,
            "shoppers": len(one.shoppers),
            "empty": one.empty,
            "chosen": one.chosen,
        }
        for text, one in asked.items()
        if one.empty or not one.chosen
    ]
    nothing.sort(key=lambda one: (-one["empty"], -one["searches"]))
    gone: list[dict[str, Any]] = [
        {
            "title": text,
            "searches": one.searches,
            "shoppers": len(one.shoppers),
            "gone": round(one.gone / one.shown, 3),
        }
        for text, one in asked.items()
        if one.shown and one.gone / one.shown >= 0.5
    ]
    gone.sort(key=lambda one: -one["searches"])
    searched, people = Column("searches", "Searches", "count"), Column("shoppers", "Shoppers", "count")
    return [
        Table(
            "searches",
            "Searches that end with nothing",
            [Column("title", "Search"), searched, people, Column("empty", "Without a result", "count"),
             Column("chosen", "Products chosen", "count")],
            nothing,
            f"By at least {FEWEST_SHOPPERS} shoppers in {DAYS} days: no result, or nothing in it was chosen.",
        ),
        Table(
            "wanted",
            "In demand, out of stock",
            [Column("title", "Search"), searched, people, Column("gone", "Share out of stock", "share")],
            gone,
            f"Searches whose first {_TOP} products were mostly out of stock.",
        ),
    ]  # fmt: skip


def _events(
    database: Database, found: dict[str, _Query], left_out: Collection[str], owners: Mapping[str, str], now: float
) -> None:
    columns = events.c
    wanted = (Action.SEARCH, Action.CLICK, Action.CART, Action.PURCHASE)
    chosen = select(columns.sequence, columns.shopper, columns.action, columns.query, columns.attributes).where(
        columns.time >= now - DAYS * 86_400.0, columns.query != "", columns.action.in_([int(one) for one in wanted])
    )
    for rows in database.pages(chosen, _BATCH):
        for _, shopper, action, query, attributes in rows:
            one = None if shopper in left_out else _query(found, query)
            if one is None:
                continue
            if len(one.shoppers) < FEWEST_SHOPPERS * 100:
                one.shoppers.add(owners.get(shopper, shopper))
            if action == Action.SEARCH:
                one.searches += 1
                # A storefront that tells how many products it showed says most plainly that there were none.
                hits = orjson.loads(attributes).get("hits") if attributes else None
                one.empty += isinstance(hits, (int, float)) and hits == 0
            else:
                one.chosen += 1


def _rankings(
    database: Database, found: dict[str, _Query], stock: Mapping[str, float | None], left_out: Collection[str],
    owners: Mapping[str, str], now: float,
) -> None:  # fmt: skip
    columns = rankings.c
    chosen = select(columns.sequence, columns.shopper, columns.query, columns.products).where(
        columns.time >= now - DAYS * 86_400.0, columns.query != "", columns.start == 0
    )
    for rows in database.pages(chosen, _BATCH):
        for _, shopper, query, products in rows:
            one = None if shopper in left_out else _query(found, query)
            if one is None:
                continue
            if len(one.shoppers) < FEWEST_SHOPPERS * 100:
                one.shoppers.add(owners.get(shopper, shopper))
            ids = orjson.loads(products)[:_TOP]
            known = [stock.get(product) for product in ids]
            one.shown += len(ids)
            one.gone += sum(amount is not None and amount <= 0 for amount in known)


def _query(found: dict[str, _Query], query: str) -> _Query | None:
    text = shown_query(query)
    if not text:
        return None
    one = found.get(text)
    if one is None and len(found) < _MOST_QUERIES:
        one = found[text] = _Query()
    return one
