"""Fits a model to cases, and judges it on later ones: one or many processes, processor or GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor

from endcap.interest import Calibration
from endcap.metrics import ndcg_at, reciprocal_rank
from endcap.sequences import Alignment
from endcap_workers.models.base import INPUTS, InterestModel
from endcap_workers.models.features import FeatureScale
from endcap_workers.training.cases import TRAIN, VALID, Cases
from endcap_workers.training.loop import Outcome, Schedule, fit
from endcap_workers.training.losses import Loss, listwise

#: Lists a step: fewer where there are few, so that an epoch still has a hundred steps.
MOST_BATCH, LEAST_BATCH = 120, 16
#: Lists that a validation looks at, at most.
MOST_VALIDATION = 8_000
#: Rows that the features' scale is taken from.
_SCALE_ROWS = 200_000


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """(rank, number of processes) as torchrun says; (0, 1) without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        # What names no GPU (a barrier, the random state of a checkpoint) means this process's.
        torch.cuda.set_device(best_device())
    # The first process makes the cases while the others wait.
    distributed.init_process_group(backend, timeout=timedelta(hours=6))
    try:
        yield distributed.get_rank(), world
    finally:
        distributed.destroy_process_group()


def best_device() -> torch.device:
    """The GPU of this process where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def learn(
    model: InterestModel,
    cases: Cases,
    aligned: Alignment,
    schedule: Schedule,
    checkpoint: Path | None = None,
    device: torch.device | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[float, float, str], None] = lambda *_: None,
    rescale: bool = True,
    loss: Loss = listwise,
) -> Outcome:
    """Train on the cases of the first part, stop by NDCG@10 of the second; ``model`` ends on the processor.

    On a GPU the forward pass runs in bfloat16. ``rescale``: take the scale of the features from these cases. ``loss``:
    one of :data:`~endcap_workers.training.losses.LOSSES`.

    Raises:
        ValueError: there is no list to train on, or the checkpoint is another run's.
        FloatingPointError: the loss is not finite.
    """
    device = device or torch.device("cpu")
    train, valid = cases.part(TRAIN), cases.part(VALID)
    if not len(train):
        raise ValueError("no lists to train on: nobody wanted anything from a list")
    chooser = np.random.default_rng([schedule.seed, 8])
    valid = np.sort(chooser.permutation(valid)[:MOST_VALIDATION])
    scale = getattr(model, "scale", None)
    if rescale and isinstance(scale, FeatureScale):
        rows = _drawn(cases.lists[train], np.random.default_rng([schedule.seed, 7]))
        scale.fit(torch.from_numpy(np.asarray(cases.features[rows]).astype(np.float32)))
    model.to(device)
    sizes = cases.lists["size"][train]
    batch = int(np.clip(len(train) // 100, LEAST_BATCH, MOST_BATCH))
    steps = schedule.epochs * max(1, len(train) // batch)
    schedule = replace(schedule, warmup=min(schedule.warmup, steps // 4))
    done = 0

    def batches(epoch: int) -> list[np.ndarray]:
        # Lists of like length go together, so that little is padding; a random part keeps the batches mixed.
        draw = np.random.default_rng([schedule.seed, epoch])
        order = np.argsort(sizes + 20.0 * draw.random(len(sizes)))
        parts = np.array_split(train[order], max(1, len(train) // batch))
        return [parts[number] for number in draw.permutation(len(parts))]

    def loss_of(chosen: np.ndarray) -> Tensor:
        nonlocal done
        done += 1
        if done % 20 == 0:
            progress(min(done, steps), steps, "training")
        scores, wanted, present = forward(model, cases, chosen, aligned, device)
        return loss(scores, wanted, present)

    def validate() -> float:
        return judge(model, cases, valid, aligned, device)["ndcg@10"]

    try:
        return fit(model, batches, loss_of, validate if len(valid) else None, schedule, checkpoint, report)
    finally:
        model.to("cpu")


def _drawn(lists: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Rows (int64, ascending) of candidates of these lists alone: what judges later has no say in a scale."""
    ends = np.cumsum(lists["size"].astype(np.int64))
    at = draw.integers(0, ends[-1], _SCALE_ROWS)
    which = np.searchsorted(ends, at, side="right")
    return np.sort(lists["start"][which] + at - (ends[which] - lists["size"][which]))


