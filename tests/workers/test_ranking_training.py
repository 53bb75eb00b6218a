"""Fitting a model to lists on disk, and judging it: what every model and every loss learns from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from endcap.catalog import Product, ProductTable
from endcap.events import Action
from endcap.features import FEATURES
from endcap.metrics import expected_rank
from endcap.sequences import CODES, Alignment, InputSpec, Vocabulary
from endcap_workers.models import MODELS, ModelSpec
from endcap_workers.training.cases import TRAIN, VALID, Case, Cases, CaseWriter
from endcap_workers.training.learning import Scores, learn, score
from endcap_workers.training.loop import Schedule
from endcap_workers.training.losses import LOSSES

SHOPPERS, PRODUCTS, PLACES = 40, 30, 6
TABLE = ProductTable([Product(f"p{n}", brand=f"b{n % 5}", categories=("all",)) for n in range(PRODUCTS)])
WORDS = Vocabulary.of(TABLE, list(TABLE.ids))
ALIGNED = Alignment(TABLE, WORDS, InputSpec(places=PLACES))
SPEC = ModelSpec(
    products=WORDS.numbers, codes=WORDS.sizes(CODES), features=len(FEATURES), width=8, hidden=(16,), dropout=0.0
)


def case(draw: np.random.Generator, had: np.ndarray, part: int) -> Case:
    """A list of 2 to 12 candidates. A shopper wants the product that the second feature points at, or the one that he
    had last."""
    rows = draw.choice(PRODUCTS, draw.integers(2, 13), replace=False)
    features = np.zeros((len(rows), len(FEATURES)), dtype=np.float32)
    features[:, :2] = draw.normal(size=(len(rows), 2)).astype(np.float16)
    wanted = np.zeros(len(rows), dtype=np.int64)
    wanted[(features[:, 1] + 9 * (rows == had[-1])).argmax()] = 1
    history = (had, np.full(PLACES, int(Action.PURCHASE)), np.arange(PLACES, 0, -1.0))
    return Case(features, rows, wanted, history, 0.0, part, PLACES)


def write(folder: Path, train: int, valid: int, seed: int = 0) -> Cases:
    draw = np.random.default_rng(seed)
    had = draw.integers(0, PRODUCTS, (SHOPPERS, PLACES))
    with CaseWriter(folder, PLACES) as writer:
        for part, count in ((TRAIN, train), (VALID, valid)):
            for _ in range(count):
                writer.add(case(draw, had[draw.integers(SHOPPERS)], part))
    writer.finish({})
    return Cases(folder)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return write(tmp_path_factory.mktemp("cases"), 300, 200)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_model_learns_to_rank(cases: Cases, name: str, loss: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name](SPEC)
    schedule = Schedule(epochs=6, patience=0, rate=0.02, warmup=5)

    outcome = learn(model, cases, ALIGNED, schedule, loss=LOSSES[loss])

    sizes = cases.lists["size"][cases.part(VALID)]
    chance = np.mean([np.mean(1 / np.log2(2 + np.arange(size))[:10]) for size in sizes])
    # Sequence models read the history alone: they can only learn the lists where it decides.
    assert outcome.best > (chance + 0.2 if name in ("dnn", "interest") else chance - 0.1)
    assert outcome.losses[-1] < outcome.losses[0]


def test_scores_do_not_depend_on_how_lists_are_batched(cases: Cases) -> None:
    torch.manual_seed(0)
    model = MODELS["interest"](SPEC).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    every = cases.part(VALID)
    whole = score(model, cases, every, ALIGNED)

    for number in (5, 17, 190):
        alone = score(model, cases, every[[number]], ALIGNED)
        here = slice(whole.starts[number], whole.starts[number + 1])
        assert alone.scores == pytest.approx(whole.scores[here], abs=1e-5)
        assert (alone.wanted == whole.wanted[here]).all()


def test_ranks_of_what_was_wanted() -> None:
    draw = np.random.default_rng(0)
    starts = np.r_[0, np.cumsum(draw.integers(2, 13, 30))]
    found = Scores(starts, np.round(draw.random(int(starts[-1])), 1), draw.integers(0, 3, int(starts[-1])))

    rank, weight, group = found.ranks()

    assert weight.sum() == found.wanted.sum()
    rows = np.flatnonzero(found.wanted > 0)
    for place, row, number in zip(rank, rows, group, strict=True):
        begin, end = starts[number : number + 2]
        assert place == expected_rank(found.scores[begin:end], row - begin)


def test_the_same_seed_gives_the_same_scores(cases: Cases) -> None:
    answers = []
    for _ in range(2):
        torch.manual_seed(3)
        model = MODELS["interest"](SPEC)
        learn(model, cases, ALIGNED, Schedule(epochs=1, seed=3))
        answers.append(score(model, cases, cases.part(VALID), ALIGNED).scores)

    assert np.array_equal(*answers)


def test_no_lists_are_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no lists"):
        learn(MODELS["interest"](SPEC), write(tmp_path, 0, 3), ALIGNED, Schedule())
