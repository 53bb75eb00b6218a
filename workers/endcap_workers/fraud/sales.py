"""Features of sales reports: who sold how much of which product for what. No label is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from endcap_workers.fraud.base import Features
from endcap_workers.fraud.neighbours import Neighbours

PRICE = "unit price"
#: Log units, so that a spread of 0 (a product with one price) does not make every other price infinitely strange.
LEAST_SPREAD = 0.05
#: Which neighbour in price the distance is taken to.
GAPS = {"nearest": 1, "3rd nearest": 3, "10th nearest": 10, "30th nearest": 30}
#: What a detector with labels may look at beyond the features.
SALES_NEIGHBOURS = (Neighbours("product", near=PRICE, width=0.2), Neighbours("seller"))

WORDS = {
    PRICE: "unit price (log)",
    "quantity": "quantity (log)",
    "value": "value (log)",
    "quantity missing": "quantity missing (1 is yes)",
    "value missing": "value missing (1 is yes)",
    "not positive": "quantity or value of 0 or less (1 is yes)",
    "seller: reports": "reports by the seller",
    "product: reports": "reports of the product",
    "seller: products": "different products of the seller",
    "pair: reports": "reports of this product by this seller",
    "seller: strange prices": "share of the seller's reports with a strange unit price",
    "seller: price level": "the seller's usual unit price against other sellers' (log)",
    "seller: price spread": "spread of the seller's unit prices against other sellers' (log)",
    "pair: price against own": "unit price against the seller's own for this product (log)",
    "product: quantity missing": "share of the product's reports without a quantity",
    "seller: quantity missing": "share of the seller's reports without a quantity",
}


def sales_features(product: Any, seller: Any, quantity: Any, value: Any) -> Features:
    """One row a report. ``product`` and ``seller``: any hashable names; ``quantity`` and ``value``: numbers or missing.

    Quantities and values of 0 or less (returns, corrections) have no unit price: it is missing, and they are marked.

    Raises:
        ValueError: the columns differ in length.
    """
    import pandas as pd

    columns = [list(product), list(seller), list(quantity), list(value)]
    if len({len(column) for column in columns}) != 1:
        raise ValueError("product, seller, quantity and value differ in length")
    frame = pd.DataFrame({"product": pd.factorize(np.array(columns[0], dtype=object))[0]})
    frame["seller"] = pd.factorize(np.array(columns[1], dtype=object))[0]
    amounts = [pd.to_numeric(pd.Series(column, dtype=object), errors="coerce") for column in columns[2:]]
    for name, amount in zip(("quantity", "value"), amounts):
        given = amount.astype(float)
        frame[f"{name} missing"] = given.isna().astype(float)
        frame[name] = np.log(given.where(given > 0))
    frame["not positive"] = sum((amount.astype(float) <= 0).astype(float) for amount in amounts).clip(upper=1)
    frame[PRICE] = frame["value"] - frame["quantity"]

    found: dict[str, Any] = {
        name: frame[name] for name in (PRICE, "quantity", "value", "quantity missing", "value missing", "not positive")
    }
    words = dict(WORDS)
    for key in ("product", "seller"):
        found[f"{key}: reports"] = frame.groupby(key)[key].transform("size")
        for name in (PRICE, "quantity", "value"):
            _against(frame, key, name, found, words)
    found["seller: products"] = frame.groupby("seller")["product"].transform("nunique")
    _sellers(frame, found)
    _gaps(frame, found, words)
    for key in ("product", "seller"):
        found[f"{key}: quantity missing"] = frame["quantity missing"].groupby(frame[key]).transform("mean")
    values = np.column_stack([np.asarray(column, dtype=np.float64) for column in found.values()])
    groups = {key: frame[key].to_numpy() for key in ("product", "seller")}
    return Features(values.reshape(len(frame), len(found)), tuple(found), words, groups)


def _against(frame: Any, key: str, name: str, found: dict[str, Any], words: dict[str, str]) -> None:
    """A value against the median of its product or seller, in log units and in robust standard deviations (MAD)."""
    grouped = frame.groupby(key)[name]
    middle = grouped.transform("median")
    deviation = frame[name] - middle
    spread = 1.4826 * deviation.abs().groupby(frame[key]).transform("median")
    described = {
        "median": (middle, f"the {key}'s median {name} (log)"),
        "spread": (spread, f"spread of the {key}'s {name} (log)"),
        "deviation": (deviation, f"{name} against the {key}'s median (log)"),
        "z": (deviation / (spread + LEAST_SPREAD), f"{name} against the {key}'s median, in robust deviations"),
        "rank": (grouped.rank(pct=True), f"rank of the {name} among the {key}'s reports (0 to 1)"),
    }
    for kind, (column, word) in described.items():
        label = f"{key}: {name} {kind}"
        found[label] = column
        words[label] = word


def _sellers(frame: Any, found: dict[str, Any]) -> None:
    """How a seller usually prices, against what others take for the same products."""
    deviation, strange = found[f"product: {PRICE} deviation"], found[f"product: {PRICE} z"].abs() > 3
    by_seller = deviation.groupby(frame["seller"])
    found["seller: strange prices"] = strange.astype(float).groupby(frame["seller"]).transform("mean")
    found["seller: price level"] = by_seller.transform("median")
    found["seller: price spread"] = by_seller.transform("std")
    pair = deviation.groupby([frame["seller"], frame["product"]])
    found["pair: reports"] = pair.transform("size")
    found["pair: price against own"] = deviation - pair.transform("median")


def _gaps(frame: Any, found: dict[str, Any], words: dict[str, str]) -> None:
    """Distance to the k-th nearest unit price of the same product on the closer side: how alone a price stands."""
    ordered = frame.sort_values(["product", PRICE], kind="stable")
    prices = ordered.groupby("product")[PRICE]
    for name, count in GAPS.items():
        above = prices.shift(-count) - ordered[PRICE]
        below = ordered[PRICE] - prices.shift(count)
        label = f"product: {name} price"
        found[label] = np.fmin(above, below).reindex(frame.index)
        words[label] = f"distance to the product's {name} unit price, on the closer side (log)"
