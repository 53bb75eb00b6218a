from __future__ import annotations

import numpy as np
import pytest
import torch

from endcap_workers.models import LstmModel, ModelSpec, SequenceModel, TransformerModel
from endcap_workers.training.loop import Schedule
from endcap_workers.training.losses import full_softmax, gbce, listwise, pointwise, sampled_softmax
from endcap_workers.training.next_item import (
    Catalogue,
    Prefixes,
    all_vectors,
    evaluate,
    ranks,
    states_of,
    train_next,
)

PRODUCTS = 32


def circle(length: int, start: int) -> np.ndarray:
    """A shopper who walks along the shelf."""
    return 2 + (start + np.arange(length)) % (PRODUCTS - 2)


@pytest.mark.parametrize("kind", [LstmModel, TransformerModel])
@pytest.mark.parametrize("negatives", [0, 20])
@pytest.mark.parametrize("scale", [0.0, 12.0])
def test_it_learns_what_comes_next(kind: type[SequenceModel], negatives: int, scale: float) -> None:
    draw = np.random.default_rng(0)
    walks = [circle(int(draw.integers(2, 9)), int(draw.integers(0, 99))) for _ in range(300)]
    cases = Prefixes([walk[:-1] for walk in walks], np.array([walk[-1] for walk in walks]))
    torch.manual_seed(0)
    model = kind(ModelSpec(products=PRODUCTS, width=16, dropout=0.0, scale=scale, places=10))

    outcome = train_next(
        model,
        Catalogue.bare(PRODUCTS),
        walks,
        cases,
        Schedule(epochs=25, rate=0.02, warmup=5, patience=0),
        batch=50,
        negatives=negatives,
        k=1,
        metric="hit",
    )

    assert outcome.best > 0.9


def test_a_loss_at_every_timestep_sees_no_later_product() -> None:
    torch.manual_seed(0)
    for kind, relative in ((LstmModel, False), (TransformerModel, False), (TransformerModel, True)):
        model = kind(ModelSpec(products=PRODUCTS, width=16, places=10, relative=relative)).eval()
        for block in getattr(model, "blocks", ()):
            if relative:
                torch.nn.init.normal_(block.distance.weight)
        first = torch.tensor([[3, 4, 5, 6]])
        second = torch.tensor([[3, 4, 9, 9]])
        catalogue = Catalogue.bare(PRODUCTS)
        a, b = states_of(model, catalogue, first), states_of(model, catalogue, second)

        assert torch.allclose(a[:, :2], b[:, :2], atol=1e-6)
        assert not torch.allclose(a[:, 2:], b[:, 2:], atol=1e-4)


def test_ranks_are_those_of_a_full_sort() -> None:
    torch.manual_seed(1)
    catalogue = Catalogue(torch.randint(0, 5, (PRODUCTS, 2)), torch.randn(PRODUCTS, 3))
    model = LstmModel(ModelSpec(products=PRODUCTS, codes=(5, 5), content=3, width=16, places=4)).eval()
    draw = np.random.default_rng(0)
    histories = [draw.integers(2, PRODUCTS, size=draw.integers(1, 9)) for _ in range(40)]
    targets = draw.integers(2, PRODUCTS, size=40)

    for hide in (False, True):
        found = ranks(model, catalogue, Prefixes(histories, targets, hide_seen=hide), batch=7)
        for history, target, rank in zip(histories, targets, found, strict=True):
            with torch.no_grad():
                state = states_of(model, catalogue, torch.from_numpy(history[-4:])[None])[0, -1]
                scores = (all_vectors(model, catalogue) @ state).numpy()
            rivals = set(range(2, PRODUCTS)) - {int(target)} - (set(history.tolist()) if hide else set())
            assert rank == sum(scores[rival] > scores[target] for rival in rivals)


def test_equal_scores_share_their_places() -> None:
    model = LstmModel(ModelSpec(products=12, width=4)).eval()
    with torch.no_grad():
        model.encode.product.weight.zero_()
    figures = evaluate(model, Catalogue.bare(12), Prefixes([np.array([2])], np.array([3])), k=10)

    assert ranks(model, Catalogue.bare(12), Prefixes([np.array([2])], np.array([3])))[0] == 4.5
    assert figures["hit"] == 1.0


def test_sampled_softmax_estimates_the_full_one() -> None:
    draw = torch.Generator().manual_seed(0)
    vectors, states = torch.randn(502, 8, generator=draw), torch.randn(64, 8, generator=draw)
    targets = torch.randint(2, 502, (64,), generator=draw)
    numbers = torch.randint(2, 502, (20_000,), generator=draw)

    full = full_softmax(states, targets, vectors)
    sampled = sampled_softmax(states, targets, vectors[targets], vectors[numbers], numbers, 500)

    assert sampled.item() == pytest.approx(full.item(), rel=0.02)


def test_gbce_prefers_the_target() -> None:
    states = torch.eye(4)
    vectors = torch.eye(4) * 3
    numbers = torch.arange(4)
    right = gbce(states, torch.arange(4), vectors, vectors, numbers, 100)
    wrong = gbce(states, torch.tensor([1, 2, 3, 0]), vectors[[1, 2, 3, 0]], vectors, numbers, 100)

    assert right < wrong


