"""What comes next in Amazon Beauty (5-core, S3-Rec's preparation): leave-one-out, ranked among all 12,101 products.

The last product of each of 22,363 users is the test target, the one before it the validation target; products of the
user's own past are no candidates. Published on this split, full ranking (HR@10 / NDCG@10): GRU4Rec .0283/.0137, SASRec
.0605/.0318, S3-Rec .0647/.0327, SASRec with sampled softmax .0921/.0531. Leave-one-out looks into the future of other
users; it is kept because the published figures do. The data has no times, so it cannot be split by time.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from endcap.metrics import ndcg_at
from endcap.results import Results
from endcap_workers.evaluation.lambdarank import lambdarank_ranks
from endcap_workers.evaluation.library_baselines import implicit_ranks
from endcap_workers.evaluation.recipes import Recipe, Trained, add_rows, cook, described, torch_device
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.models import LstmModel, ModelSpec, SequenceModel, TransformerModel
from endcap_workers.models.base import PADDING, last_state
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import (
    Catalogue,
    Prefixes,
    all_vectors,
    device_of,
    evaluate,
    padded,
    states_of,
)

K = 10
#: Brand, and up to three levels of category below it.
LEVELS = 4
#: All chosen by validation NDCG@10 (.0715 with this recipe) among some 50 runs. Width 64: .0647, 128: .0687. At
#: width 64 without brand and category .0586, with 2,048 drawn products .0586, with products seen before left in .0639.
#: bfloat16 costs nothing (.0716) and takes half as long on a processor that has it.
LSTM = Recipe(
    LstmModel,
    ModelSpec(products=0, width=256, dropout=0.5, scale=14.0),
    Schedule(epochs=40, patience=5, rate=1e-3, average=0.99),
    {"batch": 128, "negatives": 0, "hide_seen": True, "half": True},
)
#: Validation .0684.
TRANSFORMER = Recipe(
    TransformerModel,
    ModelSpec(products=0, width=128, layers=2, dropout=0.5, scale=14.0, relative=True),
    Schedule(epochs=60, patience=6, rate=2e-3),
    {"batch": 256, "negatives": 0, "hide_seen": True},
)
CHOSEN = "LSTM"
#: Trained too with ``ablation``: what the chosen recipe has, taken away one by one, and the other model.
ABLATION: dict[str, Recipe] = {
    "LSTM, width 64": replace(LSTM, spec=replace(LSTM.spec, width=64)),
    "LSTM without brand and category": replace(LSTM, coded=False),
    "LSTM, 2,048 drawn products": replace(LSTM, options={"batch": 128, "negatives": 2_048, "half": True}),
    "LSTM, seen products as rivals": replace(LSTM, options={"batch": 128, "negatives": 0, "half": True}),
    "LSTM, float32": replace(LSTM, options={**LSTM.options, "half": False}),
    "transformer": TRANSFORMER,
}


@dataclass(frozen=True, slots=True)
class Beauty:
    """Numbers start at 2, as the models want them."""

    train: list[np.ndarray]
    valid: Prefixes
    test: Prefixes
    catalogue: Catalogue
    code_sizes: tuple[int, ...]


def load() -> Beauty:
    """The split, with brand and the path of categories as codes.

    Raises:
        ConfigurationError: the data is not there.
    """
    with gzip.open(shared_file("amazon-beauty", "Beauty.txt.gz"), "rt") as lines:
        sequences = [np.array(line.split()[1:], dtype=np.int64) + 1 for line in lines]
    products = int(max(sequence.max() for sequence in sequences)) + 1
    with gzip.open(shared_file("amazon-beauty", "Beauty_items.tsv.gz"), "rt") as lines:
        next(lines)
        rows = [line.rstrip("\n").split("\t") for line in lines]
    attributes = {int(number) + 1: names.split("|") for number, _, names in rows}
    codes, sizes = _codes(attributes, products)
    return Beauty(
        train=[sequence[:-2] for sequence in sequences],
        valid=Prefixes([one[:-2] for one in sequences], np.array([one[-2] for one in sequences]), hide_seen=True),
        test=Prefixes([one[:-1] for one in sequences], np.array([one[-1] for one in sequences]), hide_seen=True),
        catalogue=Catalogue(torch.from_numpy(codes), torch.zeros(products, 0)),
        code_sizes=sizes,
    )


def _codes(attributes: dict[int, list[str]], products: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Brand and each level's path of categories, 0 where there is none.

    The file does not say which attribute is a brand: one that only ever comes first is.
    """
    categories = {name for names in attributes.values() for name in names[1:]}
    codes = np.zeros((products, LEVELS), dtype=np.int64)
    vocabularies: list[dict[str, int]] = [{"": 0} for _ in range(LEVELS)]
    for number, names in attributes.items():
        brand, path = ("", names) if names[0] in categories else (names[0], names[1:])
        values = [brand, *("|".join(path[: level + 1]) for level in range(min(len(path), LEVELS - 1)))]
        for level, value in enumerate(values):
            codes[number, level] = vocabularies[level].setdefault(value, len(vocabularies[level]))
    return codes, tuple(len(vocabulary) for vocabulary in vocabularies)


def run(
    seed: int = 0,
    device: str = "auto",
    seeds: int = 1,
    ablation: bool = False,
    report: Callable[[str], None] = print,
) -> Results:
    """Baselines and models, chosen on the validation targets, judged once on the test targets."""
    data, on = load(), torch_device(device)
    results = Results("beauty", "endcap evaluate beauty", seed)
    add_baselines(results, data, seed)
    made = add_model(results, data, CHOSEN, LSTM, range(seed, seed + seeds), on, report)
    add_both(results, data, made[0].model, seed)
    for name, recipe in ABLATION.items() if ablation else ():
        add_model(results, data, name, recipe, range(seed, seed + seeds), on, report)
    if ablation:
        add_retrained(results, data, seed, on, report)
    results.notes.append(f"Trained on: {described(on)}.")
    results.notes.append("Published: SASRec .0605/.0318, S3-Rec .0647/.0327, SASRec with sampled softmax .0921/.0531.")
    return results


