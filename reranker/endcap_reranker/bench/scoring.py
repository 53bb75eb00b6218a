"""What scoring one search costs: the bare graph, the scorer in process with features and all, and Triton.

The shop is made up in the size of the bundle's vocabulary; only sizes matter here, not who buys what.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from endcap.bundles import Bundle, live_bundle, load_bundle
from endcap.catalog import Product, ProductTable
from endcap.errors import BundleRefused, EndcapError
from endcap.events import Action
from endcap.features import RankingInputs, ranking_inputs
from endcap.features.affinity import TRAITS, Affinity
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.results import Results
from endcap.scoring import Scorer
from endcap.scoring.aligned import Aligned
from endcap.scoring.baseline import BaselineScorer
from endcap.scoring.onnx import OnnxScorer
from endcap.scoring.triton import TritonScorer
from endcap.sequences import OUTPUT, model_inputs
from endcap.settings import load_settings

CANDIDATES = 100
HISTORY = 50
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
_SHOPPERS = 64
_FEWEST_PRODUCTS = 5_000
_NOW = 1_760_000_000.0
_WARM_UP = 20
#: Products alike that an affinity keeps of each.
_NEIGHBOURS = 32

#: Scores search number n; what it gives is thrown away.
Work = Callable[[int], object]


def run(requests: int, seed: int, folder: Path | None = None) -> Results:
    """All rows. ``folder``: of the bundle; None: the live one.

    Raises:
        BundleRefused: there is none, or it is not sound.
    """
    settings = load_settings()
    folder = folder or live_bundle(settings.models_folder)
    if folder is None:
        raise BundleRefused(f"no model is live in {settings.models_folder}: name a bundle with --bundle")
    bundle = load_bundle(folder)
    results = Results("scoring", "endcap bench scoring", seed)
    shop = _Shop(bundle, seed)
    bundle = replace(bundle, affinity=shop.affinity)
    aligned = Aligned(bundle)
    onnx = OnnxScorer(bundle, aligned)
    tensors = [model_inputs(shop.inputs(number), aligned.of(shop.table)) for number in range(_SHOPPERS)]
    works: dict[str, Work] = {
        "bare ONNX session": lambda n: bundle.session.run([OUTPUT], tensors[n % _SHOPPERS]),
        "features alone": shop.inputs,
        "tensors alone": lambda n: model_inputs(shop.searches[n % _SHOPPERS], aligned.of(shop.table)),
        "baseline, features included": shop.scored_by(BaselineScorer()),
        "in process, features included": shop.scored_by(onnx),
    }
    triton: TritonScorer | None = None
    if settings.triton_url:
        triton = TritonScorer(settings.triton_url, bundle, aligned, timeout_s=10.0)
        try:
            triton.check()
            works["Triton, features included"] = shop.scored_by(triton)
        except EndcapError as error:
            results.notes.append(f"Triton was not measured: {error}")
    else:
        results.notes.append("Triton was not measured: ENDCAP_TRITON_URL names none.")
    try:
        for name, work in works.items():
            for clients in CLIENTS if "included" in name else CLIENTS[:1]:
                results.add(f"{name}, {clients} client{'s' * (clients > 1)}", _measure(work, requests, clients))
        name, base = "Triton, features included", "in process, features included"
        if name in works:
            results.add("Triton less in process, by pairs", _apart(works[name], works[base], requests))
    finally:
        if triton is not None:
            triton.close()
    results.notes.append(
        f"Milliseconds a search; bundle {bundle.label}, {CANDIDATES} candidates, {HISTORY} actions of history, "
        f"{len(shop.table):,} products; clients are threads of one process on this machine; {requests} searches a row."
    )
    return results


class _Shop:
    def __init__(self, bundle: Bundle, seed: int) -> None:
        draw = np.random.default_rng(seed)
        ids = list(bundle.vocabulary.products)
        ids += [f"\0{number}" for number in range(max(0, _FEWEST_PRODUCTS - len(ids)))]
        brands = bundle.vocabulary.codes.get("brand") or ["a brand"]
        leaves = bundle.vocabulary.codes.get("category") or ["a category"]
        products = [
            Product(
                one,
                one,
                brand=brands[number % len(brands)],
                categories=tuple(leaves[number % len(leaves)].split("\0")),
                price=float(price),
            )
            for number, (one, price) in enumerate(zip(ids, draw.gamma(2.0, 5.0, len(ids)) + 0.5))
        ]
        vectors = None
        if bundle.spec.content:
            vectors = draw.normal(size=(len(ids), bundle.spec.content)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.table = ProductTable(products, vectors)
        self.popularity = Popularity()
        bought = draw.integers(0, len(ids), 50_000)
        self.popularity.add(
            self.table.keys[bought], _NOW - draw.random(50_000) * 2e7, np.full(50_000, Action.PURCHASE, np.uint8)
        )
        self.affinity = self._affinity(draw) if bundle.affinity is not None else None
        self._profiles = [self._profile(draw) for _ in range(_SHOPPERS)]
        self._lists = [
            [ids[place] for place in draw.choice(len(ids), CANDIDATES, replace=False).tolist()]
            for _ in range(_SHOPPERS)
        ]
        self._scores = np.linspace(3.0, 1.0, CANDIDATES, dtype=np.float32)
        self.searches = [self.inputs(number) for number in range(_SHOPPERS)]

    def _affinity(self, draw: np.random.Generator) -> Affinity:
        """Of all these products: the bundle's own knows none of them, and would cost nothing."""
        count = len(self.table)

        def numbers(width: int) -> np.ndarray:
            return draw.random((count, width)).astype(np.float16)

        def others() -> tuple[np.ndarray, np.ndarray]:
            return draw.integers(0, count, (count, _NEIGHBOURS), dtype=np.int32), numbers(_NEIGHBOURS)

        return Affinity(
            np.sort(self.table.keys[:-1]), numbers(64), np.ones(count, np.float32), *others(), *others(), *others(),
            numbers(len(TRAITS)),
        )  # fmt: skip

    def _profile(self, draw: np.random.Generator) -> Profile:
        profile = Profile(recent=HISTORY)
        keys = self.table.keys[draw.integers(0, len(self.table), 4 * HISTORY)]
        kinds = draw.choice([Action.VIEW, Action.CART, Action.PURCHASE], len(keys)).astype(np.uint8)
        profile.add(keys, _NOW - draw.random(len(keys)) * 2e7, kinds)
        return profile

    def inputs(self, number: int) -> RankingInputs:
        place = number % _SHOPPERS
        # A copy without what readers derive from it: a shopper's first search after he did something.
        return ranking_inputs(
            self._profiles[place].copy(), "honey", self._lists[place], self._scores, self.table, self.popularity, _NOW
        )

    def scored_by(self, scorer: Scorer) -> Work:
        return lambda number: scorer.score(self.inputs(number))


