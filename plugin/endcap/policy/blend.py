"""Ranking profiles: how much each signal counts. They are the actions that a policy chooses between.

Called :class:`Blend` in code, since a profile is what is known about a shopper. Every signal is standardised over the
search's candidates (mean 0, deviation 1; a signal that does not vary says nothing), so that weights mean the same in
every search and a blend of interest alone is the scorer's own order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.features import INDEX, RankingInputs
from endcap.policy.diversity import capped, diversified

#: What can be blended. Diversity is no score of a product: it is traded off while the list is filled.
SIGNALS = ("engine", "interest", "freshness", "margin", "stock", "popularity")
WEIGHTS = (*SIGNALS, "diversity")
_TOLERANCE = 1e-6
#: Places that a slate rule fills; behind them nobody looks for variety.
SLATE = 24
_FRESH_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Blend:
    """One ranking profile.

    ``weights``: of :data:`WEIGHTS`, at least 0, with sum 1; what is left out is 0. ``brand_cap``: at most so many
    products of one brand among the first 24; 0: no cap.
    """

    name: str
    weights: Mapping[str, float] = field(default_factory=lambda: {"interest": 1.0})
    brand_cap: int = 0

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or len(self.name) > 64:
            raise InvalidInput("a ranking profile needs a printable name of at most 64 characters")
        unknown = sorted(set(self.weights) - set(WEIGHTS))
        if unknown:
            raise InvalidInput(
                f"profile {self.name}: there is no signal {', '.join(unknown)}; signals: {', '.join(WEIGHTS)}"
            )
        numbers = [float(weight) for weight in self.weights.values()]
        if not all(math.isfinite(weight) and weight >= 0 for weight in numbers):
            raise InvalidInput(f"profile {self.name}: weights must be finite and at least 0")
        if abs(math.fsum(numbers) - 1) > _TOLERANCE:
            raise InvalidInput(f"profile {self.name}: the weights sum to {math.fsum(numbers):.6g}, not 1")
        if self.weights.get("diversity", 0.0) >= 1:
            raise InvalidInput(f"profile {self.name}: diversity alone orders nothing; give another signal a weight")
        if not isinstance(self.brand_cap, int) or self.brand_cap < 0:
            raise InvalidInput(f"profile {self.name}: brand_cap must be 0 (none) or the products of a brand allowed")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; :meth:`from_json` reads it."""
        return {"name": self.name, "weights": dict(self.weights), "brand_cap": self.brand_cap}

    @classmethod
    def from_json(cls, stored: Any) -> Blend:
        """Raises InvalidInput for what is no ranking profile."""
        try:
            return cls(str(stored["name"]), dict(stored["weights"]), stored.get("brand_cap", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"a ranking profile needs a name and weights: {error!r}") from None


#: What is in force where nothing was set: the scorer's order.
INTEREST = Blend("interest")
#: Profiles that a policy starts with: corners that differ enough to learn from, and mixtures between them.
DEFAULT_BLENDS = (
    INTEREST,
    Blend("engine", {"engine": 1.0}),
    Blend("balanced", {"engine": 0.5, "interest": 0.5}),
    Blend("popular", {"interest": 0.5, "popularity": 0.5}),
    Blend("varied", {"interest": 0.7, "diversity": 0.3}),
    Blend("fresh", {"interest": 0.8, "freshness": 0.2}),
    Blend("margin", {"interest": 0.85, "margin": 0.15}),
)


def signals(inputs: RankingInputs, interest: np.ndarray) -> np.ndarray:
    """Standardised signals of n candidates; float32 (n, len(SIGNALS)). ``interest``: the scorer's scores, (n,)."""
    rows, table = inputs.rows, inputs.table
    count = len(rows)
    raw = np.zeros((count, len(SIGNALS)), dtype=np.float32)
    if not count:
        return raw
    # Where the engine expressed no preference by scores its order still is one.
    raw[:, 0] = inputs.features[:, INDEX["engine_score"]] + 0.1 * inputs.features[:, INDEX["engine_rank"]]
    raw[:, 1] = interest
    days = (np.float64(inputs.now) - table.added[rows]) / 86_400.0
    raw[:, 2] = np.exp2(-np.maximum(np.nan_to_num(days, nan=np.inf), 0.0) / _FRESH_DAYS)
    raw[:, 3] = _filled(table.margin[rows])
    stock = table.stock[rows]
    raw[:, 4] = np.where(np.isnan(stock), 1.0, stock > 0)
    raw[:, 5] = inputs.features[:, INDEX["recent"]]
    centred = raw - raw.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.where(deviation > 1e-6, centred / np.maximum(deviation, 1e-6), 0.0).astype(np.float32)


def _filled(values: np.ndarray) -> np.ndarray:
    """What is unknown counts as the mean of what is known: neither promoted nor punished."""
    known = ~np.isnan(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.0)


def matrix(blends: Sequence[Blend]) -> np.ndarray:
    """Weights of :data:`SIGNALS`; float32 (blends, len(SIGNALS))."""
    return np.array([[one.weights.get(name, 0.0) for name in SIGNALS] for one in blends], dtype=np.float32)


def blended(blend: Blend, inputs: RankingInputs, interest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float32, (n,)) and order (int64 (n,), best first, a permutation) under a ranking profile.

    ``interest``: the scorer's scores, (n,). A profile of interest alone gives the scorer's scores and order back.
    """
    scores = scores_of(blend, inputs, interest)
    return scores, slate(blend, np.argsort(-scores, kind="stable"), scores, inputs)


def scores_of(blend: Blend, inputs: RankingInputs, interest: np.ndarray) -> np.ndarray:
    """The blended scores, before slate rules; float32 (n,)."""
    if blend.weights.get("interest", 0.0) == 1.0:
        return np.asarray(interest, dtype=np.float32)
    result: np.ndarray = signals(inputs, interest) @ matrix([blend])[0]
    return result


def slate(blend: Blend, order: np.ndarray, scores: np.ndarray, inputs: RankingInputs) -> np.ndarray:
    """The order after the profile's slate rules: diversity and the cap on brands."""
    diversity = blend.weights.get("diversity", 0.0)
    if diversity:
        order = diversified(order, scores, inputs.rows, inputs.table, diversity, SLATE)
    if blend.brand_cap:
        order = capped(order, inputs.table.brand[inputs.rows], blend.brand_cap, SLATE)
    return order
