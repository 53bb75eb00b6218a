"""What each part of the Interest model is worth on Complete Journey, judged on November (validation, not the test).

A sample, so that every row is affordable: 12,000 lists of October train, 12,000 of November are judged, all rows on the
same ones, with the features that are served. Differences of a thousandth are noise here (the standard error is about
.003, less between rows); the chosen model's own figures, on four months, are those of ``endcap evaluate
interest-served``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from endcap.catalog import ProductTable
from endcap.features import FEATURES, INDEX
from endcap.features.names import AFFINITY, CROWD, OWN, SHELF, TASTE
from endcap.results import Results
from endcap.sequences import CODES, Alignment, InputSpec, Vocabulary
from endcap_workers.evaluation import complete_journey as journey
from endcap_workers.evaluation.interest_served import CUT, VALIDATION, Judged, add_block, tree_scores
from endcap_workers.models import INPUTS, DnnModel, Interest, InterestModel, ModelSpec
from endcap_workers.training.cases import TEST, TRAIN, Cases, CaseWriter
from endcap_workers.training.learning import Scores, learn, score
from endcap_workers.training.loop import Schedule

LISTS = 12_000
#: Latest purchases of a household that sequence and attention read.
PLACES = 50
#: Products that were bought so often have a number of their own.
FEWEST = 5
SCHEDULE = Schedule(epochs=3, patience=0, rate=3e-3, weight_decay=1e-4, warmup=50, cosine=True, average=0.99, clip=2.0)
GROUPS = {"own": (*OWN, *SHELF), "taste": TASTE, "crowd": CROWD, "affinity": AFFINITY}


@dataclass(frozen=True, slots=True)
class Row:
    """``parts`` of :class:`Interest`, or None for the DNN; ``without`` a group of features; ``ids``: whether products
    have numbers of their own; ``among``: whether features are compared with those of the list's other candidates."""

    parts: tuple[str, ...] | None = ("features",)
    without: str = ""
    ids: bool = True
    hidden: tuple[int, ...] = (256, 128)
    among: bool = True


ROWS = {
    "features (chosen)": Row(),
    "features, linear": Row(hidden=()),
    "features, half as wide": Row(hidden=(128, 64)),
    "features, each candidate on its own": Row(among=False),
    **{f"features without {group}": Row(without=group) for group in GROUPS},
    "features + LSTM": Row(("features", "sequence")),
    "features + attention": Row(("features", "attention")),
    "features + LSTM + attention": Row(("features", "sequence", "attention")),
    "features + LSTM + attention, without ids": Row(("features", "sequence", "attention"), ids=False),
    "LSTM + attention": Row(("sequence", "attention")),
    "LSTM + attention, without ids": Row(("sequence", "attention"), ids=False),
    "DNN (vectors and features)": Row(None),
}


def blinded(cases: Cases, group: str) -> Cases:
    """The same cases, of which a group of features says nothing."""
    some = copy(cases)
    some.features = np.array(cases.features)
    some.features[:, [INDEX[name] for name in GROUPS[group]]] = 0.0
    return some


def run(seed: int = 0, report: Callable[[str], None] = print) -> Results:
    """All rows, and LightGBM on the same lists and features."""
    results = Results("interest-ablation, November", "endcap evaluate interest-ablation", seed)
    with tempfile.TemporaryDirectory(prefix="endcap-evaluate-") as name:
        made, judged, known = make_cases(Path(name), LISTS, seed)
        scores = {}
        for label, row in ROWS.items():
            began = time.monotonic()
            scores[label] = scores_of(row, made, known, seed)
            _add(results, label, judged, scores[label], began, report)
        began = time.monotonic()
        trees = tree_scores(made, seed, LISTS)
        _add(results, "LightGBM lambdarank, the same features", judged, trees, began, report)
    chosen = scores[next(iter(ROWS))]
    both = Scores(trees.starts, _chances(chosen) + _chances(trees), trees.wanted)
    results.add("vote of the chosen model and LightGBM", judged.figures(both))
    return results


@dataclass(frozen=True, slots=True)
class Known:
    """The products as of November, and what models that were trained on October call them."""

    table: ProductTable
    vocabulary: Vocabulary


def make_cases(folder: Path, lists: int, seed: int) -> tuple[Cases, Judged, Known]:
    """Lists of October, which train, and of November."""
    before = VALIDATION - timedelta(days=31)
    every = 1_000_000
    later = journey.load(every, seed, np.datetime64(VALIDATION), np.datetime64(CUT))
    earlier = journey.load(every, seed, np.datetime64(before), np.datetime64(VALIDATION))
    table = ProductTable(list(journey.table_products(later)))
    counts = earlier.train.product_id.value_counts()
    often = sorted(str(product) for product in counts[counts >= FEWEST].index.tolist())
    known = Known(table, Vocabulary.of(table, often))
    aligned = Alignment(table, known.vocabulary, InputSpec(places=PLACES))
    with CaseWriter(folder, PLACES) as writer:
        add_block(writer, earlier, TRAIN, lists, seed, aligned)
        numbers = add_block(writer, later, TEST, lists, seed, aligned)
    writer.finish({})
    return Cases(folder), Judged(later, numbers), known


def scores_of(row: Row, made: Cases, known: Known, seed: int) -> Scores:
    """Train a row's model, and what it says of the lists that judge."""
    vocabulary = known.vocabulary if row.ids else replace(known.vocabulary, products=[])
    reads = ("candidate_features",) if row.parts == ("features",) else INPUTS
    own = Alignment(known.table, vocabulary, InputSpec(places=PLACES, inputs=reads))
    spec = ModelSpec(
        products=vocabulary.numbers,
        codes=vocabulary.sizes(CODES),
        features=len(FEATURES),
        width=32,
        hidden=row.hidden,
        id_dropout=0.5 if row.ids else 0.0,
        places=PLACES,
        among=row.among,
        parts=row.parts or ("features",),
    )
    torch.manual_seed(seed)
    model: InterestModel = Interest(spec) if row.parts else DnnModel(spec)
    cases = blinded(made, row.without) if row.without else made
    learn(model, cases, own, replace(SCHEDULE, seed=seed))
    return score(model, cases, cases.part(TEST), own)


def _add(
    results: Results, label: str, judged: Judged, scores: Scores, began: float, report: Callable[[str], None]
) -> None:
    minutes = (time.monotonic() - began) / 60
    results.add(label, {**judged.figures(scores), "minutes": minutes})
    report(f"{label}: {results.rows[label]['ndcg@10']:.4f}, {minutes:.1f} minutes")


def _chances(found: Scores) -> np.ndarray:
    """Log of the softmax within each list."""
    first, sizes = found.starts[:-1], np.diff(found.starts)
    apart = found.scores - np.repeat(np.maximum.reduceat(found.scores, first), sizes)
    return apart - np.repeat(np.log(np.add.reduceat(np.exp(apart), first)), sizes)
