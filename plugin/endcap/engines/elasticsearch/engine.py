"""The engine: one method per promise of :class:`~endcap.engines.base.Engine`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

import numpy as np
from elasticsearch import BadRequestError, NotFoundError
from elasticsearch.helpers import streaming_bulk

from endcap.catalog.product import INTERNAL_FIELDS, TEXT_DIGEST, VECTOR, Product
from endcap.engines.address import engine_address
from endcap.engines.base import Candidates, Filter, IndexReport, Rebuild, SearchRequest, SearchResponse
from endcap.engines.elasticsearch.connection import connect, reason_of, translated
from endcap.engines.elasticsearch.documents import changes as partial
from endcap.engines.elasticsearch.documents import checked_id, document_of, stored
from endcap.engines.elasticsearch.indices import Indices
from endcap.engines.elasticsearch.mapping import IndexMeta
from endcap.engines.elasticsearch.queries import (
    MAX_WINDOW,
    all_words,
    corrected,
    facets_of,
    filter_query,
    filtered,
    hits_of,
    search_body,
    stages,
    suggest_body,
)
from endcap.errors import EncoderMismatch, EndcapError, EngineError, InvalidInput
from endcap.settings import Settings

logger = logging.getLogger(__name__)

_CHUNK_ITEMS, _CHUNK_BYTES = 500, 8_000_000
_BATCH = 500
_PATIENCE_S = 120.0
_PIT_KEEP_ALIVE = "5m"
#: Candidates looked at per wanted neighbour: recall of HNSW against its cost.
_CANDIDATES_PER_HIT, _MIN_CANDIDATES = 2, 100

Action = tuple[dict[str, Any], bytes | None]


class ElasticsearchEngine:
    """:class:`~endcap.engines.base.Engine` over a cluster. Thread-safe.

    ``settings.index`` is an alias; the index behind it is replaced as a whole by :meth:`rebuild`. Writes go through the
    alias only, and only after it was seen to lead to an index that Endcap made.
    """

    name = "elasticsearch"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = engine_address(settings)
        self._client = connect(self._address, settings)
        # Work on a whole index may take long; searches never wait for it.
        self._patient = self._client.options(request_timeout=max(_PATIENCE_S, settings.engine_timeout_s))
        self._indices = Indices(self._patient, settings.index, settings.analyzer)
        self._meta: IndexMeta | None = None

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
        self._meta = have = found[1]
        if vector_dims is not None and (have.dims, have.encoder) != (vector_dims, encoder_id):
            was = f"{have.encoder} ({have.dims} numbers)" if have.dims else "no encoder"
            raise EncoderMismatch(
                f"index [{self._settings.index}] was made with {was}, the setting says {encoder_id} ({vector_dims} "
                "numbers): rebuild it with `endcap index --rebuild`, or set `text_encoder` back"
            )

    def _own(self) -> IndexMeta:
        if self._meta is None:
            with self._guard():
                found = self._indices.serving()
            if found is None:
                raise self._indices.unknown()
            self._meta = found[1]
        return self._meta

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        dims = self._own().dims
        return self._write(_upserts(items, dims))

    def update(self, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> IndexReport:
        """See :meth:`Engine.update`. Attributes are merged; None removes a value."""
        self._own()

        def action(item: tuple[str, Mapping[str, Any]]) -> Action:
            return {"update": {"_id": item[0], "retry_on_conflict": 3}}, b'{"doc":' + partial(*item) + b"}"

        return self._write(_checked(changes, lambda item: item[0], action))

    def delete(self, ids: Iterable[str]) -> IndexReport:
        """See :meth:`Engine.delete`."""
        self._own()
        return self._write(_checked(ids, lambda one: one, lambda one: ({"delete": {"_id": checked_id(one)}}, None)))

    def _write(self, actions: Iterable[Action | tuple[str, str]], index: str = "") -> IndexReport:
        """Send what is an action, report what is an (id, reason) already, in bulk with retries."""
        report = IndexReport()

        def sendable() -> Iterator[Action]:
            for one in actions:
                if isinstance(one[0], str):
                    report.errors.append((one[0], str(one[1])))
                else:
                    yield one[0], one[1]

        with self._guard():
            for done, outcome in streaming_bulk(
                self._patient,
                cast(Any, sendable()),
                expand_action_callback=cast(Any, lambda action: action),
                index=index or self._settings.index,
                require_alias=not index,
                chunk_size=_CHUNK_ITEMS,
                max_chunk_bytes=_CHUNK_BYTES,
                max_retries=5,
                initial_backoff=0.2,
                max_backoff=5,
                retry_on_status=(429, 503),
                raise_on_error=False,
            ):
                item = next(iter(outcome.values()))
                if done:
                    report.done += 1
                    continue
                reason = item.get("error", {})
                if isinstance(reason, dict) and reason.get("type") == "index_not_found_exception":
                    self._meta = None
                    raise self._indices.unknown()
                report.errors.append((item["_id"], _item_reason(item)))
        return report

    def refresh(self) -> None:
        """See :meth:`Engine.refresh`. Elasticsearch has synced each change to disk before it answered."""
        with self._guard():
            self._patient.indices.refresh(index=self._settings.index)

    def rebuild(self, vector_dims: int | None, encoder_id: str) -> Rebuild:
        """See :meth:`Engine.rebuild`. Changes made to the live index meanwhile are not in the new one."""
        return _Rebuild(self, IndexMeta(self._settings.index, encoder_id, vector_dims, filling=True))

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

    def _fetch(self, ids: Sequence[str], **source: list[str]) -> list[dict[str, Any] | None]:
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
        """See :meth:`Engine.scan`. Sees one state throughout, whatever is written meanwhile."""
        with self._guard():
            pit = self._client.open_point_in_time(index=self._settings.index, keep_alive=_PIT_KEEP_ALIVE)["id"]
        after: list[Any] | None = None
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
                        fields=[VECTOR] if vectors else None,
                    )
                hits, pit = answer["hits"]["hits"], answer.get("pit_id", pit)
                if not hits:
                    return
                after = hits[-1]["sort"]
                yield [(Product.from_document(document_of(hit["_source"])), _vector(hit)) for hit in hits]
        finally:
            with self._guard():
                self._client.options(ignore_status=404).close_point_in_time(id=pit)

    def search(self, request: SearchRequest) -> SearchResponse:
        """See :meth:`Engine.search`.

        Raises:
            InvalidInput: a filter, facet, sort or page that cannot be answered.
        """
        suggestion, exact = "", 0
        for stage, query in enumerate(stages(request.text, request.fuzzy)):
            body = search_body(request, query)
            if stage == 0 and request.text.strip():
                body["suggest"] = suggest_body(request.text)
            answer = self._search(body)
            total = int(answer["hits"]["total"]["value"])
            if stage == 0:
                exact, suggestion = total, corrected(request.text, answer)
            if total:
                break
        if suggestion and self._matches(suggestion, request.filters) <= exact:
            suggestion = ""
        return SearchResponse(total, hits_of(answer), facets_of(request, answer), suggestion)

    def _search(self, body: dict[str, Any]) -> Any:
        with self._guard():
            return self._client.search(index=self._settings.index, body=body)

    def _matches(self, text: str, filters: Sequence[Filter]) -> int:
        with self._guard():
            return int(
                self._client.count(index=self._settings.index, query=filtered(all_words(text), filters))["count"]
            )

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
                self._meta = None
            raise
        scores = np.fromiter((2.0 * hit["_score"] - 1.0 for hit in hits), dtype=np.float32, count=len(hits))
        return Candidates([hit["_id"] for hit in hits], scores)


class _Rebuild:
    """See :class:`~endcap.engines.base.Rebuild`."""

    def __init__(self, engine: ElasticsearchEngine, meta: IndexMeta) -> None:
        self._engine = engine
        self._meta = meta
        self._name = ""

    def __enter__(self) -> _Rebuild:
        engine = self._engine
        with engine._guard():
            engine._indices.serving()  # refuses a name that is not Endcap's, before any work is done
            engine._indices.sweep()
            self._name = engine._indices.create(self._meta, live=False)
        return self

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        if not self._name:
            raise EngineError("the rebuild is over", status=409)
        return self._engine._write(_upserts(items, self._meta.dims), index=self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name, self._name = self._name, ""
        if not name:
            return
        engine = self._engine
        try:
            if error is None:
                with engine._guard():
                    engine._patient.indices.refresh(index=name)
                    engine._indices.switch(name, self._meta)
                engine._meta = self._meta
                return
        except BaseException:
            self._discard(name)
            raise
        self._discard(name)

    def _discard(self, name: str) -> None:
        # What went wrong first is the news; a cluster that is gone cannot be tidied, and a later rebuild sweeps.
        try:
            with self._engine._guard():
                self._engine._indices.discard(name)
        except EndcapError as error:
            logger.warning("%s could not be removed: %s", name, error)


def _upserts(
    items: Iterable[tuple[Product, np.ndarray | None, str]], dims: int | None
) -> Iterator[Action | tuple[str, str]]:
    return _checked(
        items,
        lambda item: item[0].id,
        lambda item: ({"index": {"_id": item[0].id}}, stored(item[0], item[1], item[2], dims)),
    )


def _checked(
    items: Iterable[Any], id_of: Callable[[Any], Any], action: Callable[[Any], Action]
) -> Iterator[Action | tuple[str, str]]:
    """Each item's action, or (id, reason) where it cannot be sent: one bad item would fail its whole request."""
    for item in items:
        try:
            yield action(item)
        except UnicodeEncodeError:
            yield str(id_of(item)), "text with half a surrogate pair cannot be stored"
        except (TypeError, ValueError, OverflowError) as error:
            yield str(id_of(item)), str(error)


def _item_reason(item: Mapping[str, Any]) -> str:
    if item.get("status") == 404:
        return "there is no such product"
    return reason_of(item) or f"refused with status {item.get('status')}"


def _storable(product_id: Any) -> bool:
    try:
        return bool(checked_id(product_id))
    except (TypeError, ValueError):
        return False


def _vector(hit: Mapping[str, Any]) -> np.ndarray | None:
    numbers = hit.get("fields", {}).get(VECTOR)
    return np.asarray(numbers, dtype=np.float32) if numbers else None
