"""A small shop with a log to train on: shoppers keep to their brands, and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endcap.catalog import Product
from endcap.events import Action, Event
from endcap.indexing import index_products
from endcap.runtime import open_runtime
from endcap.settings import Settings, load_settings

DAY_S = 86_400.0
START = 1_750_000_000.0
SHELVES, BRANDS, PER_SHELF = 5, 4, 16


def products(count: int = SHELVES * PER_SHELF) -> list[Product]:
    return [
        Product(
            f"p{number}",
            f"shelf{number % SHELVES} thing {number}",
            brand=f"Brand {number // SHELVES % BRANDS}",
            categories=("Shop", f"shelf{number % SHELVES}"),
            price=float(number % 7 + 1),
        )
        for number in range(count)
    ]


def events(
    shoppers: int = 30, days: int = 60, seed: int = 0, count: int = SHELVES * PER_SHELF, searches: bool = False
) -> list[Event]:
    """Every second day a visit; mostly of the shopper's own brand, often what was bought before."""
    draw = np.random.default_rng(seed)
    made: list[Event] = []
    for shopper in range(shoppers):
        mine = [n for n in range(count) if n // SHELVES % BRANDS == shopper % BRANDS] or list(range(count))
        for day in range(shopper % 2, days, 2):
            moment = START + day * DAY_S + 600.0 * shopper
            for number in (
                draw.choice(mine, 2).tolist() if draw.random() < 0.85 else draw.integers(0, count, 2).tolist()
            ):
                one = f"{shopper}-{day}-{len(made)}"
                if searches:
                    query = f"shelf{number % SHELVES}"
                    made.append(Event(one + "s", moment, f"s{shopper}", Action.SEARCH, query=query))
                if not searches or draw.random() < 0.7:
                    made.append(Event(one, moment + 5.0, f"s{shopper}", Action.PURCHASE, f"p{number}"))
                moment += 30.0
    return made


def shop(folder: Path, log: list[Event], stock: list[Product] | None = None) -> Settings:
    """An installation with products and events; no text encoder."""
    settings = load_settings(data_dir=folder, index="shop", text_encoder="none", window=100)
    runtime = open_runtime(settings, start=False)
    try:
        listed = products() if stock is None else stock
        if listed:
            index_products(listed, runtime.engine, None)
        if log:
            runtime.log.append(log)
    finally:
        runtime.close()
    return settings
