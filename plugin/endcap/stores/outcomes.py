"""What came of a ranking: the rankings log joined with what shoppers did afterwards.

An event belongs to the ranking that it names (UBI's ``query_id``). One that names none (a cart or a purchase hardly
ever does) belongs to the last ranking that showed its product to the same shopper within some hours before: so each
event counts for one ranking at most. Impressions that a storefront sends for a known ranking add nothing: what was
shown is in the log.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import and_, or_, select

from endcap.events import Action
from endcap.stores.aliases import aliases
from endcap.stores.database import Database
from endcap.stores.events import events
from endcap.stores.rankings import Rankings, Served, rankings

#: Actions that say something about a product that was shown.
REACTIONS = (Action.VIEW, Action.CLICK, Action.CART, Action.UNCART, Action.PURCHASE, Action.RETURN)
#: Clocks of browsers differ from the server's by so much (seconds) without being wrong.
_SKEW_S = 120.0
_CHUNK = 400
#: Most events of one batch of rankings that are looked at; a shopper with a million is nobody's shopper.
_MOST_EVENTS = 200_000


@dataclass(frozen=True, slots=True)
class Reaction:
    """``position``: the product's place in the list, from 1. ``named``: the event itself named the ranking."""

    product: str
    position: int
    action: Action
    time: float
    quantity: float
    value: float
    named: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A ranking and the reactions to it, in order of time."""

    ranking: Served
    reactions: tuple[Reaction, ...]


class Outcomes:
    """Reads both logs. Thread-safe."""

    def __init__(self, database: Database, hours: float = 24.0) -> None:
        """``hours``: how long after a ranking an event that names none may still belong to it."""
        self._database = database
        self._rankings = Rankings(database)
        self._window_s = hours * 3_600.0

    def since(self, sequence: int, limit: int = 1_000) -> list[Outcome]:
        """The next rankings after number ``sequence`` with their outcomes so far.

        A ranking's outcome is complete once ``hours`` have passed since it.

        Raises:
            LogUnavailable: the database cannot be read.
        """
        return self.of(self._rankings.since(sequence, limit))

    def of(self, served: Sequence[Served]) -> list[Outcome]:
        """These rankings with their outcomes so far, in their order."""
        if not served:
            return []
        found: dict[str, list[Reaction]] = defaultdict(list)
        by_id = {one.id: one for one in served}
        with self._database.transaction(read_only=True) as connection:
            owners = self._owners(connection, served)
            named = _rows(connection, events.c.query_id, by_id)
            shown = self._shown(connection, served, owners)
            ids = {*owners, *(one.shopper for one in served if one.shopper)}
            begin = min(one.time for one in served)
            until = max(one.time for one in served) + self._window_s
            unnamed = _rows(connection, events.c.shopper, ids, begin, until)
        taken: set[int] = set()
        for row in named:
            one = by_id[row.query_id]
            taken.add(row.sequence)
            _add(found[one.id], one, row, named=True)
        for row in unnamed:
            # One that names another ranking belongs there, whether that was logged or not.
            if row.sequence in taken or row.query_id:
                continue
            who = owners.get(row.shopper, row.shopper)
            times, ids_of = shown.get((who, row.product), ((), ()))
            place = bisect.bisect_right(times, row.time) - 1
            if place >= 0 and row.time - times[place] <= self._window_s and ids_of[place] in by_id:
                _add(found[ids_of[place]], by_id[ids_of[place]], row, named=False)
        return [Outcome(one, tuple(sorted(found[one.id], key=lambda r: r.time))) for one in served]

    def _owners(self, connection: Any, served: Sequence[Served]) -> dict[str, str]:
        """Every id that counts for one of the shoppers, and whose it is."""
        shoppers = {one.shopper for one in served if one.shopper}
        owners: dict[str, str] = {}
        for part in _chunks(shoppers):
            of_these = or_(aliases.c.shopper.in_(part), aliases.c.alias.in_(part))
            rows = connection.execute(select(aliases.c.alias, aliases.c.shopper).where(of_these)).all()
            owners.update((row.alias, row.shopper) for row in rows)
        # A ranking shown before the login, an event after it: the shopper's own id counts, too.
        owners.update({owner: owner for owner in list(owners.values())})
        return owners

    def _shown(
        self, connection: Any, served: Sequence[Served], owners: dict[str, str]
    ) -> dict[tuple[str, str], tuple[list[float], list[str]]]:
        """When each (shopper, product) was shown, and by which ranking, over the whole time in question."""
        columns = (rankings.c.id, rankings.c.time, rankings.c.shopper, rankings.c.products)
        begin = min(one.time for one in served)
        until = max(one.time for one in served) + self._window_s
        everyone = {*owners, *(one.shopper for one in served if one.shopper)}
        seen: list[tuple[float, str, str, Sequence[str]]] = []
        for part in _chunks(everyone):
            during = and_(rankings.c.shopper.in_(part), rankings.c.time >= begin, rankings.c.time <= until)
            seen += [
                (row.time, row.id, owners.get(row.shopper, row.shopper), orjson.loads(row.products))
                for row in connection.execute(select(*columns).where(during).limit(_MOST_EVENTS))
            ]
        shown: dict[tuple[str, str], tuple[list[float], list[str]]] = {}
        for time, id, shopper, products in sorted(seen):
            for product in products:
                times, ids = shown.setdefault((shopper, product), ([], []))
                times.append(time)
                ids.append(id)
        return shown


def _rows(connection: Any, column: Any, values: Iterable[str], begin: float = 0.0, until: float = 0.0) -> list[Any]:
    chosen = select(
        events.c.sequence, events.c.query_id, events.c.shopper, events.c.product, events.c.action, events.c.time,
        events.c.quantity, events.c.value,
    ).where(events.c.action.in_([int(one) for one in REACTIONS]))  # fmt: skip
    if until:
        chosen = chosen.where(events.c.time >= begin - _SKEW_S, events.c.time <= until)
    rows: list[Any] = []
    for part in _chunks(values):
        rows += connection.execute(chosen.where(column.in_(part)).limit(_MOST_EVENTS)).all()
    return rows


def _add(reactions: list[Reaction], one: Served, row: Any, named: bool) -> None:
    try:
        position = one.positions[one.products.index(row.product)]
    except ValueError:  # it names the ranking, but was not shown by it
        return
    reactions.append(Reaction(row.product, position, Action(row.action), row.time, row.quantity, row.value, named))


def _chunks(values: Iterable[str]) -> Iterable[list[str]]:
    every = list(values)
    return (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))
