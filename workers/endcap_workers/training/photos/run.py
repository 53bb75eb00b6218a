"""From labelled photos to an image encoder of the shop's own: ``endcap train-photos``."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from endcap.errors import ConfigurationError, EndcapError, TooLittle
from endcap.images.tuned import TunedEncoder, is_tuned, write_encoder
from endcap.runtime import open_engine, open_fetcher
from endcap.settings import Settings
from endcap_workers.training.alone import alone
from endcap_workers.training.photos.export import Served, discriminant, rooted, to_onnx, vectors_of
from endcap_workers.training.photos.labelled import Labelled, Photo, find_photos, held_out, read_photos
from endcap_workers.training.photos.network import weights_file
from endcap_workers.training.photos.tuning import Progress, Tuned, Tuning

#: Fewer teach nothing.
FEWEST_PHOTOS, FEWEST_LABELS = 12, 2
#: Photos are gone through oftener where they are few, for so many steps.
_STEPS, _MOST_EPOCHS = 400, 60
#: Epochs without a better one after which training stops.
PATIENCE = 8
#: Held-out photos that are compared with all others at a time.
_COMPARED = 1_024


@dataclass(frozen=True, slots=True)
class Request:
    """What to train on, and how; ``epochs`` 0: as many as the number of photos asks for."""

    place: Path
    out: Path
    seed: int = 0
    epochs: int = 0
    held_out: float = 0.15
    tuning: Tuning = field(default_factory=Tuning)


def train_photos(
    settings: Settings,
    request: Request,
    work: Path,
    progress: Progress = lambda done, total, phase: None,
    report: Callable[[str], None] = lambda line: None,
) -> TunedEncoder:
    """Train, judge by the held-out photos, and put the network into ``request.out``.

    Args:
        work: for small copies of the photos while it runs, and for a checkpoint that the same request goes on from.

    Raises:
        InvalidInput: ``request.place`` holds no labelled photos.
        TooLittle: too few photos, or too few labels.
        ConfigurationError: a package is missing, ``request.out`` is no place for it, or the disk does not take what is
            to be written.
    """
    _check_place(request.out)
    base = weights_file(request.tuning.size)
    photos = _with_catalogue(settings, find_photos(request.place, settings.max_image_bytes), report)
    try:
        work.mkdir(parents=True, exist_ok=True)
        taken = f"another training on photos is at work in {work}"
        with alone(work / ".lock", taken), _scratch(work / "copies") as scratch:
            found = read_photos(photos, scratch, request.tuning.judged, progress)
            for name, reason in found.refused[:10]:
                report(f"left out: {name}: {reason}")
            if len(found.refused) > 10:
                report(f"left out: {len(found.refused) - 10:,} more")
            judging = held_out(found, request.held_out, request.seed)
            _check(found, judging)
            report(
                f"{len(found.numbers):,} photos of {len(found.labels):,} labels, {found.product.sum():,} of them "
                f"products' own pictures; {judging.sum():,} are held out"
            )
            graph, made = _learn(found, judging, request, work, progress, report)
            for left in work.glob("*.checkpoint"):
                left.unlink()
    except OSError as error:
        raise ConfigurationError(f"what training needs could not be written to {work}: {error}") from error
    return write_encoder(
        request.out,
        graph,
        {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "base": {
                "network": f"efficientnet-lite{request.tuning.size}",
                "sha256": hashlib.sha256(base.read_bytes()).hexdigest(),
            },
            "side": request.tuning.judged,
            "pixels": "RGB, the middle square, (value - 127) / 128",
            "labels": found.labels,
            "words": found.words,
            "seed": request.seed,
            "libraries": {one: version(one) for one in ("endcap", "numpy", "onnxruntime", "torch")}
            | {"python": platform.python_version()},
            "refused": len(found.refused),
            **made,
        },
    )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for a while; what a killed run left in it goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_place(out: Path) -> None:
    """That the network can be put there is asked before the training, not after it."""
    if out.is_dir():
        if not is_tuned(out) and any(not one.name.startswith(".") for one in out.iterdir()):
            raise ConfigurationError(f"{out} holds something else: name a new or an empty folder")
    elif out.exists():
        raise ConfigurationError(f"{out} is no folder")
    there = next(one for one in (out, *out.parents) if one.exists())
    if not os.access(there, os.W_OK):
        raise ConfigurationError(f"{out}: nothing can be written to {there}")


def _with_catalogue(settings: Settings, photos: list[Photo], report: Callable[[str], None]) -> list[Photo]:
    """Where labels are ids of products, their titles are the labels' words and their pictures train, too: it is these
    that a shopper's photo is compared with."""
    labels = sorted({one.label for one in photos})
    try:
        with closing(open_engine(settings)) as engine:
            documents = {one: document for one, document in zip(labels, engine.get(labels), strict=True) if document}
    except EndcapError as error:
        report(f"without the catalogue, which cannot be asked: {error}")
        return photos
    fetcher = open_fetcher(settings)
    said = {one: str(document.get("title") or "") for one, document in documents.items()}
    return [replace(one, said=one.said or said.get(one.label, "")) for one in photos] + [
        Photo(f"the picture of product {one}", one, partial(fetcher.product, str(document["image"])), said[one], True)
        for one, document in documents.items()
        if document.get("image")
    ]


