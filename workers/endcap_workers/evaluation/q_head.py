"""Does a Q-head beside the cross-entropy make a sequence model better? SNQN and SA2C (Xin et al., WSDM 2022).

The same small LSTM, the same sessions (the latest 6,000 of Diginetica's training part), the same steps, three losses:

- *cross-entropy*: the next product among drawn ones, as the product's own training has it.
- *SNQN*: besides, double Q-learning on the model's state: what is clicked next earns 1, a drawn product earns 0, and
  what comes later counts by the discount. Two Q-heads are each other's target in turns (van Hasselt 2010).
- *SA2C*: besides that, each target's cross-entropy weighs by its advantage, how far its Q lies above the mean of the
  products drawn with it, from the second epoch on, between a fifth and five.

What it found is in docs/benchmarks.md: no gain, so nothing of it is in the product.

The best action of the next state is looked for among the batch's products, not among all. Discount and the weight of
the Q-loss are chosen on the validation prefixes, seed 0; test cases are asked once, for every seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from endcap.results import Results
from endcap_workers.evaluation.diginetica import K, Sessions, load
from endcap_workers.models import LstmModel, ModelSpec
from endcap_workers.models.base import PADDING
from endcap_workers.training.loop import Schedule, fit
from endcap_workers.training.losses import sampled_softmax
from endcap_workers.training.next_item import Catalogue, Prefixes, evaluate, padded, states_of

SESSIONS = 6_000
SEEDS = 3
SPEC = ModelSpec(products=0, width=64, dropout=0.2, scale=16.0, places=20)
SCHEDULE = Schedule(epochs=6, patience=0, rate=3e-3, warmup=50, cosine=True)
BATCH, DRAWN, Q_DRAWN = 128, 1_024, 64
#: (discount, weight of the Q-loss) that validation chooses from.
CHOICES = ((0.5, 0.1), (0.5, 1.0))
_CASES = 6_000


@dataclass(frozen=True, slots=True)
class Loss:
    """``weight``: of the Q-loss, 0: cross-entropy alone. ``advantage``: SA2C."""

    discount: float = 0.0
    weight: float = 0.0
    advantage: bool = False


class WithQ(nn.Module):
    """A sequence model with two Q-heads on its states: Q(s, a) = s · w_a + b_a."""

    def __init__(self, model: LstmModel) -> None:
        super().__init__()
        self.model = model
        products, width = model.spec.products, model.spec.width
        self.heads = nn.ModuleList(nn.Embedding(products, width + 1) for _ in range(2))
        for weights in self.heads.parameters():
            nn.init.normal_(weights, std=0.01)

    def q(self, head: int, states: Tensor, products: Tensor) -> Tensor:
        """States (P, width) -> (P, m) for products (m,), or (P, k) for products (P, k)."""
        weights = self.heads[head](products)
        vectors, bias = weights[..., :-1], weights[..., -1]
        if products.dim() == 1:
            return states @ vectors.T + bias
        return (states.unsqueeze(1) * vectors).sum(dim=-1) + bias


def q_loss(
    model: WithQ, head: int, states: Tensor, targets: Tensor, after: Tensor, drawn: Tensor, discount: float
) -> tuple[Tensor, Tensor]:
    """The Q-loss, and each target's advantage (P,), without gradient.

    Args:
        states: (P, width). targets: (P,), what was clicked next. after: (P,), row of the state after that, -1: the
            session ends. drawn: (m,), products that were not clicked, but where they are the target.
    """
    own = model.q(head, states, targets.unsqueeze(1)).squeeze(1)
    others = model.q(head, states, drawn)
    known = torch.cat([targets.unique(), drawn])
    with torch.no_grad():
        # The best product of each state by one head, valued by the other.
        best = known[model.q(head, states, known).argmax(dim=1)]
        value = model.q(1 - head, states, best.unsqueeze(1)).squeeze(1)
        wanted = 1.0 + discount * torch.where(after >= 0, value[after.clamp(min=0)], torch.zeros_like(value))
        refused = discount * value
    missed = drawn.unsqueeze(0) != targets.unsqueeze(1)
    negative = ((others - refused.unsqueeze(1)) ** 2 * missed).sum(dim=1) / missed.sum(dim=1).clamp(min=1)
    advantage = own - (others * missed).sum(dim=1) / missed.sum(dim=1).clamp(min=1)
    return mse_loss(own, wanted) + negative.mean(), advantage.detach()


def train(sessions: list[np.ndarray], products: int, valid: Prefixes, loss: Loss, seed: int) -> tuple[LstmModel, float]:
    """The model of the last epoch, and its P@20 on the validation prefixes."""
    torch.manual_seed(seed)
    model = WithQ(LstmModel(replace(SPEC, products=products)))
    catalogue = Catalogue.bare(products)
    kept = [session[-SPEC.places - 1 :] for session in sessions if len(session) > 1]
    table, lengths = padded(kept), np.array([len(session) for session in kept])
    state = {"epoch": 0, "step": 0}

    def batches(epoch: int) -> list[np.ndarray]:
        state["epoch"] = epoch
        draw = np.random.default_rng([seed, epoch])
        order = np.argsort(lengths + 2.0 * draw.random(len(kept)), kind="stable")
        parts = np.array_split(order, max(1, len(kept) // BATCH))
        return [parts[number] for number in draw.permutation(len(parts))]

    def of(rows: np.ndarray) -> Tensor:
        found = table[torch.from_numpy(rows), : int(lengths[rows].max())]
        present = found[:, 1:] != PADDING
        targets = found[:, 1:][present]
        states = states_of(model.model, catalogue, found[:, :-1])[present]
        drawn = torch.randint(2, products, (DRAWN,))
        used, place = torch.unique(torch.cat([targets, drawn]), return_inverse=True)
        vectors = model.model.encode(used, catalogue.codes[used], catalogue.content[used])
        positive, negative = vectors[place[: len(targets)]], vectors[place[len(targets) :]]
        weight, extra = None, torch.zeros(())
        if loss.weight:
            # Present places are read row by row: the state after one is the next, unless its session ends.
            session = present.nonzero(as_tuple=True)[0]
            after = torch.arange(1, len(session) + 1)
            after[:-1][session[1:] != session[:-1]] = -1
            after[-1:] = -1
            head = state["step"] % 2
            state["step"] += 1
            extra, advantage = q_loss(model, head, states, targets, after, drawn[:Q_DRAWN], loss.discount)
            if loss.advantage and state["epoch"] > 0:
                weight = (advantage / advantage.mean().clamp(min=1e-3)).clamp(0.2, 5.0)
        return sampled_softmax(states, targets, positive, negative, drawn, products - 2, weight) + loss.weight * extra

    fit(model, batches, of, None, replace(SCHEDULE, seed=seed))
    return model.model, evaluate(model.model.eval(), catalogue, valid, K)["hit"]


def small(
    data: Sessions, sessions: int = SESSIONS, cases: int = _CASES
) -> tuple[list[np.ndarray], Prefixes, Prefixes, int]:
    """The latest sessions with products numbered anew; validation and test cases whose target training has seen."""
    latest = data.train[-sessions:]
    numbers = np.unique(np.concatenate(latest))
    new = np.ones(data.products, dtype=np.int64)
    new[numbers] = np.arange(2, len(numbers) + 2)

    def kept(part: Prefixes) -> Prefixes:
        rows = np.flatnonzero(new[part.targets] > 1)[:cases]
        return Prefixes([new[part.histories[row]] for row in rows.tolist()], new[part.targets[rows]])

    return [new[one] for one in latest], kept(data.valid), kept(data.test), len(numbers) + 2


def run(seed: int = 0, seeds: int = SEEDS, report: Callable[[str], None] = print) -> Results:
    """Chosen on validation with seed 0, then every seed on the test cases."""
    sessions, valid, test, products = small(load(seed))
    results = Results("a Q-head beside the cross-entropy", "endcap evaluate q-head", seed)
    chosen: dict[str, Loss] = {"cross-entropy": Loss()}
    for name, advantage in (("SNQN", False), ("SA2C", True)):
        tried = {}
        for discount, weight in CHOICES:
            loss = Loss(discount, weight, advantage)
            tried[loss] = train(sessions, products, valid, loss, seed)[1]
            report(f"{name}, discount {discount}, weight {weight}: validation P@20 {100 * tried[loss]:.2f}")
        chosen[name] = max(tried, key=lambda one: tried[one])
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
    for one in range(seed, seed + seeds):
        for name, loss in chosen.items():
            model, hit = train(sessions, products, valid, loss, one)
            figures = evaluate(model, Catalogue.bare(products), test, K)
            rows[name].append((100 * hit, 100 * figures["hit"], 100 * figures["mrr"]))
            report(f"{name}, seed {one}: P@20 {rows[name][-1][1]:.2f}, MRR@20 {rows[name][-1][2]:.2f}")
    plain = np.array(rows["cross-entropy"])
    for name, found in rows.items():
        mean, apart = np.mean(found, axis=0), np.array(found) - plain
        results.add(
            name,
            {
                "validation P@20": mean[0], "P@20": mean[1], "MRR@20": mean[2],
                "P@20 more than cross-entropy": apart[:, 1].mean(),
                "of the seeds, least": apart[:, 1].min(), "most": apart[:, 1].max(),
            },
        )  # fmt: skip
    results.notes += [
        f"{len(sessions):,} sessions, {products - 2:,} products, {len(test.targets):,} test cases, {seeds} seeds.",
        *(f"{name}: discount {loss.discount}, weight {loss.weight}." for name, loss in chosen.items() if loss.weight),
    ]
    return results
