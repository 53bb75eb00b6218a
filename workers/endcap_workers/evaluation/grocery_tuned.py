"""The shop photos of ``endcap evaluate grocery``, by a network whose last blocks were trained on them.

The same data and split (:mod:`.grocery`); how it is trained: :mod:`.grocery_tuning`. A quarter of an hour of processor
time.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from endcap.results import Results
from endcap_workers.evaluation.grocery import Photos, kinds, picture, scores_of, unpack
from endcap_workers.evaluation.grocery_tuning import Tuned, Tuning, Views, open_network


def run(seed: int = 0) -> Results:
    """Train on train, and on train and val; judge on test, the first on val as well.

    Raises:
        ConfigurationError: the data or a package is not there.
    """
    results = Results("Search by photo, tuned", "endcap evaluate grocery-tuned", seed)
    tuning = Tuning()
    coarse_of = np.array([one.coarse for one in kinds()])
    parts = {name: Photos.read(name) for name in ("train", "val", "test")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        unpack(folder)
        views = Views(open_network(), tuning, folder)
        opened = {name: [partial(picture, folder, one) for one in part.files] for name, part in parts.items()}
        looked = {name: views.looked(opened[name]) for name in ("val", "test")}
        crops = {name: views.crops(opened[name], seed) for name in ("train", "val")}
        for used in (("train",), ("train", "val")):
            tuned = Tuned(open_network(), tuning, len(coarse_of), seed)
            tuned.train(
                np.concatenate([crops[part] for part in used], axis=1),
                np.concatenate([parts[part].fine for part in used]),
            )
            for name in ("val", "test"):
                if name not in used:
                    predicted = tuned.scores(looked[name]).argmax(axis=1)
                    row = f"last blocks tuned on {' and '.join(used)}: {name}"
                    results.add(row, scores_of(predicted, coarse_of, parts[name]))
    return results
