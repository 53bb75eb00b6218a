"""The Q-head's loss by hand, and that sessions do not leak into each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from endcap_workers.evaluation import q_head
from endcap_workers.evaluation.q_head import SPEC, Loss, WithQ, q_loss
from endcap_workers.models import LstmModel
from endcap_workers.training.next_item import Prefixes

PRODUCTS = 8


@pytest.fixture
def model() -> WithQ:
    torch.manual_seed(0)
    made = WithQ(LstmModel(replace(SPEC, products=PRODUCTS, width=4)))
    for head in made.heads:
        torch.nn.init.normal_(head.weight)
    return made


def test_the_loss_is_double_q_learning_over_what_was_drawn(model: WithQ) -> None:
    states = torch.randn(3, 4)
    targets, drawn = torch.tensor([2, 3, 4]), torch.tensor([3, 5, 6])
    after = torch.tensor([1, 2, -1])
    found, advantage = q_loss(model, 0, states, targets, after, drawn, 0.5)

    def q(head: int, row: int, product: int) -> float:
        weights = model.heads[head].weight[product]
        return float((states[row] @ weights[:-1] + weights[-1]).detach())

    known = [2, 3, 4, 5, 6]
    value = [q(1, row, max(known, key=lambda one: q(0, row, one))) for row in range(3)]
    own = [q(0, row, int(targets[row])) for row in range(3)]
    wanted = [1 + 0.5 * value[1], 1 + 0.5 * value[2], 1.0]
    positive = np.mean([(a - b) ** 2 for a, b in zip(own, wanted)])
    missed = [[one for one in (3, 5, 6) if one != int(targets[row])] for row in range(3)]
    negative = np.mean([np.mean([(q(0, row, one) - 0.5 * value[row]) ** 2 for one in missed[row]]) for row in range(3)])
    assert float(found) == pytest.approx(positive + negative, rel=1e-4)
    for row in range(3):
        mean = np.mean([q(0, row, one) for one in missed[row]])
        assert float(advantage[row]) == pytest.approx(own[row] - mean, rel=1e-4)
    assert not advantage.requires_grad


def test_one_step_of_each_loss_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(q_head, "SCHEDULE", replace(q_head.SCHEDULE, epochs=2))
    sessions = [np.array([2, 3, 4, 5]), np.array([3, 4]), np.array([6, 7, 2])] * 50
    valid = Prefixes([np.array([2, 3])], np.array([4]))
    for loss in (Loss(), Loss(0.5, 1.0), Loss(0.5, 1.0, advantage=True)):
        model, hit = q_head.train(sessions, PRODUCTS, valid, loss, 0)
        assert hit == 1.0
        assert all(torch.isfinite(one).all() for one in model.parameters())
