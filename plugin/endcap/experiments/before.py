"""What shoppers bought before an experiment began: the covariate of CUPED."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import case, func, select

from endcap.events import Action
from endcap.stores.aliases import aliases
from endcap.stores.database import Database
from endcap.stores.events import events

#: So far back it is looked: long enough for what is bought monthly.
DAYS = 28.0
_CHUNK = 400


@dataclass(slots=True)
class Before:
    """``purchases``: lines bought. ``spent``: their money, less what was returned."""

    purchases: float = 0.0
    spent: float = 0.0


def bought_before(
    database: Database, shoppers: Collection[str], started: float, days: float = DAYS
) -> dict[str, Before]:
    """By shopper, of those who bought anything in the ``days`` before ``started`` (seconds since 1970), under any of
    the ids that were known to be theirs by then.

    Raises:
        LogUnavailable: the database cannot be read.
    """
    found: dict[str, Before] = {}
    worth = func.abs(events.c.value)  # of the whole line; below 0 of a refund, with some storefronts
    bought = events.c.action == int(Action.PURCHASE)
    totals = (
        events.c.shopper,
        func.sum(case((bought, 1), else_=0)).label("purchases"),
        func.sum(case((bought, worth), else_=-worth)).label("spent"),
    )
    wanted = sorted(shoppers)
    for start in range(0, len(wanted), _CHUNK):
        part = wanted[start : start + _CHUNK]
        with database.transaction(read_only=True) as connection:
            # An arm may bring about log-ins: who was joined since then would tell which arm it was.
            joined = select(aliases.c.alias, aliases.c.shopper).where(
                aliases.c.shopper.in_(part), aliases.c.time < started
            )
            owners = {row.alias: row.shopper for row in connection.execute(joined)}
            chosen = select(*totals).where(
                events.c.shopper.in_([*part, *owners]),
                events.c.action.in_([int(Action.PURCHASE), int(Action.RETURN)]),
                events.c.time >= started - days * 86_400.0,
                events.c.time < started,
            )
            rows = connection.execute(chosen.group_by(events.c.shopper)).all()
        for row in rows:
            one = found.setdefault(owners.get(row.shopper, row.shopper), Before())
            one.purchases += float(row.purchases)
            one.spent += float(row.spent)
    return found
