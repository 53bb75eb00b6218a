"""What labels of a row's neighbours say about it, without ever looking at its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endcap_workers.fraud.base import Features

#: Labelled rows that a group needs before its own rate weighs as much as the overall rate.
PRIOR = 5.0


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Rows of the same ``group`` (a key of ``Features.groups``).

    With ``near``, the name of a feature, neighbours count the more the closer they are in it; ``width`` is the
    distance, in that feature's unit, at which a neighbour weighs 1/e.
    """

    group: str
    near: str | None = None
    width: float = 0.2


class NeighbourLabels:
    """Feature columns from the labels of other rows of the same group.

    Every row of the labelled set is described by the others alone, so that the columns look in training as they do
    later for a row that nobody has labelled.
    """

    def __init__(self, neighbours: Neighbours) -> None:
        self.neighbours = neighbours
        group = neighbours.group
        self.names: tuple[str, ...] = (f"{group}: fraud rate", f"{group}: labelled")
        self.words = {
            self.names[0]: f"share of fraud among labelled rows of the same {group}",
            self.names[1]: f"labelled rows of the same {group}",
        }
        if neighbours.near is not None:
            self.names += tuple(f"{group}: {what}" for what in ("fraud nearby", "nearest fraud", "nearest genuine"))
            near = neighbours.near
            self.words[self.names[2]] = f"share of fraud among the same {group}'s rows of similar {near}"
            self.words[self.names[3]] = f"distance in {near} to the same {group}'s nearest fraud"
            self.words[self.names[4]] = f"distance in {near} to the same {group}'s nearest genuine row"

    def fit(self, features: Features, labels: np.ndarray) -> NeighbourLabels:
        """``labels``: (rows,) of 0 and 1.

        Raises:
            ValueError: the features lack the group, or the feature to be near in.
        """
        self._labels = np.asarray(labels, dtype=np.float64)
        self._prior = float(self._labels.mean())
        self._members: dict[int, np.ndarray] = {}
        keys, self._near = self._columns(features)
        order = np.argsort(keys, kind="stable")
        names, starts = np.unique(keys[order], return_index=True)
        for name, rows in zip(names.tolist(), np.split(order, starts[1:])):
            self._members[name] = rows
        return self

    def others(self, features: Features) -> np.ndarray:
        """float64 (rows, columns) for the rows of :meth:`fit` themselves, each without its own label."""
        return self._describe(features, own=True)

    def transform(self, features: Features) -> np.ndarray:
        """float64 (rows, columns) for other rows."""
        return self._describe(features, own=False)

    def _columns(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        group, near = self.neighbours.group, self.neighbours.near
        if group not in features.groups:
            raise ValueError(f"the features have no group {group!r}")
        if near is None:
            return np.asarray(features.groups[group]), np.full(len(features), np.nan)
        if near not in features.names:
            raise ValueError(f"the features have no {near!r}")
        return np.asarray(features.groups[group]), features.values[:, features.names.index(near)]

    def _describe(self, features: Features, own: bool) -> np.ndarray:
        keys, near = self._columns(features)
        found = np.full((len(features), len(self.names)), np.nan)
        found[:, 0], found[:, 1] = self._prior, 0.0
        none = np.empty(0, dtype=np.intp)
        for row, key in enumerate(keys.tolist()):
            members = self._members.get(key, none)
            if own:
                members = members[members != row]
            if len(members):
                found[row] = self._row(members, near[row])
        return found

    def _row(self, members: np.ndarray, near: float) -> list[float]:
        labels = self._labels[members]
        columns = [(labels.sum() + PRIOR * self._prior) / (len(labels) + PRIOR), float(len(labels))]
        if self.neighbours.near is None:
            return columns
        distance = np.abs(self._near[members] - near)
        known = ~np.isnan(distance)
        distance, labels = distance[known], labels[known]
        if not len(distance):
            return [*columns, np.nan, np.nan, np.nan]
        weights = np.exp(-distance / self.neighbours.width)
        fraud, genuine = distance[labels == 1], distance[labels == 0]
        return [
            *columns,
            (weights @ labels + 0.3 * self._prior) / (weights.sum() + 0.3),
            fraud.min() if len(fraud) else np.nan,
            genuine.min() if len(genuine) else np.nan,
        ]
