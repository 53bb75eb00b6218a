"""Business rules applied to a search's candidates: whole columns at a time, each effect noted where it happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.features import INDEX, RankingInputs
from endcap.policy.blend import SLATE
from endcap.policy.context import Visit
from endcap.policy.diversity import capped, diversified
from endcap.policy.members import Members
from endcap.policy.rule import Rule, Target
from endcap.policy.sponsored import Auction, Sale, hold

#: How often a shopper was shown each of some products within some hours: (shopper, ids, hours) -> (n,).
Shown = Callable[[str, Sequence[str], float], np.ndarray]
SPONSORED = "sponsored"


@dataclass(slots=True)
class Ruled:
    """What rules made of a ranking. ``order`` lacks what is hidden; ``notes`` and ``labels`` go by place in the
    engine's order."""

    order: np.ndarray
    scores: np.ndarray
    notes: dict[int, list[str]] = field(default_factory=dict)
    labels: dict[int, list[str]] = field(default_factory=dict)
    sales: list[Sale] = field(default_factory=list)
    #: What is pinned to a position (from 1); of :meth:`RuleBook.shelf` also what is sold there, for whoever makes the
    #: list.
    held: dict[int, int] = field(default_factory=dict)

    def note(self, places: Sequence[int] | np.ndarray, text: str) -> None:
        for place in np.asarray(places).tolist():
            self.notes.setdefault(int(place), []).append(text)


