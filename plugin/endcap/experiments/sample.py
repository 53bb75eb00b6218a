"""What is known of one arm's metric: sums that can be kept while events stream in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from endcap.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Sample:
    """``count`` shoppers, their ``mean`` and unbiased ``variance``. The unit is the shopper, as he is what is dealt."""

    count: int
    mean: float
    variance: float

    def __post_init__(self) -> None:
        if self.count < 0 or not math.isfinite(self.mean) or not (math.isfinite(self.variance) and self.variance >= 0):
            raise InvalidInput(f"no sample: {self.count} shoppers, mean {self.mean}, variance {self.variance}")

    @property
    def events(self) -> float:
        """(Σ x)² / Σ x²: how many shoppers the metric, which is at least 0, rests on.

        Those who converted; of buyers so many as if they had spent alike; nearly all where everyone has a value.
        """
        squares = self.variance * max(self.count - 1, 0) + self.count * self.mean**2
        return (self.count * self.mean) ** 2 / squares if squares > 0 else 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Sample:
        """One number a shopper, (n,).

        Raises:
            InvalidInput: a number is NaN or infinite.
        """
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            raise InvalidInput("a shopper's metric must be a finite number")
        if len(values) < 2:
            return cls(len(values), float(values.sum()), 0.0)
        return cls(len(values), float(values.mean()), float(values.var(ddof=1)))

    @classmethod
    def of_conversions(cls, shoppers: int, converted: int) -> Sample:
        """A yes or no a shopper.

        Raises:
            InvalidInput: more converted than there are.
        """
        if not 0 <= converted <= shoppers:
            raise InvalidInput(f"{converted} of {shoppers} shoppers cannot have converted")
        return cls.of_sums(shoppers, float(converted), float(converted))

    @classmethod
    def of_sums(cls, count: int, total: float, squares: float) -> Sample:
        """From Σ x and Σ x², as a stream keeps them."""
        mean = total / count if count else 0.0
        variance = max(squares - total * mean, 0.0) / (count - 1) if count > 1 else 0.0
        return cls(count, mean, variance)
