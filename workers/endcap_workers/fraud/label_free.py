"""Without labels: the rank average of ECOD and an isolation forest."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import IsolationForest

from endcap_workers.fraud.base import Features, Reason, same_features, say


class Ecod:
    """Empirical cumulative distributions of each feature (Li et al., 2022: ECOD, IEEE TKDE 35(12)).

    A row's score is the largest of three sums over the features, of minus the log of its tail probability: always the
    left tail, always the right tail, or per feature the tail on which the distribution is skewed. A missing value adds
    nothing. Written here because PyOD, which has it too, brings numba and a plotting library into the workers.
    """

    def fit(self, values: np.ndarray) -> Ecod:
        """``values``: float64 (rows, features)."""
        self._sorted = [np.sort(column[~np.isnan(column)]) for column in values.T]
        self._left_skewed = np.array([_skewness(column) < 0 for column in self._sorted])
        self._typical = np.array([np.median(column) if len(column) else np.nan for column in self._sorted])
        return self

    def tails(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Minus the log tail probabilities: left, right, and the one on the skewed side; each (rows, features)."""
        left, right = np.zeros(values.shape), np.zeros(values.shape)
        for index, known in enumerate(self._sorted):
            column = values[:, index]
            present = ~np.isnan(column)
            if not len(known):
                continue
            # A value beyond all known ones is as rare as the rarest known one, not impossible.
            below = np.maximum(np.searchsorted(known, column[present], side="right"), 1)
            above = np.maximum(len(known) - np.searchsorted(known, column[present], side="left"), 1)
            left[present, index] = -np.log(below / len(known))
            right[present, index] = -np.log(above / len(known))
        return left, right, np.where(self._left_skewed, left, right)

    def score(self, values: np.ndarray) -> np.ndarray:
        """float64 (rows,), not bounded."""
        return np.max([tail.sum(axis=1) for tail in self.tails(values)], axis=0)

    def typical(self) -> np.ndarray:
        """Each feature's median, NaN where no row had a value."""
        return self._typical

    def position(self, index: int, value: float) -> float:
        """Share of the rows whose value of that feature is smaller."""
        known = self._sorted[index]
        return float(np.searchsorted(known, value, side="left") / max(len(known), 1))


class LabelFreeDetector:
    """Where a row stands among the rows of :meth:`fit`, averaged over both methods. Labels are not looked at."""

    name = "label-free"

    def __init__(self, seed: int = 0, trees: int = 200, workers: int = 1) -> None:
        self._seed, self._trees, self._workers = seed, trees, workers
        self._names: tuple[str, ...] | None = None

    def fit(self, features: Features, labels: np.ndarray | None = None) -> LabelFreeDetector:
        """See :class:`~endcap_workers.fraud.base.Detector`; at least two rows."""
        if len(features) < 2:
            raise ValueError(f"{len(features)} rows tell nothing about what is usual: at least 2 are needed")
        values = features.values
        self._names = features.names
        self._ecod = Ecod().fit(values)
        self._fill = np.nan_to_num(self._ecod.typical())
        self._forest = IsolationForest(n_estimators=self._trees, random_state=self._seed, n_jobs=self._workers)
        self._forest.fit(self._filled(values))
        self._known = [np.sort(scores) for scores in self._both(values)]
        return self

    def score(self, features: Features) -> np.ndarray:
        """The mean of the two ranks, as shares of the rows seen in :meth:`fit`."""
        same_features(self._names, features)
        if not len(features):
            return np.zeros(0)
        ranks = [_rank(known, scores) for known, scores in zip(self._known, self._both(features.values))]
        return np.mean(ranks, axis=0)

    def reasons(self, features: Features, most: int = 3) -> list[list[Reason]]:
        """The features whose tail probability is smallest, on whichever side: ECOD's part of the score."""
        same_features(self._names, features)
        left, right, _ = self._ecod.tails(features.values)
        weights, typical = np.maximum(left, right), self._ecod.typical()
        found = []
        for row, order in enumerate(np.argsort(-weights, axis=1, kind="stable")[:, :most]):
            # Rarer than one in twenty: less is nothing to tell a person.
            told = [index for index in order.tolist() if weights[row, index] > np.log(20)]
            found.append([self._reason(features, row, index, weights[row, index], typical[index]) for index in told])
        return found

    def _reason(self, features: Features, row: int, index: int, weight: float, typical: float) -> Reason:
        name, value = features.names[index], float(features.values[row, index])
        text = say(features.word(name), value, typical, self._ecod.position(index, value))
        return Reason(name, value, float(weight), text)

    def _both(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._ecod.score(values), -self._forest.score_samples(self._filled(values))

    def _filled(self, values: np.ndarray) -> np.ndarray:
        largest = float(np.finfo(np.float32).max)  # the forest's trees are of float32
        return np.clip(np.where(np.isnan(values), self._fill, values), -largest, largest).astype(np.float32)


def _rank(known: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mid-rank among the known scores, 0..1."""
    return (np.searchsorted(known, scores, side="left") + np.searchsorted(known, scores, side="right")) / (
        2 * len(known)
    )


def _skewness(values: np.ndarray) -> float:
    if len(values) < 3:
        return 0.0
    centred = values - values.mean()
    spread = np.sqrt(np.mean(centred**2))
    return float(np.mean((centred / spread) ** 3)) if spread > 0 else 0.0
