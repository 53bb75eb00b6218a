"""With labels: boosted trees (LightGBM), calibrated on rows that the trees had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from endcap_workers.fraud.base import Features, Reason, same_features, say
from endcap_workers.fraud.neighbours import NeighbourLabels, Neighbours

#: Fewer labels of a kind are no basis for trees.
FEWEST = 10
#: From so many frauds on, calibration is isotonic; below, Platt's two parameters are all that can be told.
ISOTONIC = 200
CALIBRATION_FOLDS = 3
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_child_samples": 20,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


class SupervisedDetector:
    """The probability of fraud. Rows without a label (-1) are left out of :meth:`fit`."""

    name = "supervised"

    def __init__(
        self, neighbours: Sequence[Neighbours] = (), seed: int = 0, rounds: int = 300, models: int = 2, threads: int = 1
    ) -> None:
        self._neighbours, self._seed, self._rounds = tuple(neighbours), seed, rounds
        self._models, self._threads = models, threads
        self._names: tuple[str, ...] | None = None

    def fit(self, features: Features, labels: np.ndarray | None = None) -> SupervisedDetector:
        """See :class:`~endcap_workers.fraud.base.Detector`; at least 10 labels of each kind."""
        labels = np.full(len(features), -1) if labels is None else np.asarray(labels)
        if len(labels) != len(features):
            raise ValueError(f"{len(labels)} labels for {len(features)} rows")
        fraud, genuine = int((labels == 1).sum()), int((labels == 0).sum())
        if min(fraud, genuine) < FEWEST:
            raise ValueError(
                f"{fraud} rows labelled fraud and {genuine} genuine: {FEWEST} of each are needed; "
                "use the label-free detector until then"
            )
        known, labels = features.rows(labels >= 0), labels[labels >= 0].astype(int)
        self._names = features.names
        margins = np.zeros(len(labels))
        folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=self._seed)
        for inside, outside in folds.split(labels, labels):
            part = _Trees(self).fit(known.rows(inside), labels[inside])
            margins[outside] = part.margins(known.rows(outside))
        self._calibration = _calibration(margins, labels)
        self._trees = _Trees(self).fit(known, labels)
        self._sorted = np.sort(self._trees.inputs, axis=0)  # NaN last
        self._present = (~np.isnan(self._trees.inputs)).sum(axis=0)
        self._trees.inputs = np.empty((0, 0))
        return self

    def score(self, features: Features) -> np.ndarray:
        """Calibrated probabilities. A thousandth of the uncalibrated one keeps the order within a calibration step."""
        same_features(self._names, features)
        if not len(features):
            return np.zeros(0)
        margins = self._trees.margins(features)
        return 0.999 * self._calibration(margins) + 0.001 / (1 + np.exp(-margins))

    def reasons(self, features: Features, most: int = 3) -> list[list[Reason]]:
        """The features that add most log-odds (TreeSHAP, as LightGBM computes it)."""
        same_features(self._names, features)
        if not len(features):
            return []
        inputs = self._trees.describe(features)
        shares = self._trees.contributions(inputs)
        found = []
        for row, order in enumerate(np.argsort(-shares, axis=1, kind="stable")[:, :most]):
            told = [index for index in order.tolist() if shares[row, index] > 0]
            found.append([self._reason(features, index, inputs[row, index], shares[row, index]) for index in told])
        return found

    def _reason(self, features: Features, index: int, value: float, weight: float) -> Reason:
        name, words = self._trees.names[index], {**features.words, **self._trees.words}
        known = self._sorted[: self._present[index], index]
        typical = float(known[len(known) // 2]) if len(known) else float("nan")
        position = float(np.searchsorted(known, value, side="left") / max(len(known), 1))
        return Reason(name, float(value), float(weight), say(words.get(name, name), float(value), typical, position))


class _Trees:
    """The uncalibrated model: neighbours' labels as further columns, and a few boosters, averaged."""

    def __init__(self, settings: SupervisedDetector) -> None:
        self._settings = settings
        self._describers = [NeighbourLabels(one) for one in settings._neighbours]
        self.names: tuple[str, ...] = ()
        self.words: dict[str, str] = {}
        self.inputs = np.empty((0, 0))

    def fit(self, features: Features, labels: np.ndarray) -> _Trees:
        import lightgbm

        columns = [features.values]
        self.names = features.names
        for describer in self._describers:
            columns.append(describer.fit(features, labels).others(features))
            self.names += describer.names
            self.words.update(describer.words)
        self.inputs = np.hstack(columns)
        settings = self._settings
        self._boosters: list[Any] = []
        for number in range(settings._models):
            chosen = {**PARAMETERS, "seed": settings._seed + number, "num_threads": settings._threads}
            data = lightgbm.Dataset(self.inputs, labels)
            self._boosters.append(lightgbm.train(chosen, data, settings._rounds))
        return self

    def describe(self, features: Features) -> np.ndarray:
        return np.hstack([features.values, *(describer.transform(features) for describer in self._describers)])

    def margins(self, features: Features) -> np.ndarray:
        """Mean log-odds, float64 (rows,)."""
        inputs = self.describe(features)
        return np.mean([booster.predict(inputs, raw_score=True) for booster in self._boosters], axis=0)

    def contributions(self, inputs: np.ndarray) -> np.ndarray:
        """Log-odds that each column adds, float64 (rows, columns); the last of LightGBM's columns is the base."""
        shares = [booster.predict(inputs, pred_contrib=True) for booster in self._boosters]
        return np.mean(shares, axis=0)[:, :-1]


def _calibration(margins: np.ndarray, labels: np.ndarray) -> Any:
    """Log-odds -> probability, both float64 (rows,); learned from rows the trees had not seen."""
    if min(int(labels.sum()), int((1 - labels).sum())) >= ISOTONIC:
        # One made-up row of the other kind at either end: nothing is certain because a few hundred rows agreed.
        margins, labels = np.append(margins, [margins.max(), margins.min()]), np.append(labels, [0, 1])
        return IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(margins, labels).predict
    platt = LogisticRegression().fit(margins[:, None], labels)
    return lambda other: platt.predict_proba(other[:, None])[:, 1]
