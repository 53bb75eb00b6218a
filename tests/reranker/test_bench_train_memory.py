"""The made-up log of `endcap bench train-memory`."""

from __future__ import annotations

from itertools import islice

import numpy as np

from endcap.events import Action
from endcap_reranker.bench import catalogue
from endcap_reranker.bench.train_memory import DAYS, behaviour


def test_the_log_is_as_long_as_asked_in_order_and_like_a_shops() -> None:
    stock = list(catalogue.products(500, 0))
    made = list(islice(behaviour(30_000, stock, 0), 30_000))
    assert len({one.id for one in made}) == len(made) == 30_000
    visits: dict[str, float] = {}
    for one in made:
        visits.setdefault(one.session, one.time)
    assert max(np.diff(-np.array(list(visits.values())))) < 60.0, "one after another"
    assert 0.9 * DAYS < (made[-1].time - made[0].time) / 86_400.0 < 1.05 * DAYS
    shoppers: dict[str, int] = {}
    for one in made:
        shoppers[one.shopper] = shoppers.get(one.shopper, 0) + 1
    assert 6 < len(made) / len(shoppers) < 18
    assert 0.05 < sum(one.action is Action.PURCHASE for one in made) / len(made) < 0.15
    assert {one.product for one in made if one.product} <= {one.id for one in stock}
    assert any(one.query for one in made)