def _apart(work: Work, base: Work, requests: int) -> dict[str, float]:
    """What one costs more than the other: both in turns, since what else the machine does comes and goes."""
    apart = np.zeros(requests)
    for number in range(-_WARM_UP, requests):
        began = time.perf_counter()
        base(number)
        between = time.perf_counter()
        work(number)
        apart[number] = time.perf_counter() - between - (between - began)
    p50, p99 = np.quantile(apart * 1000.0, (0.5, 0.99))
    return {"more p50 ms": float(p50), "more p99 ms": float(p99)}


def _measure(work: Work, requests: int, clients: int) -> dict[str, float]:
    times = np.zeros(requests)
    numbers = iter(range(requests))
    lock = threading.Lock()
    faults: list[Exception] = []
    for number in range(_WARM_UP):
        work(number)

    def client() -> None:
        while not faults:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            began = time.perf_counter()
            try:
                work(number)
            except Exception as fault:
                faults.append(fault)
            times[number] = time.perf_counter() - began

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:  # a benchmark of failures would measure nothing
        raise faults[0]
    took = time.perf_counter() - began
    p50, p99 = np.quantile(times * 1000.0, (0.5, 0.99))
    return {"p50 ms": float(p50), "p99 ms": float(p99), "searches/s": requests / took}
