"""Explicit features on a common scale, inside the graph: a served model needs no other preparation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Farther than so many standard deviations says nothing more, and could be a fault.
LIMIT = 6.0


class FeatureScale(nn.Module):
    """(x - mean) / deviation, within ±6; a value that is not a number counts as average.

    With ``knots`` each feature also appears as what it exceeds each of its quantiles by, so that a line through them
    can bend there (piecewise-linear encoding): ``width`` = features · (1 + knots).
    """

    mean: Tensor
    deviation: Tensor
    knots: Tensor

    def __init__(self, features: int, knots: int = 0) -> None:
        super().__init__()
        self.width = features * (1 + knots)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("knots", torch.zeros(features, knots))

    def fit(self, sample: Tensor) -> None:
        """Take the scale from finite rows (n, F); a column that never varies stays at 0.

        A value that most rows share (a count of 0) says nothing about where to bend: quantiles are those of the others.
        """
        self.mean.copy_(sample.mean(dim=0))
        self.deviation.copy_(sample.std(dim=0, unbiased=False).clamp(min=1e-3))
        places = self.knots.shape[1]
        if places:
            at = torch.linspace(0.0, 1.0, places + 2, dtype=sample.dtype)[1:-1]
            for column, values in enumerate(self._scaled(sample).T):
                others = values[values != values.mode().values]
                self.knots[column] = torch.quantile((others if len(others) else values)[:100_000], at)

    def forward(self, features: Tensor) -> Tensor:
        """(…, features) -> (…, width)."""
        scaled = self._scaled(features)
        if not self.knots.shape[1]:
            return scaled
        above = (scaled.unsqueeze(-1) - self.knots).clamp(min=0.0)
        return torch.cat([scaled, above.flatten(-2)], dim=-1)

    def _scaled(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean) / self.deviation
        return torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled).clamp(-LIMIT, LIMIT)
