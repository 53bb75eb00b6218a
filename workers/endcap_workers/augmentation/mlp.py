"""MLP map: a perceptron from content to the embedding, by regression on the warm products."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from endcap_workers.augmentation.base import (
    ContentNetwork,
    Generator,
    GeneratorDiverged,
    Training,
    Validation,
    Warm,
    run,
)


class Trunk(nn.Module):
    """Codes and text vector -> hidden vector; shared form of the networks that learn by gradient."""

    def __init__(self, sizes: tuple[int, ...], content: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.codes = nn.ModuleList(nn.Embedding(size, hidden, padding_idx=0) for size in sizes)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.content = nn.Linear(content, hidden, bias=False) if content else None
        self.drop = nn.Dropout(dropout)
        for table in self.codes:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.1)
            with torch.no_grad():
                table.weight[0] = 0.0

    def forward(self, codes: Tensor, vectors: Tensor, hide: float = 0.0) -> Tensor:
        """(n, K), (n, D) -> (n, hidden). ``hide``: share of codes taken for unknown, so that an unseen brand is
        nothing new."""
        if hide:
            codes = codes.masked_fill(torch.rand(codes.shape) < hide, 0)
        total = self.bias
        if self.content is not None:
            total = total + self.content(self.drop(vectors))
        for column, table in enumerate(self.codes):
            total = total + table(codes[..., column])
        return self.drop(torch.nn.functional.gelu(total))


class MlpNetwork(ContentNetwork):
    """Two hidden layers."""

    def __init__(self, sizes: tuple[int, ...], content: int, width: int, norm: float, hidden: int = 128) -> None:
        super().__init__(width, norm)
        dropout = 0.2
        self.trunk = Trunk(sizes, content, hidden, dropout)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def generate(self, codes: Tensor, vectors: Tensor) -> Tensor:
        return self.head(self.trunk(codes, vectors, 0.1 if self.training else 0.0))


class MlpGenerator(Generator):
    """Mean squared error on embeddings, Adam, early stopping on validation."""

    name: ClassVar[str] = "mlp"

    def __init__(self, epochs: int = 60, patience: int = 8, rate: float = 1e-3, batch: int = 256) -> None:
        super().__init__()
        self.epochs, self.patience, self.rate, self.batch = epochs, patience, rate, batch

    def _fit(self, warm: Warm, seed: int, validation: Validation | None, report: Callable[[str], None]) -> None:
        kept = warm.content.known
        content = warm.content.rows(kept)
        wanted = torch.from_numpy(warm.vectors[kept])
        norm = float(wanted.norm(dim=1).mean().clamp(min=1e-6))
        codes, vectors = torch.from_numpy(content.codes), torch.from_numpy(content.vectors)
        torch.manual_seed(seed)
        network = self.blank(self.shape)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=1e-4)
        draw = np.random.default_rng(seed)
        training, best = Training(), deepcopy(network)
        for epoch in range(self.epochs):
            network.train()
            for rows in np.array_split(draw.permutation(len(content)), max(1, len(content) // self.batch)):
                optimizer.zero_grad(set_to_none=True)
                loss = ((network.generate(codes[rows], vectors[rows]) - wanted[rows]) / norm).square().sum(dim=1).mean()
                if not torch.isfinite(loss):
                    raise GeneratorDiverged(f"the loss of the MLP is {loss.item()} in epoch {epoch + 1}")
                loss.backward()
                optimizer.step()
            if validation is None:
                best = network
                continue
            value = validation.judge(run(network.eval(), validation.content))
            training.values.append(value)
            report(f"mlp, epoch {epoch + 1}: validation {value:.4f}")
            if not training.setting or value > training.best:
                training.best, training.setting, best = value, f"epoch {epoch + 1}", deepcopy(network)
            elif epoch + 1 - int(training.setting.split()[-1]) >= self.patience:
                break
        self.network, self.training = best.eval(), training

    @classmethod
    def blank(cls, settings: dict[str, Any]) -> MlpNetwork:
        return MlpNetwork(tuple(settings["sizes"]), settings["content"], settings["width"], settings["norm"])