def test_losses_of_lists() -> None:
    scores = torch.tensor([[0.0, 1.0, 50.0], [2.0, 0.0, 0.0]])
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])

    # softmax of (0, 1) is (.269, .731); the list that wants nothing counts nothing
    assert listwise(scores, wanted, present).item() == pytest.approx(-(np.log(0.26894) + np.log(0.73106)) / 2, abs=1e-4)
    by_hand = [np.log(2), np.log1p(np.exp(-1)), np.log1p(np.exp(2)), np.log(2), np.log(2)]
    assert pointwise(scores, wanted, present).item() == pytest.approx(np.mean(by_hand), abs=1e-4)


def test_nothing_to_learn_from_is_said() -> None:
    model = LstmModel(ModelSpec(products=9, width=4))
    with pytest.raises(ValueError, match="nothing comes next"):
        train_next(model, Catalogue.bare(9), [np.array([3])], Prefixes([], np.array([])), Schedule())


def test_what_was_seen_is_no_rival_and_smoothing_spreads() -> None:
    draw = torch.Generator().manual_seed(3)
    states, vectors = torch.randn(5, 8, generator=draw), torch.randn(12, 8, generator=draw).requires_grad_()
    targets = torch.tensor([2, 3, 4, 5, 6])
    seen = torch.tensor([[7, 8], [3, 9], [0, 0], [11, 0], [2, 3]])  # the second row's target is seen, too

    full_softmax(states, targets, vectors, seen, smoothing=0.1).backward()
    found, vectors.grad = vectors.grad, None
    logits = states @ vectors.T
    rivals = torch.ones(5, 12, dtype=torch.bool)
    rivals[:, :2] = False
    for row, column in [(0, 7), (0, 8), (1, 9), (3, 11), (4, 2), (4, 3)]:
        rivals[row, column] = False
    wanted = 0.9 * logits[torch.arange(5), targets] + 0.1 * logits[:, 2:].mean(dim=1)
    (logits.masked_fill(~rivals, -torch.inf).logsumexp(dim=1) - wanted).mean().backward()

    assert found is not None
    assert vectors.grad is not None
    assert torch.allclose(found, vectors.grad, atol=1e-6)


def test_recent_sequences_can_weigh_more() -> None:
    """The fashion changes half-way: 3 follows 2 at first, then 4 does."""
    walks = [np.array([2, 3])] * 300 + [np.array([2, 4])] * 200
    scores = {}
    for recency in (0.0, 8.0):
        torch.manual_seed(0)
        model = LstmModel(ModelSpec(products=8, width=8, dropout=0.0, places=4))
        schedule = Schedule(epochs=15, rate=0.03, warmup=1, patience=0)
        train_next(model, Catalogue.bare(8), walks, None, schedule, batch=100, recency=recency)
        three, four = (ranks(model, Catalogue.bare(8), Prefixes([walks[0][:1]], np.array([one])))[0] for one in (3, 4))
        scores[recency] = three < four

    assert scores == {0.0: True, 8.0: False}


def test_half_precision_learns_the_same() -> None:
    walks = [circle(6, start) for start in range(30)] * 5
    cases = Prefixes([walk[:-1] for walk in walks], np.array([walk[-1] for walk in walks]))
    for half in (False, True):
        torch.manual_seed(0)
        model = LstmModel(ModelSpec(products=PRODUCTS, width=16, dropout=0.0, scale=12.0, places=10))
        schedule = Schedule(epochs=20, rate=0.02, warmup=5, patience=0)
        train_next(model, Catalogue.bare(PRODUCTS), walks, cases, schedule, batch=50, half=half)

        assert evaluate(model, Catalogue.bare(PRODUCTS), cases, 1)["hit"] > 0.9
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_several_models_vote() -> None:
    torch.manual_seed(5)
    catalogue = Catalogue.bare(PRODUCTS)
    models = [LstmModel(ModelSpec(products=PRODUCTS, width=8, places=6)).eval() for _ in range(2)]
    cases = Prefixes([np.array([3, 4]), np.array([9])], np.array([5, 6]))
    found = ranks(models, catalogue, cases)

    for row, (history, target) in enumerate(zip(cases.histories, cases.targets, strict=True)):
        logs = torch.zeros(PRODUCTS)
        for model in models:
            with torch.no_grad():
                state = states_of(model, catalogue, torch.from_numpy(history)[None])[0, -1]
                scores = (all_vectors(model, catalogue) @ state)[2:]
            logs[2:] += scores.log_softmax(dim=0)
        assert found[row] == (logs[2:] > logs[target]).sum()


def test_an_objective_that_does_not_fit_is_said() -> None:
    model = LstmModel(ModelSpec(products=9, width=4))
    with pytest.raises(ValueError, match="set negatives to 0"):
        train_next(model, Catalogue.bare(9), [np.array([3, 4])], None, Schedule(), negatives=4, hide_seen=True)
