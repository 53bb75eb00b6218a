"""Which products a search is about: keyword and vector recall, fused into the engine's order (:mod:`endcap.fusion`).

What vectors may add depends on what the keywords found:

* *Less than a window*: products near in meaning fill the room that is left.
* *A window or more, about the same things as the vectors*: none; the vectors decide on the order alone.
* *A window or more, partly about other things* ("laptop" matches bags, and notebooks are not called so): the less both
  sides have in common, the more of the window goes to what is near in meaning.
* *A window or more, but about other things* ("food for my puppy" matches everything "for" someone): the keyword
  matches are weak, and half of the window goes to what is near in meaning.
* *A part number that the keywords found*: none, and the vectors hardly count.

No product is lost or shown twice: what follows the window is the engine's own order without what the window has shown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from endcap.compounds import Compounds
from endcap.encoders import TextEncoder
from endcap.engines import Candidates, Engine, Filter, Hit, SearchRequest
from endcap.fusion import (
    VECTOR_WEIGHT,
    VECTOR_WEIGHT_CODE,
    VECTOR_WEIGHT_WEAK,
    WEAK_OVERLAP,
    fuse,
    is_code,
    newcomers,
    room_for,
)
from endcap.synonyms import Synonyms
from endcap.tracing import span

logger = logging.getLogger(__name__)

#: So many windows of neighbours are asked for: the order counts those of them that the keywords found as well.
DEPTH = 2
#: ... but no more than every engine gives.
MAX_NEIGHBOURS = 10_000

#: Filters that a search without results is tried without.
_MOST_DROPPED = 5

#: After the encoder failed, seconds until it is asked again.
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Recall:
    """The window of one search, in the engine's order.

    ``scores``: fused, float32, shape (n,), non-increasing. ``total`` counts every match, the vector-only ones
    included; ``facets`` describe the keyword matches. ``degraded`` is empty or ``no_vectors``. ``window`` is the
    size asked for: what lies beyond it is fetched with :meth:`Recaller.beyond`, for which ``kept`` counts the first
    keyword hits that are in the window, ``added`` holds the others in it, and ``again`` counts those of ``added`` that
    the keywords match further down. ``relaxed`` says what was given up to find anything; ``request`` is what was
    searched for in the end.
    """

    request: SearchRequest
    window: int
    ids: list[str]
    scores: np.ndarray
    total: int
    facets: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    suggestion: str = ""
    degraded: str = ""
    kept: int = 0
    added: frozenset[str] = frozenset()
    again: int = 0
    relaxed: tuple[str, ...] = ()


class Recaller:
    """Recalls candidates from an engine, with vectors where there is an encoder. Thread-safe.

    ``synonyms`` gives the rules in force, ``compounds`` those of the catalogue's language.
    """

    def __init__(
        self,
        engine: Engine,
        encoder: TextEncoder | None,
        synonyms: Callable[[], Synonyms] = Synonyms,
        compounds: Callable[[], Compounds] = Compounds,
    ) -> None:
        self._engine = engine
        self._synonyms, self._compounds = synonyms, compounds
        self._encoder = encoder
        self._lock = threading.Lock()
        self._rest_until = 0.0

    def recall(self, request: SearchRequest, window: int, rescue: bool = False) -> Recall:
        """The first ``window`` products; ``request.offset`` and ``size`` play no part.

        ``rescue``: where nothing passes the filters, drop those that stand in the way: one alone if that will do, else
        one after the other. Bounds of price and stock go first, the category last.

        Raises:
            EngineError: the keyword search failed. A fault of encoder or vectors only sets ``degraded``.
        """
        said = self._compounds().expand(self._synonyms().expand(request.text.strip()))
        request = replace(request, text=said.text, variants=said.variants)
        recall = self._once(request, window)
        if recall.total or not rescue or not request.filters:
            return recall
        by_need = sorted(request.filters, key=_dispensable)[:_MOST_DROPPED]
        alone = [(one,) for one in by_need]
        together = [tuple(by_need[:count]) for count in range(2, len(by_need) + 1)]
        for dropped in (*alone, *together):
            kept = tuple(one for one in request.filters if one not in dropped)
            looser = self._once(replace(request, filters=kept), window)
            if looser.total:
                gone = dict.fromkeys(f"filter {one.field} dropped" for one in dropped)
                return replace(looser, relaxed=(*gone, *looser.relaxed))
        return recall

    def _once(self, request: SearchRequest, window: int) -> Recall:
        with span("engine", engine=self._engine.name, window=window):
            answer = self._engine.search(
                replace(request, offset=0, size=window, highlight=False, documents=False),
            )
        ids = [hit.id for hit in answer.hits]
        scores = np.fromiter((hit.score for hit in answer.hits), dtype=np.float32, count=len(ids))
        recall = Recall(request, window, ids, scores, answer.total, answer.facets, answer.suggestion, kept=len(ids))
        recall = replace(recall, relaxed=(answer.relaxed,) if answer.relaxed else ())
        if not request.text or request.sort != "relevance" or self._encoder is None:
            return recall
        with span("vectors"):
            near = self._nearest(request, min(DEPTH * window, MAX_NEIGHBOURS))
        return replace(recall, degraded="no_vectors") if near is None else self._joined(recall, near)

    def beyond(self, recall: Recall, offset: int, size: int) -> list[str]:
        """Ids of the places ``offset`` … ``offset + size`` that lie behind the window, in the engine's own order.

        Raises:
            EngineError: the engine cannot answer.
        """
        if offset < recall.window:
            raise ValueError("this place lies within the window")
        if size <= 0 or offset >= recall.total:
            return []
        place = recall.kept + offset - recall.window
        if not recall.again:
            return self._ids(recall.request, place, size)
        # Some of what the window showed comes again somewhere: count past it from where the window ended.
        found = self._ids(recall.request, recall.kept, offset - recall.window + size + recall.again)
        left = [one for one in found if one not in recall.added]
        return left[offset - recall.window :][:size]

    def page(self, recall: Recall, ids: Sequence[str], highlight: bool) -> list[Hit | None]:
        """Documents (and highlights, where wanted) of the products of one page, in the order asked; None where a
        product has vanished meanwhile. Scores are 0: the caller has better ones."""
        if not ids:
            return []
        fragments: dict[str, Mapping[str, Sequence[str]]] = {}
        if highlight and recall.request.text:
            these = replace(
                recall.request,
                filters=(Filter("id", tuple(ids)),),
                facets={},
                offset=0,
                size=len(ids),
                highlight=True,
                documents=False,
                sort="relevance",
            )
            fragments = {hit.id: hit.highlights for hit in self._engine.search(these).hits}
        documents = self._engine.get(list(ids))
        return [
            None if document is None else Hit(one, 0.0, document, fragments.get(one, {}))
            for one, document in zip(ids, documents, strict=True)
        ]

    def _ids(self, request: SearchRequest, offset: int, size: int) -> list[str]:
        only_ids = replace(request, offset=offset, size=size, highlight=False, documents=False, facets={})
        return [hit.id for hit in self._engine.search(only_ids).hits]

    def _joined(self, recall: Recall, near: Candidates) -> Recall:
        keyword, full = recall.ids, recall.total >= recall.window
        nearest = near.ids[: recall.window]
        overlap = len(set(keyword).intersection(nearest)) / len(nearest) if nearest else 1.0
        weight, room = VECTOR_WEIGHT, room_for(recall.window, recall.total, overlap)
        if keyword and is_code(recall.request.text):
            weight, room = VECTOR_WEIGHT_CODE, 0
        elif full and overlap < WEAK_OVERLAP:
            weight = VECTOR_WEIGHT_WEAK
        added = newcomers(keyword, near, room)
        if full and added:
            keyword = keyword[: recall.window - len(added)]
        ids, scores = fuse(keyword, near, added, weight)
        again = 0
        if full and added:
            these = replace(recall.request, filters=(*recall.request.filters, Filter("id", tuple(added))))
            again = self._engine.search(replace(these, size=0, facets={}, documents=False, highlight=False)).total
        return replace(
            recall,
            ids=ids,
            scores=scores,
            total=recall.total + len(added) - again,
            kept=len(keyword),
            added=frozenset(added),
            again=again,
        )

    def _nearest(self, request: SearchRequest, k: int) -> Candidates | None:
        """Neighbours of the query; None where encoder or vectors are out of order."""
        assert self._encoder is not None
        with self._lock:
            if time.monotonic() < self._rest_until:
                return None
        try:
            vector = self._encoder.encode_query(request.text)
            return self._engine.nearest(vector, k, request.filters)
        except Exception:
            # Whatever went wrong in an optional part, the keywords have an answer.
            logger.warning("vector recall failed; keywords only for %.0f s", RETRY_S, exc_info=True)
            with self._lock:
                self._rest_until = time.monotonic() + RETRY_S
            return None


def _dispensable(condition: Filter) -> int:
    """The lower, the sooner a filter may go: a price was a wish, a category is what the shopper is looking at."""
    if condition.field in ("price", "stock"):
        return 0
    return {"brand": 2, "category": 3, "id": 4}.get(condition.field, 1)
