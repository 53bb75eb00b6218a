"""The softmax over very many products, with its gradient, a few rows at a time.

What a step on a processor spends on a softmax over 10,000 products is mostly memory: autograd keeps several tables of
(targets, products). Here a block of rows that fits the cache is multiplied, turned into probabilities in place and
multiplied again, so that loss and gradient come out of one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Numbers in one block: 12 MB on a processor, whose cache it should fit; a GPU would wait for many small ones.
_BLOCK, _BLOCK_GPU = 3_000_000, 200_000_000

#: Sets what is no rival to -inf in the logits (rows, M) of the rows from a place on.
Hide = Callable[[Tensor, int], None]


class _Rivals(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, wanted: Tensor, rivals: Tensor, weight: Tensor, hide: Hide, shift: float, half: bool
    ) -> Tensor:
        count, number = len(states), len(rivals)
        kind = torch.bfloat16 if half else torch.float32
        states, wanted, table = states.float(), wanted.float(), rivals.to(kind)
        size = max(16, (_BLOCK_GPU if states.is_cuda else _BLOCK) // max(number, 1))
        buffer = states.new_empty(min(size, count), number)
        d_states, d_wanted = torch.empty_like(states), torch.empty_like(wanted)
        d_rivals = torch.zeros(rivals.shape, dtype=torch.float32, device=rivals.device)
        total = states.new_zeros(())
        for start in range(0, count, size):
            here = slice(start, min(start + size, count))
            some = states[here]
            product = some.to(kind)
            block = buffer[: len(some)]
            if half:
                block.copy_(product @ table.T)
            else:
                torch.mm(product, table.T, out=block)
            if shift:
                block.add_(shift)
            hide(block, start)
            own = (some * wanted[here]).sum(dim=1)
            highest = torch.maximum(block.amax(dim=1), own)
            block.sub_(highest.unsqueeze(1)).exp_()
            share = (own - highest).exp()
            whole = block.sum(dim=1) + share
            part = weight[here]
            total += (part * (whole.log() + highest - own)).sum()
            block.mul_((part / whole).unsqueeze(1))
            left = (part * (share / whole - 1.0)).unsqueeze(1)
            chances = block.to(kind)
            d_states[here] = (chances @ table).float() + left * wanted[here]
            d_wanted[here] = left * some
            if half:
                d_rivals += chances.T @ product
            else:
                d_rivals.addmm_(chances.T, product)
        ctx.save_for_backward(d_states, d_wanted, d_rivals)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        d_states, d_wanted, d_rivals = ctx.saved_tensors
        return d_states * gradient, d_wanted * gradient, d_rivals * gradient, None, None, None, None


def against(
    states: Tensor,
    wanted: Tensor,
    rivals: Tensor,
    hide: Hide,
    weight: Tensor | None = None,
    shift: float = 0.0,
    half: bool = False,
) -> Tensor:
    """Mean over rows of -log of the chance of what was wanted, in a softmax against rivals; a scalar, float32.

    Args:
        states: (P, d). wanted: (P, d) vectors of what was wanted. rivals: (M, d).
        hide: takes out of the logits what is no rival in a row, what was wanted included.
        weight: (P,) of each row. shift: added to every rival's logit. half: products in bfloat16, sums in float32.
    """
    count = states.shape[0]
    shares = states.new_full((count,), 1.0 / max(count, 1)) if weight is None else weight / weight.sum()
    with torch.autocast(states.device.type, enabled=False):
        loss: Tensor = _Rivals.apply(states, wanted.to(states.dtype), rivals, shares.float(), hide, shift, half)
    return loss
