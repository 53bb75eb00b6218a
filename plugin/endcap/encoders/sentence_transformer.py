"""A model run by sentence-transformers itself: what exports are made from, and the fallback where one cannot be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endcap.encoders.base import Progress, cached_query, encodable, length_sorted_batches, unit
from endcap.encoders.source import model_id, quiet_libraries
from endcap.errors import ConfigurationError

_BATCH = 32


class SentenceTransformerEncoder:
    """A sentence-transformers model in ``folder``. Implements :class:`~endcap.encoders.base.TextEncoder`.

    Needs the ``train`` extra. Has the id of the model's export: their vectors may be compared.
    """

    def __init__(self, folder: Path) -> None:
        """Load the model.

        Raises:
            ConfigurationError: sentence-transformers is missing or cannot load the folder.
        """
        quiet_libraries()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigurationError(
                f"sentence-transformers cannot be imported ({error}): pip install 'endcap[train]'"
            ) from None
        try:
            # CPU: the export is checked against it, and an indexing run must not take a GPU from training.
            self.model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:  # anything may go wrong in a stranger's model folder
            raise ConfigurationError(f"sentence-transformers cannot load {folder}: {error}") from None
        self.model.eval()
        self.folder = folder
        self.id = model_id(folder)
        prompts = getattr(self.model, "prompts", None) or {}
        self.query_prompt = str(prompts.get("query") or "")
        self.document_prompt = str(prompts.get("document") or prompts.get("passage") or "")
        self._lock = threading.Lock()  # tokenizers change their padding state in place
        self.encode_query = cached_query(lambda text: self._run([self.query_prompt + text])[0])
        self.dims = int(self._run([""]).shape[1])

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Unit vectors, float32, shape (len(texts), dims)."""
        vectors = np.empty((len(texts), self.dims), dtype=np.float32)
        for batch in length_sorted_batches(texts, _BATCH):
            vectors[batch] = self._run([self.document_prompt + encodable(texts[n]) for n in batch])
            if progress:
                progress(len(batch))
        return vectors

    def _run(self, texts: list[str]) -> np.ndarray:
        with self._lock:
            # prompt="": a default prompt of the model would come on top of ours.
            vectors = self.model.encode(texts, batch_size=_BATCH, prompt="", show_progress_bar=False)
        return unit(np.asarray(vectors))
