"""Interest: event sequence, attention from each candidate, and explicit features in one candidate-aware head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from endcap_workers.models.base import PADDING, EventEncoder, InterestModel, ModelSpec, head, last_state
from endcap_workers.models.features import FeatureScale
from endcap_workers.models.lstm import LstmReader

PARTS = ("features", "sequence", "attention")


class Interest(InterestModel):
    """Scores each candidate from

    - *features*: counts, recency, affinities, prices, popularity, as the feature specification names them;
    - *sequence*: the LSTM's state times the candidate's vector;
    - *attention*: how much of the history resembles the candidate, and how that part looks, recent events first.

    Learned vectors reach the head only as such matches, never raw. Measured on Complete Journey (November, one month
    of training, one seed), repeat purchases: features alone .819, with raw vectors .813; in a second pair of runs
    features alone .8187, with matches .8156. Why is not known; memorised training months are one guess.
    """

    def __init__(self, spec: ModelSpec) -> None:
        unknown = sorted(set(spec.parts) - set(PARTS))
        if unknown or not spec.parts:
            raise ValueError(f"parts must be some of {', '.join(PARTS)}; got {', '.join(spec.parts) or 'none'}")
        super().__init__(spec)
        inputs = 0
        if "features" in spec.parts:
            self.scale = FeatureScale(spec.features, spec.knots, spec.among)
            inputs += self.scale.width
        if "sequence" in spec.parts:
            self.reader = LstmReader(spec)
            inputs += 1
        if "attention" in spec.parts:
            self.query = nn.Linear(spec.width, spec.width, bias=False)
            self.key = nn.Linear(spec.width, spec.width)
            inputs += 2
        self.event = EventEncoder(spec)
        self.head = head(inputs, spec.hidden, spec.dropout)
        self.linear = nn.Linear(inputs, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def remember(
        self, products: Tensor, codes: Tensor, content: Tensor, actions: Tensor, ages: Tensor
    ) -> tuple[Tensor, ...]:
        present = products != PADDING
        vectors = self.drop(self.encode(products, codes, content))
        events = self.event(vectors, actions, ages)
        last = last_state(self.reader(events), present) if "sequence" in self.spec.parts else events[:, 0]
        keys = self.key(events) if "attention" in self.spec.parts else events
        return last, keys, vectors, present

    def rank(
        self, memory: tuple[Tensor, ...], products: Tensor, codes: Tensor, content: Tensor, features: Tensor
    ) -> Tensor:
        last, keys, vectors, present = memory
        columns = [self.scale(features)] if "features" in self.spec.parts else []
        if set(self.spec.parts) == {"features"}:
            return self._score(columns)
        candidate = self.encode(products, codes, content)
        if "sequence" in self.spec.parts:
            columns.append(candidate @ last.unsqueeze(-1))
        if "attention" in self.spec.parts:
            columns += self._attend(candidate, keys, vectors, present)
        return self._score(columns)

    def _score(self, columns: list[Tensor]) -> Tensor:
        inputs = torch.cat(columns, dim=-1)
        return (self.head(inputs) + self.linear(inputs)).squeeze(-1)

    def _attend(self, candidate: Tensor, keys: Tensor, vectors: Tensor, present: Tensor) -> list[Tensor]:
        """Strength of the attention (log of its sum) and match of what it found, both (B, N, 1)."""
        match = self.query(candidate) @ keys.transpose(-1, -2) / math.sqrt(self.spec.width)
        match = match.masked_fill(~present.unsqueeze(1), -1e4)
        # One more place, of match 0: to find nothing is an answer, too, and an empty history needs one.
        match = torch.cat([match, torch.zeros_like(match[..., :1])], dim=-1)
        found = match.softmax(dim=-1)[..., :-1] @ vectors
        return [match.logsumexp(dim=-1, keepdim=True), (found * candidate).sum(dim=-1, keepdim=True)]
