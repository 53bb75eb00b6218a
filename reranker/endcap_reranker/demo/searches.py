"""Searches for the demo: the data set knows purchases, no searches, so some are read as searches and replayed.

As the protocol of personalised search on this data has it, a purchase is read as a search for the product's type by the
household that made it, a minute before. What the shop does not sell is searched for too. The answers are the shop's
own: the engine's order, logged as any ranking is, and marked (``replayed``, and ``internal``: no experiment and no
policy learns from them, since nobody saw them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from endcap.engines import SearchRequest
from endcap.recall import Recaller
from endcap.runtime import Runtime
from endcap.stores.rankings import Served
from endcap_reranker.demo.dataset import DAY_S, Journey

#: Days of purchases that are read as searches, and how many searches at most (as many as the protocol samples).
DAYS, MOST = 28, 20_000
#: Products of an answer, and seconds between the search and the purchase.
_SHOWN, _BEFORE_S = 20, 60.0
MARKS = {"internal": True, "replayed": True}
_BATCH = 1_000


def replay(
    runtime: Runtime,
    journey: Journey,
    shift_s: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> int:
    """Log the searches of the last days, oldest first; gives their number. Done twice, they count once.

    Raises:
        EngineError, LogUnavailable: as the parts report them.
    """
    asked = _asked(journey, seed)
    recaller = Recaller(runtime.engine, runtime.encoder)
    found: dict[str, list[str]] = {}
    batch: list[Served] = []
    for number, (household, basket, text, time) in enumerate(asked, start=1):
        if text not in found:  # a type is searched for by many
            found[text] = recaller.recall(SearchRequest(text), _SHOWN).ids[:_SHOWN]
        products = found[text]
        batch.append(
            Served(
                id=hashlib.blake2b(f"{basket}\0{text}".encode(), digest_size=16).hexdigest(),
                time=time + shift_s - _BEFORE_S,
                shopper=household,
                products=tuple(products),
                session=basket,
                query=text,
                endpoint="search",
                index=runtime.settings.index,
                engine_positions=tuple(range(1, len(products) + 1)),
                candidates=len(products),
                scorer="engine",
                context=MARKS,
            )
        )
        if len(batch) == _BATCH or number == len(asked):
            runtime.rankings.append(batch)
            batch = []
            progress(number, len(asked))
    return len(asked)


def _asked(journey: Journey, seed: int) -> list[tuple[str, str, str, float]]:
    """Household, basket, what was searched for, when; each once a basket, oldest first."""
    table = journey.purchases
    table = table[table["time"] >= table["time"].iloc[-1] - DAYS * DAY_S] if len(table) else table
    said = {product: name.lower() for product, name in journey.types.items()}
    table = table.assign(text=table["product"].map(said)).dropna(subset=["text"]).drop_duplicates(["basket", "text"])
    if len(table) > MOST:
        rows = np.random.default_rng(seed).choice(len(table), MOST, replace=False)
        table = table.iloc[np.sort(rows)]
    columns = (table[name].tolist() for name in ("household", "basket", "text", "time"))
    return list(zip(*columns, strict=True))
