"""The image encoder protocol, and which one the settings ask for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from endcap.encoders import TextEncoder
from endcap.errors import ConfigurationError
from endcap.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

NONE = "none"
LITE = "efficientnet-lite0"

logger = logging.getLogger(__name__)


class ImageEncoder(Protocol):
    """Turns pictures, and words about pictures, into vectors of one space. Thread-safe."""

    id: str
    """Identifies model and version: vectors of two encoders with the same id may be compared."""

    dims: int

    def encode(self, pictures: Sequence[Image]) -> np.ndarray:
        """Unit vectors, float32, (len(pictures), dims); RGB pictures of any size."""

    def encode_text(self, text: str) -> np.ndarray:
        """Words as a vector that can be compared with those of pictures; float32, (dims,), unit length."""


def open_image_encoder(settings: Settings, text: TextEncoder | None) -> ImageEncoder | None:
    """The encoder of ``settings.image_encoder``; None where that is ``none``.

    Args:
        text: the catalogue's text encoder, through which the packaged model and those tuned on it understand words.

    Raises:
        ConfigurationError: the model cannot be had; the message says what to do.
    """
    wanted = settings.image_encoder.strip()
    if wanted.lower() in (NONE, ""):
        return None
    try:
        if wanted == LITE:
            from endcap.images.lite import LiteEncoder

            return LiteEncoder.open(settings.data_dir / "encoders", text)
        from endcap.images.tuned import TunedEncoder, is_tuned

        if is_tuned(folder := Path(wanted).expanduser()):
            return TunedEncoder.open(folder, text)
        from endcap.images.clip import ClipEncoder

        return ClipEncoder(wanted)
    except ImportError as error:
        extras = "images" if wanted == LITE else "images,train"
        raise ConfigurationError(
            f"image_encoder {wanted!r} needs {error.name}: pip install 'endcap[{extras}]', "
            "or set ENDCAP_IMAGE_ENCODER to none"
        ) from None


def image_encoder_at_hand(settings: Settings, text: TextEncoder | None) -> ImageEncoder | None:
    """:func:`open_image_encoder`, but where nobody chose a model and the default one cannot be had, there is no search
    by photo, which the log says once.

    Raises:
        ConfigurationError: a model was chosen and cannot be had.
    """
    try:
        return open_image_encoder(settings, text)
    except ConfigurationError as reason:
        if "image_encoder" in settings.model_fields_set:
            raise
        logger.info("no search by photo, as the default image encoder is not at hand: %s", reason)
        return None
