"""The softmax in blocks gives the loss and the gradients of the one that autograd writes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from endcap_workers.training import softmax
from endcap_workers.training.losses import full_softmax, sampled_softmax


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_BLOCK", 1)  # 16 rows each, the least


def tensors(*sizes: tuple[int, int]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randn(size, generator=draw).requires_grad_() for size in sizes]


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(2.0 * loss, of)


def test_among_all_products() -> None:
    states, vectors = tensors((50, 8), (40, 8))
    targets = torch.arange(50) % 38 + 2
    weight = torch.linspace(0.1, 2.0, 50)

    mine = full_softmax(states, targets, vectors, weight=weight)
    logits = (states @ vectors.T)[:, 2:]
    theirs = (torch.nn.functional.cross_entropy(logits, targets - 2, reduction="none") * weight).sum() / weight.sum()

    torch.testing.assert_close(mine, theirs)
    for one, other in zip(gradients(mine, states, vectors), gradients(theirs, states, vectors), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_against_drawn_products_of_which_some_are_the_target() -> None:
    states, positive, negative = tensors((50, 8), (50, 8), (30, 8))
    targets = torch.arange(50) % 25
    numbers = torch.arange(30) % 15  # every number twice: a target among them is no rival either time

    mine = sampled_softmax(states, targets, positive, negative, numbers, 100)
    logits = states @ negative.T + torch.tensor(99 / 30).log()
    logits = logits.masked_fill(targets.unsqueeze(1) == numbers.unsqueeze(0), -torch.inf)
    own = (states * positive).sum(dim=1)
    theirs = (torch.logaddexp(own, logits.logsumexp(dim=1)) - own).mean()

    torch.testing.assert_close(mine, theirs)
    mine_to, theirs_to = (gradients(loss, states, positive, negative) for loss in (mine, theirs))
    for one, other in zip(mine_to, theirs_to, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_products_in_halves_differ_little() -> None:
    states, vectors = tensors((50, 8), (40, 8))
    targets = torch.arange(50) % 38 + 2

    exact, rough = (full_softmax(states, targets, vectors, half=half) for half in (False, True))

    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    one, other = (torch.cat(gradients(loss, states, vectors)) for loss in (exact, rough))
    assert torch.nn.functional.cosine_similarity(one.ravel(), other.ravel(), dim=0) > 0.999
