"""Products that nobody has bought yet: a fifth of all products is hidden, and ranked by what a generator says of them.

The protocol is in :mod:`endcap_workers.evaluation.cold_world`. Rows: the recommender as it is (products without history
are ``UNKNOWN`` to it and live by brand, category and text), the popularity of the category, one generator each, and
what validation chose, seed by seed. Everything is chosen on products hidden for that purpose; the test's products are
judged once. Each seed hides other products and trains another recommender; intervals of differences are paired,
Student's t over the seeds and a bootstrap over products (:mod:`endcap_workers.evaluation.cold_intervals`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TaskID

from endcap.errors import InvalidInput
from endcap.metrics import ndcg_at
from endcap.results import Results
from endcap_workers.augmentation import (
    GanGenerator,
    Generator,
    GeneratorDiverged,
    MlpGenerator,
    NearestGenerator,
    RankedGenerator,
    RidgeGenerator,
)
from endcap_workers.augmentation.health import health
from endcap_workers.augmentation.ranking import figures
from endcap_workers.augmentation.virtual import enriched, virtual_products
from endcap_workers.evaluation import cold_beauty, cold_journey
from endcap_workers.evaluation.cold_intervals import half_width, over_products
from endcap_workers.evaluation.cold_world import K, World, retrained
from endcap_workers.training.loop import Schedule

NOTHING, CATEGORY, VIRTUAL = "no augmentation", "popularity of the category", "GAN + virtual products"
GAN, ALONE, CHOSEN = "GAN", "GAN without its adversary", "chosen by validation"
MAKERS: Mapping[str, Callable[[], Generator]] = {
    "content k-NN": NearestGenerator,
    "ridge": RidgeGenerator,
    "MLP": MlpGenerator,
    ALONE: RankedGenerator,
    GAN: GanGenerator,
}
#: What is printed: name, data, and whether the recommender reads brand, category and text beside the number.
DATA = (("Beauty", cold_beauty, True), ("Complete Journey", cold_journey, True))
#: With ``--ablation`` also a recommender of product numbers alone.
BARE = ("Beauty, numbers only", cold_beauty, False)
GO_ON = Schedule(epochs=3, patience=2, rate=1e-3, warmup=20)

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """A seed's row: its ``figures``, and by kind (cold, warm, overall, search) the NDCG of each case."""

    figures: Figures
    cases: dict[str, np.ndarray]


@dataclass(slots=True)
class Judged:
    """A seed: its rows, the health of its generators, which row validation chose, and by kind the product that each
    case is about."""

    rows: dict[str, Row]
    checks: dict[str, Figures]
    chosen: str
    products: dict[str, np.ndarray]


def run(
    seed: int = 0, report: Callable[[str], None] = lambda line: None, seeds: int = 1, ablation: bool = False
) -> Results:
    """Every row, over the seeds ``seed`` … ``seed + seeds - 1``."""
    results = Results("cold-products", f"endcap evaluate cold-products --seeds {seeds}", seed)
    torch.set_num_threads(min(2, torch.get_num_threads()))
    console = Console(stderr=True)
    for name, module, reads_content in (*DATA, BARE) if ablation else DATA:
        began, spent = time.monotonic(), time.process_time()
        found: list[Judged] = []
        with Progress(console=console) as bar:
            task = bar.add_task(name, total=seeds)
            for one in range(seed, seed + seeds):

                def say(line: str, task: TaskID = task, title: str = f"{name}, seed {one}") -> None:
                    bar.update(task, description=f"{title}: {line[:60]}")
                    report(line)

                world = module.world(one, say, reads_content)
                found.append(judge(world, one, say, reads_content, getattr(module, "search", None)))
                bar.advance(task)
        _table(results, name, found)
        if reads_content:
            _verdict(results, name, found)
            for row in found[0].checks:
                several = [one.checks[row] for one in found if row in one.checks]
                results.add(f"{name}, health: {row}", {key: mean(one[key] for one in several) for key in several[0]})
        minutes = (time.monotonic() - began) / 60, (time.process_time() - spent) / 60
        results.notes.append(f"{name}: {minutes[0]:.1f} minutes, {minutes[1]:.1f} of processor time.")
    return results


