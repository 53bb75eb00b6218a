"""Sponsored places: an auction among products that the search found anyway, priced by the runner-up.

An offer's rank is bid x quality, quality being how relevant and how interesting the product is here. Who wins pays the
least bid with which he would still have won (Varian 2007; Edelman, Ostrovsky & Schwarz 2007), so that nobody gains by a
bid below what a click is worth to him, and money alone does not buy a place that shoppers would not click.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from endcap.errors import ConfigurationError
from endcap.policy.rule import Rule


@dataclass(frozen=True, slots=True)
class Sale:
    """``place``: the product's, in the engine's order. ``position``: where it is shown, from 1. ``price``: of a click,
    in the unit of the bids."""

    rule: str
    place: int
    position: int
    price: float


@dataclass(frozen=True, slots=True)
class Auction:
    """``places``: positions, from 1, that may be sold; none: nothing is. ``reserve``: least price of a click.
    ``second_price``: False: everyone pays his bid."""

    places: tuple[int, ...] = field(default=(1, 4))
    reserve: float = 0.0
    second_price: bool = True

    def __post_init__(self) -> None:
        if len(set(self.places)) < len(self.places) or any(not 1 <= place <= 100 for place in self.places):
            raise ConfigurationError("sponsored_places: positions from 1 to 100 that differ")
        if self.reserve < 0:
            raise ConfigurationError("sponsored_reserve: at least 0")

    def run(
        self, order: np.ndarray, scores: np.ndarray, relevance: np.ndarray, offers: Sequence[tuple[Rule, np.ndarray]]
    ) -> tuple[np.ndarray, list[Sale]]:
        """The order with the winners in their places, and what was sold.

        Args:
            order: int64 (m,), best first; hidden candidates are not in it. scores: (n,) of all candidates.
            relevance: (n,), the engine's score as a share of the best one's, in [0, 1].
            offers: each sponsor rule with the candidates it covers, bool (n,).
        """
        count = len(scores)
        shown = np.zeros(count, dtype=bool)
        shown[order] = True
        standing = np.empty(count)  # 1 for the most interesting candidate, towards 0 for the least
        standing[np.argsort(-scores, kind="stable")] = 1 - np.arange(count) / max(count, 1)
        quality = relevance * standing
        rows: list[tuple[float, int, int, float, str]] = []
        for number, (rule, members) in enumerate(offers):
            bid = float(rule.bid or 0.0)
            eligible = np.flatnonzero(members & shown & (relevance >= float(rule.floor or 0.0)) & (quality > 0))
            if len(eligible) and bid >= self.reserve:
                place = int(eligible[quality[eligible].argmax()])  # one rule, one place: its best product competes
                rows.append((bid * float(quality[place]), -number, place, bid, rule.name))
        rows.sort(reverse=True)
        ranked: list[tuple[float, int, int, float, str]] = []
        for row in rows:
            if row[2] not in {other[2] for other in ranked}:
                ranked.append(row)
        sales: list[Sale] = []
        for (_, _, place, bid, name), position in zip(ranked, sorted(self.places)):
            following = ranked[len(sales) + 1][0] if len(sales) + 1 < len(ranked) else 0.0
            price = max(self.reserve, following / quality[place]) if self.second_price else bid
            sales.append(Sale(name, place, position, round(min(price, bid), 6)))
        return hold(order, {sale.position: sale.place for sale in sales}), sales


def hold(order: np.ndarray, wanted: Mapping[int, int]) -> np.ndarray:
    """Put candidates into positions (from 1); the others keep their order around them. Positions beyond the end of the
    list become its end."""
    if not wanted:
        return order
    held = list(wanted.values())
    rest = order[~np.isin(order, held)].tolist()
    for position in sorted(wanted):
        rest.insert(min(position - 1, len(rest)), wanted[position])
    return np.array(rest, dtype=np.int64)
