"""Products that nobody has bought yet: a fifth of all products is hidden, and ranked by what a generator says of them.

The protocol is in :mod:`endcap_workers.evaluation.cold_world`. Rows: the recommender as it is (products without history
are ``UNKNOWN`` to it and live by brand, category and text), the popularity of the category, and one generator each.
Everything is chosen on products hidden for that purpose; the test's products are judged once. Five seeds: each hides
other products and trains another recommender; intervals are Student's t over them, paired for differences.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import mean

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from endcap.errors import InvalidInput
from endcap.results import Results
from endcap_workers.augmentation import (
    GanGenerator,
    Generator,
    GeneratorDiverged,
    MlpGenerator,
    NearestGenerator,
    RidgeGenerator,
)
from endcap_workers.augmentation.gan import GanSettings
from endcap_workers.augmentation.health import health
from endcap_workers.augmentation.virtual import enriched, virtual_products
from endcap_workers.evaluation import cold_beauty, cold_journey
from endcap_workers.evaluation.cold_world import K, World, retrained
from endcap_workers.training.loop import Schedule

SEEDS = 5
#: Of Student's t with so many degrees of freedom, two-sided 95%.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
NOTHING, CATEGORY, VIRTUAL = "no augmentation", "popularity of the category", "GAN + virtual products"
GAN, ALONE = "GAN", "GAN without its adversary"
MAKERS: Mapping[str, Callable[[], Generator]] = {
    "content k-NN": NearestGenerator,
    "ridge": RidgeGenerator,
    "MLP": MlpGenerator,
    ALONE: lambda: GanGenerator(replace(GanSettings(), adversary=0.0)),
    GAN: GanGenerator,
}
#: What is printed: name, data, and whether the recommender reads brand, category and text beside the number.
DATA = (
    ("Beauty", cold_beauty, True),
    ("Beauty, numbers only", cold_beauty, False),
    ("Complete Journey", cold_journey, True),
)
GO_ON = Schedule(epochs=3, patience=2, rate=1e-3, warmup=20)

Figures = dict[str, float]


def run(seed: int = 0, report: Callable[[str], None] = lambda line: None, seeds: int = SEEDS) -> Results:
    """Every row, over the seeds ``seed`` … ``seed + seeds - 1``."""
    results = Results("cold-products", "endcap evaluate cold-products", seed)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    for name, module, reads_content in DATA:
        began, spent = time.monotonic(), time.process_time()
        found: dict[str, list[Figures]] = {}
        checks: dict[str, list[Figures]] = {}
        chosen: list[str] = []
        console = Console(stderr=True)
        with Progress(console=console) as bar:
            task = bar.add_task(name, total=seeds)
            for one in range(seed, seed + seeds):
                world = module.world(one, report, reads_content)
                rows, healthy, best = judge(world, one, report, reads_content, getattr(module, "search", None))
                for row, values in rows.items():
                    found.setdefault(row, []).append(values)
                for row, values in healthy.items():
                    checks.setdefault(row, []).append(values)
                chosen.append(best)
                bar.advance(task)
        _table(results, name, found)
        if reads_content:
            _verdict(results, name, found, chosen)
            for row, several in checks.items():
                results.add(f"{name}, health: {row}", {key: mean(one[key] for one in several) for key in several[0]})
        minutes = (time.monotonic() - began) / 60, (time.process_time() - spent) / 60
        results.notes.append(f"{name}: {minutes[0]:.1f} minutes, {minutes[1]:.1f} of processor time.")
    return results


def judge(
    world: World,
    seed: int,
    report: Callable[[str], None],
    full: bool = True,
    search: Callable[[World, np.ndarray, np.ndarray | None], Figures] | None = None,
) -> tuple[dict[str, Figures], dict[str, Figures], str]:
    """A seed's rows, the health of its generators, and which row validation would choose. A generator that diverges
    is kept out, with its reason reported. ``full``: also the row that goes on training the recommender. ``search``:
    further figures of a world's embeddings."""

    def figures(place: World, vectors: np.ndarray, bias: np.ndarray | None = None) -> Figures:
        return place.judge(vectors, bias) | (search(place, vectors, bias) if search else {})

    warm, validation, numbers = world.learned(), world.validation(), world.split.test
    cold = world.content.rows(numbers)
    rows = {
        NOTHING: figures(world, world.vectors, _no_order(world, seed)),
        CATEGORY: figures(world, np.zeros_like(world.vectors), _by_category(world)),
    }
    choice = {NOTHING: validation.judge(world.vectors[world.split.valid])}
    checks: dict[str, Figures] = {}
    gan: Generator | None = None
    for row, make in MAKERS.items():
        try:
            generator = make().fit(warm, seed, validation, report)
            made = generator.embed(cold)
        except (GeneratorDiverged, InvalidInput) as error:
            report(f"{row} is kept out: {error}")
            continue
        rows[row] = figures(world, world.filled(made, numbers))
        checks[row] = health(made, warm.vectors, cold.codes)
        if row != ALONE:
            choice[row] = generator.training.best
        if row == GAN:
            gan = generator
        report(f"{row}: validation {generator.training.best:.4f}, cold {rows[row][f'cold ndcg@{K}']:.4f}")
    if gan is not None and full:
        virtual = virtual_products(warm, gan, category=1, seed=seed)
        after = retrained(world, virtual, replace(GO_ON, seed=seed), cold_beauty.NEGATIVES, report)
        learned = after.learned()
        again = GanGenerator().fit(enriched(learned, virtual), seed, after.validation(), report)
        made = again.embed(cold)
        rows[VIRTUAL] = figures(after, after.filled(made, numbers))
        checks[VIRTUAL] = health(made, learned.vectors, cold.codes)
        choice[VIRTUAL] = again.training.best
        report(f"{VIRTUAL}: validation {again.training.best:.4f}, cold {rows[VIRTUAL][f'cold ndcg@{K}']:.4f}")
    return rows, checks, max(choice, key=lambda row: choice[row])


