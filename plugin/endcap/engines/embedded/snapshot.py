"""One committed state of the index: what every reader works on, without a lock and without seeing half a change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tantivy

from endcap.engines.embedded.schema import (
    DEFAULT_LANGUAGE,
    DIGEST,
    FORMAT,
    ID,
    SEQ,
    SOURCE,
    VECTOR_BYTES,
    build_schema,
    register_analyzers,
)
from endcap.engines.embedded.vectors import VectorTable
from endcap.errors import EngineError

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of the index was made for. ``vector_dims`` None: no vectors. ``language``: whose endings are
    stripped."""

    vector_dims: int | None
    encoder_id: str
    language: str = DEFAULT_LANGUAGE

    def write(self, folder: Path) -> None:
        (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, **asdict(self)}))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """
        Raises:
            EngineError: an older or newer Endcap wrote the folder.
        """
        found = json.loads((folder / "manifest.json").read_text())
        if found.get("format") != FORMAT:
            raise EngineError(
                f"the embedded index in {folder} has format {found.get('format')}, this version reads {FORMAT}: "
                "rebuild it with `endcap index --rebuild`"
            )
        # Folders from before there was a choice are in the default language.
        return cls(found["vector_dims"], found["encoder_id"], found.get("language", DEFAULT_LANGUAGE))


@dataclass(eq=False)
class Snapshot:
    """A committed state. ``searcher`` sees exactly the documents whose rows are ``alive``.

    A *row* is a product's place in the columns: ``seqs[row]`` (uint64, ascending), ``ids[row]`` and the row of
    ``vectors``. ``ids`` may be longer than ``seqs``; what lies beyond belongs to later snapshots.
    """

    version: str
    folder: Path
    manifest: Manifest
    index: tantivy.Index
    searcher: tantivy.Searcher
    opstamp: int
    seqs: np.ndarray
    ids: list[str]
    alive: np.ndarray
    vectors: VectorTable | None
    #: For what is derived from this state on first need (vocabulary, …); set whole values only.
    derived: dict[str, Any] = field(default_factory=dict)

    @property
    def schema(self) -> tantivy.Schema:
        return build_schema()

    @property
    def count(self) -> int:
        return int(self.searcher.num_docs)

    def stamp_of(self, version: str) -> int | None:
        """The commit that a :attr:`version` of this folder names; None for another folder's."""
        name, _, stamp = version.rpartition("-")
        return int(stamp) if name == self.version.rpartition("-")[0] and stamp.isdigit() else None

    def rows(self, seqs: np.ndarray) -> np.ndarray:
        """Rows of live documents by their ``seq``; int64, same shape."""
        return np.searchsorted(self.seqs, seqs)

    def document(self, address: tantivy.DocAddress) -> dict[str, Any]:
        """The stored document, as :meth:`Product.to_document` made it."""
        return orjson.loads(self.searcher.doc(address).get_first(SOURCE) or b"{}")

    def stored(self, address: tantivy.DocAddress) -> tuple[dict[str, Any], str, bytes]:
        """Document, text digest ('' if none) and the vector's float16 bytes (b'' if none)."""
        found = self.searcher.doc(address)
        digest = found.get_first(DIGEST) or b""
        return orjson.loads(found.get_first(SOURCE) or b"{}"), digest.decode(), found.get_first(VECTOR_BYTES) or b""

    def id_of(self, address: tantivy.DocAddress) -> str:
        return str(self.searcher.doc(address).get_first(ID))

    def ids_of(self, addresses: Sequence[tantivy.DocAddress]) -> list[str]:
        """Product ids of many documents, without reading them."""
        return [self.ids[row] for row in self.rows_of(addresses)]

    def rows_of(self, addresses: Sequence[tantivy.DocAddress]) -> np.ndarray:
        """Rows of documents; int64."""
        seqs = self.searcher.fast_field_values(SEQ, list(addresses)) if addresses else []
        return self.rows(np.array(seqs, dtype=np.uint64))

    def find(self, ids: Sequence[str]) -> dict[str, tantivy.DocAddress]:
        """Where the documents with these product ids are; ids that are not there are left out."""
        found: dict[str, tantivy.DocAddress] = {}
        asked = [one for one in dict.fromkeys(ids) if one]
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            for row, address in self.matching(tantivy.Query.term_set_query(self.schema, ID, chunk), len(chunk)):
                found[self.ids[row]] = address
        return found

    def matching(self, query: tantivy.Query, limit: int | None = None) -> list[tuple[int, tantivy.DocAddress]]:
        """Every match (at most ``limit``) as (row, address), oldest write first."""
        hits = self._hits(query, limit)
        rows = self.rows(np.fromiter((seq for seq, _ in hits), np.uint64, len(hits)))
        return [(row, address) for row, (_, address) in zip(rows.tolist(), hits, strict=True)]

    def rows_matching(self, query: tantivy.Query) -> np.ndarray:
        """Rows of every match; int64, ascending."""
        hits = self._hits(query, None)
        return self.rows(np.fromiter((seq for seq, _ in hits), np.uint64, len(hits)))

    def _hits(self, query: tantivy.Query, limit: int | None) -> list[tuple[int, tantivy.DocAddress]]:
        result = self.searcher.search(
            query,
            limit=max(1, self.count if limit is None else limit),
            count=False,
            order_by_field=SEQ,
            order=tantivy.Order.Asc,
        )
        return result.hits

    @cached_property
    def id_ranks(self) -> np.ndarray:
        """Per row, its place in the order of product ids; int64. Dead rows are ranked too."""
        ids = self.ids
        order = np.array(sorted(range(len(self.seqs)), key=ids.__getitem__), dtype=np.int64)
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


