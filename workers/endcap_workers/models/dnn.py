"""DNN: a pooled history, the candidate and the explicit features in a perceptron."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from endcap_workers.models.base import PADDING, EventEncoder, InterestModel, ModelSpec, head
from endcap_workers.models.features import FeatureScale


class DnnModel(InterestModel):
    """The history is a weighted mean of its events, with weights learned from what happened and when."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.event = EventEncoder(spec)
        self.weight = nn.Linear(spec.width, 1)
        self.scale = FeatureScale(spec.features, spec.knots, spec.among)
        inputs = 3 * spec.width + self.scale.width
        self.head = head(inputs, spec.hidden, spec.dropout)
        self.linear = nn.Linear(inputs, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def remember(
        self, products: Tensor, codes: Tensor, content: Tensor, actions: Tensor, ages: Tensor
    ) -> tuple[Tensor, ...]:
        vectors = self.drop(self.encode(products, codes, content))
        present = (products != PADDING).unsqueeze(-1)
        weight = self.weight(self.event(vectors, actions, ages)).masked_fill(~present, -1e9).softmax(dim=1)
        return ((weight * vectors * present).sum(dim=1),)

    def rank(
        self, memory: tuple[Tensor, ...], products: Tensor, codes: Tensor, content: Tensor, features: Tensor
    ) -> Tensor:
        candidate = self.encode(products, codes, content)
        shopper = memory[0].unsqueeze(1).expand_as(candidate)
        inputs = torch.cat([shopper, candidate, shopper * candidate, self.scale(features)], dim=-1)
        return (self.head(inputs) + self.linear(inputs)).squeeze(-1)
