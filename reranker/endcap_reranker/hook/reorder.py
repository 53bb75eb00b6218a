"""Putting an answer's hits into the shopper's order.

Whole hits move, with everything in them. Scores stay with the places: the best score goes to the hit that now comes
first, and so on, so that ``_score`` never increases down a list (clients check that, and page by it) and ``max_score``
stays true. A hit's ``_score`` then says where it stands, no longer how well the text matched.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from endcap.personalizer import Ranking
from endcap.policy.context import NO_VISIT, Visit

log = logging.getLogger(__name__)


class Ranker(Protocol):
    """The part of :class:`~endcap.personalizer.Personalizer` that the hook calls."""

    @property
    def rules_in_force(self) -> bool: ...
    @property
    def hiding(self) -> bool: ...
    def hidden(
        self,
        query: str,
        ids: Sequence[str],
        visit: Visit,
        documents: Sequence[Mapping[str, Any] | None] = (),
        whole: bool = True,
    ) -> np.ndarray: ...

    def rank(
        self, shopper: str, query: str, ids: Sequence[str], engine_scores: np.ndarray, visit: Visit | None = None
    ) -> Ranking: ...


def hits_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The list of hits of an answer; empty where it has none."""
    hits = answer.get("hits")
    found = hits.get("hits") if isinstance(hits, dict) else None
    return found if isinstance(found, list) else []


def rank_hits(
    personalizer: Ranker, shopper: str, query: str, hits: list[dict[str, Any]], visit: Visit = NO_VISIT
) -> Ranking:
    """Rank these hits. Whatever goes wrong, the answer is a ranking that can be applied."""
    try:
        ids = [hit["_id"] for hit in hits]
        scores = np.array([hit["_score"] for hit in hits], dtype=np.float32)
        if not np.isfinite(scores).all():
            return _as_it_was(len(hits), "no_scores")
    except (KeyError, TypeError, ValueError):
        return _as_it_was(len(hits), "no_scores")
    try:
        ranking = personalizer.rank(shopper, query, ids, scores, visit)
        places = set(ranking.order.tolist())
        if len(places) < len(ranking.order) or not places <= set(range(len(hits))):
            raise ValueError(f"an order of {len(hits)} hits that is no permutation")
        if len(places) + ranking.hidden != len(hits):
            raise ValueError(f"{len(places)} of {len(hits)} hits are left, but {ranking.hidden} are hidden")
        return ranking
    except Exception:
        # rank() does not raise; should it ever, a shop's search must not go down with it.
        log.exception("ranking failed; the engine's order stands")
        return _as_it_was(len(hits), "fault")


def _as_it_was(count: int, reason: str) -> Ranking:
    return Ranking(uuid.uuid4().hex, np.arange(count), personalized=False, degraded=reason)


def ordered_page(
    hits: list[dict[str, Any]], ranking: Ranking, start: int, size: int
) -> tuple[list[dict[str, Any]], list[float | None]]:
    """The page's hits in the new order, and the score that belongs to each place (None where hits have none). Nothing
    is changed.

    ``hits`` is the engine's list from its first hit on; the ranking covers its beginning, the rest keeps its order.
    """
    page = [hits[place] for place in places_of(ranking, len(hits), start, size)]
    covered = len(ranking.order) + ranking.hidden
    if not _scored(hits):
        return page, [hit.get("_score") for hit in page]
    best = sorted((hit["_score"] for hit in hits[:covered]), reverse=True)[: len(ranking.order)]
    scores: list[float | None] = best[start : start + size]
    return page, [*scores, *(hit["_score"] for hit in page[len(scores) :])]


def places_of(ranking: Ranking, count: int, start: int, size: int) -> list[int]:
    """Where the page's hits stand in the engine's list of ``count`` hits.

    What a rule hides leaves its place at the end of the ranking's part empty: pages behind it are the engine's own and
    would otherwise repeat what had moved up.
    """
    covered = len(ranking.order) + ranking.hidden
    spots = [*ranking.order.tolist(), *([-1] * ranking.hidden), *range(covered, count)]
    return [place for place in spots[start : start + size] if place >= 0]


def _scored(hits: list[dict[str, Any]]) -> bool:
    return all(isinstance(hit.get("_score"), (int, float)) for hit in hits)


def shown_of(
    personalizer: Ranker, query: str, hits: Sequence[dict[str, Any]], visit: Visit, whole: bool = True
) -> list[int]:
    """Places of the hits that no rule hides, in order. A hit without an id cannot be told, and stays. ``whole``: False
    for a page of a list that rules were asked about as a whole."""
    known = [place for place, hit in enumerate(hits) if isinstance(hit, dict) and isinstance(hit.get("_id"), str)]
    documents = [one if isinstance(one := hits[place].get("_source"), dict) else None for place in known]
    gone = personalizer.hidden(query, [hits[place]["_id"] for place in known], visit, documents, whole)
    dropped = {place for place, hidden in zip(known, gone.tolist(), strict=True) if hidden}
    return [place for place in range(len(hits)) if place not in dropped]


#: What in a search brings products into its answer beside the list of hits.
_ELSEWHERE = (b"inner_hits", b"top_hits", b"completion")


def shows_elsewhere(raw: bytes) -> bool:
    """Whether products may stand in the answer's groups, facets or suggestions, too."""
    return any(word in raw for word in _ELSEWHERE)


def withhold_elsewhere(personalizer: Ranker, query: str, answer: dict[str, Any], visit: Visit) -> bool:
    """Take what rules hide out of groups (``inner_hits``), facets (``top_hits``) and suggestions, in place; True where
    there was something. The engine's totals of them stay."""
    lists = _lists_elsewhere(answer)
    every = [one for some in lists for one in some]
    kept = set(shown_of(personalizer, query, every, visit, whole=False))
    if len(kept) == len(every):
        return False
    first = 0
    for some in lists:
        behind = first + len(some)
        some[:] = [every[place] for place in range(first, behind) if place in kept]
        first = behind
    return True


def _lists_elsewhere(answer: dict[str, Any]) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    stack: list[Any] = [answer.get("aggregations"), answer.get("suggest")]
    stack += [hit.get("inner_hits") for hit in hits_of(answer)]
    while stack:
        node = stack.pop()
        if type(node) is dict:
            stack += node.values()
        elif type(node) is list:
            if any(type(one) is dict and "_id" in one for one in node):
                found.append(node)
                stack += [one.get("inner_hits") for one in node if type(one) is dict]
            else:
                stack += node
    return found


def put_page(answer: dict[str, Any], page: list[dict[str, Any]], scores: list[float | None]) -> None:
    """Make the page the answer's hits."""
    for hit, score in zip(page, scores, strict=True):
        if "_score" in hit:
            hit["_score"] = score
    answer["hits"]["hits"] = page
