"""LSTM over the event sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from endcap_workers.models.base import ModelSpec, SequenceModel


class LstmReader(nn.Module):
    """Event vectors (B, L, width) -> states (B, L, width). Beside the LSTM's output a state holds the last event
    itself: what was looked at last says most in short sessions (STAMP, SR-GNN)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.lstm = nn.LSTM(spec.width, spec.width, spec.layers, batch_first=True)
        self.drop = nn.Dropout(spec.dropout)
        self.out = nn.Linear(2 * spec.width, spec.width, bias=False)

    def forward(self, events: Tensor) -> Tensor:
        # Padding comes behind the events and an LSTM never looks ahead: no mask is needed. The zero state is given
        # explicitly, since the exporter would otherwise freeze the batch size.
        zero = events.new_zeros(self.lstm.num_layers, events.shape[0], self.lstm.hidden_size)
        states, _ = self.lstm(events, (zero, zero))
        return self.out(torch.cat([self.drop(states), events], dim=-1))


class LstmModel(SequenceModel):
    """The state's dot product with a product is its score."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.reader = LstmReader(spec)

    def read(self, events: Tensor) -> Tensor:
        return self.reader(events)