class RuleBook:
    """The rules in force, compiled for the product tables in use: the one that searches use and the one that comes
    next. Immutable but for that cache; thread-safe."""

    def __init__(
        self, rules: Mapping[int, Rule] | None = None, auction: Auction | None = None, shown: Shown | None = None
    ) -> None:
        """``rules`` by number. ``shown``: how often products were shown; without it frequency caps do nothing."""
        chosen = [(number, rule) for number, rule in (rules or {}).items() if rule.enabled]
        chosen.sort(key=lambda pair: (-pair[1].priority, pair[0]))
        self.rules = tuple(rule for _, rule in chosen)
        self._auction = auction or Auction()
        self._shown = shown
        self._compiled: tuple[tuple[ProductTable, list[tuple[Members, Members]]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def members(self, inputs: RankingInputs, number: int) -> np.ndarray:
        """Which candidates a rule's target covers; bool (n,)."""
        return self._members(inputs.table)[number][0].at(inputs.rows)

    def _members(self, table: ProductTable) -> list[tuple[Members, Members]]:
        """Each rule's target, and the categories of its condition, looked up in a table once."""
        for known, found in self._compiled:
            if known is table:
                return found
        made = [
            (Members(rule.target, table), Members(Target(categories=rule.when.categories), table))
            for rule in self.rules
        ]
        self._compiled = ((table, made), *self._compiled[:1])
        return made

    def prepare(self, table: ProductTable) -> None:
        """Look every target up in a table now: a search must not wait for that."""
        for rule, (target, _) in zip(self.rules, self._members(table), strict=True):
            if rule.kind == "hide":
                _ = target.mask

    def applying(self, inputs: RankingInputs, visit: Visit) -> list[int]:
        """Numbers of the rules whose conditions hold in this search."""
        query, words, moment = _read(inputs.query, inputs.now)
        found = self._members(inputs.table)
        return [
            number
            for number, rule in enumerate(self.rules)
            if _holds(rule, query, words, moment, inputs.now, visit) and self._about(number, found, inputs.rows)
        ]

    def hidden(self, table: ProductTable, visit: Visit, now: float, query: str = "") -> np.ndarray | None:
        """What is not to be shown now, whatever it is found among; bool (products,), None: nothing. Rules that ask what
        most of the found products are cannot be judged here: :meth:`shelf` and :meth:`places` apply them."""
        gone: np.ndarray | None = None
        for number in self._hiding(visit, now, query):
            mask = self._members(table)[number][0].mask
            gone = mask if gone is None else gone | mask
        return gone

    @property
    def hiding(self) -> bool:
        """May any product be hidden at some time?"""
        return any(rule.kind == "hide" for rule in self.rules)

    def hidden_among(
        self,
        ids: Sequence[str],
        table: ProductTable | None,
        visit: Visit,
        now: float,
        query: str = "",
        documents: Sequence[Mapping[str, Any] | None] = (),
        whole: bool = True,
    ) -> np.ndarray:
        """Which of some found products are not to be shown now, ranked or not; bool (n,).

        Args:
            table: the products; None: they are not loaded yet.
            documents: by which products that the table does not know are judged, where there are any.
            whole: these are all that was found, as far as anyone knows. Otherwise, and without a table, rules that ask
                what most of the found products are cannot be judged, and hide nothing.
        """
        gone = np.zeros(len(ids), dtype=bool)
        if not self.hiding or not len(ids):
            return gone
        text, words, moment = _read(query, now)
        numbers = [
            number
            for number, rule in enumerate(self.rules)
            if rule.kind == "hide"
            and _holds(rule, text, words, moment, now, visit)
            and not (rule.when.categories and (table is None or not whole))
        ]
        rows = np.full(len(ids), -1, dtype=np.int64)
        if table is not None and numbers:
            rows = table.rows(ids)
            found = self._members(table)
            numbers = [one for one in numbers if self._about(one, found, rows)]
            for number in numbers:
                gone |= found[number][0].at(rows)
        targets = [self.rules[number].target for number in numbers]
        for place in np.flatnonzero(rows < 0).tolist():
            document = {**((documents[place] if documents else None) or {}), "id": ids[place]}
            gone[place] = any(target.covers(document) for target in targets)
        return gone

    def _about(self, number: int, found: list[tuple[Members, Members]], rows: np.ndarray) -> bool:
        """Are most of the found products what the rule asks for?"""
        return not self.rules[number].when.categories or float(found[number][1].at(rows).mean()) > 0.5

    def _hiding(self, visit: Visit, now: float, query: str) -> list[int]:
        rules = enumerate(self.rules)
        hiding = [number for number, rule in rules if rule.kind == "hide" and not rule.when.categories]
        if not hiding:
            return []
        query, words, moment = _read(query, now)
        return [one for one in hiding if _holds(self.rules[one], query, words, moment, now, visit)]

    def shelf(
        self, inputs: RankingInputs, visit: Visit, ids: Sequence[str] = (), shopper: str = "", pins: bool = False,
        sells: int = 0,
    ) -> Ruled:  # fmt: skip
        """A recommended list under the rules that mean something there: all but those that spread it, which a
        placement does by itself. What is pinned or sold is in ``held``.

        Args:
            inputs: ``engine_scores`` are the logarithms of its scores; features are not looked at.
            pins: pins hold there. sells: of so many first places those that the shop sells are sold; 0: none is.
        """
        numbers = self.applying(inputs, visit)
        rules = [(number, self.rules[number]) for number in numbers]
        ruled = Ruled(np.empty(0, dtype=np.int64), inputs.engine_scores)
        self.boosts(numbers, inputs, ruled)
        ruled.order = np.argsort(-ruled.scores, kind="stable")
        self.hide(numbers, inputs, ruled)
        self._often(rules, inputs, ids, shopper, ruled)
        self._sold_out(numbers, inputs, ruled)
        if pins:
            ruled.held = self._pinned(rules, inputs, ruled)
        if sells and len(inputs.rows):
            relevance = np.exp((inputs.engine_scores - inputs.engine_scores.max()).astype(np.float64))
            self._sell(rules, inputs, ruled, relevance, sells)
            ruled.held.update({sale.position: sale.place for sale in ruled.sales})
        return ruled

    def boosts(self, numbers: Sequence[int], inputs: RankingInputs, ruled: Ruled) -> None:
        """Change the profile's scores."""
        scores = ruled.scores.copy() if numbers else ruled.scores
        deviation = float(ruled.scores.std()) or 1.0
        for number in numbers:
            rule = self.rules[number]
            if rule.kind not in ("boost", "bury"):
                continue
            places = np.flatnonzero(self.members(inputs, number))
            if len(places):
                sign = 1.0 if rule.kind == "boost" else -1.0
                scores[places] += np.float32(sign * (rule.amount or 0.0) * deviation)
                ruled.note(places, f"{'Raised' if sign > 0 else 'Lowered'} by the rule “{rule.name}”")
        ruled.scores = scores

    def places(
        self, numbers: Sequence[int], inputs: RankingInputs, ids: Sequence[str], shopper: str, ruled: Ruled
    ) -> None:
        """Everything that is about places in the list, from the weakest demand to the strongest."""
        rules = [(number, self.rules[number]) for number in numbers]
        self.hide(numbers, inputs, ruled)
        brands = inputs.table.brand[inputs.rows]
        for _, rule in rules:
            if rule.kind == "diversity":
                before = ruled.order
                ruled.order = diversified(
                    before, ruled.scores, inputs.rows, inputs.table, float(rule.share or 0.0), SLATE
                )
                ruled.note(_risen(before, ruled.order, SLATE), f"For variety, by the rule “{rule.name}”")
            elif rule.kind == "brand_cap":
                before = ruled.order
                ruled.order = capped(before, brands, int(rule.most or 1), SLATE)
                ruled.note(_fallen(before, ruled.order), f"Behind others of its brand by the rule “{rule.name}”")
        self._often(rules, inputs, ids, shopper, ruled)
        self._sold_out(numbers, inputs, ruled)
        ruled.held = self._pinned(rules, inputs, ruled)
        ruled.order = hold(ruled.order, ruled.held)
        relevance = np.exp(inputs.features[:, INDEX["engine_score"]].astype(np.float64))
        ruled.order = self._sell(rules, inputs, ruled, relevance)

    def _often(
        self, rules: Sequence[tuple[int, Rule]], inputs: RankingInputs, ids: Sequence[str], shopper: str, ruled: Ruled
    ) -> None:
        for number, rule in rules:
            if rule.kind == "frequency_cap" and self._shown is not None and shopper:
                often = self._shown(shopper, ids, float(rule.hours or 24.0)) >= (rule.most or 1)
                if not rule.target.empty:
                    often &= self.members(inputs, number)
                _to_the_end(ruled, often, f"Shown often enough by the rule “{rule.name}”")

    def hide(self, numbers: Sequence[int], inputs: RankingInputs, ruled: Ruled) -> None:
        """Take what is not to be shown out of the order."""
        hidden = np.zeros(len(inputs.rows), dtype=bool)
        for number in numbers:
            if self.rules[number].kind == "hide":
                hidden |= self.members(inputs, number)
        ruled.order = ruled.order[~hidden[ruled.order]]

    def _sold_out(self, numbers: Sequence[int], inputs: RankingInputs, ruled: Ruled) -> None:
        if any(self.rules[number].kind == "out_of_stock_last" for number in numbers):
            gone = inputs.table.stock[inputs.rows] <= 0  # NaN, unknown, is not
            _to_the_end(ruled, gone, "Out of stock")

    def _pinned(self, rules: Sequence[tuple[int, Rule]], inputs: RankingInputs, ruled: Ruled) -> dict[int, int]:
        """Position -> place of what is pinned to it."""
        wanted: dict[int, int] = {}
        for number, rule in rules:
            if rule.kind != "pin":
                continue
            found = np.flatnonzero(self.members(inputs, number)[ruled.order])
            if len(found) and rule.position not in wanted and int(ruled.order[found[0]]) not in wanted.values():
                place = int(ruled.order[found[0]])
                wanted[int(rule.position or 1)] = place
                ruled.note([place], f"Pinned to place {rule.position} by the rule “{rule.name}”")
        return wanted

    def _sell(
        self,
        rules: Sequence[tuple[int, Rule]],
        inputs: RankingInputs,
        ruled: Ruled,
        relevance: np.ndarray,
        within: int = 1_000,
    ) -> np.ndarray:
        """The order with what was sold in its places."""
        offers = [(rule, self.members(inputs, number)) for number, rule in rules if rule.kind == "sponsor"]
        auction = replace(self._auction, places=tuple(one for one in self._auction.places if one <= within))
        if not offers or not auction.places:
            return ruled.order
        order, ruled.sales = auction.run(ruled.order, ruled.scores, relevance, offers)
        for sale in ruled.sales:
            ruled.labels.setdefault(sale.place, []).append(SPONSORED)
            ruled.note([sale.place], f"Sponsored (“{sale.rule}”)")
        return order


def _read(query: str, now: float) -> tuple[str, frozenset[str], datetime]:
    query = " ".join(query.lower().split())
    return query, frozenset(query.split()), datetime.fromtimestamp(now, timezone.utc)


def _holds(rule: Rule, query: str, words: frozenset[str], moment: datetime, now: float, visit: Visit) -> bool:
    """Do the conditions hold, but for what the found products are?"""
    when = rule.when
    if when.since is not None and now < when.since:
        return False
    if when.until is not None and now >= when.until:
        return False
    if when.hours and moment.hour not in when.hours:
        return False
    if when.weekdays and moment.weekday() not in when.weekdays:
        return False
    if when.segments and visit.segment not in when.segments:
        return False
    if when.queries and query not in when.asked:
        return False
    return not when.words or not when.asked_words.isdisjoint(words)


def _to_the_end(ruled: Ruled, last: np.ndarray, text: str) -> None:
    there = last[ruled.order]
    if there.any():
        ruled.note(ruled.order[there], text)
        ruled.order = np.concatenate([ruled.order[~there], ruled.order[there]])


def _risen(before: np.ndarray, after: np.ndarray, places: int) -> np.ndarray:
    """What came into the first places."""
    return after[:places][~np.isin(after[:places], before[:places])]


def _fallen(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What was overtaken by something that stood below it."""
    was = np.empty(int(before.max(initial=-1)) + 1, dtype=np.int64)
    was[before] = np.arange(len(before))
    return after[np.maximum.accumulate(was[after]) > was[after]]


__all__ = ["SPONSORED", "RuleBook", "Ruled", "Shown"]
