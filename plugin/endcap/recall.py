"""Which products a search is about: keyword and vector recall, fused into the engine's order.

Fusion is weighted reciprocal-rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a product's score is the sum over
both lists of ``weight / (K + rank)``. It needs no calibration between BM25 and cosines.

What vectors may add depends on what the keywords found:

* *Less than a window*: products near in meaning fill the room that is left.
* *A window or more, about the same things as the vectors*: none; the vectors decide on the order alone.
* *A window or more, but about other things* ("food for my puppy" matches everything "for" someone): the keyword
  matches are weak, and half of the window goes to what is near in meaning.

No product is lost or shown twice: what follows the window is the engine's own order without what the window has shown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from endcap.encoders import TextEncoder
from endcap.engines import Candidates, Engine, Filter, Hit, SearchRequest

logger = logging.getLogger(__name__)

#: Smooths the head of each list; the value of the paper.
FUSION_K = 60.0
KEYWORD_WEIGHT = 1.0
#: Below the keywords: a word match that is also near in meaning should win over one that is only near.
VECTOR_WEIGHT = 0.6
#: Above them, where the keywords matched something else than what was meant.
VECTOR_WEIGHT_WEAK = 1.5
#: Keyword matches are weak if a smaller share of the neighbours than this is among them.
WEAK_OVERLAP = 0.05

#: So many keyword hits are an answer; then a product without the words must be close in meaning to join them.
ENOUGH = 10
#: Cosine that a vector-only product needs, by whether the keywords found enough. Set on short product titles with
#: MiniLM: nonsense reaches .36 and unknown words .42, a paraphrase ("kids snack") .5, a good one .6.
FLOOR_ENOUGH = 0.5
FLOOR_FEW = 0.45
#: ... and this share of the best cosine, so that one good match does not draw a tail of vague ones behind it.
FLOOR_RELATIVE = 0.75

#: After the encoder failed, seconds until it is asked again.
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Recall:
    """The window of one search, in the engine's order.

    ``scores``: fused, float32, shape (n,), non-increasing. ``total`` counts every match, the vector-only ones
    included; ``facets`` describe the keyword matches. ``degraded`` is empty or ``no_vectors``. ``window`` is the
    size asked for: what lies beyond it is fetched with :meth:`Recaller.beyond`, for which ``kept`` counts the first
    keyword hits that are in the window, ``added`` holds the others in it, and ``again`` counts those of ``added`` that
    the keywords match further down.
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


class Recaller:
    """Recalls candidates from an engine, with vectors where there is an encoder. Thread-safe."""

    def __init__(self, engine: Engine, encoder: TextEncoder | None) -> None:
        self._engine = engine
        self._encoder = encoder
        self._lock = threading.Lock()
        self._rest_until = 0.0

    def recall(self, request: SearchRequest, window: int) -> Recall:
        """The first ``window`` products; ``request.offset`` and ``size`` play no part.

        Raises:
            EngineError: the keyword search failed. A fault of encoder or vectors only sets ``degraded``.
        """
        request = replace(request, text=request.text.strip())
        answer = self._engine.search(
            replace(request, offset=0, size=window, highlight=False, documents=False),
        )
        ids = [hit.id for hit in answer.hits]
        scores = np.fromiter((hit.score for hit in answer.hits), dtype=np.float32, count=len(ids))
        recall = Recall(request, window, ids, scores, answer.total, answer.facets, answer.suggestion, kept=len(ids))
        if not request.text or request.sort != "relevance" or self._encoder is None:
            return recall
        near = self._nearest(request, window)
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
        keyword, weak = recall.ids, False
        room = recall.window - recall.total
        if room <= 0:
            common = len(set(keyword).intersection(near.ids))
            weak = bool(near.ids) and common < WEAK_OVERLAP * len(near.ids)
            room = recall.window // 2 if weak else 0
        added = newcomers(keyword, near, room)
        if weak and added:
            keyword = keyword[: recall.window - len(added)]
        ids, scores = fuse(keyword, near, added, VECTOR_WEIGHT_WEAK if weak else VECTOR_WEIGHT)
        again = 0
        if weak and added:
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


def newcomers(keyword: Sequence[str], near: Candidates, room: int) -> list[str]:
    """At most ``room`` of the neighbours that are not among the keyword hits and near enough to join them."""
    if room <= 0 or not near.ids:
        return []
    known = set(keyword)
    floor = max(FLOOR_ENOUGH if len(known) >= ENOUGH else FLOOR_FEW, FLOOR_RELATIVE * float(near.scores[0]))
    close = zip(near.ids, near.scores, strict=True)
    return [one for one, cosine in close if cosine >= floor and one not in known][:room]


def fuse(
    keyword: Sequence[str], near: Candidates, added: Sequence[str], vector_weight: float
) -> tuple[list[str], np.ndarray]:
    """The keyword hits and the neighbours ``added`` to them, by fused score.

    Returns ids and scores (float32, non-increasing); ties keep keyword order, then neighbour order.
    """
    fused = {one: KEYWORD_WEIGHT / (FUSION_K + rank) for rank, one in enumerate(keyword, start=1)}
    fused.update(dict.fromkeys(added, 0.0))
    for rank, one in enumerate(near.ids, start=1):
        if one in fused:
            fused[one] += vector_weight / (FUSION_K + rank)
    ids = sorted(fused, key=lambda one: -fused[one])
    return ids, np.fromiter((fused[one] for one in ids), dtype=np.float32, count=len(ids))
