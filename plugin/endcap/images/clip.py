"""CLIP by sentence-transformers: pictures and words in one space (Radford et al., 2021, arXiv:2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from endcap.encoders.base import cached_query, unit
from endcap.encoders.source import model_folder, model_id, quiet_libraries

if TYPE_CHECKING:
    from PIL.Image import Image


class ClipEncoder:
    """A CLIP model of sentence-transformers by hub id or folder (``sentence-transformers/clip-ViT-B-32``)."""

    def __init__(self, name: str) -> None:
        """Raises ConfigurationError where the model cannot be had, ImportError where its library is missing."""
        quiet_libraries()
        from sentence_transformers import SentenceTransformer

        folder = model_folder(name)
        self._model = SentenceTransformer(str(folder), device=None)
        self.id = model_id(folder)
        self._words = cached_query(lambda text: unit(np.asarray(self._model.encode([text])))[0])
        self.dims = int(self.encode_text("a product").shape[0])

    def encode(self, pictures: Sequence[Image]) -> np.ndarray:
        """See :class:`endcap.images.encoder.ImageEncoder`."""
        if not pictures:
            return np.empty((0, self.dims), dtype=np.float32)
        found = self._model.encode(list(pictures), batch_size=16, convert_to_numpy=True, show_progress_bar=False)
        return unit(np.asarray(found))

    def encode_text(self, text: str) -> np.ndarray:
        """See :class:`endcap.images.encoder.ImageEncoder`."""
        return self._words(text)
