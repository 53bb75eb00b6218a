"""What a model is trained to get right. Everything takes logits in float32 and gives a mean over examples."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


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


def full_softmax(
    states: Tensor,
    targets: Tensor,
    vectors: Tensor,
    seen: Tensor | None = None,
    smoothing: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Next product among all: states (P, d), numbers of the products that came next (P,), vectors (V, d) of all
    products. Rows 0 and 1 (padding, unknown) are no products and take no part.

    Args:
        seen: (P, L) products that are no rivals, padded with 0; a target among them stays one.
        smoothing: share of each target that is spread evenly over all products. weight: (P,) of each target.
    """
    logits = (states @ vectors.T).float()
    numbers = targets.unsqueeze(1)
    wanted = (states * vectors[targets]).sum(dim=1).float()
    with torch.no_grad():  # in place and unseen by autograd: what is -inf gets no gradient from the sum below anyway
        logits[:, :2] = -torch.inf
        if seen is not None:
            logits.scatter_(1, seen.masked_fill(seen == numbers, 0), -torch.inf)
    if smoothing:
        wanted = (1.0 - smoothing) * wanted + smoothing * (states @ vectors[2:].mean(dim=0)).float()
    return _mean(logits.logsumexp(dim=1) - wanted, weight)


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
) -> Tensor:
    """Softmax against products drawn uniformly, the same for the whole batch, each standing for many.

    Args:
        positive: (P, d) vectors of the targets. negative: (M, d) vectors of the drawn products; numbers: (M,) theirs.
        of: how many products they were drawn from. A drawn product that is a row's target is no negative there.
        weight: (P,) of each target.
    """
    negatives = (states @ negative.T).float() + math.log(max(of - 1, 1) / len(numbers))
    negatives = negatives.masked_fill(targets.unsqueeze(1) == numbers.unsqueeze(0), -1e9)
    wanted = (states * positive).sum(dim=1).float()
    return _mean(torch.logaddexp(wanted, negatives.logsumexp(dim=1)) - wanted, weight)


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
