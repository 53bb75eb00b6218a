"""Content k-NN: a new product is the mean of the k warm products most like it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from endcap_workers.augmentation.base import ContentNetwork, Generator, Training, Validation, Warm, run


class NearestNetwork(ContentNetwork):
    """Likeness: cosine of the text vectors plus the share of equal codes; weights: its softmax over the k nearest."""

    codes: Tensor
    vectors: Tensor
    targets: Tensor

    def __init__(
        self, products: int, codes: int, content: int, width: int, norm: float, k: int, sharpness: float
    ) -> None:
        super().__init__(width, norm)
        self.k, self.sharpness = min(k, products), sharpness
        self.register_buffer("codes", torch.zeros(products, codes, dtype=torch.long))
        self.register_buffer("vectors", torch.zeros(products, content))
        self.register_buffer("targets", torch.zeros(products, width))

    def generate(self, codes: Tensor, vectors: Tensor) -> Tensor:
        alike = []
        # Column by column: all at once would hold n · products · K truth values.
        for column in range(self.codes.shape[1]):
            mine, theirs = codes[:, column].unsqueeze(1), self.codes[:, column].unsqueeze(0)
            alike.append(((mine == theirs) & (mine != 0)).to(self.targets.dtype) / self.codes.shape[1])
        if self.vectors.shape[1]:
            alike.append(normalize(vectors, dim=-1) @ self.vectors.T)
        likeness = torch.stack(alike).sum(dim=0)
        best, place = likeness.topk(self.k, dim=1)
        weight = (best * self.sharpness).softmax(dim=1)
        return (weight.unsqueeze(-1) * self.targets[place]).sum(dim=1)


class NearestGenerator(Generator):
    """Neighbours' mean. ``k`` and the sharpness of the weights are chosen by validation."""

    name: ClassVar[str] = "nearest"
    grid: ClassVar[tuple[tuple[int, float], ...]] = tuple(product((5, 20, 60), (4.0, 12.0)))

    def __init__(self, k: int = 20, sharpness: float = 12.0) -> None:
        super().__init__()
        self.k, self.sharpness = k, sharpness

    def _fit(self, warm: Warm, seed: int, validation: Validation | None, report: Callable[[str], None]) -> None:
        kept = warm.content.known
        content, targets = warm.content.rows(kept), torch.from_numpy(warm.vectors[kept])
        grid = self.grid if validation else ((self.k, self.sharpness),)
        best = Training()
        for k, sharpness in grid:
            network = self.blank({**self.shape, "products": len(content), "k": k, "sharpness": sharpness})
            network.codes.copy_(torch.from_numpy(content.codes))
            network.vectors.copy_(normalize(torch.from_numpy(content.vectors), dim=-1))
            network.targets.copy_(targets)
            value = validation.judge(run(network, validation.content)) if validation else float("nan")
            best.values.append(value)
            if self.network is None or value > best.best or not best.setting:
                best.best, best.setting = value, f"k={k}, sharpness={sharpness:g}"
                self.network, self.k, self.sharpness = network, k, sharpness
        self.training = best
        self.shape |= {"products": len(content), "k": self.k, "sharpness": self.sharpness}

    @classmethod
    def blank(cls, settings: dict[str, Any]) -> NearestNetwork:
        return NearestNetwork(
            settings["products"], len(settings["sizes"]), settings["content"], settings["width"], settings["norm"],
            settings["k"], settings["sharpness"],
        )  # fmt: skip
