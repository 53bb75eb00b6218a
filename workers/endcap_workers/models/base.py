"""The interface of every interest model: a shopper's history and some candidates in, a score for each candidate out.

Tensors, by name (B shoppers, L places of history, N candidates, K code columns, D content numbers, F features):

======================  =======  ==========  =============================================================
history_products        int64    (B, L)      product numbers, oldest first, padded behind with ``PADDING``
history_codes           int64    (B, L, K)   brand, category, price band, …; 0 is unknown
history_content         float32  (B, L, D)   content vector (a text embedding); zeros where there is none
history_actions         int64    (B, L)      :class:`endcap.events.Action`, 0 in padding
history_ages            float32  (B, L)      days between the action and the moment of ranking
candidate_products      int64    (B, N)      product numbers
candidate_codes         int64    (B, N, K)
candidate_content       float32  (B, N, D)
candidate_features      float32  (B, N, F)   what the feature specification names
======================  =======  ==========  =============================================================

A product that training never saw has the number ``UNKNOWN`` and lives by its codes and content. The order of the
candidates says nothing. A candidate whose features are all not numbers is none: it fills up a list that is shorter than
others, and has no say in their scores. A model with ``among`` compares candidates with each other; with any other a
score depends on the shopper and on the candidate alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

PADDING = 0
UNKNOWN = 1
ACTIONS = 16

#: Names of the tensors that :meth:`InterestModel.forward` takes, in order; the ONNX graph uses them, too.
INPUTS = (
    "history_products",
    "history_codes",
    "history_content",
    "history_actions",
    "history_ages",
    "candidate_products",
    "candidate_codes",
    "candidate_content",
    "candidate_features",
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is made for; stored in its bundle. Sizes count the two reserved numbers.

    Attributes:
        products: product numbers, ``PADDING`` and ``UNKNOWN`` included.
        codes: size of each code column's vocabulary, 0 (unknown) included.
        content, features: width of the content vector and of the explicit features; either may be 0.
        width: width of embeddings and states. layers, heads: of the sequence part.
        hidden: widths of the head's layers.
        dropout: on embeddings and states. id_dropout: share of products that training takes for unknown, so that
            content alone learns to speak.
        scale: 0 for plain dot products; else states and products are unit vectors and this is the inverse
            temperature (12–20), which keeps rare products from being drowned by long popular vectors.
        places: longest history; what is older is cut by whoever makes the tensors.
        relative: a transformer counts how far back an action lies, not its place from the beginning of the history.
        knots: places at which the response to a feature may bend before the head, see
            :class:`~endcap_workers.models.features.FeatureScale`.
        among: features are also compared with those of the list's other candidates, see there.
        parts: what an :class:`~endcap_workers.models.interest.Interest` consists of (for ablation).
    """

    products: int
    codes: tuple[int, ...] = ()
    content: int = 0
    features: int = 0
    width: int = 64
    layers: int = 1
    heads: int = 2
    hidden: tuple[int, ...] = (96, 48)
    dropout: float = 0.2
    id_dropout: float = 0.0
    scale: float = 0.0
    places: int = 50
    relative: bool = False
    knots: int = 0
    among: bool = False
    parts: tuple[str, ...] = ("features", "sequence", "attention")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; :meth:`from_json` gives the specification back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Raises TypeError for a key that this version does not know."""
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**given)


class ProductEncoder(nn.Module):
    """A product as a vector: the sum of what its number, its codes and its content say. Shared by history and
    candidates (tied embeddings).

    ``newcomers``: (n, K) codes and (n, D) content -> (n, width), see :mod:`endcap_workers.augmentation`; its D may be
    larger than the model's, by the numbers of a picture. Where it is given, the number ``spec.products`` (one past the
    last) stands for a product that this speaks for.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.id_dropout = spec.id_dropout
        self.unit = spec.scale > 0
        self.product = nn.Embedding(spec.products, spec.width, padding_idx=PADDING)
        self.codes = nn.ModuleList(nn.Embedding(size, spec.width, padding_idx=0) for size in spec.codes)
        self.content = nn.Linear(spec.content, spec.width, bias=False) if spec.content else None
        for table in (self.product, *self.codes):
            nn.init.normal_(table.weight, std=0.1 if self.unit else 0.02)
            with torch.no_grad():
                table.weight[PADDING] = 0.0
        self.newcomers: nn.Module | None = None
        self.newcomers_content = spec.content

    def forward(self, products: Tensor, codes: Tensor, content: Tensor) -> Tensor:
        """(…) numbers, (…, K) codes, (…, D) content -> (…, width); zero where everything is padding."""
        new = products >= self.product.num_embeddings
        if self.newcomers is not None:
            products = products.masked_fill(new, UNKNOWN)
        if self.training and self.id_dropout:
            hidden = (torch.rand(products.shape, device=products.device) < self.id_dropout) & (products != PADDING)
            products = products.masked_fill(hidden, UNKNOWN)
        vector = self.product(products)
        for column, table in enumerate(self.codes):
            vector = vector + table(codes[..., column])
        if self.content is not None:
            # A candidate's may be longer: what stands behind is for the newcomers alone.
            vector = vector + self.content(content[..., : self.content.in_features])
        if self.newcomers is not None:
            place = new.nonzero(as_tuple=True)  # of few candidates: the others cost nothing
            width = int(content.shape[-1])
            missing = self.newcomers_content - width
            if missing:  # in a history there are no pictures
                none = torch.zeros_like(vector[place][:, :1]).expand(-1, missing)
                read = torch.cat([content[place], none], dim=-1) if width else none
            else:
                read = content[place]
            vector = vector.index_put(place, self.newcomers(codes[place], read))
        return normalize(vector, dim=-1) if self.unit else vector