def _check(found: Labelled, judging: np.ndarray) -> None:
    numbers = {"photos": len(found.numbers), "labels": len(found.labels), "held_out": int(judging.sum())}
    if len(found.labels) < FEWEST_LABELS or len(found.numbers) < FEWEST_PHOTOS or not judging.any():
        raise TooLittle(
            f"{numbers['photos']} photos of {numbers['labels']} labels: at least {FEWEST_PHOTOS} photos of "
            f"{FEWEST_LABELS} labels are needed, and three of a label, so that one can judge",
            numbers,
        )


def _learn(
    found: Labelled, judging: np.ndarray, request: Request, work: Path, progress: Progress,
    report: Callable[[str], None],
) -> tuple[bytes, dict[str, Any]]:  # fmt: skip
    """The graph, and what to say of it."""
    training, held = np.flatnonzero(~judging), np.flatnonzero(judging)
    batch = min(request.tuning.batch, max(2, len(training) // 4))
    enough = -(-_STEPS // (len(training) // batch))
    epochs = request.epochs or min(max(request.tuning.epochs, enough), _MOST_EPOCHS)
    tuning = replace(request.tuning, batch=batch, epochs=epochs)
    bound = orjson.dumps([found.digest, found.labels, held.tolist(), asdict(tuning), request.seed])
    checkpoint = work / f"{hashlib.sha256(bound).hexdigest()[:16]}.checkpoint"
    pictures, numbers = found.of(training), found.numbers[training]
    tuned = Tuned(tuning, len(found.labels), request.seed, progress=progress)
    frozen = {part: rooted(tuned.look(found.of(rows), "as packaged")[0]) for part, rows in _parts(training, held)}

    def judge() -> float:
        said = tuned.look(found.of(held), "")[1]
        right = float((said.argmax(axis=1) == found.numbers[held]).mean())
        report(f"the label of {right:.1%} of the held-out photos is named")
        return right

    if checkpoint.is_file():
        report("goes on with the run before")
    values = tuned.train(pictures, numbers, judge, PATIENCE, checkpoint)
    looked = {part: tuned.look(found.of(rows), "as tuned") for part, rows in _parts(training, held)}
    centre, projection = discriminant(rooted(looked["training"][0]), numbers)
    vectors = {part: vectors_of(rooted(features), centre, projection) for part, (features, _) in looked.items()}
    own = np.flatnonzero(found.product[training])
    metrics = {
        "label": float((looked["held"][1].argmax(axis=1) == found.numbers[held]).mean()),
        "packaged": _nearest(frozen, numbers, found.numbers[held], own),
        "tuned": _nearest(vectors, numbers, found.numbers[held], own),
    }
    graph = to_onnx(Served(tuned.network, centre, projection), tuning.judged)
    counts = {"training": len(training), "held_out": len(held), "products": len(own), "digest": found.digest}
    return graph, {"metrics": metrics, "values": values, "photos": counts, "tuning": asdict(tuning)}


def _parts(training: np.ndarray, held: np.ndarray) -> tuple[tuple[str, np.ndarray], ...]:
    return ("training", training), ("held", held)


def _nearest(
    vectors: dict[str, np.ndarray], numbers: np.ndarray, wanted: np.ndarray, own: np.ndarray
) -> dict[str, float]:
    """Shares of the held-out photos whose label the nearest photo of training has, and whose product's picture is the
    nearest and among the five nearest of the products' pictures; the latter where there are any."""
    held, among = vectors["held"], numbers[own]
    hits, shown = 0, np.zeros((0, 5), dtype=bool)
    for start in range(0, len(held), _COMPARED):
        some = wanted[start : start + _COMPARED]
        alike = held[start : start + _COMPARED] @ vectors["training"].T
        hits += int((numbers[alike.argmax(axis=1)] == some).sum())
        there = np.isin(some, among)
        order = among[np.argsort(-alike[there][:, own], axis=1, kind="stable")[:, :5]]
        right = np.zeros((int(there.sum()), 5), dtype=bool)
        right[:, : order.shape[1]] = order == some[there][:, None]
        shown = np.concatenate([shown, right])
    found = {"photo@1": hits / len(held)}
    if len(shown):
        found |= {f"product@{k}": float(shown[:, :k].any(axis=1).mean()) for k in (1, 5)}
    return found