def _no_order(world: World, seed: int) -> np.ndarray:
    """Nearly nothing, at random: products that a recommender cannot tell apart come in no order of their own."""
    return np.random.default_rng([seed, 23]).random(len(world.vectors)) * 1e-5


def _by_category(world: World) -> np.ndarray:
    """A score for each number: how often a warm product was chosen; for a hidden one the mean of its leaf category, or
    of what is above it."""
    codes, warm = world.content.codes, world.split.warm
    popular = world.counts.astype(float)
    guess = np.full(len(codes), popular[warm].mean())
    for column in (2, 1):
        sums = np.bincount(codes[warm, column], popular[warm], minlength=world.content.sizes[column])
        count = np.bincount(codes[warm, column], minlength=world.content.sizes[column])
        has = (count[codes[:, column]] > 0) & (codes[:, column] > 0)
        guess = np.where(has, (sums / np.maximum(count, 1))[codes[:, column]], guess)
    hidden = np.concatenate([world.split.valid, world.split.test])
    popular[hidden] = guess[hidden]
    return popular


def _table(results: Results, name: str, found: Mapping[str, list[Figures]]) -> None:
    for row, several in found.items():
        shown = {key: mean(one[key] for one in several) for key in several[0]}
        shown["cold ndcg ±"] = half_width([one[f"cold ndcg@{K}"] for one in several])
        results.add(f"{name}: {row}", shown)


def _verdict(results: Results, name: str, found: Mapping[str, list[Figures]], chosen: list[str]) -> None:
    results.notes.append(f"{name}: validation chose, seed by seed: {', '.join(chosen)}.")
    for mine in (GAN, VIRTUAL):
        for rival in found:
            if rival in (mine, GAN, VIRTUAL) or mine not in found:
                continue
            parts = []
            for kind in ("cold", "warm", "overall"):
                pairs = zip(found[mine], found[rival], strict=True)
                gaps = [one[f"{kind} ndcg@{K}"] - other[f"{kind} ndcg@{K}"] for one, other in pairs]
                parts.append(f"{kind} {mean(gaps):+.4f} ± {half_width(gaps):.4f}")
            results.notes.append(f"{name}: {mine} minus {rival}: NDCG@{K} {', '.join(parts)}.")


def half_width(values: list[float]) -> float:
    """Half of the 95% interval of a mean, by Student's t; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return _T95[len(values) - 1] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
