"""What a recommender knew of its shoppers before each of their choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from endcap.errors import TooLittle
from endcap_workers.augmentation.base import Content
from endcap_workers.models import Interest, InterestModel, SequenceModel
from endcap_workers.training.next_item import padded

#: Choices that are read, at most; and products before a choice that are remembered.
MOST_CHOICES, SEEN = 200_000, 20


@dataclass(frozen=True, slots=True)
class Choices:
    """m choices: the product numbers chosen, int64 (m,), and what came before each, (m, ``SEEN``), padded with 0."""

    model: InterestModel
    content: Content
    kept: Sequence[np.ndarray]
    targets: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(
        cls, model: InterestModel, content: Content, sequences: Sequence[np.ndarray], draw: np.random.Generator
    ) -> Choices:
        """The choices of shoppers in an order that ``draw`` gives, up to ``MOST_CHOICES``.

        Args:
            content: a row for each number of the model. sequences: int64 (n, 2), product numbers and actions.

        Raises:
            TooLittle: no shopper has done two things.
        """
        kept = [one[-model.spec.places - 1 :] for one in sequences if len(one) > 1]
        if not kept:
            raise TooLittle("no shopper has done two things: nobody's interest can be seen")
        kept = [kept[row] for row in draw.permutation(len(kept)).tolist()]
        ends = np.cumsum([len(one) - 1 for one in kept])
        kept = kept[: int(np.searchsorted(ends, MOST_CHOICES)) + 1]
        targets = np.concatenate([one[1:, 0] for one in kept])
        seen = np.zeros((len(targets), SEEN), dtype=np.int64)
        before = (one[max(0, place - SEEN) : place, 0] for one in kept for place in range(1, len(one)))
        for row, (products, target) in enumerate(zip(before, targets.tolist(), strict=True)):
            seen[row, : len(products)] = np.where(products == target, 0, products)
        return cls(model, content, kept, targets, seen)

    def states(self) -> np.ndarray:
        """The state before each choice, float32 (m, d), scaled so that a dot product with an embedding is a score."""
        codes, vectors = torch.from_numpy(self.content.codes), torch.from_numpy(self.content.vectors)
        found: list[np.ndarray] = []
        with torch.no_grad():
            for start in range(0, len(self.kept), 256):
                some = self.kept[start : start + 256]
                products = padded([one[:-1, 0] for one in some])
                actions = padded([one[:-1, 1] for one in some])
                read = _read(self.model, products, codes[products], vectors[products], actions).numpy()
                found += [state[: len(one) - 1] for one, state in zip(some, read, strict=True)]
        return np.concatenate(found)

    def redrawn(self, seed: int) -> np.ndarray:
        """:meth:`states` as the model gives them in training, with its dropout."""
        with in_training(self.model, seed):
            return self.states()


@contextmanager
def in_training(model: InterestModel, seed: int) -> Iterator[None]:
    """Within the block the model drops what it drops in training, as the seed says; nobody else's draws change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.train()
        try:
            yield
        finally:
            model.eval()


def _read(model: InterestModel, products: Tensor, codes: Tensor, content: Tensor, actions: Tensor) -> Tensor:
    ages = torch.zeros(products.shape)
    if isinstance(model, SequenceModel):
        return model.states(products, codes, content, actions, ages)
    assert isinstance(model, Interest)
    return model.reader(model.event(model.drop(model.encode(products, codes, content)), actions, ages))
