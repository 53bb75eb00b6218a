"""What the shopper himself did with each candidate, and how he shops in this type."""

from __future__ import annotations

import numpy as np

from endcap_workers.training.behaviour.log import Columns, Lists, Past

#: Days until the next look at a shopper: the horizon that rates speak of.
_HORIZON = 31.0


def own_features(past: Past, lists: Lists, columns: Columns) -> None:
    """Columns ``own_*`` (0 where the shopper never bought the product) and ``list_*`` (the same for the whole list)."""
    group = lists.group
    shopper, kind = lists.shopper[group], lists.type[group]
    pair = past.find(shopper, lists.product)
    pairs = len(past.pairs)

    def spread(values: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
        return np.append(values, otherwise)[pair]

    log, age, count = past.log, past.age, past.count
    last, first = np.full(pairs, 1e9), np.zeros(pairs)
    np.minimum.at(last, past.pair, age)
    np.maximum.at(first, past.pair, age)
    columns.add("own_any", spread(np.ones(pairs)))
    columns.add("own_count", spread(np.log1p(count)))
    for days in (10, 30, 90):
        columns.add(f"own_decayed_{days}", spread(np.log1p(past.per_pair(np.exp2(-age / days)))))
    columns.add("own_recency", spread(1.0 / (1.0 + last / 7.0)))
    columns.add("own_age", spread(np.log1p(last), 6.0))
    interval = np.where(count > 1, (first - last) / np.maximum(count - 1, 1), 0.0)
    columns.add("own_interval", spread(np.log1p(interval)))
    columns.add("own_due", spread(np.where(count > 1, np.log((last + 3.0) / (interval + 3.0)), 0.0)))
    columns.add("own_rate", spread(np.log1p(_HORIZON * count / (first + _HORIZON))))
    columns.add("own_month", spread(np.log1p(past.per_pair(age < 31))))
    columns.add("own_month_before", spread(np.log1p(past.per_pair((age >= 31) & (age < 62)))))
    order = np.lexsort((age, past.pair))
    begin = np.searchsorted(past.pair[order], np.arange(pairs))
    for back in (1, 2):
        place = np.minimum(begin + back, len(order) - 1)
        columns.add(f"own_age_{back + 1}", spread(np.log1p(np.where(count > back, age[order][place], 400.0)), 6.0))

    _visits(past, columns, spread, last)
    trip = _trips(past)
    for back in range(3):
        columns.add(f"own_trip_{back}", spread(past.per_pair(trip == back)))
    for keep in (0.6, 0.85, 0.95):
        columns.add(f"own_trips_{keep}", spread(np.log1p(past.per_pair(keep**trip))))
    nearest, farthest = np.full(pairs, 400.0), np.zeros(pairs)
    np.minimum.at(nearest, past.pair, trip)
    np.maximum.at(farthest, past.pair, trip)
    columns.add("own_trips_since", spread(np.log1p(nearest), 5.0))
    columns.add("own_trips_share", spread((count + 0.3) / (farthest + 2.0)))

    types = past.products.type
    in_type = past.per_shopper(types[log.product], np.ones(len(age)))
    lately = past.per_shopper(types[log.product], np.exp2(-age / 45.0))
    columns.add("own_share", spread(count) / np.maximum(in_type[shopper, kind], 1.0))
    columns.add(
        "own_share_lately", spread(past.per_pair(np.exp2(-age / 45.0))) / np.maximum(lately[shopper, kind], 0.05)
    )
    _lists(past, lists, columns, in_type, lately)


def _visits(past: Past, columns: Columns, spread: object, last: np.ndarray) -> None:
    """How often the shopper has been here since."""
    _, once = np.unique(past.log.visit, return_index=True)
    line = np.sort(past.log.shopper[once] * 1e4 + (1e3 - past.age[once]))
    at = past.pair_shopper * 1e4 + (1e3 - last)
    end = np.searchsorted(line, (past.pair_shopper + 1) * 1e4 - 1.0)
    since = end - np.searchsorted(line, at + 1e-6, side="right")
    columns.add("own_visits_since", spread(np.log1p(np.maximum(since, 0))))  # type: ignore[operator]


def _trips(past: Past) -> np.ndarray:
    """For each purchase: how many later visits of the shopper bought something of the same type; float (m,)."""
    log = past.log
    kind = past.products.type[log.product]
    width = int(kind.max(initial=0)) + 1
    visit = np.unique(log.visit, return_inverse=True)[1]
    _, first, inverse = np.unique(visit * width + kind, return_index=True, return_inverse=True)
    whose = log.shopper[first] * width + kind[first]
    order = np.lexsort((past.age[first], whose))
    changed = np.r_[True, np.diff(whose[order]) != 0]
    start = np.flatnonzero(changed)[np.cumsum(changed) - 1]
    back = np.empty(len(order))
    back[order] = np.arange(len(order)) - start
    return back[inverse]


def _lists(past: Past, lists: Lists, columns: Columns, in_type: np.ndarray, lately: np.ndarray) -> None:
    """How this shopper shops for this type: often or seldom, the same or something new."""
    log, age = past.log, past.age
    kinds = past.products.type[log.product]
    at = (lists.shopper, lists.type)
    pair_kind = past.products.type[past.pair_product]
    width = in_type.shape[1]
    cell = past.pair_shopper * width + pair_kind
    distinct = np.bincount(cell, minlength=past.shoppers * width).reshape(-1, width)
    most = np.zeros(past.shoppers * width)
    np.maximum.at(most, cell, past.count)
    last = np.full(past.shoppers * width, 400.0)
    np.minimum.at(last, log.shopper * width + kinds, age)
    total, distinct_here = in_type[at], distinct[at]
    values = {
        "list_count": np.log1p(total),
        "list_lately": np.log1p(lately[at]),
        "list_distinct": np.log1p(distinct_here),
        "list_variety": distinct_here / np.maximum(total, 1.0),
        "list_top_share": most.reshape(-1, width)[at] / np.maximum(total, 1.0),
        "list_age": np.log1p(last.reshape(-1, width)[at]),
        "list_candidates": np.log1p(np.diff(lists.starts)),
    }
    purchases = np.bincount(log.shopper, minlength=past.shoppers)
    month = np.bincount(log.shopper, age < 31, minlength=past.shoppers)
    values["list_shopper_count"] = np.log1p(purchases)[lists.shopper]
    values["list_shopper_month"] = np.log1p(month)[lists.shopper]
    recent = age < 62
    for name, code, of in (("shopper", log.shopper, lists.shopper), ("type", kinds, lists.type)):
        length = max(past.shoppers, width)
        new = np.bincount(code[recent], past.first_time[recent], minlength=length)
        values[f"list_{name}_new"] = (new / np.maximum(np.bincount(code[recent], minlength=length), 1))[of]
    group = lists.group
    for name, one in values.items():
        columns.add(name, one[group])
