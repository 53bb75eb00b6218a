"""What the products' pictures say to a model: their vectors, few numbers each, in the terms of a product table.

A picture's vector has hundreds of numbers or more than a thousand, which would make every search heavier. A fixed
random projection leaves ``WIDTH`` of them and keeps cosines to within some hundredths (Johnson and Lindenstrauss 1984);
being fixed, it need not travel with a model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

#: The file in the data folder that `endcap photos` fills.
FILE = "photos.npz"
#: Numbers that are left of a picture's vector.
WIDTH = 128


@dataclass(frozen=True, slots=True)
class Pictures:
    """``encoder``: id of the one that made them; ``vectors``: float16 (n + 1, ``WIDTH``), a row for each of n products,
    of unit length or zero where a product has no picture that was encoded; the last row is zero."""

    encoder: str
    vectors: np.ndarray


class PictureSource:
    """The file that ``endcap photos`` fills, read again when it has changed. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._encoder = ""
        self._rows: dict[str, int] = {}
        self._vectors = np.zeros((0, WIDTH), dtype=np.float16)

    @property
    def stamp(self) -> tuple[int, int] | None:
        """Changes when the file does; None where there is none. Cheap."""
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def of(self, ids: Sequence[str]) -> Pictures | None:
        """The pictures of some products; None where none were encoded, or the extra ``images`` is not installed."""
        with self._lock:
            stamp = self.stamp
            if stamp != self._stamp:
                self._read()
                self._stamp = stamp
            if not self._rows:
                return None
            places = np.array([*(self._rows.get(one, -1) for one in ids), -1], dtype=np.int64)
            vectors = self._vectors[places]
            vectors[places < 0] = 0.0
            return Pictures(self._encoder, vectors)

    def _read(self) -> None:
        self._rows = {}
        if self.stamp is None or find_spec("PIL") is None:
            return
        from endcap.images.index import Photos

        photos = Photos.load(self._file)
        if photos is None or not len(photos.ids):
            return
        self._encoder, self._vectors = photos.encoder, folded(photos.vectors)
        self._rows = {one: row for row, one in enumerate(photos.ids)}


def folded(vectors: np.ndarray) -> np.ndarray:
    """(n, d) -> float16 (n, ``WIDTH``), of unit length; the same for the same d, always."""
    dims = vectors.shape[1]
    projection = np.random.default_rng(dims).standard_normal((dims, WIDTH), dtype=np.float32)
    made = np.empty((len(vectors), WIDTH), dtype=np.float16)
    for start in range(0, len(vectors), 8_192):
        part = vectors[start : start + 8_192].astype(np.float32) @ projection
        made[start : start + 8_192] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
    return made
