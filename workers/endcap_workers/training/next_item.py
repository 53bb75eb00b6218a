"""Next-product training and full ranking for sequence models: a loss at every timestep, every product a candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from endcap.events import Action
from endcap.metrics import ndcg_at, reciprocal_rank
from endcap_workers.models.base import PADDING, SequenceModel, last_state
from endcap_workers.training.loop import Outcome, Schedule, fit
from endcap_workers.training.losses import full_softmax, sampled_softmax

#: Up to so many products every one of them is in the softmax (methods.md: sampled above).
FULL_SOFTMAX = 20_000


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What each product number stands for: codes int64 (V, K), content float32 (V, D). Rows 0, 1 are reserved."""

    codes: Tensor
    content: Tensor

    @classmethod
    def bare(cls, products: int) -> Catalogue:
        """Products that are nothing but numbers."""
        return cls(torch.zeros(products, 0, dtype=torch.long), torch.zeros(products, 0))

    def __len__(self) -> int:
        return len(self.codes)

    def to(self, device: torch.device) -> Catalogue:
        """The same on another device."""
        return Catalogue(self.codes.to(device), self.content.to(device))


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Ranking cases: what each shopper did so far, and what came next. ``hide_seen``: products of the history are no
    candidates (the rule of leave-one-out protocols with distinct items)."""

    histories: Sequence[np.ndarray]
    targets: np.ndarray
    hide_seen: bool = False


def all_vectors(model: SequenceModel, catalogue: Catalogue) -> Tensor:
    """Vectors of all products, (V, width)."""
    return model.encode(torch.arange(len(catalogue), device=device_of(model)), catalogue.codes, catalogue.content)


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def states_of(model: SequenceModel, catalogue: Catalogue, products: Tensor) -> Tensor:
    """States (B, L, width) of histories that are product numbers alone."""
    actions = torch.where(products == PADDING, 0, int(Action.VIEW))
    ages = torch.zeros(products.shape, device=products.device)
    return model.states(products, catalogue.codes[products], catalogue.content[products], actions, ages)


def padded(histories: Sequence[np.ndarray]) -> Tensor:
    """int64 (B, longest), ``PADDING`` behind."""
    table = np.zeros((len(histories), max(map(len, histories), default=1)), dtype=np.int64)
    for row, history in enumerate(histories):
        table[row, : len(history)] = history
    return torch.from_numpy(table)


def train_next(
    model: SequenceModel,
    catalogue: Catalogue,
    sequences: Sequence[np.ndarray],
    valid: Prefixes | None,
    schedule: Schedule,
    batch: int = 256,
    negatives: int | None = None,
    smoothing: float = 0.0,
    hide_seen: bool = False,
    half: bool = False,
    recency: float = 0.0,
    k: int = 10,
    metric: str = "ndcg",
    checkpoint: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train on every next product of every sequence (each int64, oldest first, numbers ≥ 2), on the model's device.

    Args:
        batch: sequences a step. negatives: drawn products a step; 0: all products; None: all up to 20,000, else 4,096.
        smoothing: share of each target that is spread over all products (label smoothing); full softmax only.
        hide_seen: what the sequence held before is no rival of what comes next, as in the ranking of
            :class:`Prefixes`; full softmax only.
        half: matrix products in bfloat16 (autocast), sums and weights in float32.
        recency: for sequences that come in order of time: a target weighs exp(-recency · share of the sequences that
            are later), so that 0 treats all alike.
        valid: None trains for all epochs and keeps the last.
        k, metric: validation by ``ndcg`` or ``hit`` at k on full ranking.

    Raises:
        ValueError: no sequence has two products.
    """
    places = model.spec.places
    kept = [sequence[-places - 1 :] for sequence in sequences if len(sequence) > 1]
    if not kept:
        raise ValueError("no sequence has two products: nothing comes next")
    lengths = np.array([len(sequence) for sequence in kept])
    if negatives is None:
        negatives = 0 if len(catalogue) <= FULL_SOFTMAX else 4_096
    if negatives and (smoothing or hide_seen):
        raise ValueError("smoothing and hide_seen belong to the full softmax: set negatives to 0")
    device = device_of(model)
    catalogue = catalogue.to(device)
    table = padded(kept).to(device)
    age = torch.arange(len(kept) - 1, -1, -1, device=device) / len(kept)
    weights = torch.exp(-recency * age) if recency else None

    def batches(epoch: int) -> list[np.ndarray]:
        # Sequences of like length go together, so that little is padding; ties and batches are shuffled.
        draw = np.random.default_rng([schedule.seed, epoch])
        order = np.argsort(lengths + 2.0 * draw.random(len(kept)), kind="stable")
        parts = np.array_split(order, max(1, len(kept) // batch))
        return [parts[number] for number in draw.permutation(len(parts))]

    def loss(rows: np.ndarray) -> Tensor:
        chosen = torch.from_numpy(rows).to(device)
        products = table[chosen, : int(lengths[rows].max())]
        present = products[:, 1:] != PADDING
        targets = products[:, 1:][present]
        weight = weights[chosen].unsqueeze(1).expand(present.shape)[present] if weights is not None else None
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            states = states_of(model, catalogue, products[:, :-1])[present]
            if not negatives:
                seen = _before(products, present) if hide_seen else None
                return full_softmax(states, targets, all_vectors(model, catalogue), seen, smoothing, weight, half)
            drawn = torch.randint(2, len(catalogue), (negatives,), device=device)
            used, place = torch.unique(torch.cat([targets, drawn]), return_inverse=True)
            vectors = model.encode(used, catalogue.codes[used], catalogue.content[used])
            positive, negative = vectors[place[: len(targets)]], vectors[place[len(targets) :]]
            return sampled_softmax(states, targets, positive, negative, drawn, len(catalogue) - 2, weight, half)

    def validate() -> float:
        assert valid is not None
        return evaluate(model, catalogue, valid, k)[metric]

    return fit(model, batches, loss, validate if valid else None, schedule, checkpoint, report)


def _before(products: Tensor, present: Tensor) -> Tensor:
    """Of each present target: the products before it, (P, L) with ``PADDING`` elsewhere."""
    place = torch.arange(present.shape[1], device=products.device)
    row, at = present.nonzero(as_tuple=True)
    return products[row, :-1].masked_fill(place.unsqueeze(0) > at.unsqueeze(1), PADDING)


def ranks(
    models: SequenceModel | Sequence[SequenceModel], catalogue: Catalogue, cases: Prefixes, batch: int = 256
) -> np.ndarray:
    """Rank (from 0, ties at their expectation) of each case's target among all products; float64 (n,). Several models
    vote by the mean of their log-probabilities."""
    models = [models] if isinstance(models, SequenceModel) else list(models)
    device = device_of(models[0])
    catalogue = catalogue.to(device)
    order = np.argsort([len(history) for history in cases.histories], kind="stable")
    answer = np.zeros(len(order))
    with torch.no_grad():
        vectors = [all_vectors(model.eval(), catalogue) for model in models]
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            scores: Tensor | None = None
            for model, one in zip(models, vectors, strict=True):
                places = model.spec.places
                products = padded([cases.histories[row][-places:] for row in rows.tolist()]).to(device)
                last = last_state(states_of(model, catalogue, products), products != PADDING)
                said = (last @ one.T).index_fill_(1, torch.arange(2, device=device), -torch.inf)
                said = said.log_softmax(dim=1) if len(models) > 1 else said
                scores = said if scores is None else scores.add_(said)
            assert scores is not None
            targets = torch.from_numpy(cases.targets[rows].astype(np.int64)).unsqueeze(1).to(device)
            own = scores.gather(1, targets)
            if cases.hide_seen:
                seen = padded([cases.histories[row] for row in rows.tolist()]).to(device)
                scores.scatter_(1, seen, -torch.inf)
            scores.scatter_(1, targets, -torch.inf)
            ahead, ties = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
            answer[rows] = (ahead + ties / 2.0).cpu().numpy()
    return answer


def evaluate(
    models: SequenceModel | Sequence[SequenceModel], catalogue: Catalogue, cases: Prefixes, k: int
) -> dict[str, float]:
    """``hit`` (HR@k: with one target the recall, and the P@k of the session literature), ``ndcg``, ``mrr`` at k."""
    rank = ranks(models, catalogue, cases)
    return {
        "hit": float((rank < k).mean()),
        "ndcg": float(ndcg_at(rank, k).mean()),
        "mrr": float((reciprocal_rank(rank) * (rank < k)).mean()),
    }
