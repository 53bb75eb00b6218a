"""What a model is trained to get right. Everything takes logits in float32 and gives a mean over examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from endcap_workers.training.softmax import against

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def listwise(scores: Tensor, wanted: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of the softmax over a list's candidates.

    Args:
        scores: (B, N). wanted: (B, N) weights ≥ 0, e.g. how often each candidate was bought; a list may want several.
        present: (B, N) bool, False in padding. Lists that want nothing count nothing.
    """
    logs = scores.masked_fill(~present, -1e9).log_softmax(dim=1)
    return -(logs * wanted * present).sum() / wanted.sum().clamp(min=1e-9)


def pointwise(scores: Tensor, wanted: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy of each candidate on its own; arguments as in :func:`listwise`."""
    losses = binary_cross_entropy_with_logits(scores, (wanted > 0).to(scores.dtype), reduction="none")
    return (losses * present).sum() / present.sum().clamp(min=1)


#: (scores, wanted, present) -> a loss, by name.
LOSSES: dict[str, Loss] = {"listwise": listwise, "pointwise": pointwise}


def full_softmax(
    states: Tensor,
    targets: Tensor,
    vectors: Tensor,
    seen: Tensor | None = None,
    smoothing: float = 0.0,
    weight: Tensor | None = None,
    half: bool = False,
) -> Tensor:
    """Next product among all: states (P, d), numbers of the products that came next (P,), vectors (V, d) of all
    products. Rows 0 and 1 (padding, unknown) are no products and take no part.

    Args:
        seen: (P, L) products that are no rivals, padded with 0; a target among them stays one.
        smoothing: share of each target that is spread evenly over all products. weight: (P,) of each target.
        half: products in bfloat16, sums in float32.
    """
    numbers = targets.unsqueeze(1)
    hidden = numbers if seen is None else torch.cat([numbers, seen], dim=1)

    def hide(logits: Tensor, start: int) -> None:
        logits[:, :2] = -torch.inf
        logits.scatter_(1, hidden[start : start + len(logits)], -torch.inf)

    wanted = vectors[targets]
    loss = against(states, wanted, vectors, hide, weight, half=half)
    if smoothing:
        gap = (states * wanted).sum(dim=1).float() - (states @ vectors[2:].mean(dim=0)).float()
        loss = loss + smoothing * _mean(gap, weight)
    return loss


def _mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()


def sampled_softmax(
    states: Tensor,
    targets: Tensor,
    positive: Tensor,
    negative: Tensor,
    numbers: Tensor,
    of: int,
    weight: Tensor | None = None,
    half: bool = False,
) -> Tensor:
    """Softmax against products drawn uniformly, the same for the whole batch, each standing for many.

    Args:
        positive: (P, d) vectors of the targets. negative: (M, d) vectors of the drawn products; numbers: (M,) theirs.
        of: how many products they were drawn from. A drawn product that is a row's target is no negative there.
        weight: (P,) of each target. half: products in bfloat16, sums in float32.
    """
    order = numbers.argsort()
    ascending = numbers[order]
    first = torch.searchsorted(ascending, targets)
    times = torch.searchsorted(ascending, targets, right=True) - first

    def hide(logits: Tensor, start: int) -> None:
        some, most = slice(start, start + len(logits)), int(times[start : start + len(logits)].max())
        for number in range(most):  # a target was mostly not drawn, or once
            rows = (times[some] > number).nonzero().squeeze(1)
            logits[rows, order[first[some][rows] + number]] = -torch.inf

    return against(states, positive, negative, hide, weight, math.log(max(of - 1, 1) / len(numbers)), half)


def gbce(
    states: Tensor, targets: Tensor, positive: Tensor, negative: Tensor, numbers: Tensor, of: int, t: float = 0.75
) -> Tensor:
    """Generalised binary cross-entropy (gSASRec). Arguments as in :func:`sampled_softmax`; ``t`` = 1 calibrates."""
    rate = len(numbers) / max(of - 1, 1)
    beta = rate * (t * (1.0 - 1.0 / rate) + 1.0 / rate)
    negatives = softplus((states @ negative.T).float())
    negatives = negatives.masked_fill(targets.unsqueeze(1) == numbers.unsqueeze(0), 0.0)
    wanted = (states * positive).sum(dim=1).float()
    return (beta * softplus(-wanted) + negatives.sum(dim=1)).mean()
