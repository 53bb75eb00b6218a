"""What to keep in stock: reorder point, safety stock, order quantity, days of cover, risk of running out.

Smooth demand: normal lead-time demand, mean D*T and variance T*sd^2 + D^2*sdL^2 over a protection time T of lead time
and review period. Intermittent, lumpy or erratic demand (Syntetos, Boylan and Croston, 2005: mean interval over 1.32
or squared variation of sizes over .49): the empirical distribution of lead-time demand, by bootstrap, because the
normal's quantile under-stocks there. Both count in periods (days, weeks, months) of the history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

#: Above these, demand is not smooth.
INTERVAL_LIMIT, VARIATION_LIMIT = 1.32, 0.49
#: Fewer known periods do not tell how demand varies.
FEWEST_PERIODS = 4
DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class StockPolicy:
    """``lead_time`` and its standard deviation, and ``review`` (0: stock is watched all the time), in periods.

    ``service_level``: probability of not running out within a protection time. ``order_cost`` (per order) and
    ``holding_cost`` (per unit and period) give the economic order quantity; without them an order covers one review
    period, or the lead time. ``multiple``: units an order comes in. ``period_days``: length of a period.

    Raises:
        ValueError: a value that makes no sense.
    """

    lead_time: float
    lead_time_deviation: float = 0.0
    review: float = 0.0
    service_level: float = 0.95
    order_cost: float | None = None
    holding_cost: float | None = None
    multiple: int = 1
    period_days: float = 1.0

    def __post_init__(self) -> None:
        times = (self.lead_time, self.lead_time_deviation, self.review)
        if not all(math.isfinite(value) and value >= 0 for value in times) or self.lead_time + self.review <= 0:
            raise ValueError("lead time, its deviation and the review period are finite, not negative, not all 0")
        if not 0 < self.service_level < 1:
            raise ValueError(f"a service level lies between 0 and 1, got {self.service_level}")
        if self.multiple < 1 or not self.period_days > 0:
            raise ValueError("order multiple and period length are positive")
        for cost in (self.order_cost, self.holding_cost):
            if cost is not None and not cost > 0:
                raise ValueError("costs are positive, or left out")

    @property
    def protection(self) -> float:
        """Periods that the stock has to last for: until the next order's delivery."""
        return self.lead_time + self.review


@dataclass(frozen=True, slots=True)
class StockAdvice:
    """Units, except where said. ``order_quantity`` is 0 while the stock is above ``reorder_point``.

    ``days_of_cover``: None without demand. ``stockout_risk``: probability that the stock, with what is on order, does
    not last for the protection time. ``method``: normal, empirical, or too little history. ``notes``: what was odd.
    """

    demand: float
    reorder_point: float
    safety_stock: float
    order_quantity: float
    days_of_cover: float | None
    stockout_risk: float
    method: str
    notes: tuple[str, ...] = ()


