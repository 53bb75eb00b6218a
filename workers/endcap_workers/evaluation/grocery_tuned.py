"""The shop photos of ``endcap evaluate grocery``, by a network that was trained on them.

The same data and split (:mod:`.grocery`); how it is trained: :mod:`endcap_workers.training.photos.tuning`. First on
train, where val has its say; then on train and val, from the weights so far on. The product pictures are trained on
too, as a shop always has them. *Own head*: what the trained network itself says. *Linear head*: the discriminant of
:mod:`.grocery` over its features beside those of the two packaged networks as they are.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from endcap.results import Results
from endcap_workers.evaluation.grocery import (
    PUBLISHED,
    SHRINKAGE_BOTH,
    Photos,
    fit_head,
    kinds,
    look_twice,
    picture,
    predict,
    scores_of,
    unpack,
)
from endcap_workers.training.command import Bars
from endcap_workers.training.photos.export import rooted
from endcap_workers.training.photos.tuning import Tuned, Tuning

FIRST = Tuning()
THEN = replace(FIRST, epochs=20)


def run(seed: int = 0) -> Results:
    """Train on train, then on train and val; judge on test, the first on val as well.

    Raises:
        ConfigurationError: the data or a package is not there.
    """
    results = Results("Search by photo, tuned", "endcap evaluate grocery-tuned", seed)
    products = kinds()
    coarse_of = np.array([one.coarse for one in products])
    parts = {name: Photos.read(name) for name in ("train", "val", "test")}
    tuned: Tuned | None = None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        unpack(folder)
        opened = {name: [partial(picture, folder, file) for file in part.files] for name, part in parts.items()}
        shown = [partial(picture, folder, one.picture) for one in products]
        frozen = {name: look_twice(folder, part.files) for name, part in parts.items()}
        for used, judged, tuning in ((["train"], ["val", "test"], FIRST), (["train", "val"], ["test"], THEN)):
            started = time.process_time()
            fine = np.concatenate([parts[part].fine for part in used])
            with Bars(Console(stderr=True)) as bars:
                start = tuned.network if tuned else None
                tuned = Tuned(tuning, len(products), seed + len(used) - 1, start, bars.progress)
                tuned.train(
                    [one for part in used for one in opened[part]] + shown,
                    np.concatenate([fine, [one.fine for one in products]]),
                )
                trained = time.process_time() - started
                looked = {part: tuned.look(opened[part]) for part in dict.fromkeys(used + judged)}
            held = {
                part: np.concatenate([rooted(features)[:, None], frozen[part]], axis=2)
                for part, (features, _) in looked.items()
            }
            head = fit_head(np.concatenate([held[part] for part in used]), fine, SHRINKAGE_BOTH)
            name = "tuned on train" if used == ["train"] else "then on train and val"
            for part in judged:
                said = looked[part][1].argmax(axis=1)
                results.add(f"{name}, own head: {part}", scores_of(said, coarse_of, parts[part]))
                said = predict(head, held[part])
                results.add(f"{name}, linear head: {part}", scores_of(said, coarse_of, parts[part]))
            results.notes.append(f"{name}: {tuning.epochs} epochs, {trained / 60:.0f} minutes of processor time")
    results.add("published (Antioquia, PCSC 2021, originals)", PUBLISHED)
    return results