def judge(
    world: World,
    seed: int,
    report: Callable[[str], None],
    full: bool = True,
    search: Callable[[World, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]] | None = None,
) -> Judged:
    """One seed. A generator that diverges is kept out, with its reason reported.

    Args:
        full: also the row that goes on training the recommender.
        search: ranks of searches for hidden products, and the products, for a world's embeddings.
    """
    products = world.targets()

    def judged(place: World, vectors: np.ndarray, bias: np.ndarray | None = None) -> Row:
        ranks = place.judge(vectors, bias)
        found = Row(
            {f"{kind} {name}@{K}": value for kind, one in ranks.items() for name, value in figures(one, K).items()},
            {kind: ndcg_at(one, K) for kind, one in ranks.items()},
        )
        if search is not None:
            rank, products["search"] = search(place, vectors, bias)
            found.cases["search"] = ndcg_at(rank)
            found.figures["search ndcg@10"] = float(found.cases["search"].mean())
        return found

    warm, validation, numbers = world.learned(), world.validation(), world.split.test
    cold = world.content.rows(numbers)
    rows = {
        NOTHING: judged(world, world.vectors, _no_order(world, seed)),
        CATEGORY: judged(world, np.zeros_like(world.vectors), _by_category(world)),
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
        rows[row] = judged(world, world.filled(made, numbers))
        checks[row] = health(made, warm.vectors, cold.codes)
        choice[row] = generator.training.best
        if row == GAN:
            gan = generator
        report(f"{row}: validation {generator.training.best:.4f}")
    if gan is not None and full:
        virtual = virtual_products(warm, gan, category=1, seed=seed)
        after = retrained(world, virtual, replace(GO_ON, seed=seed), cold_beauty.NEGATIVES, report)
        learned = after.learned()
        again = GanGenerator().fit(enriched(learned, virtual), seed, after.validation(), report)
        made = again.embed(cold)
        rows[VIRTUAL] = judged(after, after.filled(made, numbers))
        checks[VIRTUAL] = health(made, learned.vectors, cold.codes)
        choice[VIRTUAL] = again.training.best
        report(f"{VIRTUAL}: validation {again.training.best:.4f}")
    chosen = max(choice, key=lambda row: choice[row])
    return Judged(rows | {CHOSEN: rows[chosen]}, checks, chosen, products)


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


def _table(results: Results, name: str, found: Sequence[Judged]) -> None:
    for row in found[0].rows:
        several = [one.rows[row].figures for one in found if row in one.rows]
        shown = {key: mean(one[key] for one in several) for key in several[0]}
        shown["cold ndcg ±"] = half_width([one[f"cold ndcg@{K}"] for one in several])
        results.add(f"{name}: {row}", shown)


def _verdict(results: Results, name: str, found: Sequence[Judged]) -> None:
    results.notes.append(f"{name}: validation chose, seed by seed: {', '.join(one.chosen for one in found)}.")
    results.notes.append(f"{name}: differences in NDCG with ± over the seeds, and from … to over products.")
    for mine in (GAN, CHOSEN):
        for rival in found[0].rows:
            both = [one for one in found if mine in one.rows and rival in one.rows]
            if rival in (mine, CHOSEN) or not both:
                continue
            parts = []
            for kind in both[0].products:
                gaps = [one.rows[mine].cases[kind] - one.rows[rival].cases[kind] for one in both]
                means = [float(gap.mean()) for gap in gaps]
                low, high = over_products(gaps, [one.products[kind] for one in both])
                parts.append(f"{kind} {mean(means):+.4f} ± {half_width(means):.4f} ({low:+.4f} … {high:+.4f})")
            results.notes.append(f"{name}: {mine} minus {rival}: {', '.join(parts)}.")
