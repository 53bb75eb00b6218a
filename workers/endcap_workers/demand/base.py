"""What every forecaster promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True)
class Forecast:
    """``mean``: float64 (series, horizon), units a period, never negative.

    ``quantiles``: levels, increasing, within 0..1; ``values``: float64 (series, horizon, levels), or no levels at all.
    """

    mean: np.ndarray
    quantiles: tuple[float, ...] = ()
    values: np.ndarray | None = None

    def at(self, level: float) -> np.ndarray:
        """float64 (series, horizon): the quantile of that level.

        Raises:
            ValueError: it was not forecast.
        """
        if self.values is None or level not in self.quantiles:
            raise ValueError(f"no quantile {level} among {self.quantiles}")
        return self.values[:, :, self.quantiles.index(level)]


@runtime_checkable
class Forecaster(Protocol):
    """From histories alone. A forecaster keeps nothing between calls."""

    name: str

    def forecast(self, history: np.ndarray, horizon: int) -> Forecast:
        """``history``: float64 (series, periods), oldest first, NaN where nothing is known (not yet sold, a gap).

        Series without any known period are forecast as 0.

        Raises:
            ValueError: no period at all, or a horizon below 1.
        """
        ...


def checked(history: np.ndarray, horizon: int) -> np.ndarray:
    """The history as float64; a period with more returns than sales sold nothing. Raises as the protocol says."""
    history = np.asarray(history, dtype=np.float64)
    if history.ndim != 2 or history.shape[1] < 1:
        raise ValueError(f"a history is (series, periods) with at least one period, got {history.shape}")
    if horizon < 1:
        raise ValueError(f"a horizon of {horizon} periods: at least 1")
    history = np.where(np.isfinite(history), history, np.nan)
    return np.where(history < 0, 0.0, history)
