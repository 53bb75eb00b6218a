"""Complete Journey for :mod:`endcap_workers.evaluation.cold_products`: maker, type, category, label and size.

A household's sequence is what it bought for the first time, in order, before December: the latest 100 products (more
would cost hours), cut into windows of 50. Products of fewer than ten households are left out. Beside the common
figures: personalised search in December (:mod:`endcap_workers.evaluation.complete_journey`), of those cases alone that
look for a hidden product; it competes with the other products of its type, hidden and warm, for the household as its
last window leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from endcap.metrics import expected_rank
from endcap_workers.augmentation.base import Content
from endcap_workers.evaluation import complete_journey
from endcap_workers.evaluation.cold_world import World, build
from endcap_workers.models import ModelSpec
from endcap_workers.training.loop import Schedule

SPEC = ModelSpec(products=0, width=64, dropout=0.3, scale=14.0)
SCHEDULE = Schedule(epochs=16, patience=4, rate=4e-3, warmup=50)
NEGATIVES, BATCH = 512, 48
FEWEST_HOUSEHOLDS, WINDOW, LATEST = 10, 50, 100


@dataclass(frozen=True, slots=True)
class Journey:
    """Numbers (≥ 2) of products; ``cases``: row of the household's last sequence, number looked for, its rivals."""

    sequences: list[np.ndarray]
    content: Content
    cases: list[tuple[int, int, np.ndarray]]


@lru_cache(maxsize=1)
def load() -> Journey:
    """Raises ModuleNotFoundError where the ``demo`` extra is not installed."""
    import pandas

    data = complete_journey.load()
    first = data.train.drop_duplicates(["household_id", "product_id"]).groupby("household_id").tail(LATEST)
    households = first.product_id.map(first.groupby("product_id").household_id.size())
    first = first[households >= FEWEST_HOUSEHOLDS]
    ids = np.sort(first.product_id.unique())
    products = data.products.drop_duplicates("product_id").set_index("product_id").loc[ids]
    columns = ("manufacturer_id", "product_type", "product_category", "brand", "package_size")
    codes = np.zeros((len(ids) + 2, len(columns)), dtype=np.int64)
    for place, column in enumerate(columns):
        codes[2:, place] = pandas.factorize(products[column])[0] + 1  # -1 where it is not known
    sizes = tuple(int(column.max()) + 1 for column in codes.T)
    sequences: list[np.ndarray] = []
    last: dict[Any, int] = {}
    for household, group in first.groupby("household_id", sort=True):
        numbers = np.searchsorted(ids, group.product_id.to_numpy()) + 2
        starts = range(len(numbers) % WINDOW if len(numbers) > WINDOW else 0, len(numbers), WINDOW)
        sequences += [numbers[start : start + WINDOW] for start in starts]
        last[household] = len(sequences) - 1
    number_of: Mapping[Any, int] = {product: number for number, product in enumerate(ids.tolist(), start=2)}
    rivals = {
        name: np.array([number_of[one] for one in listed.tolist() if one in number_of])
        for name, listed in data.candidates.items()
    }
    test = data.test
    cases = [
        (last[household], number_of[product], rivals[name])
        for household, product, name in zip(test.household_id, test.product_id, test.product_type)
        if household in last and product in number_of
    ]
    return Journey(sequences, Content(codes, np.zeros((len(codes), 0), np.float32), sizes), cases)


def world(seed: int, report: Callable[[str], None], reads_content: bool = True) -> World:
    """One seed's split and recommender."""
    made = load()
    return build(made.sequences, made.content, seed, "journey", SCHEDULE, SPEC, NEGATIVES, report, reads_content, BATCH)


def search(world: World, vectors: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rank of what was bought in each of December's searches for hidden products (m,), and its number (m,)."""
    hidden = np.zeros(len(vectors), dtype=bool)
    hidden[world.split.test] = True
    away = np.zeros(len(vectors), dtype=bool)
    away[world.split.valid] = True  # hidden to choose by: no rivals here
    extra = np.zeros(len(vectors)) if bias is None else bias
    ranks, found = [], []
    for row, wanted, rivals in load().cases:
        if not hidden[wanted]:
            continue
        rivals = rivals[~away[rivals]]
        scores = vectors[rivals] @ world.last_states[row] + extra[rivals]
        ranks.append(expected_rank(scores, int(np.flatnonzero(rivals == wanted)[0])))
        found.append(wanted)
    return np.array(ranks), np.array(found)
