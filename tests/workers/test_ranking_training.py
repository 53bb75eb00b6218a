from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from endcap.metrics import expected_rank
from endcap_workers.models import MODELS, ModelSpec
from endcap_workers.training.behaviour import Lists
from endcap_workers.training.loop import Schedule
from endcap_workers.training.losses import listwise, pointwise
from endcap_workers.training.ranking import (
    Block,
    Histories,
    Loss,
    Vocabulary,
    case_ranks,
    scores_of,
    train_ranking,
)

SHOPPERS, PRODUCTS = 40, 30
WORDS = Vocabulary(
    numbers=np.arange(PRODUCTS) + 2,
    codes=np.arange(PRODUCTS)[:, None] % 5 + 1,
    content=np.zeros((PRODUCTS, 0), dtype=np.float32),
)
SPEC = ModelSpec(products=PRODUCTS + 2, codes=(6,), features=2, width=8, hidden=(16,), dropout=0.0)


def block(seed: int = 0, lists: int = 300) -> Block:
    """Lists of 2 to 12 candidates. A shopper wants the product that feature 1 points at, or, where feature 0 is set,
    the one that he had last."""
    draw = np.random.default_rng(seed)
    size = draw.integers(2, 13, lists)
    starts = np.r_[0, np.cumsum(size)]
    product = np.concatenate([draw.choice(PRODUCTS, one, replace=False) for one in size])
    group = np.repeat(np.arange(lists), size)
    shopper = draw.integers(0, SHOPPERS, lists)
    had = draw.integers(0, PRODUCTS, (SHOPPERS, 6))
    features = draw.normal(size=(len(product), 2)).astype(np.float16)
    owned = (product == had[shopper[group], -1]).astype(np.float32)
    taste = features[:, 1].astype(np.float32) + 9 * owned
    wanted = np.zeros(len(product), dtype=np.float32)
    for begin, end in pairwise(starts.tolist()):
        wanted[begin + taste[begin:end].argmax()] = 1
    history = Histories(had + 1, np.full(had.shape, 6), np.tile(np.arange(6, 0, -1, dtype=np.float32), (SHOPPERS, 1)))
    return Block(Lists(shopper, np.zeros(lists, np.int64), starts, product, wanted), features, history)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", [listwise, pointwise])
def test_every_model_learns_to_rank(name: str, loss: Loss) -> None:
    train, valid = block(), block(seed=1)
    torch.manual_seed(0)
    model = MODELS[name](SPEC)
    schedule = Schedule(epochs=15, patience=0, rate=0.01, warmup=5)

    outcome = train_ranking(model, [train], valid, WORDS, schedule, batch=25, loss=loss)

    chance = np.mean([np.mean(1 / np.log2(2 + np.arange(size))[:10]) for size in np.diff(valid.lists.starts)])
    # Sequence models read the history alone: they can only learn the lists where it decides.
    assert outcome.best > (chance + 0.2 if name in ("dnn", "interest") else chance - 0.1)
    assert outcome.losses[-1] < outcome.losses[0]


def test_scores_do_not_depend_on_how_lists_are_batched() -> None:
    torch.manual_seed(0)
    model = MODELS["interest"](SPEC).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    data = block()

    whole = scores_of(model, data, WORDS)
    some = scores_of(model, data, WORDS, np.array([5, 200, 17]), batch=2)

    assert np.isfinite(whole).all()
    for number in range(300):
        rows = slice(data.lists.starts[number], data.lists.starts[number + 1])
        if number in (5, 17, 200):
            assert some[rows] == pytest.approx(whole[rows], abs=1e-5)
        else:
            assert np.isnan(some[rows]).all()


def test_ranks_of_what_was_wanted() -> None:
    lists = block(lists=30).lists
    lists.wanted[lists.starts[3]] += 2
    scores = np.round(np.random.default_rng(0).random(len(lists.product)), 1)

    rank, weight, rows = case_ranks(lists, scores)

    assert weight.sum() == lists.wanted.sum()
    for place, row in zip(rank, rows, strict=True):
        number = lists.group[row]
        begin, end = lists.starts[number : number + 2]
        assert place == expected_rank(scores[begin:end], row - begin)
    assert set(case_ranks(lists, scores, np.array([4]))[2]) <= set(range(lists.starts[4], lists.starts[5]))


def test_shoppers_without_history_and_products_without_numbers_can_be_ranked() -> None:
    data = block(lists=60)
    bare = Block(data.lists, data.features)
    torch.manual_seed(0)
    model = MODELS["interest"](ModelSpec(products=2, features=2, width=8, hidden=(8,)))

    outcome = train_ranking(model, [bare], bare, Vocabulary.bare(PRODUCTS), Schedule(epochs=3, patience=0), batch=20)

    assert np.isfinite(outcome.values).all()


def test_the_same_seed_gives_the_same_scores() -> None:
    answers = []
    for _ in range(2):
        torch.manual_seed(3)
        model = MODELS["interest"](SPEC)
        train_ranking(model, [block(lists=60)], block(1, 30), WORDS, Schedule(epochs=2, seed=3), batch=20)
        answers.append(scores_of(model, block(2, 20), WORDS))

    assert np.array_equal(*answers)


def test_an_empty_log_is_said() -> None:
    nothing = Lists(
        *(np.empty(0, np.int64) for _ in range(2)), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0)
    )
    empty = Block(nothing, np.zeros((0, 2), dtype=np.float16))

    with pytest.raises(ValueError, match="no lists"):
        train_ranking(MODELS["interest"](SPEC), [empty], empty, WORDS, Schedule())
