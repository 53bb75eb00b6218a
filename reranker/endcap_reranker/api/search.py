"""``/v1/search``: recall, rank the window for the shopper, show a page."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from endcap.engines import SearchRequest
from endcap.errors import InvalidInput
from endcap.images.errors import NoPhotos
from endcap.personalizer import Ranking
from endcap.recall import Recall, Recaller
from endcap.runtime import Runtime
from endcap_reranker import telemetry
from endcap_reranker.api.parameters import MAX_DEPTH, SearchParameters
from endcap_reranker.identity import Identity
from endcap_reranker.impressions import log_shown

logger = logging.getLogger(__name__)


def search(
    runtime: Runtime,
    recaller: Recaller,
    wanted: SearchParameters,
    who: Identity,
    switched_off: bool = False,
    picture: bytes | None = None,
) -> dict[str, Any]:
    """The answer to a search, ready to be written as JSON.

    A search by ``picture`` is answered by likeness, for everyone alike: who shows what he wants has said it.

    Raises:
        InvalidImage, NoPhotos: of a picture.
        EngineError: the engine cannot answer; every other fault shows in ``ranking.degraded``.
    """
    started = time.perf_counter()
    request = SearchRequest(
        text=wanted.q,
        filters=tuple(one.to_filter() for one in wanted.filters),
        facets=wanted.facets,
        sort=wanted.sort,
    )
    recall = _recall(runtime, recaller, request, picture, wanted)
    # A shopper who sorts by price wants that order and no other.
    personal = wanted.personalize and not switched_off and wanted.sort == "relevance" and picture is None
    ranking = _rank(runtime, recall, who) if personal else _engine_order(len(recall.ids))
    places, scores = _page(recaller, recall, ranking, wanted)
    hits = recaller.page(recall, [one for one, _ in places], wanted.highlight)
    # A list that was not ranked, or lies beyond what is, has not met the rules yet.
    known = [hit.document if hit else None for hit in hits]
    gone = runtime.personalizer.hidden(wanted.q, [one for one, _ in places], who.visit, known, whole=False)
    hits = [None if hide else hit for hit, hide in zip(hits, gone.tolist(), strict=True)]
    reasons = _reasons(runtime, who.shopper, recall, [one for one, _ in places]) if wanted.explain else None
    shown = [
        {
            "id": one,
            "score": scores[n],
            "engine_position": position,
            "interest": _interest(ranking, position),
            "document": hit.document,
            "highlights": hit.highlights,
            "reasons": [*reasons[n], *ranking.notes.get(position - 1, ())] if reasons else [],
            "labels": list(ranking.labels.get(position - 1, ())),
        }
        for n, ((one, position), hit) in enumerate(zip(places, hits, strict=True))
        if hit is not None
    ]
    out = [one for one, hit in zip(places, hits, strict=True) if hit is not None]
    if wanted.size:  # who asks for facets alone was shown nothing
        if not out and wanted.page == 1:
            telemetry.found_nothing()
        log_shown(
            runtime.serving_log,
            ranking,
            who.shopper,
            [one for one, _ in out],
            [position - 1 for _, position in out],
            endpoint="search",
            query=wanted.q,
            session=who.session,
            index=runtime.settings.index,
            start=(wanted.page - 1) * wanted.size,
        )
    faults = [part for part in (ranking.degraded, recall.degraded, who.problem) if part]
    for fault in faults:
        telemetry.degraded(fault)
    if ranking.degraded:
        telemetry.searched("degraded", ranking.degraded)
    elif personal and who.shopper:
        telemetry.searched("ranked", "personal" if ranking.personalized else "unknown_shopper")
    else:
        telemetry.searched("untouched", "no_shopper" if personal else "switched_off")
    if ranking.fallback:
        telemetry.FALLBACKS.labels(ranking.fallback).inc()
    return {
        "query": wanted.q,
        "total": recall.total,
        "took_ms": round((time.perf_counter() - started) * 1000, 2),
        "ranking": {
            "id": ranking.id,
            "personalized": ranking.personalized,
            "scorer": ranking.scorer,
            "fallback": ranking.fallback,
            "degraded": ",".join(faults),
            "took_ms": round(ranking.took_ms, 2),
        },
        "hits": shown,
        "facets": {
            name: [{"value": value, "count": count} for value, count in recall.facets.get(name, ())]
            for name in wanted.facets
        },
        "suggestion": recall.suggestion,
        "relaxed": list(recall.relaxed),
        "page": wanted.page,
        "size": wanted.size,
        "pages": math.ceil(min(recall.total, MAX_DEPTH) / wanted.size) if wanted.size else 0,
    }


def _recall(
    runtime: Runtime, recaller: Recaller, request: SearchRequest, picture: bytes | None, wanted: SearchParameters
) -> Recall:
    if picture is None and wanted.by == "text":
        return recaller.recall(request, runtime.settings.window, wanted.rescue)
    if runtime.photos is None:
        raise NoPhotos("this server cannot read pictures: pip install 'endcap[images]'")
    if request.sort != "relevance":
        raise InvalidInput("sort: a search by photo is answered by likeness")
    from endcap.images.recalling import recall_photo, recall_shown

    if picture is None:
        if not request.text.strip():
            raise InvalidInput("by=image: say in q what the pictures should show")
        return recall_shown(runtime.engine, runtime.photos, request, runtime.settings.window)
    return recall_photo(runtime.engine, recaller, runtime.photos, request, runtime.settings.window, picture)


def _engine_order(n: int) -> Ranking:
    return Ranking(uuid.uuid4().hex, np.arange(n, dtype=np.int64), personalized=False)


def _interest(ranking: Ranking, position: int) -> float | None:
    """How probable it is that the shopper wants the product at a place of the engine's order (from 1); None where no
    calibrated model said so."""
    if ranking.interest is None or position > len(ranking.interest):
        return None
    return round(float(ranking.interest[position - 1]), 4)


def _rank(runtime: Runtime, recall: Recall, who: Identity) -> Ranking:
    if not recall.ids:
        return _engine_order(0)
    return runtime.personalizer.rank(who.shopper, recall.request.text, recall.ids, recall.scores, who.visit)


def _page(
    recaller: Recaller, recall: Recall, ranking: Ranking, wanted: SearchParameters
) -> tuple[list[tuple[str, int]], list[float]]:
    """(id, place in the engine's order counted from 1) of the products of this page, and their scores.

    Places within the window come from the ranking; those behind it from the engine, whose scores are unknown here
    and given as 0.
    """
    start, stop = (wanted.page - 1) * wanted.size, wanted.page * wanted.size
    order = ranking.order[start:stop]
    values = recall.scores if ranking.scores is None else ranking.scores
    places = [(recall.ids[int(place)], int(place) + 1) for place in order]
    scores = [float(values[int(place)]) for place in order]
    # Only a full window has anything behind it.
    if stop > recall.window and len(recall.ids) >= recall.window:
        offset = max(start, recall.window)
        rest = recaller.beyond(recall, offset, stop - offset)
        places.extend((one, offset + n) for n, one in enumerate(rest, start=1))
        scores.extend(0.0 for _ in rest)
    return places, scores


def _reasons(runtime: Runtime, shopper: str, recall: Recall, ids: Sequence[str]) -> list[list[str]] | None:
    try:
        return runtime.personalizer.reasons(shopper, recall.request.text, list(ids))
    except Exception:
        # An explanation is a courtesy: never lose an answer over it.
        logger.warning("reasons failed", exc_info=True)
        return None
