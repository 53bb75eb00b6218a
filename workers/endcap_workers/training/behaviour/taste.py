"""What the shopper likes apart from the product itself: makers, labels, sizes, prices, reductions."""

from __future__ import annotations

import numpy as np

from endcap_workers.training.behaviour.log import Columns, Lists, Past

#: Imaginary purchases at the average taste: shares of little are shrunk.
_PRIOR = 5.0


def taste_features(past: Past, lists: Lists, columns: Columns) -> None:
    """Columns ``taste_*`` and ``price_*``. What the shopper bought of the candidate itself is left out of the taste."""
    products = past.products
    category, kind = products.category, products.type
    for name, code, within in (
        ("maker", products.maker, None),
        ("maker_in_category", _both(products.maker, category), category),
        ("maker_in_type", _both(products.maker, kind), kind),
        ("label", products.label, None),
        ("label_in_category", _both(products.label, category), category),
        ("label_in_type", _both(products.label, kind), kind),
        ("size_in_category", _both(products.size, category), category),
        ("size_in_type", _both(products.size, kind), kind),
        ("maker_size", _both(_both(products.maker, products.size), category), category),
    ):
        _affinity(past, lists, columns, name, code, within)
    _prices(past, lists, columns)


def _both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """One code for two."""
    return np.unique(one * (int(other.max(initial=0)) + 1) + other, return_inverse=True)[1]


def _affinity(
    past: Past, lists: Lists, columns: Columns, name: str, code: np.ndarray, within: np.ndarray | None
) -> None:
    """log of the shopper's share of a code, relative to everybody's, inside the category or type; and his weight."""
    weights = np.exp2(-past.age / 83.0)
    group = lists.group
    shopper, product = lists.shopper[group], lists.product
    own = np.append(past.weight, 0.0)[past.find(shopper, product)]
    inside = np.zeros(len(code), dtype=np.int64) if within is None else within
    here = np.maximum(past.per_shopper(code[past.log.product], weights)[shopper, code[product]] - own, 0.0)
    around = np.maximum(past.per_shopper(inside[past.log.product], weights)[shopper, inside[product]] - own, 0.0)
    everybody = past.per_product(weights)
    base = (np.bincount(code, everybody)[code] + 0.1) / (np.bincount(inside, everybody)[inside] + 1.0)
    usual = base[product]
    columns.add(f"taste_{name}", np.log((here + _PRIOR * usual) / ((around + _PRIOR) * usual)))
    columns.add(f"taste_{name}_weight", np.log1p(here))


def _prices(past: Past, lists: Lists, columns: Columns) -> None:
    log, products = past.log, past.products
    group = lists.group
    shopper, kind, product = lists.shopper[group], lists.type[group], lists.product
    bought = past.per_product(np.ones(len(log.time)))
    logs = np.log(past.per_product(log.price) / np.maximum(bought, 1) + 0.05)
    relative = _relative(logs, products.type, bought > 0)
    columns.add("price", logs[product])
    columns.add("price_relative", relative[product])

    weights = np.exp2(-past.age / 83.0)
    paid = weights * relative[log.product]

    def usual(code: np.ndarray, prior: float, otherwise: np.ndarray | float) -> np.ndarray:
        sums = past.per_shopper(code[log.product], paid)
        return (sums + prior * otherwise) / (past.per_shopper(code[log.product], weights) + prior)

    overall = usual(np.zeros(len(products), dtype=np.int64), 1.0, 0.0)
    in_category = usual(products.category, 2.0, overall)[shopper, products.category[product]]
    in_type = usual(products.type, 0.2, overall)[shopper, kind]
    columns.add("price_shopper", overall[shopper, 0])
    columns.add("price_gap", np.abs(relative[product] - overall[shopper, 0]))
    columns.add("price_gap_in_category", np.abs(relative[product] - in_category))
    columns.add("price_above_in_category", relative[product] - in_category)
    columns.add("price_gap_in_type", np.abs(relative[product] - in_type))

    reduced = log.reduced.astype(float)
    always = (past.per_product(reduced) + 0.5) / (bought + 1.0)
    fresh = past.age < 14
    lately = (past.per_product(reduced * fresh) + 2.0 * always) / (past.per_product(fresh) + 2.0)
    hunter = np.bincount(log.shopper, reduced, minlength=past.shoppers)
    hunter = (hunter + 2.0) / (np.bincount(log.shopper, minlength=past.shoppers) + 4.0)
    columns.add("price_reduced", always[product])
    columns.add("price_reduced_lately", lately[product])
    columns.add("price_reduction_change", (lately - always)[product])
    columns.add("price_hunter", hunter[shopper])
    columns.add("price_hunter_match", 10.0 * (hunter[shopper] - 0.5) * (always[product] - 0.45))


def _relative(logs: np.ndarray, code: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Log price minus the median of the code's known products; 0 where unknown."""
    relative = np.zeros(len(logs))
    order = np.flatnonzero(known)[np.lexsort((logs[known], code[known]))]
    begin = np.flatnonzero(np.r_[True, np.diff(code[order]) != 0]) if len(order) else np.empty(0, np.int64)
    end = np.r_[begin[1:], len(order)]
    medians = (logs[order[(begin + end - 1) // 2]] + logs[order[(begin + end) // 2]]) / 2.0
    relative[order] = logs[order] - np.repeat(medians, end - begin)
    return relative
