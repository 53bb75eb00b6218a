"""Keeps embeddings of data sets between evaluations: 20,000 texts take minutes on two cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from endcap.catalog.product import text_digest
from endcap.encoders import TextEncoder

#: Texts encoded before they are written: what an interruption can lose.
SHARD = 1_024


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/endcap``, by default ``~/.cache/endcap``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "endcap"


def embeddings(encoder: TextEncoder, texts: Sequence[str], folder: Path | None = None) -> np.ndarray:
    """The texts' unit vectors, float32, shape (len(texts), dims); float16 precision, as engines store them.

    Those of an earlier run by the same encoder (its id) of the same text (its digest) are read from ``folder``, by
    default in :func:`cache_dir`; the others are encoded, with a progress bar on standard error, and added to it.
    """
    folder = folder or cache_dir() / "embeddings" / encoder.id.replace(":", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as shard:
            known.update(zip(shard["digests"].tolist(), shard["vectors"], strict=True))
    digests = [text_digest(encoder.id, text) for text in texts]
    # By length, so that a batch holds little padding.
    todo = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
    left = sorted(todo.items(), key=lambda one: len(one[1]))
    shards = [left[start : start + SHARD] for start in range(0, len(left), SHARD)]
    for shard in track(shards, description="encoding", console=Console(stderr=True), disable=not shards):
        names = [digest for digest, _ in shard]
        vectors = encoder.encode([text for _, text in shard]).astype(np.float16)
        known.update(zip(names, vectors, strict=True))
        partial = folder / f".{names[0]}.{os.getpid()}"
        with partial.open("wb") as stream:
            np.savez(stream, digests=np.array(names), vectors=vectors)
        partial.replace(folder / f"{names[0]}.npz")
    if not texts:
        return np.zeros((0, encoder.dims), dtype=np.float32)
    return np.stack([known[digest] for digest in digests]).astype(np.float32)