def add_model(
    results: Results,
    data: Beauty,
    name: str,
    recipe: Recipe,
    seeds: range,
    device: torch.device,
    report: Callable[[str], None] = print,
) -> list[Trained]:
    """The rows of one recipe."""
    return add_rows(
        results,
        name,
        seeds,
        lambda one: cook(recipe, data.catalogue, data.code_sizes, data.train, data.valid, one, device, report),
        lambda models: _named(evaluate(models, data.catalogue, data.test, K)),
        report,
    )


def add_both(results: Results, data: Beauty, model: SequenceModel, seed: int) -> None:
    """What the model says beside counts, in LightGBM's hands, which learns from the validation targets."""
    device = device_of(model)
    catalogue = data.catalogue.to(device)
    with torch.no_grad():
        vectors = all_vectors(model.eval(), catalogue)

    def said(histories: Sequence[np.ndarray]) -> np.ndarray:
        products = padded([history[-model.spec.places :] for history in histories]).to(device)
        with torch.no_grad():
            last = last_state(states_of(model, catalogue, products), products != PADDING)
            scores: np.ndarray = (last @ vectors.T).cpu().numpy()
        scores[:, :2] = -np.inf
        return scores

    codes = data.catalogue.codes.numpy()
    rank = lambdarank_ranks(data.train, data.valid, data.test.histories, data.test, codes, K, seed, said)
    results.add("the model and neighbours, ranked by LightGBM", _figures(rank))


def add_retrained(
    results: Results, data: Beauty, seed: int, device: torch.device, report: Callable[[str], None] = print
) -> None:
    """The chosen recipe, trained for as many epochs as validation chose with the validation targets as the last
    training products: what a shop would do, but not what the published figures did."""
    first = cook(LSTM, data.catalogue, data.code_sizes, data.train, data.valid, seed, device, report)
    longer = replace(LSTM, schedule=replace(LSTM.schedule, epochs=first.epoch))
    second = cook(longer, data.catalogue, data.code_sizes, data.test.histories, None, seed, device, report)
    figures = _named(evaluate(second.model, data.catalogue, data.test, K))
    minutes = first.minutes + second.minutes
    results.add(f"{CHOSEN}, retrained with the validation targets", {**figures, "minutes": minutes})


def add_baselines(results: Results, data: Beauty, seed: int) -> None:
    """Popularity, neighbours, and the libraries ``implicit`` and LightGBM; but for the last row they
    are made of the validation targets, too."""
    results.add("popularity", _figures(popularity_ranks(data)))
    results.add("neighbours of the last product", _figures(neighbour_ranks(data)))
    try:
        found = implicit_ranks(data.test.histories, data.test, len(data.catalogue), K, seed)
    except ModuleNotFoundError:
        results.notes.append("implicit is not installed (pip install 'endcap[dev]'): its two rows are left out.")
        return
    for name, rank in found.items():
        results.add(name, _figures(rank))
    codes = data.catalogue.codes.numpy()
    rank = lambdarank_ranks(data.train, data.valid, data.test.histories, data.test, codes, K, seed)
    results.add("neighbours ranked by LightGBM (lambdarank)", _figures(rank))
    earlier = [sequence for sequence in data.train if len(sequence) > 2]
    before = [sequence[:-1] for sequence in earlier]
    lessons = Prefixes(before, np.array([sequence[-1] for sequence in earlier]), hide_seen=True)
    rank = lambdarank_ranks(before, lessons, data.train, data.test, codes, K, seed)
    results.add("the same, of the training part alone", _figures(rank))


def _named(figures: dict[str, float]) -> dict[str, float]:
    return {"HR@10": figures["hit"], "NDCG@10": figures["ndcg"]}


def _figures(rank: np.ndarray) -> dict[str, float]:
    return {"HR@10": float((rank < 10).mean()), "NDCG@10": float(ndcg_at(rank, 10).mean())}


def popularity_ranks(data: Beauty) -> np.ndarray:
    """Rank of each test target by how often the product occurs in the training part and the validation targets."""
    count = np.bincount(np.concatenate(data.test.histories), minlength=len(data.catalogue)).astype(float)
    return _ranks(data.test, lambda history: count)


def neighbour_ranks(data: Beauty) -> np.ndarray:
    """Rank by how often a product occurs together with the last one, relative to both counts (cosine)."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(data.test.histories)), [len(history) for history in data.test.histories])
    columns = np.concatenate(data.test.histories)
    seen = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(data.test.histories), len(data.catalogue)))
    together = (seen.T @ seen).tocsr()
    norm = np.sqrt(together.diagonal().clip(min=1.0))

    def score(history: np.ndarray) -> np.ndarray:
        last = int(history[-1])
        return together[last].toarray().ravel() / (norm * norm[last])

    return _ranks(data.test, score)


def _ranks(cases: Prefixes, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    rank = np.zeros(len(cases.targets))
    for row, (history, target) in enumerate(zip(cases.histories, cases.targets.tolist(), strict=True)):
        scores = score(history).copy()
        own = scores[target]
        scores[history] = -np.inf
        scores[:2] = -np.inf
        scores[target] = own
        rank[row] = (scores > own).sum() + ((scores == own).sum() - 1) / 2
    return rank
