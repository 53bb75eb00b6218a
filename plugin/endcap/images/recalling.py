"""Which products a photo is about: recall by likeness, with words where the shopper typed some."""

from __future__ import annotations

from dataclasses import replace

from endcap.engines import Candidates, Engine, Filter, SearchRequest
from endcap.fusion import fuse
from endcap.images.index import PhotoSearch
from endcap.recall import Recall, Recaller

#: What a photo counts against words.
_PHOTO_WEIGHT = 1.0
#: Neighbours asked for, in windows: filters take some away.
_DEPTH = 4
_MOST = 2_000


def recall_photo(
    engine: Engine, recaller: Recaller, photos: PhotoSearch, request: SearchRequest, window: int, picture: bytes
) -> Recall:
    """The first ``window`` products for a picture, nearest first; with ``request.text``, those that the picture and
    the words agree on come first.

    Filters and facets are the engine's; the facets describe what was found. Products sold no more are left out.

    Raises:
        InvalidImage, NoPhotos: see :meth:`PhotoSearch.nearest`.
        EngineError: the engine failed.
    """
    near = photos.nearest(picture, min(_DEPTH * window, _MOST), request.text)
    near = _passing(engine, request, near, window)
    if not request.text:
        return _recalled(engine, request, window, near)
    words = recaller.recall(replace(request, facets={}), window)
    known = set(words.ids)
    ids, scores = fuse(words.ids, near, [one for one in near.ids if one not in known], _PHOTO_WEIGHT)
    return _recalled(engine, request, window, Candidates(ids[:window], scores[:window]), words.degraded)


def recall_shown(engine: Engine, photos: PhotoSearch, request: SearchRequest, window: int) -> Recall:
    """The first ``window`` products whose pictures show what ``request.text`` says, whatever their texts say.

    Raises:
        NoPhotos: see :meth:`PhotoSearch.by_words`.
        EngineError: the engine failed.
    """
    near = photos.by_words(request.text, min(_DEPTH * window, _MOST))
    return _recalled(engine, request, window, _passing(engine, request, near, window))


def _passing(engine: Engine, request: SearchRequest, near: Candidates, window: int) -> Candidates:
    """The first ``window`` neighbours that are still sold and pass the filters."""
    if not near.ids:
        return near
    answer = engine.search(replace(_these(request, near.ids), facets={}, size=len(near.ids)))
    passed = {hit.id for hit in answer.hits}
    kept = [place for place, one in enumerate(near.ids) if one in passed][:window]
    return Candidates([near.ids[place] for place in kept], near.scores[kept])


def _recalled(engine: Engine, request: SearchRequest, window: int, found: Candidates, degraded: str = "") -> Recall:
    facets = engine.search(_these(request, found.ids)).facets if found.ids and request.facets else {}
    count = len(found.ids)
    return Recall(request, window, found.ids, found.scores, count, facets, degraded=degraded, kept=count)


def _these(request: SearchRequest, ids: list[str]) -> SearchRequest:
    """Only those products, by filters alone; none of them shown."""
    return replace(
        request,
        text="",
        filters=(*request.filters, Filter("id", tuple(ids))),
        sort="relevance",
        offset=0,
        size=0,
        highlight=False,
        documents=False,
    )
