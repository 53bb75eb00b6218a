"""The baseline scorer: a multinomial logit over the features, with weights that ship with the package.

Worth keeping: it needs no training, answers in microseconds, and is what the deep models must beat. The weights were
fitted on purchases (``python -m endcap_workers.training.baseline``, which also says on which); those of the engine's
score, its rank and the content similarity are priors, since that log has no search engine in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from endcap.errors import ConfigurationError
from endcap.features import FEATURES, RankingInputs

WEIGHTS_FILE = "baseline_weights.json"


class BaselineScorer:
    """Scores are log-odds up to a constant: ``features @ weights``."""

    name = "baseline"

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        """``weights`` by feature name; None: those that ship with the package.

        Raises:
            ConfigurationError: a weight for a feature that does not exist, or one that is not finite.
        """
        if weights is None:
            weights = json.loads(files(__package__).joinpath(WEIGHTS_FILE).read_text())["weights"]
        unknown = sorted(set(weights) - set(FEATURES))
        if unknown:
            raise ConfigurationError(f"baseline weights for unknown features: {', '.join(unknown)}")
        self.weights = np.array([weights.get(name, 0.0) for name in FEATURES], dtype=np.float32)
        if not np.isfinite(self.weights).all():
            raise ConfigurationError("baseline weights must be finite numbers")

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """float32 (n,); see :class:`~endcap.scoring.base.Scorer`."""
        return inputs.features @ self.weights
