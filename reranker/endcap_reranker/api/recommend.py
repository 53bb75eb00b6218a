"""``/v1/recommend``, ``/v1/similar``, ``/v1/cross-sell``, ``/v1/trending`` and ``/v1/buy-again``."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import NotFound

from endcap.engines import Filter, SearchRequest
from endcap.errors import InvalidInput
from endcap.events import MAX_ID_LENGTH
from endcap.personalizer import Ranking, WarmingUp
from endcap.policy import Visit
from endcap.recommend import Discovery, Recommended, Recommender
from endcap.runtime import Runtime
from endcap_reranker import telemetry
from endcap_reranker.api.parameters import FilterBody, checked, split_filters
from endcap_reranker.identity import Identity
from endcap_reranker.impressions import log_shown

logger = logging.getLogger(__name__)

MAX_SIZE = 50
MAX_IDS = 200


class RecommendParameters(BaseModel):
    """``shopper``: instead of the header's. ``ids``: products in view (the cart's, or the one looked at). ``exclude``:
    ids never to be shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    placement: Literal["home", "basket", "category", "cart"] = "home"
    shopper: str = Field("", max_length=2 * MAX_ID_LENGTH)
    ids: tuple[str, ...] = Field((), max_length=MAX_IDS)
    exclude: tuple[str, ...] = Field((), max_length=MAX_IDS)
    filters: tuple[FilterBody, ...] = Field((), max_length=50)
    size: int = Field(12, ge=1, le=MAX_SIZE)
    explain: bool = False

    @field_validator("ids", "exclude")
    @classmethod
    def _ids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not 0 < len(one) <= MAX_ID_LENGTH:
                raise ValueError(f"an id has 1 to {MAX_ID_LENGTH} characters")
        return value


def recommend_parameters(arguments: MultiDict[str, str]) -> RecommendParameters:
    """From ``?placement=cart&ids=1,2&exclude=3&brand=A&category=…&price_max=5&size=12&explain=on``.

    Raises:
        InvalidInput: naming the parameter and what it takes.
    """
    filters, rest = split_filters(arguments)
    raw: dict[str, Any] = {"filters": filters}
    for name, values in rest.items():
        if name in {"ids", "exclude"}:
            raw[name] = [part.strip() for value in values for part in value.split(",") if part.strip()]
        else:
            raw[name] = values[-1]
    return checked(RecommendParameters, raw)


def recommend(
    runtime: Runtime,
    recommender: Recommender,
    placement: str,
    wanted: RecommendParameters,
    who: Identity,
    seeds: Sequence[str] = (),
) -> dict[str, Any]:
    """The answer for a placement, ready to be written as JSON.

    Raises:
        InvalidInput: the placement needs a parameter that is missing.
        EngineError: the engine cannot show the products.
    """
    started = time.perf_counter()
    filters = [one.to_filter() for one in wanted.filters]
    if placement == "category" and not any(one.field == "category" for one in filters):
        raise InvalidInput("placement=category needs category=…, a path such as Breakfast > Cereal")
    try:
        made = recommender.recommend(placement, who.shopper, wanted.size, seeds, wanted.exclude, filters, who.visit)
    except WarmingUp:
        made = _engine_order(runtime, placement, wanted, filters, seeds, who.visit)
    documents = runtime.engine.get(made.ids) if made.ids else []
    reasons = _reasons(runtime, who.shopper, made.ids) if wanted.explain else [[] for _ in made.ids]
    if wanted.explain and made.notes:
        reasons = [[*why, *done] for why, done in zip(reasons, made.notes, strict=True)]
    faults = [part for part in (made.ranking.degraded, who.problem) if part]
    for fault in faults:
        telemetry.degraded(fault)
    labels = made.labels or [[] for _ in made.ids]
    items = [
        {"id": one, "score": float(score), "sources": sources, "document": document, "reasons": why, "labels": marks}
        for one, score, sources, document, why, marks in zip(
            made.ids, made.scores, made.sources, documents, reasons, labels, strict=True
        )
        if document is not None
    ]
    out = [number for number, document in enumerate(documents) if document is not None]
    log_shown(
        runtime.serving_log,
        made.ranking,
        who.shopper,
        [made.ids[number] for number in out],
        [made.places[number] for number in out],
        endpoint=placement,
        session=who.session,
        index=runtime.settings.index,
    )
    return {
        "placement": placement,
        "items": items,
        "fallback": list(made.fallback),
        "ranking": {
            "id": made.ranking.id,
            "personalized": made.ranking.personalized,
            "scorer": made.ranking.scorer,
            "fallback": made.ranking.fallback,
            "degraded": ",".join(faults),
            "took_ms": round(made.ranking.took_ms, 2),
        },
        "took_ms": round((time.perf_counter() - started) * 1000, 2),
    }


def known_product(runtime: Runtime, discovery: Discovery, product: str) -> str:
    """The id of a product in view.

    Raises:
        NotFound: there is no such product.
    """
    shelves = discovery.shelves
    if len(product) <= MAX_ID_LENGTH:
        if shelves is not None and shelves.table.rows([product])[0] >= 0:
            return product
        # It may have been added a moment ago.
        if runtime.engine.get([product])[0] is not None:
            return product
    raise NotFound(f"There is no product {product:.80}.")


def _engine_order(
    runtime: Runtime,
    placement: str,
    wanted: RecommendParameters,
    filters: Sequence[Filter],
    seeds: Sequence[str],
    visit: Visit,
) -> Recommended:
    """Before the products are loaded: any that pass the filters and are not hidden, in the engine's order."""
    left_out = {*seeds, *wanted.exclude}
    ids: list[str] = []
    if placement != "buy-again":  # any product is no answer to that
        hiding = runtime.personalizer.hiding
        size = wanted.size + len(left_out) + (MAX_SIZE if hiding else 0)
        hits = runtime.engine.search(SearchRequest(filters=tuple(filters), size=size, documents=hiding)).hits
        gone = runtime.personalizer.hidden("", [hit.id for hit in hits], visit, [hit.document for hit in hits])
        shown = [hit.id for hit, hide in zip(hits, gone.tolist(), strict=True) if not hide]
        ids = [one for one in shown if one not in left_out][: wanted.size]
    ranking = Ranking(uuid.uuid4().hex, np.arange(len(ids)), False, "engine", "warming_up")
    sources, scores = [["engine"] for _ in ids], np.zeros(len(ids), dtype=np.float32)
    return Recommended(placement, ids, sources, scores, ("engine",) if ids else (), ranking, list(range(len(ids))))


def _reasons(runtime: Runtime, shopper: str, ids: Sequence[str]) -> list[list[str]]:
    try:
        return runtime.personalizer.reasons(shopper, "", list(ids))
    except Exception:
        # An explanation is a courtesy: never lose an answer over it.
        logger.warning("reasons failed", exc_info=True)
        return [[] for _ in ids]
