"""The switch: may products without history be scored by what a generator says of them?

Three things must agree: the setting ``augmentation``, the switch (a file beside the bundles, which every server looks
for once a second), and the live bundle, which has a generator in its graph or none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from endcap.errors import ConfigurationError
from endcap.files import sync_folder, write_through
from endcap.sequences import Alignment

#: Is there while somebody has switched augmentation off.
OFF = "augmentation.off"
#: In a generator's folder: its graph by itself, and the learned products that it is compared with.
GRAPH, LEARNED = "generator.onnx", "learned.npz"


def is_switched_on(models: Path) -> bool:
    """Whether nobody has switched it off. ``models``: the folder of the bundles."""
    return not (models / OFF).exists()


def switch(models: Path, on: bool, by: str = "") -> None:
    """Switch it on or off for every server that uses this model folder; saying it twice changes nothing.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
        if on:
            (models / OFF).unlink(missing_ok=True)
        else:
            write_through(models / OFF, f"switched off by {by or 'nobody named'}\n".encode())
        sync_folder(models)
    except OSError as error:
        raise ConfigurationError(f"{models / OFF} cannot be written or removed: {error}") from error


class Neighbours:
    """What a generator says of new products, in terms of products that behaviour has taught: for people to look at."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of the generator.

        Raises:
            ConfigurationError: it has no graph there.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                (folder / GRAPH).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            with np.load(folder / LEARNED) as stored:
                self._ids, vectors = stored["products"].tolist(), stored["vectors"].astype(np.float32)
        except Exception as error:  # onnxruntime's errors have no common class but this one
            raise ConfigurationError(f"{folder} has no graph of a generator to look at: {error}") from error
        self._unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def nearest(self, aligned: Alignment, rows: np.ndarray, k: int = 3) -> list[list[tuple[str, float]]]:
        """Of each row of the product table, the k learned products whose embeddings are nearest to the generated one:
        (id, cosine), nearest first."""
        given = {"codes": aligned.codes[rows].astype(np.int64), "vectors": aligned.candidate_content(rows)}
        taken = {one.name for one in self._session.get_inputs()}
        (made,) = self._session.run(None, {name: one for name, one in given.items() if name in taken})
        cosines = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9) @ self._unit.T
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return [
            [(self._ids[place], float(row[place])) for place in places.tolist()]
            for row, places in zip(cosines, best, strict=True)
        ]
