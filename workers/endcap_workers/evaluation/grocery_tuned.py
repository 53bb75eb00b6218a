"""The shop photos of ``endcap evaluate grocery``, by a network that was trained on them.

The same data and split (:mod:`.grocery`); how it is trained: :mod:`.grocery_tuning`. First on train, where val has its
say; then on train and val, from the weights so far on. The product pictures are trained on too, as a shop always has
them.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from endcap.results import Results
from endcap_workers.evaluation.grocery import Photos, kinds, picture, scores_of, unpack
from endcap_workers.evaluation.grocery_tuning import Tuned, Tuning

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
        for used, judged, tuning in ((["train"], ["val", "test"], FIRST), (["train", "val"], ["test"], THEN)):
            started = time.process_time()
            tuned = Tuned(tuning, len(products), seed + len(used) - 1, tuned.network if tuned else None)
            files = [file for part in used for file in parts[part].files] + [one.picture for one in products]
            fine = [parts[part].fine for part in used] + [np.array([one.fine for one in products])]
            tuned.train([partial(picture, folder, file) for file in files], np.concatenate(fine))
            trained = time.process_time() - started
            name = f"tuned on {used[0]}" if len(used) == 1 else f"then on {' and '.join(used)}"
            for part in judged:
                said = tuned.scores([partial(picture, folder, file) for file in parts[part].files])
                results.add(f"{name}: {part}", scores_of(said.argmax(axis=1), coarse_of, parts[part]))
            results.notes.append(f"{name}: {tuning.epochs} epochs, {trained / 60:.0f} minutes of processor time")
    return results
