"""A causal transformer over the event sequence (SASRec-like, pre-norm)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from endcap_workers.models.base import ModelSpec, SequenceModel


class TransformerModel(SequenceModel):
    """Places are learned and counted from the first remembered action, or (``relative``) only distances are, as a
    bias of each head (T5); a mask keeps every state from looking ahead."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        if not spec.relative:
            self.place = nn.Embedding(spec.places, spec.width)
            nn.init.normal_(self.place.weight, std=0.02)
        self.blocks = nn.ModuleList(_Block(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.width)

    def read(self, events: Tensor) -> Tensor:
        places = torch.arange(events.shape[1], device=events.device)
        last = self.spec.places - 1
        states = events if self.spec.relative else events + self.place(places.clamp(max=last))
        back = places.unsqueeze(1) - places.unsqueeze(0)
        for block in self.blocks:
            states = block(states, back < 0, back.clamp(min=0, max=last))
        return self.norm(states)


class _Block(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        if spec.width % spec.heads:
            raise ValueError(f"width {spec.width} is not a multiple of heads {spec.heads}")
        self.heads = spec.heads
        self.before, self.between = nn.LayerNorm(spec.width), nn.LayerNorm(spec.width)
        self.project = nn.Linear(spec.width, 3 * spec.width)
        self.out = nn.Linear(spec.width, spec.width)
        self.feed = nn.Sequential(
            nn.Linear(spec.width, 2 * spec.width),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(2 * spec.width, spec.width),
        )
        self.drop = nn.Dropout(spec.dropout)
        self.distance = nn.Embedding(spec.places, spec.heads) if spec.relative else None
        if self.distance is not None:
            nn.init.zeros_(self.distance.weight)

    def forward(self, states: Tensor, ahead: Tensor, back: Tensor) -> Tensor:
        batch, length, width = states.shape
        parts = self.project(self.before(states)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        # Written out rather than scaled_dot_product_attention: the exporter then keeps both sizes dynamic.
        attention = (query @ key.transpose(-1, -2)) / math.sqrt(width // self.heads)
        if self.distance is not None:
            attention = attention + self.distance(back).permute(2, 0, 1)
        attention = self.drop(attention.masked_fill(ahead, -1e9).softmax(dim=-1))
        mixed = (attention @ value).transpose(1, 2).reshape(batch, length, width)
        states = states + self.drop(self.out(mixed))
        return states + self.drop(self.feed(self.between(states)))
