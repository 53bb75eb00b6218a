"""Before the start: which difference can be seen with so many shoppers, and how many a difference needs."""

from __future__ import annotations

import math
from statistics import NormalDist

from endcap.errors import InvalidInput
from endcap.experiments.sequential import radius


def detectable_effect(
    shoppers: float,
    variance: float,
    share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    peeking: bool = True,
) -> float:
    """The least difference of means that an experiment finds with probability ``power``.

    Args:
        shoppers: in both arms together.
        variance: of a shopper's metric: p (1 - p) for conversion p; times 1 - r² after CUPED with correlation r.
        share: of the treated arm.
        peeking: decided by a confidence sequence (always valid, tightest at ``shoppers``); False: by one z-test at
            the end, which is the textbook's formula.

    Raises:
        InvalidInput: a number is out of its range.
    """
    _check(shoppers, variance, share, alpha, power)
    error = math.sqrt(variance / shoppers / (share * (1 - share)))
    if peeking:
        deviation = math.sqrt(variance / (share * (1 - share)))
        critical = float(radius(float(shoppers), deviation, alpha, max(shoppers, 1.0)))
    else:
        critical = NormalDist().inv_cdf(1 - alpha / 2) * error
    return critical + NormalDist().inv_cdf(power) * error


def shoppers_needed(
    effect: float,
    variance: float,
    share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    peeking: bool = True,
) -> int:
    """How many shoppers, in both arms together, find a difference of ``effect``: the inverse of the above.

    Raises:
        InvalidInput: a number is out of its range.
    """
    _check(1.0, variance, share, alpha, power)
    if not (math.isfinite(effect) and effect != 0):
        raise InvalidInput(f"effect must be a difference other than 0, not {effect}")
    # The detectable effect falls as 1 / sqrt(shoppers).
    one = detectable_effect(1.0, variance, share, alpha, power, peeking)
    root = abs(one / effect)
    if not root < 1e100:
        raise InvalidInput(f"effect {effect:g} is too small: no number of shoppers shows it")
    return max(2, math.ceil(root**2))


def _check(shoppers: float, variance: float, share: float, alpha: float, power: float) -> None:
    if not (math.isfinite(shoppers) and shoppers >= 1):
        raise InvalidInput(f"shoppers must be at least 1, not {shoppers}")
    if not (math.isfinite(variance) and variance > 0):
        raise InvalidInput(f"variance must be above 0, not {variance}: a metric that never varies shows no effect")
    for name, value in (("share", share), ("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise InvalidInput(f"{name} must be in (0, 1), not {value}")