def load(folder: Path, name: str, previous: Snapshot | None) -> Snapshot:
    """The state last committed in a folder; cheap where ``previous`` is an earlier state of the same folder.

    Raises:
        FileNotFoundError: the folder went away meanwhile (a rebuild replaced it).
        EngineError: the folder cannot be read.
    """
    if previous is not None and previous.folder != folder:
        previous = None
    meta = json.loads((folder / "meta.json").read_text())
    if previous is not None and previous.opstamp == meta["opstamp"]:
        return previous
    manifest = previous.manifest if previous else Manifest.read(folder)
    if previous is not None:
        index = previous.index
        index.reload()
    else:
        index = tantivy.Index.open(str(folder))
        register_analyzers(index, manifest.language)
        index.config_reader("manual")
        index.reload()
    searcher = index.searcher()
    hits = (
        searcher.search(
            tantivy.Query.all_query(),
            limit=max(1, searcher.num_docs),
            count=False,
            order_by_field=SEQ,
            order=tantivy.Order.Asc,
        )
    ).hits
    live = np.fromiter((seq for seq, _ in hits), np.uint64, len(hits))
    seqs, ids, vectors = _columns(searcher, hits, live, manifest, previous)
    alive = np.zeros(len(seqs), dtype=bool)
    alive[np.searchsorted(seqs, live)] = True
    return Snapshot(
        # A commit may land between reading the file and the reload: the state is then newer than its version says,
        # and the next look finds the version changed. Never the other way round.
        version=f"{name}-{meta['opstamp']}",
        folder=folder,
        manifest=manifest,
        index=index,
        searcher=searcher,
        opstamp=meta["opstamp"],
        seqs=seqs,
        ids=ids,
        alive=alive,
        vectors=vectors,
    )


def _columns(
    searcher: tantivy.Searcher,
    hits: list[tuple[int, tantivy.DocAddress]],
    live: np.ndarray,
    manifest: Manifest,
    previous: Snapshot | None,
) -> tuple[np.ndarray, list[str], VectorTable | None]:
    """The columns of ``previous`` with what is new appended; compacted where a quarter of the rows is dead."""
    if previous is None:
        seqs, ids = np.empty(0, np.uint64), []
        vectors = VectorTable(manifest.vector_dims) if manifest.vector_dims else None
    else:
        seqs, vectors = previous.seqs, previous.vectors
        ids = previous.ids if len(previous.ids) == len(seqs) else previous.ids[: len(seqs)]
        kept = np.isin(seqs, live, assume_unique=True)
        if len(seqs) - kept.sum() > max(1000, len(seqs) // 4):
            rows = np.flatnonzero(kept)
            seqs, ids = seqs[rows], [ids[row] for row in rows]
            vectors = vectors.take(rows) if vectors else None
    # A write takes a larger seq than every write committed before it, so what is new comes last.
    first = int(np.searchsorted(live, seqs[-1], side="right")) if len(seqs) else 0
    blobs: list[bytes] = []
    for _, address in hits[first:]:
        found = searcher.doc(address)
        ids.append(str(found.get_first(ID)))
        blobs.append(found.get_first(VECTOR_BYTES) or b"")
    if vectors is not None:
        vectors = vectors.extended(blobs)
    return np.concatenate([seqs, live[first:]]), ids, vectors


def is_panic(error: BaseException) -> bool:
    """Whether tantivy itself broke down, as over damaged files: its panics are no ``Exception``."""
    return type(error).__name__ == "PanicException"


@contextmanager
def panics_reported() -> Iterator[None]:
    """A panic of tantivy's within the block becomes an :class:`EngineError`, which a server can answer."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise EngineError(f"the embedded index broke down: {str(error)[:200]}", status=500) from None


def open_failed(folder: Path, error: BaseException) -> EngineError:
    return EngineError(
        f"the embedded index in {folder} cannot be read ({str(error)[:200]}): rebuild it with `endcap index --rebuild`",
        status=500,
    )
