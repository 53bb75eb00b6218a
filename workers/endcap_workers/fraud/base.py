"""What every detector promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True)
class Features:
    """Rows to judge: behaviours, orders or reports.

    ``values``: float64 (rows, features), NaN where a value is missing; infinities count as missing.
    ``names``: one a feature; ``words``: feature -> how a person reads it, by default its name.
    ``groups``: name -> int64 (rows,), whom a row belongs to (product, seller, device). Rows of one group are
    neighbours: a detector with labels may look at the other rows' labels.

    Raises:
        ValueError: the shapes do not fit.
    """

    values: np.ndarray
    names: tuple[str, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(f"{len(self.names)} features are named, the matrix is {values.shape}")
        for name, members in self.groups.items():
            if len(members) != len(values):
                raise ValueError(f"group {name!r} has {len(members)} rows, the matrix {len(values)}")
        object.__setattr__(self, "values", np.where(np.isfinite(values), values, np.nan))

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, which: Any) -> Features:
        """Some of the rows, by index or mask."""
        groups = {name: np.asarray(members)[which] for name, members in self.groups.items()}
        return Features(self.values[which], self.names, self.words, groups)

    def word(self, name: str) -> str:
        return self.words.get(name, name)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row was flagged: its ``value`` of ``feature`` adds ``weight`` (> 0; log-odds or nats) to the suspicion."""

    feature: str
    value: float
    weight: float
    text: str


@runtime_checkable
class Detector(Protocol):
    """Larger scores are more suspicious. Equal input gives equal output: everything random is seeded."""

    name: str

    def fit(self, features: Features, labels: np.ndarray | None = None) -> Detector:
        """Learn, and return self. ``labels``: (rows,), 1 fraud, 0 genuine, -1 nobody knows.

        Raises:
            ValueError: too little to learn from; the message says what is missing.
        """
        ...

    def score(self, features: Features) -> np.ndarray:
        """float64 (rows,) within 0..1. Every row is judged by itself: which rows it comes with changes nothing.

        Raises:
            ValueError: not fitted, or the features are other ones than those of :meth:`fit`.
        """
        ...

    def reasons(self, features: Features, most: int = 3) -> list[list[Reason]]:
        """For every row at most ``most`` reasons, the weightiest first; none if nothing speaks against it."""
        ...


def same_features(fitted: Sequence[str] | None, features: Features) -> None:
    """Raises ValueError unless the detector was fitted, on these features."""
    if fitted is None:
        raise ValueError("the detector is not fitted")
    if tuple(fitted) != features.names:
        raise ValueError(f"fitted on {', '.join(fitted)}; got {', '.join(features.names)}")


#: What the words of a natural logarithm end with.
_LOG = " (log)"


def say(word: str, value: float, typical: float, position: float) -> str:
    """A reason in words. ``position``: share of the rows seen in :meth:`Detector.fit` that have a smaller value."""
    if np.isnan(value):
        return f"{word.removesuffix(_LOG)}: missing"
    if word.endswith(_LOG):  # people count in pieces and money
        word, value, typical = word.removesuffix(_LOG), float(np.exp(value)), float(np.exp(typical))
    if np.isnan(typical):
        return f"{word}: {value:.4g}"
    said = f"{word}: {value:.4g}, usually {typical:.4g}"
    if position >= 0.5:
        return f"{said}; higher than {_percent(position)} % of the rows"
    return f"{said}; lower than {_percent(1 - position)} % of the rows"


def _percent(share: float) -> str:
    return f"{100 * min(share, 0.9999):.2f}".rstrip("0").rstrip(".")
