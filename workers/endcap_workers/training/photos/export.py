"""A tuned network as one graph that gives vectors to search by.

A vector has two parts: what tells the labels apart, and all of what the network holds. By the first alone a photo finds
its product's picture a little oftener. The second tells products apart that came after the training, and those of one
category where labels are categories.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from endcap.encoders.base import unit
from endcap_workers.training.photos.network import Trainable

OPSET = 17
#: Numbers of the discriminant's part of a vector, at most.
WIDTH = 256
#: Towards a multiple of the identity: few photos say little of 1,280 features' covariance.
SHRINKAGE = 0.3
#: How much of a comparison goes by what tells labels apart. Chosen on val of the shop photos of ``endcap evaluate
#: grocery`` (docs/benchmarks.md).
TOLD = 0.65


def rooted(features: np.ndarray) -> np.ndarray:
    """The square root of what a network holds (n, d), of unit length (Hellinger: a few strong channels would outweigh
    all others)."""
    return unit(np.sqrt(np.maximum(features, 0.0)))


def discriminant(features: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract from rooted features (n, d) and multiply them by, so that what tells labels (int64 (n,)) apart
    is left (Fisher 1936; within-label covariance made white, shrunken as by Ledoit and Wolf 2004): float32 (d,) and
    (d, r), r < labels."""
    kinds = np.unique(numbers)
    means = np.stack([features[numbers == one].mean(axis=0) for one in kinds])
    centre = means.mean(axis=0)
    inside = features - means[np.searchsorted(kinds, numbers)]
    covariance = inside.T.astype(np.float64) @ inside / max(len(features) - len(kinds), 1)
    level = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    covariance = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    white = vectors / np.sqrt(values) @ vectors.T
    _, _, directions = np.linalg.svd((means - centre) @ white, full_matrices=False)
    rank = max(1, min(len(kinds) - 1, WIDTH))
    return centre.astype(np.float32), (white @ directions[:rank].T).astype(np.float32)


def vectors_of(roots: np.ndarray, centre: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """What :class:`Served` makes of rooted features (n, d): float32 (n, r + d) of unit length."""
    told = unit((roots - centre) @ projection)
    return np.concatenate([np.sqrt(TOLD) * told, np.sqrt(1.0 - TOLD) * unit(roots - centre)], axis=1)


class Served(nn.Module):
    """Pixels (n, 3, side, side) -> vectors (n, d) of unit length and logits (n, kinds), in float32 throughout."""

    def __init__(self, network: Trainable, centre: np.ndarray, projection: np.ndarray) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(True)  # so that convolutions take their offsets in
        self.centre, self.projection = (
            nn.Parameter(torch.from_numpy(centre)),
            nn.Parameter(torch.from_numpy(projection)),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.rest(self.network.first(image)).mean((2, 3))
        root = nn.functional.normalize(features.clamp(min=0.0).sqrt())
        told, looks = (
            nn.functional.normalize(one) for one in ((root - self.centre) @ self.projection, root - self.centre)
        )
        return torch.cat([TOLD**0.5 * told, (1.0 - TOLD) ** 0.5 * looks], 1), self.network.head(features)


def to_onnx(served: Served, side: int) -> bytes:
    """The graph: ``image`` float32 (n, 3, side, side) -> ``vector`` and ``logits``."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            served.eval(),
            (torch.zeros(1, 3, side, side),),
            str(file),
            input_names=["image"],
            output_names=["vector", "logits"],
            dynamic_axes={name: {0: "n"} for name in ("image", "vector", "logits")},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()
