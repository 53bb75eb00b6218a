"""``/v1/suggest``: autocomplete while a shopper types. Everything in it is plain text, never HTML."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from endcap.recommend import Discovery
from endcap.runtime import Runtime
from endcap.suggest import ProductChoice
from endcap_reranker import telemetry
from endcap_reranker.identity import Identity

#: Products that are ordered for the shopper, of which the first are shown.
_RANKED = 24


class SuggestParameters(BaseModel):
    """``q``: what was typed so far. The others: how many of each kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: str = Field(max_length=200)
    queries: int = Field(5, ge=0, le=20)
    products: int = Field(5, ge=0, le=20)
    categories: int = Field(3, ge=0, le=20)

    @field_validator("q")
    @classmethod
    def _text(cls, value: str) -> str:
        return "".join(" " if ord(one) < 32 or 0xD800 <= ord(one) < 0xE000 else one for one in value)


def suggest(
    runtime: Runtime, discovery: Discovery, wanted: SuggestParameters, who: Identity, switched_off: bool = False
) -> dict[str, Any]:
    """The answer, ready to be written as JSON; empty lists while the products are still being loaded."""
    started = time.perf_counter()
    suggester = discovery.suggester
    if suggester is None:
        telemetry.degraded("warming_up")
        return {
            "q": wanted.q, "queries": [], "products": [], "categories": [], "personalized": False,
            "degraded": "warming_up", "took_ms": 0.0,
        }  # fmt: skip
    products = suggester.products(wanted.q, _RANKED if wanted.products else 0) if wanted.products else []
    products = _shown(runtime, who, wanted.q, products)
    degraded, personalized = who.problem, False
    if who.shopper and not switched_off and len(products) > 1:
        products, personalized, degraded = _ordered(runtime, who.shopper, wanted.q, products)
    if degraded:
        telemetry.degraded(degraded)
    return {
        "q": wanted.q,
        "queries": [{"text": one} for one in suggester.queries(wanted.q, wanted.queries)] if wanted.queries else [],
        "products": [
            {"id": one.id, "title": one.title, "brand": one.brand, "category": one.category, "price": one.price}
            for one in products[: wanted.products]
        ],
        "categories": [
            {"path": one.path, "name": one.name, "products": one.products}
            for one in suggester.categories(wanted.q, wanted.categories)
        ]
        if wanted.categories
        else [],
        "personalized": personalized,
        "degraded": degraded,
        "took_ms": round((time.perf_counter() - started) * 1000, 2),
    }


def _shown(runtime: Runtime, who: Identity, typed: str, products: list[ProductChoice]) -> list[ProductChoice]:
    """Without what business rules hide."""
    table = runtime.personalizer.table
    if table is None or not products:
        return products
    hidden = runtime.personalizer.arranger.rules.hidden(table, who.visit, time.time(), typed)
    if hidden is None:
        return products
    rows = table.rows([one.id for one in products])
    gone = (rows >= 0) & hidden[rows]
    return [products[place] for place in np.flatnonzero(~gone).tolist()]


def _ordered(
    runtime: Runtime, shopper: str, typed: str, products: Sequence[ProductChoice]
) -> tuple[list[ProductChoice], bool, str]:
    scores = np.array([one.score for one in products], dtype=np.float32)
    ranking = runtime.personalizer.rank(shopper, typed, [one.id for one in products], scores)
    return [products[place] for place in ranking.order.tolist()], ranking.personalized, ranking.degraded
