"""What people search for and do not get: searches that end with nothing, products in demand that are out of stock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import func, select

from endcap.events import Action
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog, events
from endcap.stores.outcomes import Outcomes
from endcap.stores.rankings import Rankings, rankings
from endcap.suggest import shown_query
from endcap_workers.reports.model import Column, Table

DAYS = 28
#: Searches by fewer shoppers than this are somebody's own business.
FEWEST_SHOPPERS = 3
_MOST_QUERIES = 50_000
_BATCH = 20_000
_TOP = 10
#: A search is out of stock where so large a share of its first products is.
_GONE = 0.3
#: Rankings that are held against what was chosen afterwards without saying why, how many at a time, and how many of
#: each search in the first round.
_MOST_FOLLOWED, _FOLLOWED, _FIRST_ROUND = 50_000, 1_000, 3


class _Query:
    """Counts of one search. A storefront may send an event for what the server logged as well: of both counts the
    larger one is taken, so that no search counts twice."""

    __slots__ = ("chosen", "gone", "served", "shoppers", "shown", "told", "told_empty", "unfound")

    def __init__(self) -> None:
        self.told = self.told_empty = self.served = self.unfound = self.chosen = self.shown = self.gone = 0
        self.shoppers: set[str] = set()

    @property
    def searches(self) -> int:
        return max(self.told, self.served)

    @property
    def empty(self) -> int:
        return max(self.told_empty, self.unfound)

    def by(self, who: str) -> None:
        if who and len(self.shoppers) < FEWEST_SHOPPERS * 100:
            self.shoppers.add(who)


@dataclass(frozen=True, slots=True)
class Searched:
    """``searches`` of the last 28 days, ``empty``: those without a result; ``tables``: what there is to see."""

    searches: int
    empty: int
    tables: tuple[Table, ...]


def searches(
    database: Database,
    stock: Mapping[str, float | None],
    left_out: Collection[str],
    now: float,
    hours: float = 24.0,
) -> Searched:
    """Two tables: searches that lead to nothing, and searches whose first products are often out of stock.

    ``stock``: product -> pieces, None unknown; ``hours``: how long after a search a purchase of what it showed may
    come of it. Reads the last 28 days of search events and of the rankings log; at most 50,000 different searches are
    followed.
    """
    found: dict[str, _Query] = {}
    owners = Aliases(database, EventLog(database)).mapping()  # a shopper and his devices are one
    _events(database, found, left_out, owners, now)
    _rankings(database, found, stock, left_out, owners, now)
    asked = {text: one for text, one in found.items() if len(one.shoppers) >= FEWEST_SHOPPERS}
    _follow(database, {text: one for text, one in asked.items() if not one.chosen and one.served}, now, hours)
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
        if one.shown and one.gone / one.shown >= _GONE
    ]
    gone.sort(key=lambda one: -one["searches"] * one["gone"])
    searched, people = Column("searches", "Searches", "count"), Column("shoppers", "Shoppers", "count")
    tables = (
        Table(
            "searches",
            "Searches that end with nothing",
            [Column("title", "Search"), searched, people, Column("empty", "Without a result", "count"),
             Column("chosen", "Products chosen, at least", "count")],
            nothing,
            f"By at least {FEWEST_SHOPPERS} shoppers in {DAYS} days: no result, or nothing in it was chosen.",
        ),
        Table(
            "wanted",
            "In demand, out of stock",
            [Column("title", "Search"), searched, people, Column("gone", "Share out of stock", "share")],
            gone,
            f"Searches of whose first {_TOP} products at least {_GONE:.0%} are out of stock.",
        ),
    )  # fmt: skip
    every = found.values()
    return Searched(sum(one.searches for one in every), sum(one.empty for one in every), tables)


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
            one.by(owners.get(shopper, shopper))
            if action == Action.SEARCH:
                one.told += 1
                # A storefront that tells how many products it showed says most plainly that there were none.
                hits = orjson.loads(attributes).get("hits") if attributes else None
                one.told_empty += isinstance(hits, (int, float)) and hits == 0
            else:
                one.chosen += 1


def _rankings(
    database: Database, found: dict[str, _Query], stock: Mapping[str, float | None], left_out: Collection[str],
    owners: Mapping[str, str], now: float,
) -> None:  # fmt: skip
    columns = rankings.c
    chosen = select(columns.sequence, columns.shopper, columns.session, columns.query, columns.products)
    for rows in database.pages(chosen.where(*_searched(now)), _BATCH):
        for _, shopper, session, query, products in rows:
            one = None if shopper in left_out else _query(found, query)
            if one is None:
                continue
            # Of those who did not say who they are, a visit counts as one.
            one.by(owners.get(shopper, shopper) or (f"\0{session}" if session else ""))
            ids = orjson.loads(products)[:_TOP]
            one.served += 1
            one.unfound += not ids
            known = [stock.get(product) for product in ids]
            one.shown += len(ids)
            one.gone += sum(amount is not None and amount <= 0 for amount in known)


def _searched(now: float) -> tuple[Any, ...]:
    """What picks the rankings log's first pages of searches."""
    columns = rankings.c
    return columns.time >= now - DAYS * 86_400.0, columns.query != "", columns.start == 0


def _follow(database: Database, found: dict[str, _Query], now: float, hours: float) -> None:
    """Count what was chosen after these searches by events that name none, as a purchase hardly ever does: until it is
    known that something was. The latest of each search are looked at first, a few of every search in a round."""
    if not found:
        return
    columns, outcomes, log = rankings.c, Outcomes(database, hours), Rankings(database)
    waiting: dict[str, list[int]] = {}
    chosen = select(columns.sequence, columns.query, func.length(columns.products)).where(*_searched(now))
    for rows in database.pages(chosen, _BATCH):
        for number, query, size in rows:
            if size > len("[]") and (text := shown_query(query)) in found:
                waiting.setdefault(text, []).append(number)
    followed, some = 0, _FIRST_ROUND
    while waiting and followed < _MOST_FOLLOWED:
        numbers = sorted(number for later in waiting.values() for number in later[-some:])
        for start in range(0, len(numbers), _FOLLOWED):
            part = numbers[start : start + _FOLLOWED]  # close in time: that is what an outcome's cost depends on
            for outcome in outcomes.of(log.read(select(rankings).where(columns.sequence.in_(part)), len(part))):
                found[shown_query(outcome.ranking.query)].chosen += len({one.product for one in outcome.reactions})
        followed += len(numbers)
        left = ((text, later[:-some]) for text, later in waiting.items() if not found[text].chosen)
        waiting, some = {text: later for text, later in left if later}, 4 * some


def _query(found: dict[str, _Query], query: str) -> _Query | None:
    text = shown_query(query)
    if not text:
        return None
    one = found.get(text)
    if one is None and len(found) < _MOST_QUERIES:
        one = found[text] = _Query()
    return one
