"""What is clicked next in a session (Diginetica, CIKM Cup 2016, GCE-GNN preparation), among all 43,097 products.

186,670 training sessions, 60,858 test cases (every prefix of later sessions). The latest training sessions are the
validation set. Figures are P@20 (the share of cases with the target among 20, which is recall) and MRR@20 in percent.
Published: Item-KNN 35.75/11.57, NARM 49.70/16.17, SR-GNN 50.73/17.59, GCE-GNN 54.22/19.04.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from endcap.metrics import reciprocal_rank
from endcap.results import Results
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.models import LstmModel, ModelSpec, SequenceModel
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, Prefixes, evaluate, train_next

K = 20
#: Sessions, and drawn products, a step.
BATCH, NEGATIVES = 512, 2_048
#: Share of the training sessions, the latest, that validate; and how many of their prefixes.
HELD_OUT, VALID_CASES = 0.05, 12_000
MODELS: dict[str, tuple[type[SequenceModel], ModelSpec, Schedule]] = {
    "LSTM": (
        LstmModel,
        ModelSpec(products=0, width=100, layers=1, dropout=0.3, scale=16.0, places=20),
        Schedule(epochs=8, patience=2, rate=4e-3, cosine=True),
    ),
}


@dataclass(frozen=True, slots=True)
class Sessions:
    """Numbers start at 2, as the models want them."""

    train: list[np.ndarray]
    valid: Prefixes
    test: Prefixes
    products: int


def load(seed: int = 0) -> Sessions:
    """The split; ``seed`` draws the prefixes that validate.

    Raises:
        ConfigurationError: the data is not there.
    """
    with gzip.open(shared_file("diginetica", "train_sessions.txt.gz"), "rt") as lines:
        sessions = [np.array(line.split(), dtype=np.int64) + 1 for line in lines]
    with gzip.open(shared_file("diginetica", "test.tsv.gz"), "rt") as lines:
        cases = [line.split("\t") for line in lines]
    histories = [np.array(prefix.split(), dtype=np.int64) + 1 for prefix, _ in cases]
    targets = np.array([int(target) for _, target in cases], dtype=np.int64) + 1
    highest = max(int(max(session.max() for session in sessions)), int(targets.max()))
    highest = max(highest, int(max(history.max() for history in histories)))
    first = int(len(sessions) * (1 - HELD_OUT))
    prefixes = [(session[:end], session[end]) for session in sessions[first:] for end in range(1, len(session))]
    chosen = np.random.default_rng(seed).permutation(len(prefixes))[:VALID_CASES]
    valid = Prefixes([prefixes[row][0] for row in chosen], np.array([prefixes[row][1] for row in chosen]))
    return Sessions(sessions[:first], valid, Prefixes(histories, targets), highest + 1)


def run(seed: int = 0, report: Callable[[str], None] = print) -> Results:
    """Baselines and models, chosen on the held-out training sessions, judged once on the test cases."""
    data = load(seed)
    results = Results("diginetica", "endcap evaluate diginetica", seed)
    for name, score in baselines(data).items():
        results.add(name, _figures(_ranks(data.test, score)))
    catalogue = Catalogue.bare(data.products)
    for name, (kind, spec, schedule) in MODELS.items():
        torch.manual_seed(seed)
        model = kind(replace(spec, products=data.products))
        started = time.monotonic()
        outcome = train_next(
            model,
            catalogue,
            data.train,
            data.valid,
            replace(schedule, seed=seed),
            batch=BATCH,
            negatives=NEGATIVES,
            k=K,
            metric="hit",
            report=report,
        )
        minutes = (time.monotonic() - started) / 60
        figures = evaluate(model, catalogue, data.test, K)
        results.add(name, {"P@20": 100 * figures["hit"], "MRR@20": 100 * figures["mrr"]})
        results.notes.append(
            f"{name}: validation P@20 {100 * outcome.best:.2f} in epoch {outcome.best_epoch}, {minutes:.1f} minutes"
        )
    results.notes.append("Published: Item-KNN 35.75/11.57, SR-GNN 50.73/17.59, GCE-GNN 54.22/19.04.")
    return results


def baselines(data: Sessions) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Popularity, and the neighbours of the last product by how many sessions hold both (cosine)."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(data.train)), [len(session) for session in data.train])
    columns = np.concatenate(data.train)
    seen = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(data.train), data.products))
    seen.data[:] = 1.0
    popular = np.asarray(seen.sum(axis=0)).ravel()
    together = (seen.T @ seen).tocsr()
    norm = np.sqrt(popular.clip(min=1.0))

    def neighbours(history: np.ndarray) -> np.ndarray:
        last = int(history[-1])
        scores = together[last].toarray().ravel() / norm
        scores[last] = 0.0
        return scores

    return {"popularity": lambda history: popular, "neighbours of the last product": neighbours}


def _ranks(cases: Prefixes, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    rank = np.zeros(len(cases.targets))
    for row, (history, target) in enumerate(zip(cases.histories, cases.targets.tolist(), strict=True)):
        scores = score(history)
        own = scores[target]
        # The reserved numbers score 0: they only share places with products that nothing speaks for.
        rank[row] = (scores[2:] > own).sum() + ((scores[2:] == own).sum() - 1) / 2
    return rank


def _figures(rank: np.ndarray) -> dict[str, float]:
    return {"P@20": 100 * float((rank < K).mean()), "MRR@20": 100 * float((reciprocal_rank(rank) * (rank < K)).mean())}
