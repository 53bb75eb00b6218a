"""Training a packaged network on shop photos: ``endcap evaluate grocery-tuned``.

All of the network but its first layers is trained, each time on another random part of each photo, turned, mirrored and
in other light. First the head alone, on what the network holds of the photos as it is, then both (Kumar et al., ICLR
2022: a head that starts from nothing would first spoil what carries over to other shops); layers nearer to the pixels
learn more slowly. Two photos are mixed (mixup, Zhang et al., ICLR 2018) or pasted into each other (CutMix, Yun et al.,
ICCV 2019), labels are smoothed, and the result is the running mean of the weights. Photos are judged at a larger side
than they were trained at, since random parts make things look larger (FixRes, Touvron et al., NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from endcap.images.lite import square
from endcap_workers.evaluation.grocery_network import Trainable, channels_last, open_network

if TYPE_CHECKING:
    from PIL.Image import Image

#: Colours are made greyer or stronger around how bright eyes see red, green and blue (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Tuning:
    """``size`` of the network; ``side`` of the input in pixels in training, and that at which photos are ``judged``;
    ``frozen`` layers of 23; passes over the photos for the ``head`` alone and for all; the rest is the training's."""

    size: int = 2
    side: int = 192
    judged: int = 256
    frozen: int = 6
    head_epochs: int = 40
    epochs: int = 12
    batch: int = 32
    rate: float = 6e-4
    head_rate: float = 2e-3
    slower: float = 0.9
    decay: float = 0.02
    smoothing: float = 0.1
    mixup: float = 0.2
    pasted: float = 0.4
    dropout: float = 0.3
    kept: float = 0.995


