"""The interest model as it is served, on Complete Journey: the protocol of
:mod:`endcap_workers.evaluation.complete_journey`, with what one compares it with on the same features.

Every feature is made by the code that serves (:mod:`endcap.features`), from profiles of at most 4 kB, the popularity,
and an affinity as of the moment; the trained model is exported, and its ONNX graph ranks the cases. Training cases are
the purchases of the 31 days after each of four block starts before December, with features as of that start.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from endcap.catalog import ProductTable
from endcap.features import FEATURES
from endcap.features.affinity import AlignedAffinity
from endcap.metrics import ndcg_at, reciprocal_rank
from endcap.profiles import DAY_S
from endcap.results import Results
from endcap.scoring.baseline import BaselineScorer
from endcap.sequences import OUTPUT, Alignment, InputSpec, Vocabulary
from endcap_workers.evaluation import complete_journey as journey
from endcap_workers.models import Interest, ModelSpec
from endcap_workers.training.affinity import build_affinity
from endcap_workers.training.cases import TEST, TRAIN, Case, Cases, CaseWriter
from endcap_workers.training.export import to_onnx
from endcap_workers.training.learning import Scores, learn
from endcap_workers.training.loop import Schedule

CUT, VALIDATION = date(2017, 12, 1), date(2017, 11, 1)
#: Days before the cut at which blocks begin.
STEPS_BACK = (30, 61, 91, 122)
#: Purchases of each block that train, at most; with more than some 25,000 little changes.
CASES = 40_000
#: Chosen on November, but for one pass in place of two: there were fewer lists then.
SCHEDULE = Schedule(epochs=1, patience=0, rate=3e-3, weight_decay=1e-4, warmup=50, cosine=True, average=0.998, clip=2.0)
#: Lists that LightGBM trains on: more take it longer than the model takes for all of them.
TREE_LISTS = 20_000
_ROUNDS = {"num_iterations": 300, "learning_rate": 0.06, "num_leaves": 31, "min_data_in_leaf": 50}
_HORIZON = timedelta(days=31)
_INPUTS = ("candidate_features",)

Group = tuple[int, str]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """The cases that judge, as they were written: the number of each list, and whether a household had bought each
    product before."""

    cases: journey.Cases
    numbers: dict[Group, int]

    def figures(self, found: Scores) -> dict[str, float]:
        """NDCG@10 of all, repeat and new cases, and MRR."""
        test = self.cases.test
        new = {(h, p): bool(n) for h, p, n in zip(test.household_id, test.product_id, test.new)}
        rank, weight, group = found.ranks()
        groups = list(self.numbers)
        is_new = np.zeros(len(rank), dtype=bool)
        for at, (row, number) in enumerate(zip(np.flatnonzero(found.wanted > 0).tolist(), group.tolist(), strict=True)):
            household, kind = groups[number]
            is_new[at] = new[household, self.cases.candidates[kind][row - found.starts[number]]]
        ndcg = ndcg_at(rank)
        return {
            "ndcg@10": float(np.average(ndcg, weights=weight)),
            "ndcg@10 repeat": float(np.average(ndcg[~is_new], weights=weight[~is_new])),
            "ndcg@10 new": float(np.average(ndcg[is_new], weights=weight[is_new])),
            "mrr": float(np.average(reciprocal_rank(rank), weights=weight)),
        }


def add_block(
    writer: CaseWriter, cases: journey.Cases, part: int, most: int = 0, seed: int = 0, shared: Alignment | None = None
) -> dict[Group, int]:
    """Write the lists of some cases: one for each household and product type, wanting all that was bought of it. Gives
    the number of each list within the part.

    Args:
        most: so many lists, drawn by ``seed``; 0: all.
        shared: whose table the rows are of, and which gives the histories; None: for models that read features alone.
    """
    world = journey.World(cases)
    affinity = build_affinity(world.table, world.behaviour(), world.now)
    assert affinity is not None
    aligned = AlignedAffinity(affinity, world.table)
    bought: dict[Group, list[int]] = {}
    test = cases.test
    for household, product, kind in zip(test.household_id, test.product_id, test.product_type):
        bought.setdefault((household, kind), []).append(product)
    groups = sorted(bought)
    if most:
        chosen = np.random.default_rng(seed).permutation(len(groups))[:most]
        groups = [groups[number] for number in np.sort(chosen).tolist()]
    nothing = np.zeros(0)
    history = (nothing, nothing, nothing)
    for household, kind in groups:
        candidates = cases.candidates[kind]
        inputs = world.inputs(household, kind, candidates)
        aligned.fill(inputs)
        wanted = np.zeros(len(candidates), dtype=np.int64)
        for product in bought[household, kind]:
            wanted[np.flatnonzero(candidates == product)[0]] += 1
        rows = inputs.rows
        if shared is not None:
            rows = shared.table.rows([str(product) for product in candidates.tolist()])
            then, _, actions, times = shared.history(inputs.profile, world.now)
            history = (then, actions, np.maximum((world.now - times) / DAY_S, 0.0))
        buys = int(inputs.profile.buys().sum())
        writer.add(Case(inputs.features, rows, wanted, history, world.now, part, buys))
    return {group: number for number, group in enumerate(groups)}


def make_cases(
    folder: Path, cut: date, judged: journey.Cases, steps_back: Sequence[int], seed: int, cases: int, report: Report
) -> tuple[Cases, Judged]:
    """The lists of the blocks before ``cut``, which train, and of the judged cases."""
    began = time.monotonic()
    with CaseWriter(folder, 1) as writer:
        for back in steps_back:
            start = cut - timedelta(days=back)
            until = min(start + _HORIZON, cut)
            add_block(writer, journey.load(cases, seed, np.datetime64(start), np.datetime64(until)), TRAIN)
            report(f"{start}: {writer.counts[TRAIN]:,} lists, {(time.monotonic() - began) / 60:.1f} min")
        numbers = add_block(writer, judged, TEST)
    writer.finish({})
    return Cases(folder), Judged(judged, numbers)


def train(made: Cases, seed: int, report: Report) -> Interest:
    """The model that ``endcap train`` makes, on the lists that train."""
    torch.manual_seed(seed)
    spec = ModelSpec(products=2, features=len(FEATURES), width=4, hidden=(256, 128), among=True, parts=("features",))
    model = Interest(spec)
    aligned = Alignment(ProductTable([]), Vocabulary(), InputSpec(inputs=_INPUTS))
    learn(model, made, aligned, replace(SCHEDULE, seed=seed), report=report)
    return model


def served_scores(model: Interest, made: Cases, folder: Path) -> Scores:
    """What the exported graph says of the lists that judge, one search at a time, as a server asks it."""
    path = folder / "model.onnx"
    to_onnx(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def score(features: np.ndarray) -> np.ndarray:
        (scores,) = session.run([OUTPUT], {"candidate_features": features[None]})
        return np.asarray(scores)[0]

    return _scores(made, score)


def tree_scores(made: Cases, seed: int, lists: int = TREE_LISTS) -> Scores:
    """LightGBM's lambdarank on the same features, of a sample of the lists."""
    import lightgbm

    chosen = np.random.default_rng(seed).permutation(made.part(TRAIN))[:lists]
    chosen = made.lists[np.sort(chosen)]
    rows = np.concatenate([np.arange(one["start"], one["start"] + one["size"]) for one in chosen])
    data = lightgbm.Dataset(
        made.features[rows].astype(np.float32),
        np.minimum(made.wanted[rows].astype(np.float32), 3),
        group=np.ascontiguousarray(chosen["size"]),
    )
    options = {**_ROUNDS, "objective": "lambdarank", "seed": seed, "verbose": -1}
    trees = lightgbm.train(options, data)
    return _scores(made, lambda features: np.asarray(trees.predict(features), dtype=np.float32))


