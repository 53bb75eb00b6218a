"""What comes next in Amazon Beauty (5-core, S3-Rec's preparation): leave-one-out, ranked among all 12,101 products.

The last product of each of 22,363 users is the test target, the one before it the validation target; products of the
user's own past are no candidates. Published on this split, full ranking (HR@10 / NDCG@10): GRU4Rec .0283/.0137, SASRec
.0605/.0318, S3-Rec .0647/.0327, SASRec with sampled softmax .0921/.0531. Leave-one-out looks into the future of other
users; it is kept because the published figures do.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from endcap.metrics import ndcg_at
from endcap.results import Results
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.models import LstmModel, ModelSpec, SequenceModel, TransformerModel
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, Prefixes, evaluate, train_next

#: Levels of brand and category that become codes.
LEVELS = 4
#: Drawn products a step (not compared with the full softmax on the same model).
NEGATIVES = 2_048
SCHEDULE = Schedule(epochs=40, patience=5, rate=2e-3)
_SPEC = ModelSpec(products=0, width=64, dropout=0.5, scale=14.0)
#: Row -> model, its specification, and whether it sees brand and category.
MODELS: dict[str, tuple[type[SequenceModel], ModelSpec, bool]] = {
    "LSTM": (LstmModel, _SPEC, True),
    "LSTM without brand and category": (LstmModel, _SPEC, False),
    "transformer": (TransformerModel, replace(_SPEC, layers=2), True),
}


#: Rows that are trained a second time, for as many epochs as validation chose, with the validation targets as the
#: last training products: what a shop would do, but not what the published figures did.
RETRAINED = ("LSTM",)


@dataclass(frozen=True, slots=True)
class Beauty:
    """Numbers start at 2, as the models want them."""

    train: list[np.ndarray]
    valid: Prefixes
    test: Prefixes
    catalogue: Catalogue
    code_sizes: tuple[int, ...]


def load() -> Beauty:
    """The split, with brand and category levels as codes.

    Raises:
        ConfigurationError: the data is not there.
    """
    with gzip.open(shared_file("amazon-beauty", "Beauty.txt.gz"), "rt") as lines:
        sequences = [np.array(line.split()[1:], dtype=np.int64) + 1 for line in lines]
    products = int(max(sequence.max() for sequence in sequences)) + 1
    codes = np.zeros((products, LEVELS), dtype=np.int64)
    vocabularies: list[dict[str, int]] = [{"": 0} for _ in range(LEVELS)]
    with gzip.open(shared_file("amazon-beauty", "Beauty_items.tsv.gz"), "rt") as lines:
        next(lines)
        for line in lines:
            number, _, attributes = line.rstrip("\n").split("\t")
            for level, value in enumerate(attributes.split("|")[:LEVELS]):
                vocabulary = vocabularies[level]
                codes[int(number) + 1, level] = vocabulary.setdefault(value, len(vocabulary))
    return Beauty(
        train=[sequence[:-2] for sequence in sequences],
        valid=Prefixes([one[:-2] for one in sequences], np.array([one[-2] for one in sequences]), hide_seen=True),
        test=Prefixes([one[:-1] for one in sequences], np.array([one[-1] for one in sequences]), hide_seen=True),
        catalogue=Catalogue(torch.from_numpy(codes), torch.zeros(products, 0)),
        code_sizes=tuple(len(vocabulary) for vocabulary in vocabularies),
    )


def run(seed: int = 0, report: Callable[[str], None] = print) -> Results:
    """Baselines and models, chosen on the validation targets, judged once on the test targets."""
    data = load()
    results = Results("beauty", "endcap evaluate beauty", seed)
    results.add("popularity", _figures(popularity_ranks(data)))
    results.add("neighbours of the last product", _figures(neighbour_ranks(data)))
    for name, (kind, spec, coded) in MODELS.items():
        catalogue = data.catalogue if coded else Catalogue.bare(len(data.catalogue))
        spec = replace(spec, products=len(catalogue), codes=data.code_sizes if coded else ())
        started = time.monotonic()
        torch.manual_seed(seed)
        model = kind(spec)
        schedule = replace(SCHEDULE, seed=seed)
        outcome = train_next(model, catalogue, data.train, data.valid, schedule, negatives=NEGATIVES, report=report)
        _row(results, name, model, catalogue, data.test, started)
        results.notes.append(f"{name}: validation NDCG@10 {outcome.best:.4f} in epoch {outcome.best_epoch}.")
        if name in RETRAINED:
            started = time.monotonic()
            torch.manual_seed(seed)
            model = kind(spec)
            schedule = replace(schedule, epochs=outcome.best_epoch)
            train_next(model, catalogue, data.test.histories, None, schedule, negatives=NEGATIVES, report=report)
            _row(results, f"{name}, retrained with the validation targets", model, catalogue, data.test, started)
    results.notes.append("Published: SASRec .0605/.0318, S3-Rec .0647/.0327, SASRec with sampled softmax .0921/.0531.")
    return results


def _row(
    results: Results, name: str, model: SequenceModel, catalogue: Catalogue, test: Prefixes, started: float
) -> None:
    figures = evaluate(model, catalogue, test, 10)
    minutes = (time.monotonic() - started) / 60
    results.add(name, {"HR@10": figures["hit"], "NDCG@10": figures["ndcg"], "minutes": minutes})


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
