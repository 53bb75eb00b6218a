"""The vectors of the products' pictures: one file beside whatever engine holds the products, searched exactly.

A file of its own, because no index of a shop has to change for it, and because the nearest of 100,000 pictures take
some ten milliseconds without any graph.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from endcap.catalog.product import Product
from endcap.engines import Candidates
from endcap.errors import EndcapError, InvalidInput
from endcap.images.encoder import ImageEncoder
from endcap.images.errors import NoPhotos
from endcap.images.fetching import Fetcher
from endcap.images.reading import read_image

FILE = "photos.npz"
_BATCH = 16
#: Products between two savings of a long run, so that one that breaks off loses little.
_SAVE_EVERY = 2_000


@dataclass(frozen=True, slots=True)
class Photos:
    """``ids`` (n,), ``digests`` (n,) of what each vector was made from, ``vectors`` float16 (n, d) of unit length, and
    the ``encoder`` that made them."""

    encoder: str
    ids: list[str]
    digests: list[str]
    vectors: np.ndarray

    @classmethod
    def load(cls, file: Path) -> Photos | None:
        """None where there is no such file, or it is not whole."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = cls(
                    str(arrays["encoder"]),
                    arrays["ids"].astype(str).tolist(),
                    arrays["digests"].astype(str).tolist(),
                    arrays["vectors"],
                )
        except (OSError, ValueError, KeyError, EOFError):
            return None
        whole = len(found.ids) == len(found.digests) == len(found.vectors) and found.vectors.ndim == 2
        return found if whole else None

    def save(self, file: Path) -> None:
        """Write the file, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(
                    stream,
                    encoder=np.array(self.encoder),
                    ids=np.array(self.ids, dtype=str),
                    digests=np.array(self.digests, dtype=str),
                    vectors=self.vectors.astype(np.float16),
                )
            os.replace(scratch, file)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def nearest(self, vector: np.ndarray, k: int) -> Candidates:
        """The k products whose pictures are nearest by cosine to a unit vector (float32 (d,))."""
        scores = np.empty(len(self.ids), dtype=np.float32)
        for start in range(0, len(scores), 8_192):  # float32 for a part at a time: memory stays bounded
            part = self.vectors[start : start + 8_192]
            scores[start : start + len(part)] = part.astype(np.float32) @ vector
        k = min(k, len(scores))
        best = np.argpartition(-scores, k - 1)[:k] if k else np.empty(0, dtype=np.int64)
        best = best[np.argsort(-scores[best], kind="stable")]
        return Candidates([self.ids[row] for row in best.tolist()], scores[best])


@dataclass(slots=True)
class PhotoSummary:
    """What became of the products. ``refused``: (id, reason), the first hundred."""

    read: int = 0
    encoded: int = 0
    unchanged: int = 0
    without: int = 0
    failed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def index_photos(
    products: Iterable[Product],
    encoder: ImageEncoder,
    fetcher: Fetcher,
    file: Path,
    on_progress: Callable[[PhotoSummary], None] = lambda summary: None,
) -> PhotoSummary:
    """Encode the pictures of products and save their vectors; those whose picture's address and encoder are as they
    were are not fetched again. Products that are not among ``products`` are dropped. A picture that cannot be had is
    counted and stops nothing."""
    before = Photos.load(file)
    known: dict[str, tuple[str, np.ndarray]] = {}
    if before is not None and before.encoder == encoder.id:
        known = {
            one: (digest, vector)
            for one, digest, vector in zip(before.ids, before.digests, before.vectors, strict=True)
        }
    made: dict[str, tuple[str, np.ndarray]] = {}
    summary = PhotoSummary()
    waiting: list[tuple[str, str, object]] = []
    since_saved = 0

    def encode() -> None:
        if waiting:
            vectors = encoder.encode([picture for _, _, picture in waiting])  # type: ignore[misc]
            for (one, digest, _), vector in zip(waiting, vectors, strict=True):
                made[one] = (digest, vector.astype(np.float16))
            summary.encoded += len(waiting)
            waiting.clear()

    for product in products:
        summary.read += 1
        if not product.image:
            summary.without += 1
        else:
            digest = hashlib.blake2b(product.image.encode(), digest_size=16).hexdigest()
            if (had := known.get(product.id)) is not None and had[0] == digest:
                made[product.id] = had
                summary.unchanged += 1
            else:
                try:
                    waiting.append((product.id, digest, read_image(fetcher.product(product.image))))
                except EndcapError as error:
                    summary.failed += 1
                    if len(summary.refused) < 100:
                        summary.refused.append((product.id, str(error)))
                if len(waiting) >= _BATCH:
                    encode()
        on_progress(summary)
        if summary.encoded - since_saved >= _SAVE_EVERY:
            since_saved = summary.encoded
            _save({**known, **made}, encoder, file)
    encode()
    on_progress(summary)
    if summary.failed and not made:
        raise InvalidInput(f"no picture could be read: {summary.refused[0][1]} (what was indexed before stays)")
    _save(made, encoder, file)
    return summary


def _save(made: dict[str, tuple[str, np.ndarray]], encoder: ImageEncoder, file: Path) -> None:
    vectors = [vector for _, vector in made.values()]
    stacked = np.stack(vectors) if vectors else np.empty((0, encoder.dims), dtype=np.float16)
    Photos(encoder.id, list(made), [digest for digest, _ in made.values()], stacked).save(file)


class PhotoSearch:
    """Finds products by a picture, by words about pictures, or by both. Thread-safe.

    The encoder is opened when the first picture comes; the vectors are read again when their file has changed.
    """

    def __init__(self, file: Path, open_encoder: Callable[[], ImageEncoder | None]) -> None:
        self._file = file
        self._open = open_encoder
        self._lock = threading.Lock()
        self._encoder: ImageEncoder | None = None
        self._stamp: tuple[int, int] | None = None
        self._photos: Photos | None = None

    @property
    def available(self) -> bool:
        """Whether pictures were indexed. Cheap."""
        return self._file.is_file()

    def nearest(self, picture: bytes, k: int, words: str = "") -> Candidates:
        """Products by likeness to a picture; with ``words``, to what both say in equal parts (late fusion).

        Raises:
            InvalidImage: not a picture.
            NoPhotos: no pictures were indexed, or by another encoder than the one in force.
        """
        opened = read_image(picture)
        photos, encoder = self._ready()
        vector = encoder.encode([opened])[0]
        if words:
            vector = vector + encoder.encode_text(words)
            vector /= max(float(np.linalg.norm(vector)), 1e-9)
        return photos.nearest(vector.astype(np.float32), k)

    def by_words(self, words: str, k: int) -> Candidates:
        """Products whose pictures show what the words say. Raises NoPhotos."""
        photos, encoder = self._ready()
        return photos.nearest(encoder.encode_text(words).astype(np.float32), k)

    def _ready(self) -> tuple[Photos, ImageEncoder]:
        with self._lock:
            try:
                status = self._file.stat()
            except OSError:
                raise NoPhotos("no pictures were indexed yet: set image_encoder and run `endcap photos`") from None
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._photos, self._stamp = Photos.load(self._file), stamp
            if self._encoder is None:
                self._encoder = self._open()
            if self._encoder is None or self._photos is None:
                raise NoPhotos("pictures cannot be searched: set image_encoder and run `endcap photos`")
            if self._photos.encoder != self._encoder.id:
                raise NoPhotos("the pictures were indexed by another encoder: run `endcap photos` again")
            return self._photos, self._encoder
