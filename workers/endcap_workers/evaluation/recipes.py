"""What the next-product evaluations share: a recipe for each row, seeds and their spread, and where it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from endcap.errors import ConfigurationError
from endcap.results import Results
from endcap_workers.models import ModelSpec, SequenceModel
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, Prefixes, train_next


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model and how it is trained. ``options``: further arguments of
    :func:`~endcap_workers.training.next_item.train_next`; ``coded``: whether it sees the products' codes."""

    kind: type[SequenceModel]
    spec: ModelSpec
    schedule: Schedule
    options: dict[str, Any]
    coded: bool = True


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, how long it took, what validation said and in which epoch."""

    model: SequenceModel
    minutes: float
    best: float
    epoch: int


def torch_device(name: str) -> torch.device:
    """The device of that name; ``auto``: a GPU where there is one.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise ConfigurationError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device


def described(device: torch.device) -> str:
    """The device in words, for the tables' notes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


def multiplies_halves(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster there: on a GPU, and on a processor that has instructions for them
    (AVX-512 BF16 or AMX). Elsewhere everything is float32."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def cook(
    recipe: Recipe,
    catalogue: Catalogue,
    code_sizes: tuple[int, ...],
    sequences: Sequence[np.ndarray],
    valid: Prefixes | None,
    seed: int,
    device: torch.device,
    report: Callable[[str], None],
) -> Trained:
    """Train by a recipe; ``valid`` None: for all of its epochs."""
    started = time.monotonic()
    options = {**recipe.options, "half": recipe.options.get("half", False) and multiplies_halves(device)}
    torch.manual_seed(seed)
    spec = replace(recipe.spec, products=len(catalogue), codes=code_sizes if recipe.coded else ())
    model = recipe.kind(spec).to(device)
    schedule = replace(recipe.schedule, seed=seed)
    outcome = train_next(model, catalogue, sequences, valid, schedule, report=report, **options)
    return Trained(model, (time.monotonic() - started) / 60, outcome.best, outcome.best_epoch)


def add_rows(
    results: Results,
    name: str,
    seeds: Sequence[int],
    train: Callable[[int], Trained],
    judge: Callable[[SequenceModel | Sequence[SequenceModel]], dict[str, float]],
    report: Callable[[str], None] = lambda line: None,
) -> list[Trained]:
    """One row of a recipe; with several seeds the row is their mean, a note has their spread, and one more row lets
    the models vote."""
    made = [train(seed) for seed in seeds]
    figures = [judge(one.model) for one in made]
    for seed, one in zip(seeds, figures, strict=True):
        report(f"{name}, seed {seed}: {', '.join(f'{key} {value:.4f}' for key, value in one.items())}")
    row = {key: float(np.mean([one[key] for one in figures])) for key in figures[0]}
    several = len(made) > 1
    results.add(name if not several else f"{name}, mean of {len(made)} seeds", {**row, "minutes": _mean(made)})
    if several:
        results.add(f"{name}, vote of {len(made)} seeds", judge([one.model for one in made]))
        spread = ", ".join(f"{key} {np.std([one[key] for one in figures], ddof=1):.4f}" for key in row)
        results.notes.append(f"{name}: seeds {', '.join(map(str, seeds))}; standard deviation over them: {spread}.")
    if not np.isnan(made[0].best):
        chosen = ", ".join(f"{one.best:.4f} in epoch {one.epoch}" for one in made)
        results.notes.append(f"{name}: validation {chosen}.")
    return made


def _mean(made: Sequence[Trained]) -> float:
    return float(np.mean([one.minutes for one in made]))
