"""Which products a photo is about: recall by likeness, with words where the shopper typed some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from endcap.engines import Candidates, Engine, Filter, SearchRequest
from endcap.images.index import PhotoSearch
from endcap.recall import Recall, Recaller

#: Reciprocal-rank fusion's constant (Cormack et al., 2009), and what a photo counts against words.
_K = 60.0
_PHOTO_WEIGHT = 1.0
#: Neighbours asked for, in windows: filters take some away.
_DEPTH = 4
_MOST = 2_000


def recall_photo(
    engine: Engine, recaller: Recaller, photos: PhotoSearch, request: SearchRequest, window: int, picture: bytes
) -> Recall:
    """The first ``window`` products for a picture, nearest first; with ``request.text``, those that the picture and
    the words agree on come first.

    Filters and facets are the engine's; the facets describe the products that are near.

    Raises:
        InvalidImage, NoPhotos: see :meth:`PhotoSearch.nearest`.
        EngineError: the engine failed.
    """
    near = photos.nearest(picture, min(_DEPTH * window, _MOST), request.text)
    passed = _passing(engine, request, near)
    kept = [place for place, one in enumerate(near.ids) if one in passed.ids_set]
    near = Candidates([near.ids[place] for place in kept][:window], near.scores[kept][:window])
    ids, scores = near.ids, near.scores
    if request.text:
        words = recaller.recall(request, window)
        ids, scores = _fused(words.ids, near, window)
    return Recall(request, window, ids, scores, len(ids), passed.facets, kept=len(ids))


class _Passing:
    def __init__(self, ids: set[str], facets: dict[str, list[tuple[str, int]]]) -> None:
        self.ids_set, self.facets = ids, facets


def _passing(engine: Engine, request: SearchRequest, near: Candidates) -> _Passing:
    """Which neighbours are still sold and pass the filters."""
    if not near.ids:
        return _Passing(set(), {})
    these = replace(
        request,
        text="",
        filters=(*request.filters, Filter("id", tuple(near.ids))),
        sort="relevance",
        offset=0,
        size=len(near.ids),
        highlight=False,
        documents=False,
    )
    answer = engine.search(these)
    return _Passing({hit.id for hit in answer.hits}, answer.facets)


def _fused(words: list[str], near: Candidates, window: int) -> tuple[list[str], np.ndarray]:
    fused = {one: 1.0 / (_K + rank) for rank, one in enumerate(words, start=1)}
    for rank, one in enumerate(near.ids, start=1):
        fused[one] = fused.get(one, 0.0) + _PHOTO_WEIGHT / (_K + rank)
    ids = sorted(fused, key=lambda one: -fused[one])[:window]
    return ids, np.fromiter((fused[one] for one in ids), dtype=np.float32, count=len(ids))
