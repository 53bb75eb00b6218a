"""The engine: one method per promise of :class:`~endcap.engines.base.Engine`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from elasticsearch import BadRequestError, NotFoundError

from endcap.catalog.product import INTERNAL_FIELDS, TEXT_DIGEST, VECTOR, Product
from endcap.engines.address import engine_address
from endcap.engines.base import Candidates, Filter, IndexReport, Rebuild, SearchRequest, SearchResponse
from endcap.engines.elasticsearch.connection import connect, reason_of, translated
from endcap.engines.elasticsearch.documents import checked_id, document_of
from endcap.engines.elasticsearch.indices import Indices
from endcap.engines.elasticsearch.mapping import IndexMeta
from endcap.engines.elasticsearch.queries import (
    MAX_WINDOW,
    facets_of,
    filter_query,
    hits_of,
    search_body,
)
from endcap.engines.elasticsearch.rebuild import IndexRebuild
from endcap.engines.elasticsearch.words import Words
from endcap.engines.elasticsearch.writing import Action, Held, Refusal, deletes, send, updates, upserts
from endcap.errors import ConfigurationError, EncoderMismatch, EngineError, IndexBusy, InvalidInput, UnknownIndex
from endcap.foreign import ForeignDocuments
from endcap.settings import Settings

_BATCH = 500
_PATIENCE_S = 120.0
_PIT_KEEP_ALIVE = "5m"
#: Candidates looked at per wanted neighbour: recall of HNSW against its cost.
_CANDIDATES_PER_HIT, _MIN_CANDIDATES = 2, 100

#: A spelling is suggested only where so few products hold what was typed.
_FEW = 3


class ElasticsearchEngine:
    """:class:`~endcap.engines.base.Engine` over a cluster. Thread-safe.

    ``settings.index`` is an alias; the index behind it, named ``<alias>-<time>-<random>``, is replaced as a whole by
    :meth:`rebuild`. Writes go through the alias only, and only after it was seen to lead to an index that Endcap made.
    The credentials need all rights to ``<alias>`` and ``<alias>-*``, and none to the cluster.
    """

    name = "elasticsearch"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = engine_address(settings)
        self._client = connect(self._address, settings)
        # Work on a whole index may take long; searches never wait for it.
        self._patient = self._client.options(request_timeout=max(_PATIENCE_S, settings.engine_timeout_s))
        self._indices = Indices(self._patient, settings.index, settings.analyzer)
        self._known: tuple[IndexMeta, float] | None = None

    def _guard(self) -> Any:
        return translated(self._address, self._settings.index)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- writing -----------------------------------------------------------------------------------------------

    def ensure(self, vector_dims: int | None, encoder_id: str) -> None:
        """See :meth:`Engine.ensure`.

        Raises:
            ConfigurationError: the index's name belongs to something that Endcap did not make.
        """
        with self._guard():
            found = self._indices.serving()
            if found is None:
                try:
                    self._indices.create(IndexMeta(self._settings.index, encoder_id, vector_dims), live=True)
                except FileExistsError:
                    pass
                found = self._indices.serving()
        if found is None:
            raise EngineError(f"index [{self._settings.index}] was made and is gone again")
        have = self._learn(found[1])
        if vector_dims is not None and (have.dims, have.encoder) != (vector_dims, encoder_id):
            was = f"{have.encoder} ({have.dims} numbers)" if have.dims else "no encoder"
            raise EncoderMismatch(
                f"index [{self._settings.index}] was made with {was}, the setting says {encoder_id} ({vector_dims} "
                "numbers): rebuild it with `endcap index --rebuild`, or set `text_encoder` back"
            )

    def _own(self) -> IndexMeta:
        """What the serving index holds, as of at most ``product_refresh_s`` ago: another process may rebuild it.

        Raises:
            UnknownIndex: there is none.
            ConfigurationError: the name belongs to something that Endcap did not make.
        """
        known = self._known
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        with self._guard():
            found = self._indices.serving()
        if found is None:
            raise self._indices.unknown()
        return self._learn(found[1])

    def _learn(self, meta: IndexMeta) -> IndexMeta:
        self._known = (meta, time.monotonic() + self._settings.product_refresh_s)
        return meta

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        dims = self._own().dims
        return self._write(upserts(items, dims))

    def update(self, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> IndexReport:
        """See :meth:`Engine.update`. Attributes are merged; None removes a value."""
        self._own()
        return self._write(updates(changes))

    def delete(self, ids: Iterable[str]) -> IndexReport:
        """See :meth:`Engine.delete`."""
        self._own()
        return self._write(deletes(ids))

    def _write(self, actions: Iterable[Action | Refusal]) -> IndexReport:
        with self._guard():
            try:
                return send(self._patient, actions, self._settings.index, require_alias=True)
            except LookupError:
                self._known = None
                raise self._indices.unknown() from None
            except Held:
                self._indices.release_abandoned()
                raise IndexBusy(f"[{self._settings.index}] was held by a rebuild that died: try again") from None

    def refresh(self) -> None:
        """See :meth:`Engine.refresh`. Elasticsearch has synced each change to disk before it answered."""
        with self._guard():
            self._patient.indices.refresh(index=self._settings.index)

    def rebuild(self, vector_dims: int | None, encoder_id: str) -> Rebuild:
        """See :meth:`Engine.rebuild`."""
        meta = IndexMeta(self._settings.index, encoder_id, vector_dims, filling=True)
        return IndexRebuild(self._patient, self._indices, meta, self._guard, self._learn)

    # --- reading -----------------------------------------------------------------------------------------------

    def version(self) -> str:
        """See :meth:`Engine.version`: the index, the highest change number among visible products, their count.

        An addition or change raises the second; a removal lowers the third. Elasticsearch answers it from its request
        cache until something has changed. Empty where there is no index.
        """
        aggs: dict[str, Any] = {
            "index": {"terms": {"field": "_index", "size": 1}},
            "latest": {"max": {"field": "_seq_no"}},
        }
        with self._guard():
            try:
                answer = self._client.search(
                    index=self._settings.index, size=0, track_total_hits=True, aggs=aggs, request_cache=True
                )
            except NotFoundError:
                return ""
        found = answer["aggregations"]
        name = found["index"]["buckets"][0]["key"] if found["index"]["buckets"] else ""
        return f"{name}/{int(found['latest']['value'] or 0)}/{answer['hits']['total']['value']}"

    def hidden_fields(self) -> tuple[str, ...]:
        """See :meth:`Engine.hidden_fields`: none in an index that Endcap did not make."""
        try:
            self._own()
        except (ConfigurationError, UnknownIndex):
            return ()
        return INTERNAL_FIELDS

    def count(self) -> int:
        """See :meth:`Engine.count`."""
        with self._guard():
            try:
                return int(self._client.count(index=self._settings.index)["count"])
            except NotFoundError:
                return 0

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """See :meth:`Engine.get`. As of the last refresh, as searches are."""
        found = self._fetch(ids, source_excludes=list(INTERNAL_FIELDS))
        return [document_of(one) if one is not None else None for one in found]

    def digests(self, ids: Sequence[str]) -> list[str | None]:
        """See :meth:`Engine.digests`."""
        return [
            one.get(TEXT_DIGEST) if one is not None else None for one in self._fetch(ids, source_includes=[TEXT_DIGEST])
        ]

    def _fetch(self, ids: Sequence[str], **source: Any) -> list[dict[str, Any] | None]:
        known: dict[str, dict[str, Any]] = {}
        askable = [one for one in dict.fromkeys(ids) if _storable(one)]
        for start in range(0, len(askable), _BATCH):
            with self._guard():
                answer = self._client.mget(
                    index=self._settings.index, ids=askable[start : start + _BATCH], realtime=False, **source
                )
            for document in answer["docs"]:
                if "error" in document:
                    if document["error"].get("type") == "index_not_found_exception":
                        raise self._indices.unknown()
                    raise EngineError(f"the search engine refused: {reason_of(document)}", 502, dict(document))
                if document.get("found"):
                    known[document["_id"]] = document.get("_source", {})
        return [known.get(one) for one in ids]

    def scan(self, vectors: bool = True) -> Iterator[list[tuple[Product, np.ndarray | None]]]:
        """See :meth:`Engine.scan`. Sees one state throughout, whatever is written meanwhile.

        An index that Endcap did not make is read too: see :class:`ForeignDocuments`.
        """
        with self._guard():
            mappings = self._client.indices.get_mapping(index=self._settings.index)
            own = all(IndexMeta.from_mapping(one["mappings"]) is not None for one in mappings.values())
            pit = self._client.open_point_in_time(index=self._settings.index, keep_alive=_PIT_KEEP_ALIVE)["id"]
        after: list[Any] | None = None
        foreign: ForeignDocuments | None = None
        try:
            while True:
                with self._guard():
                    answer = self._client.search(
                        pit={"id": pit, "keep_alive": _PIT_KEEP_ALIVE},
                        size=_BATCH,
                        sort=[{"_shard_doc": "asc"}],
                        search_after=after,
                        track_total_hits=False,
                        source={"excludes": list(INTERNAL_FIELDS)},
                        # From 9.2 on vectors are not in `_source` any more; this works before and after.
                        fields=[{"field": VECTOR}] if vectors else None,
                    )
                hits, pit = answer["hits"]["hits"], answer.get("pit_id", pit)
                if not hits:
                    return
                after = hits[-1]["sort"]
                if own:
                    yield [(Product.from_document(document_of(hit["_source"])), _vector(hit)) for hit in hits]
                    continue
                foreign = foreign or ForeignDocuments(self._settings, hits)
                yield [(foreign.product(hit), None) for hit in hits]
        finally:
            with self._guard():
                self._client.options(ignore_status=404).close_point_in_time(id=pit)

    def changes(self, version: str, most: int) -> list[tuple[Product, np.ndarray | None]] | None:
        """See :meth:`Engine.changes`. Of an index that Endcap made, with one shard: each shard counts for itself."""
        name, _, rest = version.partition("/")
        since = rest.partition("/")[0]
        if not since.isdigit() or self.version().partition("/")[0] != name or not self.hidden_fields():
            return None
        found: list[tuple[Product, np.ndarray | None]] = []
        last = int(since)
        while True:
            answer = self._search(
                {
                    "size": min(_BATCH, most + 1),
                    "query": {"range": {"_seq_no": {"gt": last}}},
                    "sort": [{"_seq_no": "asc"}],
                    "_source": {"excludes": list(INTERNAL_FIELDS)},
                    "fields": [{"field": VECTOR}],
                }
            )
            hits = answer["hits"]["hits"]
            if answer["_shards"]["total"] != 1 or len(found) + len(hits) > most:
                return None
            if not hits:
                return found
            last = int(hits[-1]["sort"][0])
            found += [(Product.from_document(document_of(hit["_source"])), _vector(hit)) for hit in hits]

    def search(self, request: SearchRequest) -> SearchResponse:
        """See :meth:`Engine.search`.

        Raises:
            InvalidInput: a filter, facet, sort or page that cannot be answered.
        """
        words = Words(request.text, self._settings.analyzer == "standard")
        if not request.text.strip():
            return self._response(request, self._search(search_body(request, {"match_all": {}})))
        if not words.words:
            return self._response(request, self._search(search_body(request, {"match_none": {}})))
        reading = words.all_or(request.variants)
        body = search_body(request, reading)
        answer = self._search({**body, "suggest": words.suggest()})
        corrected, misspelled = words.spelled(answer)
        response = self._response(request, answer)
        found = self._found(response, reading, request.filters)
        suggestion = ""
        if corrected:
            typed = self._count(reading) if request.filters else found
            if typed <= _FEW and self._count(Words(corrected, words.standard).all()) > typed:
                suggestion = corrected
        relaxed = ""
        for relaxed_by, looser in words.looser(misspelled, request.fuzzy):
            if found:
                break
            response = self._response(request, self._search(search_body(request, looser)))
            found = self._found(response, looser, request.filters)
            relaxed = relaxed_by
        return replace(response, suggestion=suggestion, relaxed=relaxed if found else "")

    def _response(self, request: SearchRequest, answer: Mapping[str, Any]) -> SearchResponse:
        return SearchResponse(answer["hits"]["total"]["value"], hits_of(answer), facets_of(request, answer))

    def _found(self, response: SearchResponse, reading: dict[str, Any], filters: Sequence[Filter]) -> int:
        """Products that answer a reading. Filters narrow it down: that nothing passes them must not loosen it."""
        return response.total if response.total or not filters else self._count(reading)

    def _count(self, query: dict[str, Any]) -> int:
        with self._guard():
            return int(self._client.count(index=self._settings.index, query=query)["count"])

    def _search(self, body: dict[str, Any]) -> Any:
        with self._guard():
            return self._client.search(index=self._settings.index, body=body)

    def nearest(self, vector: np.ndarray, k: int, filters: Sequence[Filter] = ()) -> Candidates:
        """See :meth:`Engine.nearest`. Approximate (HNSW), with exact cosines.

        Raises:
            InvalidInput: the vector does not fit the index, or ``k`` exceeds 10,000.
        """
        dims = self._own().dims
        if dims is None or k <= 0:
            return Candidates([], np.empty(0, dtype=np.float32))
        if k > MAX_WINDOW:
            raise InvalidInput(f"k is {k}; the engine gives {MAX_WINDOW} neighbours at most")
        asked = np.asarray(vector, dtype=np.float32)
        if asked.shape != (dims,):
            raise InvalidInput(f"the vector has shape {asked.shape}, the index holds ({dims},)")
        norm = float(np.linalg.norm(asked))
        if not np.isfinite(norm) or norm == 0.0:
            raise InvalidInput("the vector is zero or not finite")
        knn = {
            "field": VECTOR,
            "query_vector": (asked / norm).tolist(),
            "k": k,
            "num_candidates": min(MAX_WINDOW, max(_MIN_CANDIDATES, k * _CANDIDATES_PER_HIT)),
            "filter": [filter_query(one) for one in filters],
            "rescore_vector": {"oversample": 2.0},
        }
        body = {"knn": knn, "size": k, "sort": [{"_score": "desc"}, {"id": "asc"}], "_source": False}
        try:
            hits = self._search(body)["hits"]["hits"]
        except EngineError as error:
            if isinstance(error.__cause__, BadRequestError):
                # Another process may have rebuilt the index with other vectors: look again next time.
                self._known = None
            raise
        scores = np.fromiter((2.0 * hit["_score"] - 1.0 for hit in hits), dtype=np.float32, count=len(hits))
        return Candidates([hit["_id"] for hit in hits], scores)


def _storable(product_id: Any) -> bool:
    try:
        return bool(checked_id(product_id))
    except (TypeError, ValueError):
        return False


def _vector(hit: Mapping[str, Any]) -> np.ndarray | None:
    numbers = hit.get("fields", {}).get(VECTOR)
    return np.asarray(numbers, dtype=np.float32) if numbers else None