class InterestModel(nn.Module, ABC):
    """See the module's text for the tensors. ``forward`` = ``rank(remember(history), candidates)``; the two halves are
    apart so that one shopper's memory serves many searches in training."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encode = ProductEncoder(spec)
        self.drop = nn.Dropout(spec.dropout)

    @abstractmethod
    def remember(
        self, products: Tensor, codes: Tensor, content: Tensor, actions: Tensor, ages: Tensor
    ) -> tuple[Tensor, ...]:
        """What the history says, as tensors whose first dimension is the shopper."""

    @abstractmethod
    def rank(
        self, memory: tuple[Tensor, ...], products: Tensor, codes: Tensor, content: Tensor, features: Tensor
    ) -> Tensor:
        """Scores (B, N)."""

    def forward(
        self,
        history_products: Tensor,
        history_codes: Tensor,
        history_content: Tensor,
        history_actions: Tensor,
        history_ages: Tensor,
        candidate_products: Tensor,
        candidate_codes: Tensor,
        candidate_content: Tensor,
        candidate_features: Tensor,
    ) -> Tensor:
        """Scores (B, N), higher is better."""
        memory = self.remember(history_products, history_codes, history_content, history_actions, history_ages)
        return self.rank(memory, candidate_products, candidate_codes, candidate_content, candidate_features)


class EventEncoder(nn.Module):
    """What happened, in one vector: the product, the kind of action and how long ago it was."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.action = nn.Embedding(ACTIONS, spec.width, padding_idx=0)
        self.age = nn.Linear(2, spec.width)
        nn.init.normal_(self.action.weight, std=0.02)
        nn.init.normal_(self.age.weight, std=0.02)
        nn.init.zeros_(self.age.bias)

    def forward(self, product: Tensor, actions: Tensor, ages: Tensor) -> Tensor:
        """(B, L, width), (B, L), (B, L) -> (B, L, width)."""
        ages = ages.clamp(min=0.0)
        time = torch.stack([torch.log1p(ages) / 5.0, 1.0 / (1.0 + ages / 7.0)], dim=-1)
        return product + self.action(actions) + self.age(time)


class SequenceModel(InterestModel):
    """A model that has a state after each action and scores a product by its dot product with the last one."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.event = EventEncoder(spec)

    @abstractmethod
    def read(self, events: Tensor) -> Tensor:
        """States (B, L, width) of event vectors (B, L, width); state t knows the events up to t and no later one.
        Padding comes behind the events, so that this alone keeps it out."""

    def states(self, products: Tensor, codes: Tensor, content: Tensor, actions: Tensor, ages: Tensor) -> Tensor:
        """State after each action, (B, L, width), scaled so that a dot product with a product vector is a score."""
        events = self.event(self.drop(self.encode(products, codes, content)), actions, ages)
        states = self.read(events)
        return normalize(states, dim=-1) * self.spec.scale if self.spec.scale else states

    def remember(
        self, products: Tensor, codes: Tensor, content: Tensor, actions: Tensor, ages: Tensor
    ) -> tuple[Tensor, ...]:
        return (last_state(self.states(products, codes, content, actions, ages), products != PADDING),)

    def rank(
        self, memory: tuple[Tensor, ...], products: Tensor, codes: Tensor, content: Tensor, features: Tensor
    ) -> Tensor:
        return (self.encode(products, codes, content) @ memory[0].unsqueeze(-1)).squeeze(-1)


def last_state(states: Tensor, present: Tensor) -> Tensor:
    """The state after the last action, (B, width); zeros for a shopper without history."""
    length = present.sum(dim=1)
    place = (length - 1).clamp(min=0).reshape(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, place).squeeze(1) * (length > 0).unsqueeze(-1).to(states.dtype)


def head(inputs: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """A perceptron with one output, which starts at 0 so that a model begins with what its linear part says."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout)]
        inputs = width
    final = nn.Linear(inputs, 1)
    nn.init.zeros_(final.weight)
    nn.init.zeros_(final.bias)
    return nn.Sequential(*layers, final)
