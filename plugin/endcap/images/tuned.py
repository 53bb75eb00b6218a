"""A network of the shop's own, as ``endcap train-photos`` leaves one in a folder.

::

    image-encoder.json    what it is: labels, input, metrics, seed, versions, and which graph it belongs to
    model-1f3a….onnx      image -> vector, logits

The description is written last and names its graph by digest, so that what a kill or a full disk leaves is what was
there before. A vector has two parts, as that of :mod:`endcap.images.lite`: what the network made of the picture, and
where that lies among words (ConSE, Norouzi et al., 2014), here by the words of the shop's own labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import orjson

from endcap.encoders.base import TextEncoder, unit
from endcap.errors import ConfigurationError
from endcap.files import write_atomically
from endcap.images.lite import LOOKS, among_words, square

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1
DESCRIPTION = "image-encoder.json"
_GRAPHS = "model-*.onnx"
_BATCH = 16


def is_tuned(folder: Path) -> bool:
    """Whether a folder is meant to hold such a network, whole or not."""
    return (folder / DESCRIPTION).is_file() or next(folder.glob(_GRAPHS), None) is not None


class TunedEncoder:
    """See the module. Without a text encoder, words mean nothing and pictures are compared by looks alone."""

    def __init__(self, graph: bytes, description: dict[str, Any], text: TextEncoder | None) -> None:
        """Raises ConfigurationError where graph and description are no network, or do not belong together."""
        try:
            self.side, self.words = int(description["side"]), [str(one) for one in description["words"]]
            if description["format"] != FORMAT or description["sha256"] != hashlib.sha256(graph).hexdigest():
                raise ValueError("of another format, half written, or changed since")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # a search by photo must not take all cores from the others
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            vectors, logits = self.look(np.zeros((2, 3, self.side, self.side), dtype=np.float32))
            if logits.shape != (2, len(self.words)) or not np.isfinite(logits).all():
                raise ValueError(f"the graph knows {logits.shape[-1]} labels, the description {len(self.words)}")
            if vectors.ndim != 2 or not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
                raise ValueError("the graph's vectors are not of unit length")
        except Exception as error:  # onnxruntime raises a dozen classes of its own, all of them plain Exceptions
            raise ConfigurationError(str(error).strip().partition("\n")[0][:300] or type(error).__name__) from error
        self.description, self._text, self._looks = description, text, vectors.shape[1]
        self.dims = self._looks + (text.dims if text else 0)
        said = hashlib.sha256(orjson.dumps([description["sha256"], self.side, self.words])).hexdigest()[:16]
        self.id = f"tuned:{said}" + (f"+{text.id}" if text else "")

    @classmethod
    def open(cls, folder: Path, text: TextEncoder | None) -> TunedEncoder:
        """The encoder of a folder.

        Raises:
            ConfigurationError: it is not whole; the message says what to do.
        """
        try:
            description = orjson.loads((folder / DESCRIPTION).read_bytes())
            return cls((folder / Path(description["model"]).name).read_bytes(), description, text)
        except (OSError, ValueError, KeyError, TypeError, ConfigurationError) as error:
            reason = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else str(error)
            raise ConfigurationError(
                f"image_encoder: {folder} holds no whole network ({reason}): run `endcap train-photos` again, or set "
                "ENDCAP_IMAGE_ENCODER to efficientnet-lite0"
            ) from error

    def encode(self, pictures: Sequence[Image]) -> np.ndarray:
        """See :class:`endcap.images.encoder.ImageEncoder`."""
        made = np.zeros((len(pictures), self.dims), dtype=np.float32)
        for start in range(0, len(pictures), _BATCH):
            some = pictures[start : start + _BATCH]
            vectors, logits = self.look(np.stack([square(one, self.side) for one in some]))
            rows = made[start : start + len(some)]
            rows[:, : self._looks] = np.sqrt(LOOKS) * vectors
            if self._text is not None:
                rows[:, self._looks :] = np.sqrt(1.0 - LOOKS) * among_words(logits, self._names)
        return unit(made) if len(made) else made

    def encode_text(self, text: str) -> np.ndarray:
        """See :class:`endcap.images.encoder.ImageEncoder`; zeros where there is no text encoder."""
        vector = np.zeros(self.dims, dtype=np.float32)
        if self._text is not None:
            vector[self._looks :] = self._text.encode_query(text)
        return vector

    def look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network makes of pixels (float32 (n, 3, side, side), see :func:`square`): vectors (n, d) of unit
        length and what it says of each label (n, labels), float32."""
        vectors, logits = self._session.run(["vector", "logits"], {"image": pixels})
        return vectors, logits

    @cached_property
    def _names(self) -> np.ndarray:
        assert self._text is not None
        return self._text.encode([f"a photo of {name}" for name in self.words])


def write_encoder(folder: Path, graph: bytes, description: dict[str, Any]) -> TunedEncoder:
    """Put a network into a folder in one step, checked before as a server checks it; an earlier one there is replaced.

    The graph before it stays beside it, for a server that is just opening it; older ones are removed.

    Args:
        description: ``side`` of the input, ``words`` of each label; anything else that is plain JSON.

    Raises:
        ConfigurationError: no server would take it, or the disk does not; what was there before stays.
    """
    digest = hashlib.sha256(graph).hexdigest()
    name = f"model-{digest[:16]}.onnx"
    description = {"format": FORMAT, **description, "model": name, "sha256": digest}
    made = TunedEncoder(graph, description, None)
    before = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / DESCRIPTION).is_file():
            before = str(orjson.loads((folder / DESCRIPTION).read_bytes()).get("model"))
    except (OSError, ValueError, AttributeError):
        pass  # what cannot be read is replaced; what cannot be written shows below
    try:
        write_atomically(folder / name, graph, durable=True)
        write_atomically(folder / DESCRIPTION, orjson.dumps(description, option=orjson.OPT_INDENT_2), durable=True)
    except OSError as error:
        if name != before:
            with suppress(OSError):
                (folder / name).unlink()
        raise ConfigurationError(
            f"{folder} could not be written: {error.strerror or error}; what was there before stays"
        ) from error
    for old in folder.glob(_GRAPHS):
        if old.name not in (name, before):
            old.unlink(missing_ok=True)
    return made