def _scores(made: Cases, score: Callable[[np.ndarray], np.ndarray]) -> Scores:
    lists = made.lists[made.part(TEST)]
    rows = [np.arange(one["start"], one["start"] + one["size"]) for one in lists]
    scores = np.concatenate([score(made.features[one].astype(np.float32)) for one in rows])
    wanted = made.wanted[np.concatenate(rows)].astype(np.float32)
    return Scores(np.r_[0, np.cumsum(lists["size"], dtype=np.int64)], scores, wanted)


def validate(seed: int = 0, cases: int = CASES, report: Report = print) -> dict[str, float]:
    """The figures that choices go by: November, trained on what came before."""
    judged = journey.load(20_000, seed, np.datetime64(VALIDATION), np.datetime64(CUT))
    with tempfile.TemporaryDirectory(prefix="endcap-evaluate-") as name:
        made, known = make_cases(Path(name), VALIDATION, judged, (31, 61, 92), seed, cases, report)
        return known.figures(served_scores(train(made, seed, report), made, Path(name)))


def run(seed: int = 0, report: Report = print) -> Results:
    """The protocol's rows. The published protocol is seed 0; another seed samples other cases."""
    results = Results("interest-served", "endcap evaluate interest-served", seed)
    judged = journey.load(seed=seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="endcap-evaluate-") as name:
        folder = Path(name)
        made, known = make_cases(folder, CUT, judged, STEPS_BACK, seed, CASES, report)
        minutes = [(time.monotonic() - began) / 60]
        model = train(made, seed, report)
        minutes.append((time.monotonic() - began) / 60)
        served = known.figures(served_scores(model, made, folder))
        report(f"as served: {served}")
        for label, order in journey.baselines(judged).items():
            results.add(label, journey.evaluate(judged, order))
        baseline = journey.World(judged).score_with(BaselineScorer(), _no_engine)
        results.add("Endcap, baseline scorer", journey.evaluate(judged, baseline))
        began = time.monotonic()
        trees = tree_scores(made, seed)
        results.add("LightGBM lambdarank, the same features", known.figures(trees))
        minutes.append((time.monotonic() - began) / 60)
    results.add("Endcap, interest model as served", served)
    results.notes.append(
        f"Features {minutes[0]:.0f} minutes, training {minutes[1] - minutes[0]:.0f} minutes on all lists; LightGBM "
        f"{minutes[2]:.0f} minutes on {TREE_LISTS:,} of them."
    )
    results.notes.append("Measured beside it (protocol file): LightGBM lambdarank .5525, repeat .8171, new .2935.")
    return results


def _no_engine(household: int, name: str, candidates: np.ndarray) -> np.ndarray:
    return np.zeros(len(candidates), dtype=np.float32)


if __name__ == "__main__":
    print(validate())
