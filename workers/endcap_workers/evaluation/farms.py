"""Click farms to inject into a real purchase log: what they push, with which accounts, and how they hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DAY_S = 86_400.0
KINDS = ("burst", "drip", "mimic", "young", "aged", "patient")


@dataclass(frozen=True, slots=True)
class Purchases:
    """n purchases; arrays are (n,): ``shopper`` and ``product`` str, ``basket`` int64, ``time`` float64 seconds."""

    shopper: np.ndarray
    product: np.ndarray
    basket: np.ndarray
    time: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def at(self, rows: np.ndarray) -> Purchases:
        return Purchases(self.shopper[rows], self.product[rows], self.basket[rows], self.time[rows])


def farm(kind: str, genuine: Purchases, targets: list[str], events: int, now: float, seed: int) -> Purchases:
    """About ``events`` purchases that end before ``now`` and push the targets.

    ``burst``: accounts that buy a target sixty times each within two days. ``drip``: accounts that buy a target every
    day and a half for two months. ``mimic``: new accounts with six real baskets each, of one genuine shopper each and
    at their real times within the last two months, a target laid into each. ``young``: an account for every basket of
    a target and up to two of the shop's best sellers, over two weeks. ``aged``: as mimic, by accounts that came four
    to six months ago and have bought one to three products every three weeks since. ``patient``: accounts that copy one
    genuine shopper each for half a year, basket for basket, and lay a target into those of the last two months alone.

    Raises:
        ValueError: a kind that is none.
    """
    random = np.random.default_rng(seed)
    if kind == "burst":
        return _repeated(random, targets, events, 60, now - 2 * DAY_S, now, "burst")
    if kind == "drip":
        return _repeated(random, targets, events, 40, now - 60 * DAY_S, now, "drip")
    if kind == "mimic":
        return _mimic(random, genuine, targets, events, now)
    if kind == "young":
        return _young(random, genuine, targets, events, now)
    if kind == "aged":
        return _aged(random, genuine, targets, events, now)
    if kind == "patient":
        return _patient(random, genuine, targets, events, now)
    raise ValueError(f"no farm of kind {kind!r}: {', '.join(KINDS)}")


def _repeated(
    random: np.random.Generator, targets: list[str], events: int, each: int, start: float, end: float, name: str
) -> Purchases:
    accounts = max(1, events // each)
    step = (end - start) / each
    which = np.repeat(np.arange(accounts), each)
    time = start + np.tile(np.arange(each), accounts) * step + random.random(len(which)) * step
    product = np.array(targets)[random.integers(0, len(targets), accounts)][which]
    return _sorted(np.char.add(f"{name}-", which.astype(str)), product, np.arange(len(which)) + 10**15, time)


def _mimic(
    random: np.random.Generator, genuine: Purchases, targets: list[str], events: int, now: float, baskets: int = 6
) -> Purchases:
    recent = genuine.at(np.flatnonzero(genuine.time >= now - 60 * DAY_S))
    order = np.lexsort((recent.basket, recent.shopper))
    recent = recent.at(order)
    starts = np.flatnonzero(np.r_[True, recent.basket[1:] != recent.basket[:-1]])
    ends = np.r_[starts[1:], len(recent)]
    owner = recent.shopper[starts]
    first = np.unique(owner, return_index=True)[1]
    many = np.diff(np.r_[first, len(owner)])
    models = np.flatnonzero(many >= baskets)
    rows, shopper, product, time = [], [], [], []
    total, account = 0, 0
    while total < events:
        model = int(models[random.integers(0, len(models))])
        for one in first[model] + random.permutation(many[model])[:baskets]:
            lines = np.arange(starts[one], ends[one])
            target = targets[int(random.integers(0, len(targets)))]
            when = recent.time[lines[0]] + random.random() * 3600
            product.append(np.append(recent.product[lines], target))
            shopper.append(np.full(len(lines) + 1, f"mimic-{account}"))
            rows.append(np.full(len(lines) + 1, 2 * 10**15 + total))
            time.append(np.full(len(lines) + 1, min(when, now - 1)))
            total += len(lines) + 1
        account += 1
    return _sorted(np.concatenate(shopper), np.concatenate(product), np.concatenate(rows), np.concatenate(time))


def _aged(random: np.random.Generator, genuine: Purchases, targets: list[str], events: int, now: float) -> Purchases:
    """A sixth of the events is what makes the accounts look like customers."""
    pushed = _mimic(random, genuine, targets, events * 5 // 6, now)
    names = np.unique(pushed.shopper)
    came = now - (120 + 60 * random.random(len(names))) * DAY_S
    visits = ((now - 60 * DAY_S - came) // (21 * DAY_S)).astype(np.int64) + 1
    which = np.repeat(np.arange(len(names)), visits)
    when = came[which] + (np.arange(len(which)) - np.repeat(np.cumsum(visits) - visits, visits)) * 21 * DAY_S
    lines = np.repeat(np.arange(len(which)), random.integers(1, 4, len(which)))
    product = genuine.product[random.integers(0, len(genuine), len(lines))]
    aged = Purchases(
        names[which[lines]], product, lines + 4 * 10**15, (when + random.random(len(which)) * DAY_S)[lines]
    )
    return _sorted(*(np.concatenate([getattr(aged, one), getattr(pushed, one)]) for one in Purchases.__slots__))


def _patient(random: np.random.Generator, genuine: Purchases, targets: list[str], events: int, now: float) -> Purchases:
    recent = genuine.at(np.flatnonzero(genuine.time >= now - 180 * DAY_S))
    recent = recent.at(np.lexsort((recent.basket, recent.shopper)))
    _, first, lines = np.unique(recent.shopper, return_index=True, return_counts=True)
    baskets = np.array([len(np.unique(recent.basket[at : at + n])) for at, n in zip(first, lines)])
    models = np.flatnonzero((baskets >= 12) & (lines <= 400))  # who comes once a fortnight, and is no restaurant
    shopper, product, basket, time = [], [], [], []
    total, account = 0, 0
    while total < events:
        model = int(models[random.integers(0, len(models))])
        rows = np.arange(first[model], first[model] + lines[model])
        moved = recent.time[rows] + random.random() * 3_600
        _, opened = np.unique(recent.basket[rows], return_index=True)
        late = opened[moved[opened] >= now - 60 * DAY_S]
        laid = np.array(targets)[random.integers(0, len(targets), len(late))]
        product += [recent.product[rows], laid]
        time += [np.minimum(moved, now - 1), np.minimum(moved[late], now - 1)]
        basket += [recent.basket[rows] + 10**15 * (5 + account), recent.basket[rows][late] + 10**15 * (5 + account)]
        shopper.append(np.full(len(rows) + len(late), f"patient-{account}"))
        total += len(rows) + len(late)
        account += 1
    return _sorted(*(np.concatenate(one) for one in (shopper, product, basket, time)))


def _young(random: np.random.Generator, genuine: Purchases, targets: list[str], events: int, now: float) -> Purchases:
    accounts = events // 2
    popular = genuine.product[random.integers(0, len(genuine), 2 * accounts)].reshape(accounts, 2)
    more = random.integers(0, 3, accounts)
    target = np.array(targets)[random.integers(0, len(targets), accounts)]
    when = now - random.random(accounts) * 14 * DAY_S
    which = np.concatenate([np.arange(accounts), np.flatnonzero(more > 0), np.flatnonzero(more > 1)])
    product = np.concatenate([target, popular[more > 0, 0], popular[more > 1, 1]])
    return _sorted(np.char.add("young-", which.astype(str)), product, which + 3 * 10**15, when[which])


def _sorted(shopper: np.ndarray, product: np.ndarray, basket: np.ndarray, time: np.ndarray) -> Purchases:
    order = np.argsort(time, kind="stable")
    return Purchases(shopper[order], product[order], basket[order].astype(np.int64), time[order])
