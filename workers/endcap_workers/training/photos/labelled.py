"""Labelled photos: a folder for each label, or a list of files and labels; read, checked and made small once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from endcap.errors import EndcapError, InvalidInput
from endcap.images.errors import InvalidImage
from endcap.images.reading import read_image
from endcap_workers.training.photos.tuning import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

#: Shorter side of the copies that are trained on, as a share of that at which photos are judged: random parts of a
#: photo are made larger.
_KEPT = 1.25
#: Of the copies, which are read once an epoch: an original from a phone takes longer to decode than to train on.
_QUALITY = 95
_READING = 4


@dataclass(frozen=True, slots=True)
class Photo:
    """Where a photo comes from, what it shows, and how its bytes are had. ``said``: words for the label, where any."""

    name: str
    label: str
    read: Callable[[], bytes]
    said: str = ""
    is_product: bool = False


@dataclass(slots=True)
class Labelled:
    """``pictures``, each to be opened when it is needed, and the number of each one's label (int64 (n,)); ``labels`` in
    the order of their numbers and the ``words`` for each; ``product``: whether it is a product's own picture, bool
    (n,); ``digest`` of all of it; ``refused``: (name, reason)."""

    pictures: list[Callable[[], Image]]
    numbers: np.ndarray
    labels: list[str]
    words: list[str]
    product: np.ndarray
    digest: str
    refused: list[tuple[str, str]] = field(default_factory=list)

    def of(self, rows: np.ndarray) -> list[Callable[[], Image]]:
        """Some of the pictures."""
        return [self.pictures[row] for row in rows]


def find_photos(place: Path, max_bytes: int) -> list[Photo]:
    """The photos of a folder with a folder for each label, or of a list: lines ``path<TAB>label``, or
    ``path<TAB>label<TAB>words``; paths from the list's folder on.

    Raises:
        InvalidInput: there is no such place, or it is neither; the message names the line.
    """
    if place.is_dir():
        folders = sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith("."))
        if not folders:
            raise InvalidInput(f"{place} has no folders: put the photos of each label into a folder of its name")
        return [
            Photo(str(file.relative_to(place)), folder.name, partial(_bytes, file, max_bytes))
            for folder in folders
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.name.startswith(".")
        ]
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidInput(f"{place} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise InvalidInput(f"{place} is no list in UTF-8: it needs lines of a path, a tab and a label") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        path, label, said = (*(part.strip() for part in line.split("\t")), "", "")[:3]
        if not path or not label:
            raise InvalidInput(f"{place}, line {number}: a path, a tab and a label are needed, not {line[:80]!r}")
        found.append(Photo(path, label, partial(_bytes, place.parent / path, max_bytes), said))
    return found


def read_photos(photos: Iterable[Photo], scratch: Path, judged: int, progress: Progress) -> Labelled:
    """Read every photo once and keep a small copy in ``scratch``. What cannot be read, or was there before, is left
    out and named."""
    wanted = sorted(photos, key=lambda one: one.is_product)
    labels = sorted({one.label for one in wanted})
    said = {one.label: one.said for one in reversed(wanted) if one.said}
    pictures: list[Callable[[], Image]] = []
    numbers, product, refused = list[int](), list[bool](), list[tuple[str, str]]()
    seen: dict[bytes, Photo] = {}
    total = hashlib.sha256()
    with ThreadPoolExecutor(_READING) as pool:
        copies = pool.map(partial(_small, side=round(_KEPT * judged)), wanted)
        for done, (one, copy) in enumerate(zip(wanted, copies, strict=True), 1):
            progress(done, len(wanted), "reading photos")
            if isinstance(copy, EndcapError):
                refused.append((one.name, str(copy)))
                continue
            digest = hashlib.sha256(copy).digest()
            if (twin := seen.setdefault(digest, one)) is not one:
                if one.is_product and twin.label == one.label:
                    continue  # it lies among the photos already
                also = "" if twin.label == one.label else f", where it shows {twin.label}"
                refused.append((one.name, f"the same picture as {twin.name}{also}"))
                continue
            file = scratch / f"{len(pictures)}.jpg"
            file.write_bytes(copy)
            pictures.append(partial(_open, file))
            numbers.append(labels.index(one.label))
            product.append(one.is_product)
            total.update(digest + one.label.encode() + b"\0")
    kept = sorted(set(numbers))  # a label may have lost all its photos
    place = {number: row for row, number in enumerate(kept)}
    return Labelled(
        pictures, np.array([place[one] for one in numbers], dtype=np.int64), [labels[one] for one in kept],
        [said.get(labels[one]) or labels[one] for one in kept], np.array(product, dtype=bool), total.hexdigest(),
        refused,
    )  # fmt: skip


def held_out(found: Labelled, share: float, seed: int) -> np.ndarray:
    """Which photos judge, bool (n,): that share of each label's, one at least where it has three; no product pictures.
    A label's only two photos both train."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(found.numbers), dtype=bool)
    for number in range(len(found.labels)):
        rows = rng.permutation(np.flatnonzero((found.numbers == number) & ~found.product))
        count = max(1, round(share * len(rows))) if len(rows) >= 3 else 0
        chosen[rows[:count]] = True
    return chosen


def _bytes(file: Path, max_bytes: int) -> bytes:
    try:
        if file.stat().st_size > max_bytes:
            raise InvalidImage(f"the image has more than {max_bytes:,} bytes (setting max_image_bytes)")
        return file.read_bytes()
    except OSError as error:
        raise InvalidImage(f"cannot be read: {error.strerror or error}") from None


def _small(photo: Photo, side: int) -> bytes | EndcapError:
    """The copy's bytes; what it says is wrong with the photo."""
    import io

    from PIL.Image import Resampling

    try:
        picture = read_image(photo.read())
    except EndcapError as error:
        return error
    scale = side / min(picture.size)
    if scale < 1.0:
        picture = picture.resize([max(side, round(one * scale)) for one in picture.size], Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return stream.getvalue()


def _open(file: Path) -> Image:
    return read_image(file.read_bytes())
