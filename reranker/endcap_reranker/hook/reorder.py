"""Putting an answer's hits into the shopper's order.

Whole hits move, with everything in them. Scores stay with the places: the best score goes to the hit that now comes
first, and so on, so that ``_score`` never increases down a list (clients check that, and page by it) and ``max_score``
stays true. A hit's ``_score`` then says where it stands, no longer how well the text matched.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from endcap.personalizer import Ranking

log = logging.getLogger(__name__)


class Ranker(Protocol):
    """The part of :class:`~endcap.personalizer.Personalizer` that the hook calls."""

    def rank(self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray) -> Ranking: ...


def hits_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The list of hits of an answer; empty where it has none."""
    hits = answer.get("hits")
    found = hits.get("hits") if isinstance(hits, dict) else None
    return found if isinstance(found, list) else []


def rank_hits(personalizer: Ranker, shopper: str, query: str, hits: list[dict[str, Any]]) -> Ranking:
    """Rank these hits. Whatever goes wrong, the answer is a ranking that can be applied."""
    try:
        ids = [hit["_id"] for hit in hits]
        scores = np.array([hit["_score"] for hit in hits], dtype=np.float32)
        if not np.isfinite(scores).all():
            return _as_it_was(len(hits), "no_scores")
    except (KeyError, TypeError, ValueError):
        return _as_it_was(len(hits), "no_scores")
    try:
        ranking = personalizer.rank(shopper, query, ids, scores)
        if sorted(ranking.order.tolist()) != list(range(len(hits))):
            raise ValueError(f"an order of {len(hits)} hits that is no permutation")
        return ranking
    except Exception:
        # rank() does not raise; should it ever, a shop's search must not go down with it.
        log.exception("ranking failed; the engine's order stands")
        return _as_it_was(len(hits), "fault")


def _as_it_was(count: int, reason: str) -> Ranking:
    return Ranking(uuid.uuid4().hex, np.arange(count), personalized=False, degraded=reason)


def ordered_page(
    hits: list[dict[str, Any]], ranking: Ranking, start: int, size: int
) -> tuple[list[dict[str, Any]], list[float]]:
    """The page's hits in the new order, and the score that belongs to each place. Nothing is changed.

    ``hits`` is the engine's list from its first hit on; the ranking covers its beginning, the rest keeps its order.
    """
    order = ranking.order.tolist()
    covered = len(order)
    ordered = [hits[place] for place in order]
    ordered += hits[covered:]
    scores = sorted((hit["_score"] for hit in hits[:covered]), reverse=True) if _scored(hits) else []
    page = ordered[start : start + size]
    places = scores[start : start + size] + [hit.get("_score") for hit in hits[max(covered, start) : start + size]]
    return page, places if scores else [hit.get("_score") for hit in page]


def _scored(hits: list[dict[str, Any]]) -> bool:
    return all(isinstance(hit.get("_score"), (int, float)) for hit in hits)


def put_page(answer: dict[str, Any], page: list[dict[str, Any]], scores: list[float]) -> None:
    """Make the page the answer's hits."""
    for hit, score in zip(page, scores, strict=True):
        if "_score" in hit:
            hit["_score"] = score
    answer["hits"]["hits"] = page
