"""The vectors of the products' pictures: one file beside whatever engine holds the products, searched exactly.

A file of its own, because no index of a shop has to change for it. Looking at every vector takes a tenth of a second
for 20,000 products (two busy cores): right for catalogues of tens of thousands of pictures, not for millions.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import new as new_image

from endcap.catalog.product import Product
from endcap.engines import Candidates
from endcap.errors import EndcapError, InvalidInput
from endcap.files import replacing
from endcap.images.encoder import ImageEncoder
from endcap.images.errors import NoPhotos
from endcap.images.fetching import Fetcher
from endcap.images.reading import read_image
from endcap.pictures import FILE as FILE

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = 16
#: Pictures fetched at a time.
_FETCHING = 4
#: After the encoder could not be had, seconds until it is tried again.
_RETRY_S = 60.0
#: Reasons kept of pictures that could not be had.
_REASONS = 100
#: Products between two savings of a long run, so that one that is killed loses little.
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
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        whole = len(found.ids) == len(found.digests) == len(found.vectors) and found.vectors.ndim == 2
        return found if whole else None

    def save(self, file: Path) -> None:
        """Write the file, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as scratch, scratch.open("wb") as stream:
            np.savez(
                stream,
                encoder=np.array(self.encoder),
                ids=np.array(self.ids, dtype=str),
                digests=np.array(self.digests, dtype=str),
                vectors=self.vectors.astype(np.float16),
            )

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
    """Encode the pictures of products and save their vectors; those whose picture and encoder are as they were are not
    read again (of a picture on another host, the address tells). Products that are not among ``products`` are dropped.
    A picture that cannot be had is counted and stops nothing; what breaks the run off loses nothing that was done.

    Raises:
        InvalidInput: not one picture could be had; the file stays as it was.
    """
    before = Photos.load(file)
    known: dict[str, tuple[str, np.ndarray]] = {}
    if before is not None and before.encoder == encoder.id:
        known = {
            one: (digest, vector)
            for one, digest, vector in zip(before.ids, before.digests, before.vectors, strict=True)
        }
    made: dict[str, tuple[str, np.ndarray]] = {}
    summary = PhotoSummary()
    waiting: list[tuple[Product, str]] = []
    since_saved = 0

    def read(one: tuple[Product, str]) -> Image | EndcapError:
        try:
            return read_image(fetcher.product(one[0].image))
        except EndcapError as error:
            return error

    def encode(pool: ThreadPoolExecutor) -> None:
        had: list[tuple[str, str]] = []
        pictures: list[Image] = []
        for (product, digest), picture in zip(waiting, pool.map(read, waiting), strict=True):
            if isinstance(picture, EndcapError):
                summary.failed += 1
                if len(summary.refused) < _REASONS:
                    summary.refused.append((product.id, str(picture)))
            else:
                had.append((product.id, digest))
                pictures.append(picture)
        if pictures:
            for (one, digest), vector in zip(had, encoder.encode(pictures), strict=True):
                made[one] = (digest, vector.astype(np.float16))
            summary.encoded += len(pictures)
        waiting.clear()

    try:
        with ThreadPoolExecutor(_FETCHING) as pool:
            for product in products:
                summary.read += 1
                if not product.image:
                    summary.without += 1
                else:
                    said = f"{product.image}\0{fetcher.version(product.image)}"
                    digest = hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=16).hexdigest()
                    if (had := known.get(product.id)) is not None and had[0] == digest:
                        made[product.id] = had
                        summary.unchanged += 1
                    else:
                        waiting.append((product, digest))
                        if len(waiting) >= _BATCH:
                            encode(pool)
                on_progress(summary)
                if summary.encoded - since_saved >= _SAVE_EVERY:
                    since_saved = summary.encoded
                    _save({**known, **made}, encoder, file)
            encode(pool)
    except BaseException:
        if summary.encoded:
            _save({**known, **made}, encoder, file)
        raise
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
        self._rest_until = 0.0
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
        """Products whose pictures show what the words say.

        Raises:
            NoPhotos: as for :meth:`nearest`, or the encoder knows no words.
        """
        photos, encoder = self._ready()
        vector = encoder.encode_text(words)
        if not vector.any():
            raise NoPhotos("the image encoder knows no words: set text_encoder and run `endcap photos` again")
        return photos.nearest(vector.astype(np.float32), k)

    def turn(self) -> float:
        """Open and warm up what a search by photo needs, where pictures were indexed: the first one takes seconds
        otherwise. Gives the seconds until the next look.

        Raises:
            NoPhotos, ConfigurationError: pictures were indexed and cannot be searched; the message says why.
        """
        if not self.available:
            return _RETRY_S
        cold = self._encoder is None
        _, encoder = self._ready()
        if cold:
            encoder.encode([new_image("RGB", (64, 64), "grey")])
        return _RETRY_S

    def _ready(self) -> tuple[Photos, ImageEncoder]:
        with self._lock:
            try:
                status = self._file.stat()
            except OSError:
                raise NoPhotos("no pictures were indexed yet: set image_encoder and run `endcap photos`") from None
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._photos, self._stamp = Photos.load(self._file), stamp
                if self._photos and self._encoder and self._photos.encoder != self._encoder.id:
                    # The folder it came from may hold another by now, which made these.
                    self._encoder, self._rest_until = None, 0.0
            if self._photos is None:
                raise NoPhotos("the vectors of the pictures cannot be read: run `endcap photos` again")
            if self._encoder is None and time.monotonic() >= self._rest_until:
                # Until it has answered: whether a model can be had may take a while to find out.
                self._encoder = self._open()
                self._rest_until = time.monotonic() + _RETRY_S
            if self._encoder is None:
                raise NoPhotos("the image encoder is not at hand: set image_encoder and run `endcap photos`")
            if self._photos.encoder != self._encoder.id:
                raise NoPhotos("the pictures were indexed by another encoder: run `endcap photos` again")
            return self._photos, self._encoder
