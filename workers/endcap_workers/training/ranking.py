"""Training and judging models that rank lists: the candidates of a search, of which a shopper bought some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from endcap.metrics import ndcg_at
from endcap_workers.models.base import UNKNOWN, InterestModel
from endcap_workers.models.features import FeatureScale
from endcap_workers.training.behaviour.log import Lists
from endcap_workers.training.loop import Outcome, Schedule, fit
from endcap_workers.training.losses import listwise

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Histories:
    """Per shopper number: products int64 (S, L) padded behind, actions int64 (S, L), ages float32 (S, L)."""

    products: np.ndarray
    actions: np.ndarray
    ages: np.ndarray


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The model's number of each product, int64 (P,); codes int64 (P, K) and content float32 (P, D) of each."""

    numbers: np.ndarray
    codes: np.ndarray
    content: np.ndarray

    @classmethod
    def bare(cls, products: int) -> Vocabulary:
        """For models that read features alone."""
        return cls(np.full(products, UNKNOWN), np.zeros((products, 0), np.int64), np.zeros((products, 0), np.float32))


@dataclass(frozen=True, slots=True)
class Block:
    """Lists that share a moment, their features float16 (R, F), and what the shoppers had done by then.

    ``histories`` hold product indices + 1 (0 is padding); None: nobody has a history."""

    lists: Lists
    features: np.ndarray
    histories: Histories | None = None


def train_ranking(
    model: InterestModel,
    blocks: Sequence[Block],
    valid: Block | None,
    vocabulary: Vocabulary,
    schedule: Schedule,
    batch: int = 240,
    loss: Loss = listwise,
    valid_lists: int = 20_000,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train on the lists of all blocks; validate by NDCG@10 on (a sample of) the lists of ``valid``;
    without it, keep the last epoch's weights.

    The feature scale of the model, where it has one, is taken from a sample of the blocks.

    Raises:
        ValueError: there is no list.
    """
    if not sum(len(block.lists.shopper) for block in blocks):
        raise ValueError("no lists to train on: nobody bought anything from a list")
    draw = np.random.default_rng([schedule.seed, 7])
    scale = getattr(model, "scale", None)
    if isinstance(scale, FeatureScale):
        samples = [block.features[np.sort(draw.integers(0, len(block.features), 60_000))] for block in blocks]
        scale.fit(torch.from_numpy(np.concatenate(samples).astype(np.float32)))
    sizes = [np.diff(block.lists.starts) for block in blocks]
    chooser = np.random.default_rng([schedule.seed, 8])  # of its own: the choice must not hang on the blocks
    judged = np.sort(chooser.permutation(len(valid.lists.shopper))[:valid_lists]) if valid else np.empty(0, np.int64)

    def batches(epoch: int) -> list[tuple[int, np.ndarray]]:
        # Lists of like length go together, so that little is padding; a random part keeps the batches mixed.
        draw = np.random.default_rng([schedule.seed, epoch])
        found: list[tuple[int, np.ndarray]] = []
        for number, size in enumerate(sizes):
            order = np.argsort(size + 20.0 * draw.random(len(size)))
            found += [(number, part) for part in np.array_split(order, max(1, len(size) // batch))]
        return [found[place] for place in draw.permutation(len(found))]

    def step(work: tuple[int, np.ndarray]) -> Tensor:
        block = blocks[work[0]]
        scores, wanted, present = _score(model, block, vocabulary, work[1])
        return loss(scores, wanted, present)

    def validate() -> float:
        assert valid is not None
        rank, weight, _ = case_ranks(valid.lists, scores_of(model, valid, vocabulary, judged), judged)
        return float(np.average(ndcg_at(rank), weights=weight))

    return fit(model, batches, step, validate if valid else None, schedule, checkpoint, report)


def scores_of(
    model: InterestModel, block: Block, vocabulary: Vocabulary, lists: np.ndarray | None = None, batch: int = 400
) -> np.ndarray:
    """Scores float32 (R,) of the rows of the chosen lists (None: all); NaN elsewhere."""
    starts = block.lists.starts
    lists = np.arange(len(block.lists.shopper)) if lists is None else lists
    lists = lists[np.argsort(np.diff(starts)[lists], kind="stable")]
    answer = np.full(int(starts[-1]), np.nan, dtype=np.float32)
    with torch.no_grad():
        model.eval()
        for begin in range(0, len(lists), batch):
            chosen = lists[begin : begin + batch]
            scores, _, present = _score(model, block, vocabulary, chosen)
            answer[_rows(starts, chosen)] = scores.numpy()[present.numpy()]
    return answer


def case_ranks(
    lists: Lists, scores: np.ndarray, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row that was wanted in the chosen lists: its rank in its list (from 0, ties at their expectation), how
    often it was wanted, and which row it is."""
    inside = np.ones(len(lists.shopper), dtype=bool)
    if chosen is not None:
        inside[:] = False
        inside[chosen] = True
    group = lists.group
    rows = np.flatnonzero((lists.wanted > 0) & inside[group])
    rank = np.zeros(len(rows))
    for number, row in enumerate(rows.tolist()):
        own = scores[row]
        rivals = scores[lists.starts[group[row]] : lists.starts[group[row] + 1]]
        rank[number] = (rivals > own).sum() + ((rivals == own).sum() - 1) / 2
    return rank, lists.wanted[rows], rows


def _rows(starts: np.ndarray, lists: np.ndarray) -> np.ndarray:
    size = starts[lists + 1] - starts[lists]
    return np.repeat(starts[lists] - np.r_[0, np.cumsum(size)[:-1]], size) + np.arange(int(size.sum()))


def _score(
    model: InterestModel, block: Block, vocabulary: Vocabulary, chosen: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and presence, all (B, N)."""
    lists = block.lists
    size = lists.starts[chosen + 1] - lists.starts[chosen]
    rows = _rows(lists.starts, chosen)
    present = np.arange(int(size.max())) < size[:, None]
    place = np.zeros(present.shape, dtype=np.int64)
    place[present] = rows  # padding repeats row 0: it is masked, and any row will do
    products = lists.product[place]
    features = torch.from_numpy(np.where(present[..., None], block.features[place], np.nan).astype(np.float32))
    wanted = torch.from_numpy(np.where(present, lists.wanted[place], np.float32(0.0)))
    shopper, who = np.unique(lists.shopper[chosen], return_inverse=True)
    history = _history(block, vocabulary, shopper)
    memory = tuple(part[torch.from_numpy(who)] for part in model.remember(*history))
    scores = model.rank(
        memory,
        torch.from_numpy(vocabulary.numbers[products]),
        torch.from_numpy(vocabulary.codes[products]),
        torch.from_numpy(vocabulary.content[products]),
        features,
    )
    return scores, wanted, torch.from_numpy(present)


def _history(block: Block, vocabulary: Vocabulary, shopper: np.ndarray) -> tuple[Tensor, ...]:
    if block.histories is None:
        known = np.zeros((len(shopper), 1), dtype=np.int64)
        actions, ages = known, known.astype(np.float32)
    else:
        known, actions = block.histories.products[shopper], block.histories.actions[shopper]
        ages = block.histories.ages[shopper]
    there, index = known > 0, np.maximum(known - 1, 0)
    return (
        torch.from_numpy(np.where(there, vocabulary.numbers[index], 0)),
        torch.from_numpy(vocabulary.codes[index] * there[..., None]),
        torch.from_numpy(vocabulary.content[index] * there[..., None].astype(np.float32)),
        torch.from_numpy(actions),
        torch.from_numpy(ages),
    )
