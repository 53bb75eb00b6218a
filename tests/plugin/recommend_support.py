"""A log of purchases, and a small shop over it that recommends."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.errors import EndcapError
from endcap.events import Action
from endcap.personalizer import Personalizer
from endcap.popularity import Popularity
from endcap.profiles import DAY_S, Profile, build_profiles
from endcap.recommend import Discovery, Recommended, Recommender
from endcap.recommend.behaviour import Behaviour
from endcap.recommend.shelves import Shelves
from endcap.scoring.baseline import BaselineScorer

NOW = 1_700_000_000.0


class Log:
    """Purchases as columns; any of them may be added to any behaviour."""

    def __init__(self, lines: list[tuple[str, str, str, float]]) -> None:
        """``lines``: (shopper, session, product, time)."""
        self.shoppers = [line[0] for line in lines]
        self.sessions = [line[1] for line in lines]
        self.keys = product_keys([line[2] for line in lines])
        self.times = np.array([line[3] for line in lines])
        self.actions = np.full(len(lines), Action.PURCHASE, dtype=np.uint8)

    def into(self, behaviour: Behaviour, start: int, stop: int) -> None:
        here = slice(start, stop)
        behaviour.add(
            self.keys[here], self.times[here], self.actions[here], self.shoppers[here], self.sessions[here], stop
        )

    def learned(self, cuts: list[int] | None = None) -> Behaviour:
        behaviour = Behaviour()
        edges = [0, *(cuts or []), len(self.shoppers)]
        for start, stop in pairwise(edges):
            self.into(behaviour, start, stop)
            behaviour.merge()
        return behaviour


class Profiles:
    """Profiles that are there already."""

    def __init__(self, profiles: dict[object, Profile]) -> None:
        self.profiles = profiles

    def get(self, shopper: str) -> Profile:
        if shopper == "broken":
            raise EndcapError("out of order")
        return self.profiles.get(shopper, Profile())

    def touched(self, shoppers: set[str]) -> None: ...


class Shop:
    """60 products: 5 categories of 12, under two parents, 3 brands; sold-out ones; purchases of a few shoppers."""

    def __init__(self) -> None:
        self.products = [
            Product(
                f"c{kind}p{number}",
                f"Thing {number}",
                brand=f"Brand {number % 3}",
                categories=("Shop", f"Aisle {kind % 2}", f"Kind {kind}"),
                price=float(number + 1),
                stock=0.0 if number == 11 else None,
            )
            for kind in range(5)
            for number in range(12)
        ]
        lines = []
        for week in range(12):
            start = NOW - (12 * 7 - 7 * week) * DAY_S
            lines += [("ann", f"a{week}", one, start) for one in ("c0p0", "c1p0", "c2p11")]
            lines += [("bob", f"b{week}", one, start) for one in ("c0p0", "c1p0", "c0p1", "c3p5")]
            lines += [(f"one{week}", f"o{week}", "c4p3", start)]
            lines += [(f"two{week}", f"t{week}", "c4p4", start)]
        lines.sort(key=lambda line: line[3])
        log = Log(lines)
        self.behaviour = log.learned()
        self.table = ProductTable(self.products)
        popularity = Popularity()
        popularity.add(log.keys, log.times, log.actions)
        self.shelves = Shelves(self.table, popularity, self.behaviour, NOW)
        profiles = Profiles(build_profiles(np.array(log.shoppers), log.keys, log.times, log.actions))
        self.personalizer = Personalizer(
            BaselineScorer(), profiles, popularity, self.table, deadline_ms=60_000, clock=lambda: NOW
        )
        self.recommender = Recommender(Discovery.of(self.shelves), self.personalizer, profiles, clock=lambda: NOW)

    def ids(self, placement: str, shopper: str = "", **more: object) -> list[str]:
        return self.recommend(placement, shopper, **more).ids

    def recommend(self, placement: str, shopper: str = "", **more: object) -> Recommended:
        return self.recommender.recommend(placement, shopper, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()
