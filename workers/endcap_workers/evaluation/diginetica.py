"""What is clicked next in a session (Diginetica, CIKM Cup 2016, GCE-GNN preparation), among all 43,097 products.

186,670 training sessions, 60,858 test cases (every prefix of later sessions: a split by time). The latest training
sessions are the validation set. Figures are P@20 (the share of cases with the target among 20, which is recall) and
MRR@20 in percent. Published: Item-KNN 35.75/11.57, NARM 49.70/16.17, SR-GNN 50.73/17.59, GCE-GNN 54.22/19.04.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from endcap.metrics import reciprocal_rank
from endcap.results import Results
from endcap_workers.evaluation.lambdarank import lambdarank_ranks
from endcap_workers.evaluation.library_baselines import implicit_ranks
from endcap_workers.evaluation.recipes import Recipe, add_rows, cook, described, torch_device
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.models import LstmModel, ModelSpec, TransformerModel
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, Prefixes, evaluate

K = 20
#: Share of the training sessions, the latest, that validate; and how many of their prefixes.
HELD_OUT, VALID_CASES = 0.05, 12_000
_OPTIONS = {"batch": 512, "negatives": 8_192, "recency": 2.0, "half": True, "k": K, "metric": "hit"}
#: All chosen by validation P@20 among some 30 runs: this recipe .526 with 10 epochs; all sessions alike .518; the LSTM
#: .515; the full softmax .517, 2,048 drawn products .509.
TRANSFORMER = Recipe(
    TransformerModel,
    ModelSpec(products=0, width=100, layers=2, dropout=0.3, scale=16.0, places=20, relative=True),
    Schedule(epochs=12, patience=0, rate=3e-3, cosine=True),
    _OPTIONS,
)
LSTM = Recipe(LstmModel, replace(TRANSFORMER.spec, layers=1, relative=False), TRANSFORMER.schedule, _OPTIONS)
CHOSEN = "transformer"
#: Trained too with ``ablation``.
ABLATION: dict[str, Recipe] = {
    "LSTM": LSTM,
    "transformer, all sessions alike": replace(TRANSFORMER, options={**_OPTIONS, "recency": 0.0}),
    "transformer, float32": replace(TRANSFORMER, options={**_OPTIONS, "half": False}),
}


@dataclass(frozen=True, slots=True)
class Sessions:
    """Numbers start at 2, as the models want them."""

    train: list[np.ndarray]
    held_out: list[np.ndarray]
    valid: Prefixes
    test: Prefixes
    products: int

    @property
    def every(self) -> list[np.ndarray]:
        """All training sessions, those that validate included."""
        return [*self.train, *self.held_out]


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
    return Sessions(sessions[:first], sessions[first:], valid, Prefixes(histories, targets), highest + 1)


def run(
    seed: int = 0,
    device: str = "auto",
    seeds: int = 1,
    ablation: bool = False,
    report: Callable[[str], None] = print,
) -> Results:
    """Baselines, and the chosen model trained on all training sessions, judged once on the test cases.

    ``ablation``: also what the choice rests on, trained without the sessions that validate.
    """
    data, on = load(), torch_device(device)
    results = Results("diginetica", "endcap evaluate diginetica", seed)
    several = range(seed, seed + seeds)
    add_retrained(results, data, several, on, report)
    for name, recipe in {CHOSEN: TRANSFORMER, **ABLATION}.items() if ablation else ():
        add_model(results, data, name, recipe, several, on, report)
    add_baselines(results, data, seed)
    results.notes.append(f"Trained on: {described(on)}.")
    results.notes.append("Published: Item-KNN 35.75/11.57, SR-GNN 50.73/17.59, GCE-GNN 54.22/19.04.")
    return results


def add_model(
    results: Results,
    data: Sessions,
    name: str,
    recipe: Recipe,
    seeds: range,
    device: torch.device,
    report: Callable[[str], None] = print,
) -> None:
    """The rows of one recipe, trained without the sessions that validate."""
    catalogue = Catalogue.bare(data.products)
    add_rows(
        results,
        name,
        seeds,
        lambda one: cook(recipe, catalogue, (), data.train, data.valid, one, device, report),
        lambda models: _percent(evaluate(models, catalogue, data.test, K)),
        report,
    )


def add_retrained(
    results: Results, data: Sessions, seeds: range, device: torch.device, report: Callable[[str], None] = print
) -> None:
    """The chosen recipe, trained for the same epochs on all training sessions, as the published models are."""
    catalogue = Catalogue.bare(data.products)
    add_rows(
        results,
        f"{CHOSEN}, all training sessions",
        seeds,
        lambda one: cook(TRANSFORMER, catalogue, (), data.every, None, one, device, report),
        lambda models: _percent(evaluate(models, catalogue, data.test, K)),
        report,
    )


def add_baselines(results: Results, data: Sessions, seed: int) -> None:
    """Popularity, neighbours, and the libraries ``implicit`` and LightGBM, made of all training sessions."""
    for name, rank in baseline_ranks(data, data.test).items():
        results.add(name, _figures(rank))
    try:
        found = implicit_ranks(data.every, data.test, data.products, K, seed)
    except ModuleNotFoundError:
        results.notes.append("implicit is not installed (pip install 'endcap[dev]'): its two rows are left out.")
        return
    for name, rank in found.items():
        results.add(name, _figures(rank))
    codes = np.zeros((data.products, 0), dtype=np.int64)
    rank = lambdarank_ranks(data.train, data.valid, data.every, data.test, codes, K, seed)
    results.add("neighbours ranked by LightGBM (lambdarank)", _figures(rank))


def baseline_ranks(data: Sessions, cases: Prefixes) -> dict[str, np.ndarray]:
    """Ranks by popularity, and by how many sessions hold a product and the last one (cosine)."""
    from scipy.sparse import csr_matrix

    sessions = data.every
    rows = np.repeat(np.arange(len(sessions)), [len(session) for session in sessions])
    columns = np.concatenate(sessions)
    seen = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(sessions), data.products))
    seen.data[:] = 1.0
    popular = np.asarray(seen.sum(axis=0)).ravel()
    together = (seen.T @ seen).tocsr()
    norm = np.sqrt(popular.clip(min=1.0))
    order = np.sort(popular[2:])
    wanted = popular[cases.targets]
    ahead = len(order) - np.searchsorted(order, wanted, side="right")
    alike = np.searchsorted(order, wanted, side="right") - np.searchsorted(order, wanted, side="left")
    near = np.zeros(len(cases.targets))
    for row, (history, target) in enumerate(zip(cases.histories, cases.targets.tolist(), strict=True)):
        last = int(history[-1])
        begin, end = together.indptr[last : last + 2]
        others = together.indices[begin:end]
        scores = np.where(others == last, 0.0, together.data[begin:end] / norm[others])
        own = scores[others == target].sum()
        # The products that share no session with the last one score 0, too.
        same = (scores == own).sum() + (data.products - 2 - len(others) if own == 0 else 0)
        near[row] = (scores > own).sum() + (same - 1) / 2
    return {"popularity": ahead + (alike - 1) / 2, "neighbours of the last product": near}


def _percent(figures: dict[str, float]) -> dict[str, float]:
    return {"P@20": 100 * figures["hit"], "MRR@20": 100 * figures["mrr"]}


def _figures(rank: np.ndarray) -> dict[str, float]:
    return {"P@20": 100 * float((rank < K).mean()), "MRR@20": 100 * float((reciprocal_rank(rank) * (rank < K)).mean())}