def advise(
    history: np.ndarray,
    stock: float,
    policy: StockPolicy,
    on_order: float = 0.0,
    expected: float | None = None,
    seed: int = 0,
) -> StockAdvice:
    """Advice for one product. ``history``: (periods,) units, NaN where nothing is known; ``stock`` may be below 0.

    ``expected``: forecast demand a period, in the place of the history's mean; how demand varies around it is still
    the history's to say.

    Raises:
        ValueError: the stock, what is on order or expected is not a finite number, or one of the latter is below 0.
    """
    if expected is not None and not (math.isfinite(expected) and expected >= 0):
        raise ValueError(f"an expected demand of {expected}: a finite number, at least 0")
    if not math.isfinite(stock) or not math.isfinite(on_order) or on_order < 0:
        raise ValueError(f"stock {stock} and on order {on_order}: finite numbers, and at least 0 on order")
    notes = []
    if stock < 0:
        notes.append(f"stock of {stock:g}: counted as owed to shoppers")
    known = np.asarray(history, dtype=np.float64)
    known = known[np.isfinite(known)]
    if (known < 0).any():
        notes.append(f"{int((known < 0).sum())} periods with more returns than sales count as 0")
        known = np.maximum(known, 0.0)
    position = stock + on_order
    mean, deviation = (float(known.mean()), float(known.std(ddof=1))) if len(known) > 1 else (float(known.sum()), 0.0)
    if len(known) < FEWEST_PERIODS:
        notes.append(f"{len(known)} known periods: too few to tell how demand varies; Poisson is assumed")
        method, lead = "too little history", _poisson(mean, policy, seed)
    elif is_smooth(known):
        method, lead = "normal", None
    else:
        method, lead = "empirical", lead_time_demand(known, policy, seed)
    if expected is not None:
        if lead is not None and mean > 0:
            lead = lead * (expected / mean)
        elif mean > 0:
            deviation *= expected / mean
        mean = expected
    wanted = mean * policy.protection
    if lead is None:
        spread = math.sqrt(policy.protection * deviation**2 + (mean * policy.lead_time_deviation) ** 2)
        reorder = wanted + NormalDist().inv_cdf(policy.service_level) * spread
        risk = _normal_risk(position, wanted, spread)
    else:
        reorder = float(np.quantile(lead, policy.service_level, method="higher"))
        risk = float((lead > position).mean())
    reorder = max(reorder, 0.0)
    cover = max(stock, 0.0) / mean * policy.period_days if mean > 0 else None
    return StockAdvice(
        demand=mean,
        reorder_point=reorder,
        safety_stock=max(reorder - wanted, 0.0),
        order_quantity=_order(mean, position, reorder, policy),
        days_of_cover=cover,
        stockout_risk=1.0 if stock < 0 and position < 0 else risk,
        method=method,
        notes=tuple(notes),
    )


def is_smooth(history: np.ndarray) -> bool:
    """Whether a normal distribution describes the demand. ``history``: (periods,), known, not negative."""
    sizes = history[history > 0]
    if len(sizes) < 2:
        return not len(sizes)
    return bool(len(history) / len(sizes) <= INTERVAL_LIMIT and (sizes.std() / sizes.mean()) ** 2 <= VARIATION_LIMIT)


def lead_time_demand(history: np.ndarray, policy: StockPolicy, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Demand over as many random protection times, (draws,): periods drawn from the history with replacement.

    A part of a period counts by chance: 2.5 periods are two or three, equally often.
    """
    random = np.random.default_rng(seed)
    periods = _protection_times(policy, random, draws)
    longest = int(periods.max(initial=0))
    picked = history[random.integers(0, len(history), (draws, longest))]
    return np.where(np.arange(longest) < periods[:, None], picked, 0.0).sum(axis=1)


def _poisson(mean: float, policy: StockPolicy, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.poisson(mean * _protection_times(policy, random, DRAWS)).astype(float)


def _protection_times(policy: StockPolicy, random: np.random.Generator, draws: int) -> np.ndarray:
    """Whole periods, int64 (draws,)."""
    lead = np.full(draws, policy.lead_time)
    if policy.lead_time_deviation > 0:
        lead = np.maximum(random.normal(policy.lead_time, policy.lead_time_deviation, draws), 0.0)
    return np.floor(lead + policy.review + random.random(draws)).astype(np.int64)


def _normal_risk(position: float, expected: float, spread: float) -> float:
    if spread > 0:
        return 1 - NormalDist(expected, spread).cdf(position)
    return float(position < expected)


def _order(mean: float, position: float, reorder: float, policy: StockPolicy) -> float:
    """Up to the reorder point and one lot beyond; nothing for a product that nobody buys, unless units are owed."""
    if position > reorder or (mean <= 0 and position >= 0):
        return 0.0
    lot = mean * (policy.review or policy.lead_time)
    if policy.order_cost is not None and policy.holding_cost is not None:
        lot = math.sqrt(2 * policy.order_cost * mean / policy.holding_cost)
    wanted = reorder - position + (0.0 if policy.review else lot)
    if policy.review and policy.order_cost is not None and policy.holding_cost is not None:
        wanted = max(wanted, lot)
    return math.ceil(round(wanted / policy.multiple, 9)) * float(policy.multiple)
