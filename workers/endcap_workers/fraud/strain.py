"""How far beyond all that is usual one shopper goes: tails of single quantities, carried on beyond what was seen.

Ranks cannot tell the strangest of honest shoppers from a machine: somebody is always first. What tells them apart is
the distance. Above the 95th percentile each quantity's tail is taken as exponential (peaks over threshold, Pickands,
1975; for anomalies: Siffer et al., 2017), its scale from the 95th and 99th percentiles alone, so that a farm of less
than one shopper in a hundred cannot stretch it (of fewer than 500 shoppers, from lower ones: not five of them can).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from endcap_workers.fraud.base import Features

#: Quantity -> how it reads with its number.
QUANTITIES: Mapping[str, str] = {
    "one product": "actions on one product, times its share of all actions",
    "busiest hour": "actions in the busiest hour",
    "per day": "actions per active day",
    "looked through": "different products beyond those bought",
    "returns": "returns, times the share of purchases returned",
    "unbought": "products put in the cart and never bought",
    "put back": "products put in the cart and taken out, times their share",
    "coupons": "purchases with a coupon, times their share",
    "shared device": "other shoppers on the same device",
}
#: The least scale of a tail: where hardly anybody returns anything, three returns are no fraud.
_LEAST_SCALE: Mapping[str, float] = {
    "one product": 1.0, "busiest hour": 5.0, "per day": 5.0, "looked through": 20.0, "returns": 2.0, "unbought": 5.0,
    "put back": 3.0, "coupons": 3.0, "shared device": 1.0,
}  # fmt: skip
_MOST_DIGITS = 300.0


def quantities(features: Features) -> np.ndarray:
    """float64 (n, len(QUANTITIES)), 0 where nothing is known."""
    column = {name: np.nan_to_num(features.values[:, place]) for place, name in enumerate(features.names)}
    bought = column["purchases"]
    return np.stack(
        [
            np.expm1(column["top count"]) * column["top share"],
            np.expm1(column["busiest hour"]),
            np.expm1(column["per day"]),
            np.maximum(np.expm1(column["different"]) - bought, 0.0),
            column["returns"] ** 2 * bought,
            np.expm1(column["unbought"]),
            column["cart abuse"] ** 2 * column["carts"],
            column["coupons"] ** 2 * bought,
            np.expm1(column["shared device"]),
        ],
        axis=1,
    )


def strain(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Digits of each quantity's tail probability, float64 (n, k): 0 for what is usual, 6 for one in a million.

    ``usual``: bool (n,), the rows that tell what is usual.
    """
    found = np.zeros(values.shape)
    if not usual.any():
        return found
    # Of few shoppers, a handful may be a farm: the quantiles lie below them.
    upper = float(np.clip(1 - 5 / usual.sum(), 0.6, 0.99))
    lower = max(1 - 5 * (1 - upper), 0.25)
    for place, name in enumerate(QUANTITIES):
        if name == "shared device":
            middle, high = _by_device(values[usual, place], (lower, upper))
        else:
            middle, high = np.quantile(values[usual, place], [lower, upper])
        scale = max((high - middle) / np.log((1 - lower) / (1 - upper)), _LEAST_SCALE[name])
        digits = -np.log10(1 - lower) + (values[:, place] - middle) / (scale * np.log(10.0))
        found[:, place] = np.where(values[:, place] > middle, np.clip(digits, 0.0, _MOST_DIGITS), 0.0)
    return found


def _by_device(others: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Quantiles of the other shoppers on a device over the devices, not over the shoppers, (levels,): a device with a
    hundred shoppers is one, and must not make itself usual."""
    order = np.sort(others)
    share = np.cumsum(1 / (order + 1))
    return order[np.minimum(np.searchsorted(share, np.array(levels) * share[-1]), len(order) - 1)]
