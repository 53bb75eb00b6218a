"""What each part of the Interest model is worth on Complete Journey, judged on November (validation, not the test).

A sample, so that every row is affordable: 12,000 lists of October train, 12,000 of November are judged, all rows on the
same ones. Differences of a thousandth are noise here (the standard error is about .003, less between rows); the
chosen model's own figures, on four months, are those of ``endcap evaluate interest-journey``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import torch

from endcap.metrics import ndcg_at
from endcap.results import Results
from endcap_workers.evaluation import interest_journey as journey
from endcap_workers.models import UNKNOWN, DnnModel, Interest, InterestModel, ModelSpec
from endcap_workers.training.behaviour import Lists
from endcap_workers.training.loop import Schedule
from endcap_workers.training.ranking import Block, Vocabulary, case_ranks, scores_of, train_ranking

LISTS = 12_000
BATCH = 96
SCHEDULE = Schedule(epochs=3, patience=0, rate=3e-3, weight_decay=1e-4, warmup=50, cosine=True, average=0.99, clip=2.0)
_ROUNDS = {"num_iterations": 300, "learning_rate": 0.06, "num_leaves": 31, "min_data_in_leaf": 50}


@dataclass(frozen=True, slots=True)
class Row:
    """``groups`` of features; ``parts`` of :class:`Interest`, or None for the DNN; ``ids``: whether products have
    numbers of their own."""

    parts: tuple[str, ...] | None
    groups: tuple[str, ...] = ("own", "taste", "crowd")
    ids: bool = True
    hidden: tuple[int, ...] = (128, 64)


ROWS = {
    "features (chosen)": Row(("features",)),
    "features, linear": Row(("features",), hidden=()),
    "features without own": Row(("features",), groups=("taste", "crowd")),
    "features without taste": Row(("features",), groups=("own", "crowd")),
    "features without crowd": Row(("features",), groups=("own", "taste")),
    "features + LSTM": Row(("features", "sequence")),
    "features + attention": Row(("features", "attention")),
    "features + LSTM + attention": Row(("features", "sequence", "attention")),
    "features + LSTM + attention, without ids": Row(("features", "sequence", "attention"), ids=False),
    "LSTM + attention": Row(("sequence", "attention")),
    "LSTM + attention, without ids": Row(("sequence", "attention"), ids=False),
    "DNN (vectors and features)": Row(None),
}


def part_of(block: Block, chosen: np.ndarray) -> Block:
    """A block of some of its lists."""
    lists, size = block.lists, np.diff(block.lists.starts)[chosen]
    starts = np.r_[0, np.cumsum(size)]
    rows = np.repeat(lists.starts[chosen] - starts[:-1], size) + np.arange(int(starts[-1]))
    some = Lists(lists.shopper[chosen], lists.type[chosen], starts, lists.product[rows], lists.wanted[rows])
    return Block(some, block.features[rows], block.histories)


def columns_of(names: list[str], groups: tuple[str, ...]) -> np.ndarray:
    """Numbers of the columns of some groups: they come group by group, own, taste, crowd."""
    taste = next(number for number, name in enumerate(names) if name.startswith("taste_"))
    crowd = next(number for number, name in enumerate(names) if name.startswith("pop_"))
    ranges = {"own": range(taste), "taste": range(taste, crowd), "crowd": range(crowd, len(names))}
    return np.concatenate([np.array(ranges[group]) for group in groups])


def run(seed: int = 0, report: Callable[[str], None] = print) -> Results:
    """All rows, and LightGBM on the same lists and features."""
    results = Results("interest-ablation, November", "endcap evaluate interest-ablation", seed)
    world = journey.load(seed)
    draw = np.random.default_rng(seed)
    blocks = []
    for start in (journey.VALIDATION - timedelta(days=31), journey.VALIDATION):
        made, names = journey.block(world, start)
        blocks.append(part_of(made, np.sort(draw.permutation(len(made.lists.shopper))[:LISTS])))
        del made
    own = blocks[1].features[:, names.index("own_any")] > 0
    words = journey.vocabulary(world, journey.VALIDATION - timedelta(days=31))
    scores = {}
    for name, row in ROWS.items():
        began = time.monotonic()
        scores[name] = _train(row, blocks, names, words, seed)
        results.add(name, {**_figures(scores[name], blocks[1].lists, own), "minutes": (time.monotonic() - began) / 60})
        report(f"{name}: {results.rows[name]['ndcg@10']:.4f}, {results.rows[name]['minutes']:.1f} minutes")
    began = time.monotonic()
    trees = _lightgbm(blocks, seed)
    results.add("LightGBM lambdarank, the same features", {**_figures(trees, blocks[1].lists, own), "minutes": 0.0})
    results.rows["LightGBM lambdarank, the same features"]["minutes"] = (time.monotonic() - began) / 60
    first = next(iter(ROWS))
    both = _chances(scores[first], blocks[1].lists) + _chances(trees, blocks[1].lists)
    minutes = sum(results.rows[name]["minutes"] for name in (first, "LightGBM lambdarank, the same features"))
    results.add("vote of the chosen model and LightGBM", {**_figures(both, blocks[1].lists, own), "minutes": minutes})
    return results


def _train(row: Row, blocks: list[Block], names: list[str], words: Vocabulary, seed: int) -> np.ndarray:
    """Scores of the judged block's rows."""
    columns = columns_of(names, row.groups)
    if not row.ids:
        words = replace(words, numbers=np.full(len(words.numbers), UNKNOWN))
    spec = ModelSpec(
        products=int(words.numbers.max()) + 1,
        codes=tuple(int(column.max()) + 1 for column in words.codes.T),
        features=len(columns),
        width=32,
        hidden=row.hidden,
        id_dropout=0.5 if row.ids else 0.0,
        places=journey.PLACES,
        parts=row.parts or ("features",),
    )
    torch.manual_seed(seed)
    model: InterestModel = Interest(spec) if row.parts else DnnModel(spec)
    # Where no part reads the history, it need not be looked up.
    reads = row.parts != ("features",)
    train, judged = (Block(one.lists, one.features[:, columns], one.histories if reads else None) for one in blocks)
    train_ranking(model, [train], None, words, replace(SCHEDULE, seed=seed), batch=BATCH)
    return scores_of(model, judged, words)


def _lightgbm(blocks: list[Block], seed: int) -> np.ndarray:
    import lightgbm

    train, judged = blocks
    data = lightgbm.Dataset(
        train.features.astype(np.float32), np.minimum(train.lists.wanted, 3), group=np.diff(train.lists.starts)
    )
    options = {**_ROUNDS, "objective": "lambdarank", "seed": seed, "num_threads": 2, "verbose": -1}
    scores = lightgbm.train(options, data).predict(judged.features.astype(np.float32))
    return np.asarray(scores, dtype=np.float32)


def _chances(scores: np.ndarray, lists: Lists) -> np.ndarray:
    """Log of the softmax within each list."""
    top = np.maximum.reduceat(scores, lists.starts[:-1])[lists.group]
    sums = np.add.reduceat(np.exp(scores - top), lists.starts[:-1])[lists.group]
    return scores - top - np.log(sums)


def _figures(scores: np.ndarray, lists: Lists, own: np.ndarray) -> dict[str, float]:
    rank, weight, rows = case_ranks(lists, scores)
    ndcg, new = ndcg_at(rank), ~own[rows]
    return {
        "ndcg@10": float(np.average(ndcg, weights=weight)),
        "ndcg@10 repeat": float(np.average(ndcg[~new], weights=weight[~new])),
        "ndcg@10 new": float(np.average(ndcg[new], weights=weight[new])),
    }