def augmented(picture: Image, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture, turned a little, mirrored or not, in other light; as :func:`square` gives it."""
    from PIL.Image import Resampling, Transform

    width, height = picture.size
    area, ratio = min(width, height) ** 2 * rng.uniform(0.3, 1.0), np.exp(rng.uniform(-1.0, 1.0) * np.log(4 / 3))
    wide, high = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
    angle = np.deg2rad(rng.uniform(-15, 15)) if rng.random() < 0.5 else 0.0
    across, down = np.array([np.cos(angle), np.sin(angle)]) * wide, np.array([-np.sin(angle), np.cos(angle)]) * high
    if rng.random() < 0.5:
        across = -across
    start = np.array([left + wide / 2, top + high / 2]) - (across + down) / 2
    (a, d), (b, e), (c, f) = across / side, down / side, start
    cut = picture.transform(
        (side, side), Transform.AFFINE, (a, b, c, d, e, f), Resampling.BICUBIC, fillcolor=(127,) * 3
    )
    return in_other_light(np.asarray(cut, dtype=np.float32), rng)


def in_other_light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels (height, width, 3) of 0 to 255 -> (3, height, width) as the network reads them, brighter or darker, with
    more or less contrast and colour, and tinted as by another lamp."""
    brighter, contrast, colour = rng.uniform(0.7, 1.3, 3)
    tint = rng.uniform(0.9, 1.1, 3)
    mixed = colour * np.eye(3) + (1.0 - colour) * np.outer(_LUMA, np.ones(3))
    matrix = (mixed * tint * brighter * contrast).astype(np.float32)
    grey = float(pixels.mean() * brighter * (1.0 - contrast))
    made = np.clip(pixels.reshape(-1, 3) @ matrix + grey, 0.0, 255.0).reshape(pixels.shape)
    return np.ascontiguousarray(((made - 127.0) / 128.0).transpose(2, 0, 1), dtype=np.float32)


class Tuned:
    """A network trained on photos of so many ``kinds``, from ImageNet's weights or from those of ``start`` on."""

    def __init__(self, tuning: Tuning, kinds: int, seed: int, start: Trainable | None = None) -> None:
        torch.manual_seed(seed)
        self._tuning = tuning
        self.network = Trainable(open_network(tuning.size), kinds, tuning.frozen, tuning.dropout)
        self._is_new = start is None
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self._rng = np.random.default_rng(seed)

    def train(self, pictures: Sequence[Callable[[], Image]], kinds: np.ndarray) -> None:
        """Train on pictures of ``kinds`` (int64 (n,)); the weights are then the running mean of those on the way."""
        wanted, tuning = torch.from_numpy(kinds), self._tuning
        if self._is_new:
            self._train_head(pictures, wanted)
        network = self.network.train()
        optimizer = torch.optim.AdamW(list(self._groups()), weight_decay=0.0)
        steps = tuning.epochs * (len(kinds) // tuning.batch)
        schedule = _cosine(optimizer, steps)
        mean = {name: value.detach().clone() for name, value in network.named_parameters() if value.requires_grad}
        every = (rows for _ in range(tuning.epochs) for rows in self._batches(len(kinds)))
        for step, rows in enumerate(track(every, "training", total=steps, transient=True)):
            loss = self._mixed_loss(self._random_parts([pictures[row] for row in rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            _follow(mean, network, min(tuning.kept, (2 + step) / (11 + step)))
        network.load_state_dict(mean, strict=False)

    def look(self, pictures: Sequence[Callable[[], Image]]) -> tuple[np.ndarray, np.ndarray]:
        """What the network holds of the middle of each picture, and what its own head says of it: features (n, 1280)
        and logits (n, kinds), float32."""
        network, held, said = self.network.eval(), [], []
        with torch.no_grad():
            for start in track(range(0, len(pictures), 16), f"{len(pictures):,} photos judged", transient=True):
                pixels = [square(one(), self._tuning.judged) for one in pictures[start : start + 16]]
                held.append(network.features(channels_last(np.stack(pixels))))
                said.append(network.head(held[-1]))
        return torch.cat(held).numpy(), torch.cat(said).numpy()

    def _train_head(self, pictures: Sequence[Callable[[], Image]], wanted: Tensor) -> None:
        tuning, head, dropout = self._tuning, self.network.head, self.network.dropout
        starts = track(range(0, len(pictures), tuning.batch), "photos before training", transient=True)
        with torch.no_grad():
            parts = (self._random_parts(pictures[start : start + tuning.batch]) for start in starts)
            features = torch.cat([self.network.features(one) for one in parts])
        loss_of = nn.CrossEntropyLoss(label_smoothing=tuning.smoothing)
        optimizer = torch.optim.AdamW(head.parameters(), lr=tuning.head_rate, weight_decay=tuning.decay)
        dropout.train()
        for _ in range(tuning.head_epochs):
            for rows in self._batches(len(wanted)):
                loss = loss_of(head(dropout(features[rows])), wanted[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _random_parts(self, pictures: Sequence[Callable[[], Image]]) -> Tensor:
        return channels_last(np.stack([augmented(one(), self._tuning.side, self._rng) for one in pictures]))

    def _mixed_loss(self, x: Tensor, y: Tensor) -> Tensor:
        tuning = self._tuning
        loss_of = nn.CrossEntropyLoss(label_smoothing=tuning.smoothing)
        other = torch.from_numpy(self._rng.permutation(len(y)))
        if self._rng.random() < tuning.pasted:
            side, share = x.shape[-1], float(self._rng.beta(1.0, 1.0))
            cut = round(side * (1.0 - share) ** 0.5)
            top, left = (int(self._rng.integers(0, side - cut + 1)) for _ in range(2))
            x = x.clone()
            x[:, :, top : top + cut, left : left + cut] = x[other][:, :, top : top + cut, left : left + cut]
            share = 1.0 - (cut / side) ** 2
        else:
            share = float(self._rng.beta(tuning.mixup, tuning.mixup))
            x = share * x + (1.0 - share) * x[other]
        said = self.network(x)
        mixed: Tensor = share * loss_of(said, y) + (1.0 - share) * loss_of(said, y[other])
        return mixed

    def _groups(self) -> Iterator[dict[str, object]]:
        """What the optimizer is to change: each layer at its own rate; only weights decay, gains and offsets do not."""
        tuning, layers = self._tuning, list(self.network.rest)
        rates = [tuning.rate * tuning.slower ** (len(layers) - 1 - place) for place in range(len(layers))]
        for part, rate in [*zip(layers, rates, strict=True), (self.network.head, tuning.head_rate)]:
            parameters = list(part.parameters())
            yield {"params": [one for one in parameters if one.ndim > 1], "lr": rate, "weight_decay": tuning.decay}
            yield {"params": [one for one in parameters if one.ndim == 1], "lr": rate}

    def _batches(self, count: int) -> Iterator[np.ndarray]:
        size, order = self._tuning.batch, self._rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """A short rise, then half a wave down to nothing (Loshchilov and Hutter, ICLR 2017)."""
    rise = max(1, min(80, steps // 10))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / rise) * 0.5 * (1.0 + np.cos(np.pi * min(1.0, step / steps)))
    )


def _follow(mean: dict[str, Tensor], network: nn.Module, kept: float) -> None:
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name in mean:
                mean[name].lerp_(value, 1.0 - kept)
