"""The interest model as it is served, on Complete Journey: the protocol of
:mod:`endcap_workers.evaluation.complete_journey`.

Every feature is made by the code that serves (:mod:`endcap.features`), from profiles of at most 4 kB, the popularity,
and an affinity as of the moment; the trained model is exported, and its ONNX graph ranks the cases. Training cases are
purchases of the 31 days after each of four block starts before December, with features as of that start.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import torch

from endcap.catalog import ProductTable
from endcap.features import FEATURES
from endcap.features.affinity import AlignedAffinity
from endcap.metrics import ndcg_at, reciprocal_rank
from endcap.results import Results
from endcap.sequences import Alignment, InputSpec, Vocabulary
from endcap_workers.evaluation import complete_journey as journey
from endcap_workers.models import Interest, ModelSpec
from endcap_workers.training.affinity import build_affinity
from endcap_workers.training.cases import TEST, TRAIN, Case, Cases, CaseWriter
from endcap_workers.training.learning import learn, score
from endcap_workers.training.loop import Schedule

CUT, VALIDATION = date(2017, 12, 1), date(2017, 11, 1)
#: Days before the cut at which blocks begin, and how many purchases of each train.
STEPS_BACK = (30, 61, 91, 122)
CASES = 25_000
#: Chosen on November.
SCHEDULE = Schedule(epochs=2, patience=0, rate=3e-3, weight_decay=1e-4, warmup=50, cosine=True, average=0.998, clip=2.0)
_HORIZON = timedelta(days=31)
_INPUTS = ("candidate_features",)

Group = tuple[int, str]


def add_block(writer: CaseWriter, cases: journey.Cases, part: int) -> dict[Group, int]:
    """Write the lists of some cases: one for each household and product type, wanting all that was bought of it. Gives
    the number of each list within the part."""
    world = journey.World(cases)
    affinity = build_affinity(world.table, world.behaviour(), world.now)
    assert affinity is not None
    aligned = AlignedAffinity(affinity, world.table)
    bought: dict[Group, list[int]] = {}
    test = cases.test
    for household, product, kind in zip(test.household_id, test.product_id, test.product_type):
        bought.setdefault((household, kind), []).append(product)
    nothing = np.zeros(0)
    for (household, kind), products in sorted(bought.items()):
        candidates = cases.candidates[kind]
        inputs = world.inputs(household, kind, candidates)
        aligned.fill(inputs)
        wanted = np.zeros(len(candidates), dtype=np.int64)
        for product in products:
            wanted[np.flatnonzero(candidates == product)[0]] += 1
        buys = int(inputs.profile.buys().sum())
        writer.add(Case(inputs.features, inputs.rows, wanted, (nothing, nothing, nothing), world.now, part, buys))
    return {group: number for number, group in enumerate(sorted(bought))}


def measure(
    cut: date,
    judged: journey.Cases,
    steps_back: Sequence[int],
    seed: int = 0,
    cases: int = CASES,
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train on the blocks before ``cut``, rank the judged cases."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="endcap-evaluate-") as name:
        folder = Path(name)
        with CaseWriter(folder, 1) as writer:
            for back in steps_back:
                start = cut - timedelta(days=back)
                until = min(start + _HORIZON, cut)
                block = journey.load(cases, seed, np.datetime64(start), np.datetime64(until))
                add_block(writer, block, TRAIN)
                report(f"{start}: {writer.counts[TRAIN]:,} lists, {(time.monotonic() - began) / 60:.1f} min")
            numbers = add_block(writer, judged, TEST)
        writer.finish({})
        made = Cases(folder)
        torch.manual_seed(seed)
        model = Interest(ModelSpec(products=2, features=len(FEATURES), width=4, hidden=(128, 64), parts=("features",)))
        table = ProductTable([])
        aligned = Alignment(table, Vocabulary(), InputSpec(inputs=_INPUTS))
        learn(model, made, aligned, replace(SCHEDULE, seed=seed), report=report)
        found = score(model, made, made.part(TEST), aligned)
    new = {(h, p): bool(n) for h, p, n in zip(judged.test.household_id, judged.test.product_id, judged.test.new)}
    rank, weight, group = found.ranks()
    groups = list(numbers)
    rows = np.flatnonzero(found.wanted > 0)
    is_new = np.zeros(len(rows), dtype=bool)
    for at, (row, number) in enumerate(zip(rows.tolist(), group.tolist(), strict=True)):
        household, kind = groups[number]
        is_new[at] = new[household, judged.candidates[kind][row - found.starts[number]]]
    ndcg = ndcg_at(rank)
    return {
        "ndcg@10": float(np.average(ndcg, weights=weight)),
        "ndcg@10 repeat": float(np.average(ndcg[~is_new], weights=weight[~is_new])),
        "ndcg@10 new": float(np.average(ndcg[is_new], weights=weight[is_new])),
        "mrr": float(np.average(reciprocal_rank(rank), weights=weight)),
    }


def validate(seed: int = 0) -> dict[str, float]:
    """The figures that choices go by: November, trained on what came before."""
    judged = journey.load(20_000, seed, np.datetime64(VALIDATION), np.datetime64(CUT))
    return measure(VALIDATION, judged, (31, 61, 92), seed)


def run(seed: int = 0, report: Callable[[str], None] = print) -> Results:
    """The protocol's row. The published protocol is seed 0; another seed samples other cases."""
    results = Results("interest-served", "endcap evaluate interest-served", seed)
    began = time.monotonic()
    results.add(
        "Endcap, interest model as served", measure(CUT, journey.load(seed=seed), STEPS_BACK, seed, CASES, report)
    )
    results.notes.append(f"{(time.monotonic() - began) / 60:.0f} minutes, of which reading and features are most.")
    results.notes.append("Measured beside it (protocol file): LightGBM lambdarank .5525, repeat .8171, new .2935.")
    return results


if __name__ == "__main__":
    print(validate())
