"""Ridge: a linear map from content (one-hot codes and text vector) to the embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from endcap_workers.augmentation.base import Content, Generator, Training, Validation, Warm, run
from endcap_workers.augmentation.linear import LinearNetwork

#: Codes beyond so many in all are not given a column each: the normal equations would not fit.
MOST_COLUMNS = 6_000


class RidgeGenerator(Generator):
    """Least squares with an L2 penalty in closed form; the penalty is chosen by validation. Rare codes beyond
    ``MOST_COLUMNS`` count as unknown."""

    name: ClassVar[str] = "ridge"
    grid: ClassVar[tuple[float, ...]] = (0.3, 3.0, 30.0)

    def __init__(self, penalty: float = 3.0) -> None:
        super().__init__()
        self.penalty = penalty

    def _fit(self, warm: Warm, seed: int, validation: Validation | None, report: Callable[[str], None]) -> None:
        from scipy.linalg import solve
        from scipy.sparse import csr_matrix, hstack

        kept = warm.content.known
        content, wanted = warm.content.rows(kept), warm.vectors[kept].astype(np.float64)
        offsets, columns = _columns(content)
        n = len(content)
        row = np.repeat(np.arange(n), len(content.sizes))
        place = offsets[content.codes + _starts(content.sizes)].ravel()
        used = place >= 0
        ones = csr_matrix((np.ones(int(used.sum())), (row[used], place[used])), shape=(n, columns))
        design = hstack([ones, csr_matrix(content.vectors)]).tocsr()
        mean, centre = np.asarray(design.mean(axis=0)).ravel(), wanted.mean(axis=0)
        gram = np.asarray((design.T @ design).todense()) - n * np.outer(mean, mean)
        moment = design.T @ wanted - n * np.outer(mean, centre)
        best = Training()
        for penalty in self.grid if validation else (self.penalty,):
            weights = solve(gram + penalty * np.eye(len(gram)), moment, assume_a="pos", overwrite_a=True)
            network = self.blank(self.shape)
            self._fill(network, content.sizes, offsets, weights, centre - mean @ weights)
            value = validation.judge(run(network, validation.content)) if validation else float("nan")
            best.values.append(value)
            if self.network is None or value > best.best or not best.setting:
                best.best, best.setting = value, f"penalty={penalty:g}"
                self.network, self.penalty = network, penalty
        self.training = best

    @staticmethod
    def _fill(
        network: LinearNetwork, sizes: tuple[int, ...], offsets: np.ndarray, weights: np.ndarray, constant: np.ndarray
    ) -> None:
        with torch.no_grad():
            for table, start, size in zip(network.codes, _starts(sizes).tolist(), sizes, strict=True):
                place = offsets[start : start + size]
                assert isinstance(table, nn.Embedding)
                table.weight.copy_(torch.from_numpy(np.where(place[:, None] >= 0, weights[place], 0.0)))
            columns = int(offsets.max(initial=-1)) + 1
            if network.content is not None:
                network.content.weight.copy_(torch.from_numpy(weights[columns:].T))
            network.constant.copy_(torch.from_numpy(constant))

    @classmethod
    def blank(cls, settings: dict[str, Any]) -> LinearNetwork:
        return LinearNetwork(tuple(settings["sizes"]), settings["content"], settings["width"], settings["norm"])


def _starts(sizes: tuple[int, ...]) -> np.ndarray:
    return np.r_[0, np.cumsum(sizes)[:-1]].astype(np.int64) if sizes else np.zeros(0, dtype=np.int64)


def _columns(content: Content) -> tuple[np.ndarray, int]:
    """The design's column of each code of each code column laid end to end (-1: none), and how many there are."""
    starts = _starts(content.sizes)
    counts = np.bincount((content.codes + starts).ravel(), minlength=sum(content.sizes))
    counts[starts] = 0  # unknown
    order = np.argsort(-counts, kind="stable")[:MOST_COLUMNS]
    order = order[counts[order] > 0]
    offsets = np.full(len(counts), -1, dtype=np.int64)
    offsets[np.sort(order)] = np.arange(len(order))
    return offsets, len(order)
