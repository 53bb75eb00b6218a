"""Training a packaged network on shop photos: ``endcap train-photos``, ``endcap evaluate grocery-tuned``.

All of the network but its first layers is trained, each time on another random part of each photo, turned, mirrored and
in other light. First the head alone, on what the network holds of the photos as it is, then both (Kumar et al., ICLR
2022: a head that starts from nothing would first spoil what carries over to other shops); layers nearer to the pixels
learn more slowly. Two photos are mixed (mixup, Zhang et al., ICLR 2018) or pasted into each other (CutMix, Yun et al.,
ICCV 2019), labels are smoothed, and the result is the running mean of the weights. Photos are judged at a larger side
than they were trained at, since random parts make things look larger (FixRes, Touvron et al., NeurIPS 2019).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from endcap.files import write_atomically
from endcap.images.lite import square
from endcap_workers.training.photos.network import Trainable, channels_last, open_network

if TYPE_CHECKING:
    from PIL.Image import Image

#: Colours are made greyer or stronger around how bright eyes see red, green and blue (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

#: Called with (done, total, phase).
Progress = Callable[[float, float, str], None]


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

    def __init__(
        self, tuning: Tuning, kinds: int, seed: int, start: Trainable | None = None,
        progress: Progress = lambda done, total, phase: None,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self._tuning, self._progress = tuning, progress
        self.network = Trainable(open_network(tuning.size), kinds, tuning.frozen, tuning.dropout)
        self._is_new = start is None
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self._rng = np.random.default_rng(seed)

    def train(
        self, pictures: Sequence[Callable[[], Image]], kinds: np.ndarray, judge: Callable[[], float] | None = None,
        patience: int = 0, checkpoint: Path | None = None,
    ) -> list[float]:  # fmt: skip
        """Train on pictures of ``kinds`` (int64 (n,)); the weights are then the running mean of those on the way.

        Args:
            judge: asked after each epoch what that mean is worth; the best epoch's is kept then, of equals the last.
            patience: epochs without a better one after which it stops; 0: never.
            checkpoint: written after each epoch, and gone on from where it is there: the caller answers for it being
                of the same pictures, seed and tuning.

        Returns:
            What ``judge`` said after each epoch.
        """
        wanted, tuning, network = torch.from_numpy(kinds), self._tuning, self.network
        taken_up = None
        if checkpoint is not None and checkpoint.is_file():
            taken_up = torch.load(checkpoint, weights_only=True)
        elif self._is_new:
            self._train_head(pictures, wanted)
        optimizer = torch.optim.AdamW(list(self._groups()), weight_decay=0.0)
        each = len(kinds) // tuning.batch
        schedule = _cosine(optimizer, tuning.epochs * each)
        mean = _trained(network)
        best, values, first = mean, list[float](), 0
        if taken_up is not None:
            network.load_state_dict(taken_up["network"], strict=False)
            optimizer.load_state_dict(taken_up["optimizer"])
            schedule.load_state_dict(taken_up["schedule"])
            mean, best, values = taken_up["mean"], taken_up["best"], list(taken_up["values"])
            torch.set_rng_state(taken_up["torch"])
            self._rng.bit_generator.state = json.loads(taken_up["numpy"])
            first = int(taken_up["epoch"])
        for epoch in range(first, tuning.epochs):
            if patience and len(values) - 1 - int(np.argmax([*values, -np.inf])) >= patience:
                break
            network.train()
            for step, rows in enumerate(self._batches(len(kinds)), epoch * each):
                loss = self._mixed_loss(self._random_parts([pictures[row] for row in rows]), wanted[rows])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                _follow(mean, network, min(tuning.kept, (2 + step) / (11 + step)))
                self._progress(step + 1, tuning.epochs * each, "training")
            if judge is not None:
                values.append(self._judged(mean, judge))
                if values[-1] >= max(values):  # of equals the later: it has seen more
                    best = {name: value.clone() for name, value in mean.items()}
            if checkpoint is not None:
                state = {
                    "network": _trained(network), "optimizer": optimizer.state_dict(), "mean": mean, "best": best,
                    "schedule": schedule.state_dict(), "values": values, "epoch": epoch + 1,
                    "torch": torch.get_rng_state(), "numpy": json.dumps(self._rng.bit_generator.state),
                }  # fmt: skip
                content = io.BytesIO()  # a full disk is an OSError then
                torch.save(state, content)
                write_atomically(checkpoint, content.getvalue(), durable=True)
        network.load_state_dict(best if judge else mean, strict=False)
        return values

    def _judged(self, mean: dict[str, Tensor], judge: Callable[[], float]) -> float:
        """What ``judge`` says of the mean; the weights stay."""
        raw = _trained(self.network)
        self.network.load_state_dict(mean, strict=False)
        value = judge()
        self.network.load_state_dict(raw, strict=False)
        return value

    def look(
        self, pictures: Sequence[Callable[[], Image]], phase: str = "photos judged"
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the network holds of the middle of each picture, and what its own head says of it: features (n, 1280)
        and logits (n, kinds), float32."""
        network, held, said = self.network.eval(), [], []
        with torch.no_grad():
            for start in range(0, len(pictures), 16):
                pixels = [square(one(), self._tuning.judged) for one in pictures[start : start + 16]]
                held.append(network.features(channels_last(np.stack(pixels))))
                said.append(network.head(held[-1]))
                if phase:
                    self._progress(start + len(pixels), len(pictures), phase)
        return torch.cat(held).numpy(), torch.cat(said).numpy()

    def _train_head(self, pictures: Sequence[Callable[[], Image]], wanted: Tensor) -> None:
        tuning, head, dropout = self._tuning, self.network.head, self.network.dropout
        made = []
        with torch.no_grad():
            for start in range(0, len(pictures), tuning.batch):
                made.append(self.network.features(self._random_parts(pictures[start : start + tuning.batch])))
                self._progress(start, len(pictures), "photos before training")
        features = torch.cat(made)
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
        optimizer,
        lambda step: float(min(1.0, (step + 1) / rise) * 0.5 * (1.0 + np.cos(np.pi * min(1.0, step / steps)))),
    )


def _trained(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that are trained."""
    return {name: value.detach().clone() for name, value in network.named_parameters() if value.requires_grad}


def _follow(mean: dict[str, Tensor], network: nn.Module, kept: float) -> None:
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name in mean:
                mean[name].lerp_(value, 1.0 - kept)
