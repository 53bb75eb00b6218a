"""Explicit features on a common scale, inside the graph: a served model needs no other preparation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Farther than so many standard deviations says nothing more, and could be a fault.
LIMIT = 6.0


class FeatureScale(nn.Module):
    """(x - mean) / deviation, within ±6; a value that is not a number counts as average."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def fit(self, sample: Tensor) -> None:
        """Take the scale from finite rows (n, F); a column that never varies stays at 0."""
        self.mean.copy_(sample.mean(dim=0))
        self.deviation.copy_(sample.std(dim=0, unbiased=False).clamp(min=1e-3))

    def forward(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean) / self.deviation
        return torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled).clamp(-LIMIT, LIMIT)
