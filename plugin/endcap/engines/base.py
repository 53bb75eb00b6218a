"""The engine protocol: what Endcap needs from a search engine, and the values that cross the seam.

Two protocols, because two kinds of callers exist. :class:`Engine` speaks products and is what Endcap's own search,
indexing and recall use. :class:`WireEngine` speaks Elasticsearch's HTTP wire format and is what the hook stands in
front of. ``tests/contracts/test_engine.py`` and ``test_wire_engine.py`` run one suite against every implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from endcap.catalog.product import Product


@dataclass(frozen=True, slots=True)
class Filter:
    """A product matches if ``field`` equals one of ``values``, or lies in [``gte``, ``lte``] where those are given.

    ``field`` is ``id``, ``brand``, ``category`` (any prefix of the path), ``price``, ``stock`` or
    ``attributes.NAME``. Values compare exactly (case matters). A filter with neither values nor bounds matches nothing.
    """

    field: str
    values: tuple[str | float | bool, ...] = ()
    gte: float | None = None
    lte: float | None = None


#: What a product counts that matches a variant of what was typed, beside 1.
VARIANT_WEIGHT = 0.9
#: ``SearchResponse.relaxed`` where words were taken for others that are spelled almost like them.
SPELLING = "spelling"


def so_many_words(some: int, every: int) -> str:
    """``SearchResponse.relaxed`` where some of the words were enough."""
    return f"{some} of {every} words"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A keyword search in Endcap's own terms.

    ``text`` empty matches every product. ``facets`` maps a field (as in :class:`Filter`) to the number of buckets.
    ``sort`` is ``relevance``, ``price:asc``, ``price:desc`` or ``title:asc``; ties always break by product id.
    Lucene syntax in ``text`` has no meaning: it is text. ``variants`` are other ways of saying the same
    (:mod:`endcap.synonyms`): products that match one of them as a whole count nearly as much.
    """

    text: str = ""
    filters: tuple[Filter, ...] = ()
    facets: Mapping[str, int] = field(default_factory=dict)
    sort: str = "relevance"
    offset: int = 0
    size: int = 10
    highlight: bool = False
    documents: bool = True
    fuzzy: bool = True
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One product of an answer. ``document`` is None where the request said so; ``highlights`` maps a field to
    fragments with ``<em>`` around matches and everything else HTML-escaped."""

    id: str
    score: float
    document: dict[str, Any] | None = None
    highlights: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchResponse:
    """``total`` is exact. ``facets``: field -> (value, count) pairs, most frequent first. ``suggestion``: the query
    with its spelling corrected, where that finds more; else empty. ``relaxed`` says what was given up because nothing
    matched all words as they were typed: ``spelling``, ``2 of 4 words``; empty where nothing was."""

    total: int
    hits: list[Hit]
    facets: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    suggestion: str = ""
    relaxed: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Recalled products in the engine's order: ids and scores (float32, shape (n,), non-increasing)."""

    ids: list[str]
    scores: np.ndarray


@dataclass(slots=True)
class IndexReport:
    """What became of a batch: ``done`` counts products changed; ``errors`` holds (id, reason) of those refused."""

    done: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: IndexReport) -> None:
        self.done += other.done
        self.errors.extend(other.errors)


class Rebuild(Protocol):
    """A new index being filled beside the live one. Leaving the ``with`` block normally makes it live in one step;
    leaving it by an exception discards it and the old index goes on serving."""

    def __enter__(self) -> Rebuild: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...
    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport: ...


@runtime_checkable
class Engine(Protocol):
    """A search engine that holds the products of one index. Implementations are thread-safe.

    Every method raises :class:`~endcap.errors.EngineUnavailable` when the engine cannot be reached and
    :class:`~endcap.errors.EngineError` when it refuses.
    """

    name: str

    def ensure(self, vector_dims: int | None, encoder_id: str) -> None:
        """Create the index if it is not there. ``vector_dims`` None: no vectors.

        Raises:
            EncoderMismatch: the index exists with vectors of another encoder or size.
        """

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """Add or replace products: (product, unit vector float32 (d,) or None, text digest). Visible after refresh."""

    def update(self, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> IndexReport:
        """Change some fields of products (price, stock, …), keeping the rest and the vector. Unknown ids are errors.

        A change holds fields of the stored document: each replaces the old value, but ``attributes`` are merged by
        name; None removes a field or an attribute. The text digest stays.
        """

    def delete(self, ids: Iterable[str]) -> IndexReport:
        """Remove products; ids that are not there are errors."""

    def refresh(self) -> None:
        """Make all changes so far visible to searches, and durable."""

    def rebuild(self, vector_dims: int | None, encoder_id: str) -> Rebuild:
        """Fill a new index while the old one serves, then switch without a gap.

        Until then nothing is written to the old one, by any process: :class:`~endcap.errors.IndexBusy`, since it would
        be lost with it. A rebuild whose process died holds it no longer than some minutes.
        """

    def count(self) -> int:
        """Products in the index; 0 if there is none."""

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Documents by id, in the order asked, without internal fields; None where there is none."""

    def digests(self, ids: Sequence[str]) -> list[str | None]:
        """Stored text digests by id, in the order asked."""

    def scan(self, vectors: bool = True) -> Iterator[list[tuple[Product, np.ndarray | None]]]:
        """Every product, in batches, with its vector where there is one and it is wanted."""

    def changes(self, version: str, most: int) -> list[tuple[Product, np.ndarray | None]] | None:
        """Products added or changed since the engine was at :meth:`version`, with their vectors; in no order.

        None where that cannot be told, or were more than ``most``: then :meth:`scan`. What was removed does not show:
        compare :meth:`count`. What was changed shortly before that version may be among them, too.
        """

    def version(self) -> str:
        """Changes whenever a change has become visible: lets caches know that they are old. Cheap."""

    def hidden_fields(self) -> tuple[str, ...]:
        """Fields of stored documents that are Endcap's own and would show in the raw answers of this engine. Cheap."""

    def search(self, request: SearchRequest) -> SearchResponse:
        """Keyword search: title over brand and category over description; all words, then typos, then some words."""

    def nearest(self, vector: np.ndarray, k: int, filters: Sequence[Filter] = ()) -> Candidates:
        """The k products whose vectors are nearest by cosine among those that pass the filters. Scores are cosines."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """An HTTP answer in Elasticsearch's format, as the engine gave it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class WireEngine(Protocol):
    """Answers Elasticsearch's ``_search`` and ``_msearch`` over HTTP semantics. Thread-safe.

    Errors that the engine itself reports come back as answers, verbatim; only an unreachable or silent engine raises
    (:class:`~endcap.errors.EngineUnavailable`).
    """

    def send(
        self,
        method: Literal["GET", "POST", "HEAD"],
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
    ) -> WireAnswer:
        """``path`` as the client sent it (``/products/_search``), ``query`` the raw query string."""

    def close(self) -> None: ...