def forward(
    model: InterestModel, cases: Cases, chosen: np.ndarray, aligned: Alignment, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores float32, labels and presence of some lists, all (B, N)."""
    tensors, wanted, present = cases.tensors(chosen, aligned)
    given = [torch.from_numpy(tensors[name]).to(device) if name in tensors else None for name in INPUTS]
    shape = present.shape
    for number, name in enumerate(INPUTS):
        if given[number] is None:  # a part that this model does not read
            length = 1 if name.startswith("history") else shape[1]
            spec = model.spec
            widths = {"codes": (len(spec.codes),), "content": (spec.content,), "features": (spec.features,)}
            width = widths.get(name.partition("_")[2], ())
            kind = torch.float32 if name.endswith(("content", "features", "ages")) else torch.int64
            given[number] = torch.zeros((shape[0], length, *width), dtype=kind, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        scores = model(*given)
    return scores.float(), torch.from_numpy(wanted).to(device), torch.from_numpy(present).to(device)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of lists, one after another: ``starts`` (G + 1,), ``scores`` and ``wanted`` (R,)."""

    starts: np.ndarray
    scores: np.ndarray
    wanted: np.ndarray

    def ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row that was wanted: its rank in its list (from 0, ties at their expectation), how often it was
        wanted, and its list's number."""
        sizes = np.diff(self.starts)
        group = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.flatnonzero(self.wanted > 0)
        rank = np.zeros(len(rows))
        for number, row in enumerate(rows.tolist()):
            rivals = self.scores[self.starts[group[row]] : self.starts[group[row] + 1]]
            rank[number] = (rivals > self.scores[row]).sum() + ((rivals == self.scores[row]).sum() - 1) / 2
        return rank, self.wanted[rows], group[rows]


def score(
    model: InterestModel, cases: Cases, chosen: np.ndarray, aligned: Alignment, device: torch.device | None = None
) -> Scores:
    """Scores of the chosen lists, in their order."""
    device = device or torch.device("cpu")
    sizes = cases.lists["size"][chosen].astype(np.int64)
    starts = np.r_[0, np.cumsum(sizes)]
    scores, labels = np.zeros(int(starts[-1]), dtype=np.float32), np.zeros(int(starts[-1]), dtype=np.float32)
    order = np.argsort(sizes, kind="stable")
    model.eval()
    with torch.no_grad():
        for part in np.array_split(order, max(1, len(order) // 200)):
            if not len(part):
                continue
            got, wanted, present = (one.cpu().numpy() for one in forward(model, cases, chosen[part], aligned, device))
            for row, number in enumerate(part.tolist()):
                here = slice(starts[number], starts[number + 1])
                scores[here], labels[here] = got[row, present[row]], wanted[row, present[row]]
    return Scores(starts, scores, labels)


def judge(
    model: InterestModel, cases: Cases, chosen: np.ndarray, aligned: Alignment, device: torch.device | None = None
) -> dict[str, float]:
    """NDCG@10 and MRR over what was wanted in the chosen lists."""
    return figures(score(model, cases, chosen, aligned, device))


def figures(scores: Scores) -> dict[str, float]:
    """NDCG@10 and MRR; not numbers where nothing was wanted."""
    rank, weight, _ = scores.ranks()
    if not len(rank):
        return {"ndcg@10": float("nan"), "mrr": float("nan")}
    return {
        "ndcg@10": float(np.average(ndcg_at(rank), weights=weight)),
        "mrr": float(np.average(reciprocal_rank(rank), weights=weight)),
    }


def calibrate(scores: Scores, seed: int = 0) -> Calibration:
    """What stated probabilities should be, from lists with a choice (one of what was wanted, drawn) and without."""
    draw = np.random.default_rng([seed, 9])
    lists, chosen = [], []
    for begin, end in zip(scores.starts[:-1].tolist(), scores.starts[1:].tolist(), strict=True):
        lists.append(scores.scores[begin:end])
        wanted = np.flatnonzero(scores.wanted[begin:end] > 0)
        chosen.append(int(draw.choice(wanted)) if len(wanted) else -1)
    return Calibration.fit(lists, chosen)
