"""The training loop of every model: seeded, early stopping, averaged weights, resumed after a kill, one or many
processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from endcap.files import replacing

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: at most. patience: epochs without a better validation value before it stops; 0: never.
        rate, warmup, cosine: learning rate, steps until it is reached, whether it falls to 3% by the last epoch.
        average: share of the old value in the running mean of weights that is validated and kept; 0: the weights.
        minutes: no epoch begins after so many; 0: no limit. The one thing that makes a run depend on the machine.
    """

    epochs: int = 20
    patience: int = 3
    rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 200
    cosine: bool = False
    average: float = 0.0
    clip: float = 5.0
    minutes: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What a run did: validation value and training loss of each epoch; the model holds the best epoch's weights."""

    best: float = -math.inf
    best_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    minutes: float = 0.0
    finished: bool = False


def fit(
    model: nn.Module,
    batches: Callable[[int], Sequence[Batch]],
    loss: Callable[[Batch], Tensor],
    validate: Callable[[], float] | None,
    schedule: Schedule,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train ``model`` in place and leave the weights of the best epoch in it.

    Args:
        batches: the batches of an epoch, a function of the epoch's number alone, so that a resumed run sees the same.
        loss: of a batch; higher than finite stops the run. validate: higher is better; called in eval
            mode. None: the last epoch's weights are kept, and values are not numbers.
        checkpoint: file that is written after every epoch and taken up if it is there. It is bound to ``schedule``.

    Under ``torchrun`` each process takes its share of the batches and gradients are averaged.

    Raises:
        ValueError: the checkpoint belongs to another schedule or another model.
        FloatingPointError: the loss is not finite.
    """
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    rank = distributed.get_rank() if world > 1 else 0
    torch.manual_seed(schedule.seed + rank)
    if world > 1:  # everyone starts where the first one does
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, src=0)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay)
    outcome = Outcome()
    best = _copy(model)
    mean = _copy(model)
    epoch = step = 0
    if checkpoint is not None and checkpoint.exists():
        epoch, step = _restore(checkpoint, model, optimizer, outcome, best, mean, schedule)
        report(f"goes on after epoch {epoch}")
    while epoch < schedule.epochs and not outcome.finished:
        started = time.monotonic()
        model.train()
        work = batches(epoch)
        work = [work[number] for number in range(rank, len(work) - len(work) % world, world)]
        total = torch.zeros((), device=device)
        for batch in work:
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate * _factor(schedule, step, schedule.epochs * len(work))
            optimizer.zero_grad(set_to_none=True)
            value = loss(batch)
            if device.type == "cpu" and not torch.isfinite(value):  # elsewhere it would wait for the device every step
                raise _not_finite(value, epoch)
            value.backward()
            if world > 1:
                _average_gradients(model, world)
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            total += value.detach()
            if schedule.average:
                _follow(mean, model, min(schedule.average, step / (step + 10.0)))
        if not torch.isfinite(total):
            raise _not_finite(total, epoch)
        epoch += 1
        raw = _copy(model)
        if schedule.average:
            model.load_state_dict(mean)
        model.eval()
        with torch.no_grad():
            value_now = validate() if validate else math.nan
        outcome.losses.append(float(total) / max(len(work), 1))
        outcome.values.append(value_now)
        if value_now > outcome.best or validate is None:
            outcome.best, outcome.best_epoch = value_now, epoch
            best = _copy(model)
        model.load_state_dict(raw)
        outcome.minutes += (time.monotonic() - started) / 60.0
        waited = epoch - outcome.best_epoch
        late = 0 < schedule.minutes <= outcome.minutes
        outcome.finished = epoch == schedule.epochs or late or 0 < schedule.patience <= waited
        if world > 1:  # clocks differ: the first one's word counts
            word = torch.tensor(int(outcome.finished), device=device)
            distributed.broadcast(word, src=0)
            outcome.finished = bool(word)
        said = f", validation {value_now:.4f}{'' if waited else '*'}" if validate else ""
        report(f"epoch {epoch}: loss {outcome.losses[-1]:.4f}{said}, {outcome.minutes:.1f} min")
        if checkpoint is not None and rank == 0:
            _save(checkpoint, model, optimizer, outcome, best, mean, schedule, epoch, step)
    model.load_state_dict(best)
    model.eval()
    return outcome


def _not_finite(value: Tensor, epoch: int) -> FloatingPointError:
    return FloatingPointError(f"the loss is {value.item()} in epoch {epoch + 1}: lower the learning rate")


def _factor(schedule: Schedule, step: int, steps: int) -> float:
    factor = min(1.0, step / max(schedule.warmup, 1))
    return factor * (0.515 + 0.485 * math.cos(math.pi * min(step / steps, 1.0))) if schedule.cosine else factor


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _follow(mean: dict[str, Tensor], model: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                mean[name].mul_(keep).add_(tensor, alpha=1.0 - keep)
            else:
                mean[name].copy_(tensor)


def _average_gradients(model: nn.Module, world: int) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    outcome: Outcome,
    best: dict[str, Tensor],
    mean: dict[str, Tensor],
    schedule: Schedule,
    epoch: int,
    step: int,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": best,
        "mean": mean,
        "random": torch.get_rng_state(),
        "random_on_device": torch.cuda.get_rng_state() if next(model.parameters()).is_cuda else None,
        "epoch": epoch,
        "step": step,
        "outcome": asdict(outcome),
        "schedule": asdict(schedule),
    }
    with replacing(path, durable=True) as partial:
        torch.save(state, partial)


def _restore(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    outcome: Outcome,
    best: dict[str, Tensor],
    mean: dict[str, Tensor],
    schedule: Schedule,
) -> tuple[int, int]:
    state: dict[str, Any] = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    if state["schedule"] != asdict(schedule):
        raise ValueError(f"{path} belongs to a run with another schedule: delete it or give the same one")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another model: {error}") from None
    optimizer.load_state_dict(state["optimizer"])
    best.update(state["best"])
    mean.update(state["mean"])
    for name, value in state["outcome"].items():
        setattr(outcome, name, value)
    torch.set_rng_state(state["random"].cpu())
    if state.get("random_on_device") is not None:
        torch.cuda.set_rng_state(state["random_on_device"].cpu())
    return state["epoch"], state["step"]
