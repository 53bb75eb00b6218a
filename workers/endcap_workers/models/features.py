"""Explicit features on a common scale, inside the graph: a served model needs no other preparation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Farther than so many standard deviations says nothing more, and could be a fault.
LIMIT = 6.0
#: Variance within a list that counts as none: what all candidates share must not be blown up.
_LEAST_VARIANCE = 0.05


def present(features: Tensor) -> Tensor:
    """Which candidates are there, bool (…, N): one whose features (…, N, F) are all not numbers fills up a list."""
    return ~torch.isnan(features).all(dim=-1)


class FeatureScale(nn.Module):
    """(x - mean) / deviation, within ±6; a value that is not a number counts as average.

    With ``knots`` each feature also appears as what it exceeds each of its quantiles by, so that a line through them
    can bend there (piecewise-linear encoding). With ``among`` each feature also appears as its standard score among
    the candidates of the list: that one is the cheapest of these says more than its price. ``width`` = features ·
    (1 + knots + among).
    """

    mean: Tensor
    deviation: Tensor
    knots: Tensor

    def __init__(self, features: int, knots: int = 0, among: bool = False) -> None:
        super().__init__()
        self.among = among
        self.width = features * (1 + knots + among)
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
        """(…, N, features) -> (…, N, width); candidates that only fill up a list have no say in its scores."""
        scaled = self._scaled(features)
        columns = [scaled]
        if self.knots.shape[1]:
            columns.append((scaled.unsqueeze(-1) - self.knots).clamp(min=0.0).flatten(-2))
        if self.among:
            columns.append(_standard(scaled, present(features)))
        return torch.cat(columns, dim=-1)

    def _scaled(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean) / self.deviation
        return torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled).clamp(-LIMIT, LIMIT)


def _standard(values: Tensor, there: Tensor) -> Tensor:
    """Standard scores of (…, N, F) among the N candidates that are there."""
    weight = there.unsqueeze(-1).to(values.dtype)
    count = weight.sum(dim=-2, keepdim=True).clamp(min=1.0)
    mean = (values * weight).sum(dim=-2, keepdim=True) / count
    apart = values - mean
    variance = (apart * apart * weight).sum(dim=-2, keepdim=True) / count
    return apart / (variance + _LEAST_VARIANCE).sqrt()
