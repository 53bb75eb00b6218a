"""How shoppers behave, streamed from the event log in bounded memory: one row of features a shopper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap.events import Action
from endcap.profiles import DAY_S
from endcap_workers.fraud.base import Features
from endcap_workers.fraud.lockstep import Push, pushes, woken_pushes
from endcap_workers.fraud.pairs import Pairs
from endcap_workers.fraud.rhythm import Rhythm
from endcap_workers.log_lines import LogLines

MOST_SHOPPERS, MOST_PAIRS = 500_000, 4_000_000
#: Gaps shorter than this lie within one page view, longer ones between visits: only visits tell how regular one is.
_SAME_VISIT_S = 60.0
#: Products and devices whose names are kept.
_MOST_NAMES = 1_000_000

WORDS = {
    "events": "actions (log)",
    "busiest hour": "actions in the busiest hour (log)",
    "per day": "actions per active day (log)",
    "irregularity": "spread of the time between two actions (log); a machine's is small",
    "breadth": "share of actions on different products",
    "different": "different products (log)",
    "top share": "share of actions on one product",
    "top count": "actions on one product (log)",
    "night": "share of actions between midnight and six",
    "conversion": "purchases per view or click",
    "cart abuse": "products put back per product put in the cart",
    "unbought": "carts never bought (log)",
    "coupons": "share of purchases with a coupon",
    "returns": "returns per purchase",
    "quantity": "pieces per purchase (log)",
    "value": "value per purchase (log)",
    "age": "days since the shopper was first seen (log)",
    "searches": "share of searches",
    "purchases": "purchases",
    "carts": "products put in the cart",
    "shared device": "other shoppers on the same device (log)",
    "pushed": "how surprising it is that so many new shoppers chose one of the products (digits)",
    "pushed share": "share of actions on products with surprisingly many new shoppers",
    "woken": "how surprising it is that so many shoppers who used to do little chose one of the products (digits)",
    "rise": "how many times as much the shopper does as he used to (log)",
}

#: Columns of the sums kept per shopper.
_SUMS = (
    "first", "last", "events", "impression", "view", "click", "cart", "uncart", "purchase", "return", "search", "gaps",
    "gap_logs", "gap_squares", "night", "quantity", "value", "coupons", "hour", "in_hour", "most_in_hour", "day",
    "days",
)  # fmt: skip
_AT = {name: column for column, name in enumerate(_SUMS)}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """``names``: the shoppers, in the order of the rows of ``features``; ``seen``: int64 (n,) events in the window.

    ``push``: what is remarkable about products that new shoppers chose; ``woken``: about those that shoppers chose who
    do more than they used to, ``rise`` times as much, float64 (n,). ``pairs``: shopper (row) and product; ``devices``:
    shopper (row) and device. ``products``, ``device_names``: short key -> id.
    """

    names: list[str]
    features: Features
    seen: np.ndarray
    push: Push
    woken: Push
    rise: np.ndarray
    pairs: Pairs
    products: dict[int, str]
    devices: Pairs
    device_names: dict[int, str]


class BehaviourStream:
    """Takes in the log batch by batch; afterwards :meth:`features` describes everybody who was active.

    Events before ``since`` only tell how long a shopper has been there. Above ``most_shoppers`` those not seen for
    longest are forgotten, above ``most_pairs`` the oldest pairs of shopper and product.
    """

    def __init__(
        self,
        since: float = 0.0,
        zone_offset_s: float = 0.0,
        most_shoppers: int = MOST_SHOPPERS,
        most_pairs: int = MOST_PAIRS,
    ) -> None:
        """``zone_offset_s``: local time less UTC, for what is night."""
        self._since, self._offset, self._most = since, zone_offset_s, most_shoppers
        self._slot: dict[int, int] = {}
        self._names: list[str] = []
        self._sums = np.zeros((1024, len(_SUMS)))
        self._pairs, self._bought, self._devices = Pairs(most_pairs), Pairs(most_pairs), Pairs(most_shoppers * 2)
        self._rhythm = Rhythm(since)
        self._products: dict[int, str] = {}
        self._device_names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    def copy(self) -> BehaviourStream:
        """Another stream that goes on from here."""
        other = BehaviourStream(self._since, self._offset, self._most)
        other._slot, other._names, other._sums = dict(self._slot), list(self._names), self._sums.copy()
        other._rhythm = self._rhythm.copy()
        for name in ("_pairs", "_bought", "_devices"):
            old = getattr(self, name)
            new = Pairs(old._most)
            new.keys, new.counts = old.keys.copy(), old.counts.copy()
            new.first, new.last = old.first.copy(), old.last.copy()
            setattr(other, name, new)
        other._products, other._device_names = dict(self._products), dict(self._device_names)
        return other

    def add(self, lines: LogLines) -> None:
        """Take in a batch."""
        slots = self._slots(lines)
        order = np.lexsort((lines.time, slots))
        slots, times = slots[order], lines.time[order]
        starts = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])
        who = slots[starts]
        sums = self._sums
        sums[who, _AT["first"]] = np.minimum(sums[who, _AT["first"]], times[starts])
        action = lines.action[order]
        named = action != Action.LOGIN  # it says who somebody is, and has no column
        active = named & (action != Action.IMPRESSION)
        self._rhythm.add(slots[active], times[active], len(self))
        inside = named & (times >= self._since)
        order, slots, times = order[inside], slots[inside], times[inside]
        if not len(order):
            return
        self._count(slots, times, lines, order)
        self._time(slots, times)
        product, device = lines.product[order], lines.device[order]
        action = lines.action[order]
        about = (product != 0) & (action != Action.IMPRESSION)
        self._pairs.add(slots[about], product[about].astype(np.uint32), times[about])
        chosen = about & np.isin(action, (Action.PURCHASE, Action.CART, Action.CLICK))
        self._bought.add(slots[chosen], product[chosen].astype(np.uint32), times[chosen])
        with_device = device != 0
        self._devices.add(slots[with_device], device[with_device].astype(np.uint32), times[with_device])
        _remember(self._products, product, lines.products, order)
        _remember(self._device_names, device, lines.devices, order)

    def features(self, now: float) -> Behaviour:
        """One row a shopper who was active in the window."""
        active = np.flatnonzero(self._sums[: len(self), _AT["events"]] > 0)
        row_of = np.full(max(len(self), 1), -1, dtype=np.int64)
        row_of[active] = np.arange(len(active))
        pairs, bought = _renumbered(self._pairs, row_of), _renumbered(self._bought, row_of)
        sums = {name: self._sums[active, column] for name, column in _AT.items()}
        push = pushes(bought, sums["first"], len(active))
        found = _described(sums, now)
        found |= _breadth(pairs, len(active))
        devices = _renumbered(self._devices, row_of)
        found["shared device"] = np.log1p(_sharing(devices, len(active)))
        found["pushed"], found["pushed share"] = push.shoppers, push.shares
        began, rise = self._rhythm.rises(active, sums["first"], now)
        woken = woken_pushes(bought, sums["first"], began, len(active))
        found["woken"], found["rise"] = woken.shoppers, np.log1p(rise)
        values = np.stack([found[name] for name in WORDS], axis=1) if len(active) else np.empty((0, len(WORDS)))
        features = Features(values, tuple(WORDS), WORDS)
        names = [self._names[row] for row in active.tolist()]
        seen = sums["events"].astype(np.int64)
        return Behaviour(names, features, seen, push, woken, rise, bought, self._products, devices, self._device_names)

    def _slots(self, lines: LogLines) -> np.ndarray:
        unique, index, inverse = np.unique(lines.shopper, return_index=True, return_inverse=True)
        if len(self) + len(unique) > self._most:
            self._forget(max(self._most - len(unique), 0) * 3 // 4)
        found = np.empty(len(unique), dtype=np.int64)
        for number, (key, row) in enumerate(zip(unique.tolist(), index.tolist())):
            slot = self._slot.get(key)
            if slot is None:
                slot = self._slot[key] = len(self._names)
                self._names.append(lines.shoppers[row])
            found[number] = slot
        if len(self) > len(self._sums):
            grown = np.zeros((len(self) * 3 // 2, len(_SUMS)))
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        new = self._sums[found, _AT["first"]] == 0
        self._sums[found[new], _AT["first"]] = np.inf
        return found[inverse]

    def _forget(self, most: int) -> None:
        count = len(self)
        kept = np.sort(np.argsort(-self._sums[:count, _AT["last"]], kind="stable")[:most])
        new = np.full(count, -1, dtype=np.int64)
        new[kept] = np.arange(len(kept))
        for pairs in (self._pairs, self._bought, self._devices):
            pairs.renumber(new)
        self._rhythm.keep(kept)
        self._names = [self._names[slot] for slot in kept.tolist()]
        self._slot = {key: int(new[slot]) for key, slot in self._slot.items() if new[slot] >= 0}
        self._sums[: len(kept)] = self._sums[kept]
        self._sums[len(kept) :] = 0.0

    def _count(self, slots: np.ndarray, times: np.ndarray, lines: LogLines, order: np.ndarray) -> None:
        action = lines.action[order]
        np.add.at(self._sums[:, _AT["events"]], slots, 1.0)
        np.add.at(self._sums, (slots, _AT["impression"] + action.astype(np.int64) - 1), 1.0)
        night = ((times + self._offset) % DAY_S) < 6 * 3600
        np.add.at(self._sums[:, _AT["night"]], slots[night], 1.0)
        bought = action == Action.PURCHASE
        for name, column in (("quantity", lines.quantity), ("value", lines.value), ("coupons", lines.coupon)):
            np.add.at(self._sums[:, _AT[name]], slots[bought], column[order][bought].astype(np.float64))

    def _time(self, slots: np.ndarray, times: np.ndarray) -> None:
        """Gaps, hours and days; the batch is sorted by shopper and time."""
        sums = self._sums
        fresh = np.r_[True, slots[1:] != slots[:-1]]
        starts = np.flatnonzero(fresh)
        ends = np.r_[starts[1:], len(slots)] - 1
        who = slots[starts]
        before = np.r_[0.0, times[:-1]]
        before[starts] = sums[who, _AT["last"]]
        gap = times - before
        visits = (before > 0) & (gap > _SAME_VISIT_S)
        logs = np.log(gap[visits])
        for name, value in (("gaps", np.ones(len(logs))), ("gap_logs", logs), ("gap_squares", logs**2)):
            np.add.at(sums[:, _AT[name]], slots[visits], value)
        self._buckets(slots, np.floor(times / 3600), starts)
        days = np.floor(times / DAY_S)
        new_day = np.r_[True, days[1:] != days[:-1]] | fresh
        new_day[starts] = days[starts] != sums[who, _AT["day"]]
        np.add.at(sums[:, _AT["days"]], slots[new_day], 1.0)
        sums[who, _AT["day"]] = days[ends]
        sums[who, _AT["last"]] = np.maximum(sums[who, _AT["last"]], times[ends])

    def _buckets(self, slots: np.ndarray, hours: np.ndarray, starts: np.ndarray) -> None:
        """The largest number of actions within one hour of the clock; an hour may go on in the next batch."""
        sums = self._sums
        changed = np.r_[True, (hours[1:] != hours[:-1]) | (slots[1:] != slots[:-1])]
        first = np.flatnonzero(changed)
        counts = np.diff(np.r_[first, len(slots)]).astype(np.float64)
        who, hour = slots[first], hours[first]
        goes_on = np.isin(first, starts) & (hour == sums[who, _AT["hour"]])
        counts[goes_on] += sums[who[goes_on], _AT["in_hour"]]
        np.maximum.at(sums[:, _AT["most_in_hour"]], who, counts)
        last = np.r_[who[1:] != who[:-1], True]
        sums[who[last], _AT["hour"]], sums[who[last], _AT["in_hour"]] = hour[last], counts[last]


def _remember(known: dict[int, str], keys: np.ndarray, names: list[str], order: np.ndarray) -> None:
    short = keys.astype(np.uint32)
    for row in np.unique(short, return_index=True)[1].tolist():
        if len(known) >= _MOST_NAMES:
            return
        if keys[row]:
            known.setdefault(int(short[row]), names[order[row]])


def _renumbered(pairs: Pairs, row_of: np.ndarray) -> Pairs:
    found = Pairs(max(len(pairs), 1))
    found.keys, found.counts, found.first, found.last = pairs.keys, pairs.counts, pairs.first, pairs.last
    found.renumber(row_of)
    return found


def _described(sums: dict[str, np.ndarray], now: float) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        looked, bought, carts = sums["view"] + sums["click"], sums["purchase"], sums["cart"]
        mean = sums["gap_logs"] / sums["gaps"]
        spread = np.sqrt(np.maximum(sums["gap_squares"] / sums["gaps"] - mean**2, 0.0))
        return {
            "events": np.log1p(sums["events"]),
            "busiest hour": np.log1p(sums["most_in_hour"]),
            "per day": np.log1p(sums["events"] / np.maximum(sums["days"], 1)),
            "irregularity": np.where(sums["gaps"] >= 5, spread, np.nan),
            "night": sums["night"] / sums["events"],
            "conversion": np.where(looked >= 5, bought / looked, np.nan),
            "cart abuse": np.where(carts >= 3, sums["uncart"] / carts, np.nan),
            "unbought": np.where(carts > 0, np.log1p(np.maximum(carts - sums["uncart"] - bought, 0)), np.nan),
            "coupons": np.where(bought >= 3, sums["coupons"] / bought, np.nan),
            "returns": np.where(bought >= 3, sums["return"] / bought, np.nan),
            "quantity": np.where(bought > 0, np.log1p(np.maximum(sums["quantity"] / bought, 0)), np.nan),
            "value": np.where(bought > 0, np.log1p(np.maximum(sums["value"] / bought, 0)), np.nan),
            "age": np.log1p(np.maximum(now - sums["first"], 0) / DAY_S),
            "searches": sums["search"] / sums["events"],
            "purchases": bought,
            "carts": carts,
        }


def _breadth(pairs: Pairs, count: int) -> dict[str, np.ndarray]:
    left = pairs.left
    total = np.bincount(left, weights=pairs.counts, minlength=count)
    different = np.bincount(left, minlength=count)
    top = np.zeros(count)
    np.maximum.at(top, left, pairs.counts.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "breadth": np.where(total >= 3, different / total, np.nan),
            "different": np.log1p(different),
            "top share": np.where(total >= 3, top / total, np.nan),
            "top count": np.log1p(top),
        }


def _sharing(devices: Pairs, count: int) -> np.ndarray:
    """Other shoppers on the busiest of a shopper's devices; float64 (count,)."""
    _, inverse, users = np.unique(devices.right, return_inverse=True, return_counts=True)
    most = np.zeros(count)
    np.maximum.at(most, devices.left, users[inverse] - 1.0)
    return most
