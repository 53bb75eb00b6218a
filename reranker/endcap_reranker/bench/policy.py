"""What the policy, the business rules and the experiments cost a search: microseconds, no engine and no scorer.

The shop is made up; 100 candidates of a catalogue of 50,000. Rules name brands, categories and single products.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from endcap.catalog import Product, ProductTable
from endcap.events import Action
from endcap.experiments.service import Experiments, LiveExperiments
from endcap.features import RankingInputs, ranking_inputs
from endcap.policy import DEFAULT_BLENDS, NO_VISIT, Exploration, context_of
from endcap.policy.arrange import Arranger
from endcap.policy.incumbent import IncumbentPolicy
from endcap.policy.rule import Rule, rule_of
from endcap.policy.rules import RuleBook
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.results import Results
from endcap.stores.database import Database

PRODUCTS, CANDIDATES, PAGE = 50_000, 100, 20
_NOW = 1_760_000_000.0
_SHOPPERS = 64
_WARM_UP = 20


def run(requests: int, seed: int) -> Results:
    """All rows: the median and the 99th percentile of ``requests`` calls."""
    results = Results("policy and rules", "endcap bench policy", seed)
    shop = _Shop(seed)
    arranger = Arranger(IncumbentPolicy(DEFAULT_BLENDS, exploration=Exploration(0.05)))
    policy = arranger.policy
    contexts = [context_of(one) for one in shop.searches]
    few, many = _rules(5), _rules(1_000)
    works: dict[str, Callable[[int], object]] = {
        "the policy's choice": lambda n: policy.choose(contexts[n % _SHOPPERS], (n % 997) / 997),
        "the context of a search": lambda n: context_of(shop.searches[n % _SHOPPERS]),
        "arrange, no rules": shop.arranged(arranger),
        "arrange, 5 rules": shop.arranged(_under(few, shop.table)),
        "arrange, 1,000 rules, none applies": shop.arranged(_under(_rules(1_000, applying=False), shop.table)),
        "arrange, 1,000 rules, all apply": shop.arranged(_under(many, shop.table)),
        "hidden on a page that nobody ranks, 5 rules": shop.hidden(_under(few, shop.table)),
        "hidden on a page that nobody ranks, 1,000 rules": shop.hidden(_under(many, shop.table)),
    }
    for name, work in works.items():
        results.add(name, _measure(work, max(10, requests // 10) if "all apply" in name else requests))
    with TemporaryDirectory(prefix="endcap-bench-") as folder:
        assigned = _experiments(Path(folder))
        results.add("arms of a shopper, 3 experiments", _measure(lambda n: assigned(f"s{n}", NO_VISIT), requests))
    compiled = _measure(lambda n: RuleBook(many).prepare(shop.table), 10)
    results.notes += [
        f"1,000 rules are looked up in {PRODUCTS:,} products in {compiled['median µs'] / 1_000:,.0f} ms; the upkeep "
        "does that, before searches come to new rules or a new table.",
        f"Microseconds a call, one thread; {CANDIDATES} candidates, a page of {PAGE}, {requests} calls a row.",
    ]
    return results


class _Shop:
    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.table = ProductTable(
            [
                Product(
                    f"p{n}", f"Product {n}", brand=f"brand {n % 200}", price=1.0 + n % 90, stock=float(n % 30),
                    categories=(f"department {n % 10}", f"aisle {n % 100}"),
                )
                for n in range(PRODUCTS)
            ]
        )  # fmt: skip
        popularity = Popularity()
        sold = draw.integers(0, PRODUCTS, 50_000)
        popularity.add(
            self.table.keys[sold], _NOW - draw.random(50_000) * 2e7, np.full(50_000, Action.PURCHASE, np.uint8)
        )
        self.ids: list[list[str]] = []
        self.searches: list[RankingInputs] = []
        for _ in range(_SHOPPERS):
            profile = Profile()
            keys = self.table.keys[draw.integers(0, PRODUCTS, 50)]
            profile.add(keys, _NOW - draw.random(50) * 2e7, np.full(50, Action.CLICK, np.uint8))
            ids = [f"p{n}" for n in draw.choice(PRODUCTS, CANDIDATES, replace=False).tolist()]
            scores = np.linspace(3.0, 1.0, CANDIDATES, dtype=np.float32)
            self.ids.append(ids)
            self.searches.append(ranking_inputs(profile, "honey", ids, scores, self.table, popularity, _NOW))
        self.interest = draw.normal(size=CANDIDATES).astype(np.float32)

    def arranged(self, arranger: Arranger) -> Callable[[int], object]:
        return lambda n: arranger.arrange(
            self.searches[n % _SHOPPERS], self.interest, self.ids[n % _SHOPPERS], f"s{n % _SHOPPERS}"
        )

    def hidden(self, arranger: Arranger) -> Callable[[int], object]:
        return lambda n: arranger.rules.hidden_among(
            self.ids[n % _SHOPPERS][:PAGE], self.table, NO_VISIT, _NOW, "honey"
        )


def _rules(count: int, applying: bool = True) -> dict[int, Rule]:
    """Boosts, burials and hidden products in turn; ``applying`` False: for a query that nobody asks."""
    kinds: tuple[dict[str, Any], ...] = ({"kind": "boost"}, {"kind": "hide"}, {"kind": "bury"})
    made = {}
    for number in range(count):
        target = ({"brands": [f"brand {number % 200}"]}, {"products": [f"p{number}"]},
                  {"categories": [f"department {number % 10} > aisle {number % 100}"]})[number % 3]  # fmt: skip
        when = {} if applying else {"queries": ["something else"]}
        made[number] = rule_of({"name": f"rule {number}", "target": target, "when": when, **kinds[number % 3]})
    return made


def _under(rules: dict[int, Rule], table: ProductTable) -> Arranger:
    arranger = Arranger(IncumbentPolicy(DEFAULT_BLENDS, exploration=Exploration(0.05)), RuleBook(rules))
    arranger.prepare(table)
    return arranger


def _experiments(folder: Path) -> Callable[..., object]:
    database = Database.in_folder(folder)
    experiments = Experiments(database)
    for number in range(3):
        arms = [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5, "profile": "engine"}]
        experiments.define({"name": f"experiment-{number}", "layer": f"layer {number}", "arms": arms})
        experiments.start(f"experiment-{number}")
    live = LiveExperiments(experiments, {one.name: one for one in DEFAULT_BLENDS})
    live.look()
    database.close()
    return live.treatment


def _measure(work: Callable[[int], object], calls: int) -> dict[str, float]:
    took = []
    for number in range(_WARM_UP + calls if calls > _WARM_UP else calls):
        started = time.perf_counter()
        work(number)
        took.append(time.perf_counter() - started)
    counted = np.array(took[-calls:]) * 1e6
    return {"median µs": float(np.median(counted)), "p99 µs": float(np.quantile(counted, 0.99))}
