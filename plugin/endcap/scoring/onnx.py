"""The in-process scorer: a bundle's graph in onnxruntime, in the thread that asks."""

from __future__ import annotations

import numpy as np

from endcap.bundles import Bundle
from endcap.catalog.table import ProductTable
from endcap.errors import ScorerUnavailable
from endcap.features import RankingInputs
from endcap.scoring.aligned import Aligned
from endcap.sequences import OUTPUT, model_inputs


class OnnxScorer:
    """Scores with a bundle's own session, which :func:`~endcap.bundles.load_bundle` has warmed up. Thread-safe."""

    def __init__(self, bundle: Bundle, aligned: Aligned | None = None) -> None:
        """``aligned``: shared with another scorer of the same bundle."""
        self.name = f"onnx:{bundle.label}"
        self.bundle = bundle
        self.calibration = bundle.calibration
        self._aligned = aligned or Aligned(bundle)

    def prepare(self, table: ProductTable) -> None:
        """Get ready for a product table before searches come with it."""
        self._aligned.prepare(table)

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """float32 (n,); see :class:`~endcap.scoring.base.Scorer`."""
        if not len(inputs.rows):
            return np.zeros(0, dtype=np.float32)
        tensors = model_inputs(inputs, self._aligned.of(inputs.table))
        try:
            (scores,) = self.bundle.session.run([OUTPUT], tensors)
        except Exception as error:  # onnxruntime's errors have no common class but this one
            raise ScorerUnavailable(f"{self.name}: {error}") from error
        return np.asarray(scores, dtype=np.float32)[0]
