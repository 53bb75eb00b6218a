"""The embedded engine: products in process, on disk, with nothing to run beside."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tantivy

from endcap.catalog.product import Product
from endcap.engines.base import Candidates, Filter, IndexReport, Rebuild, SearchRequest, SearchResponse
from endcap.engines.embedded import vectors
from endcap.engines.embedded.filters import allowed_rows
from endcap.engines.embedded.nearest import maintain, nearest
from endcap.engines.embedded.schema import DEFAULT_LANGUAGE, SEQ
from endcap.engines.embedded.search import search
from endcap.engines.embedded.snapshot import Manifest, Snapshot, load, panics_reported
from endcap.engines.embedded.store import Store
from endcap.engines.embedded.writer import Pending, Writer
from endcap.errors import ConfigurationError, EncoderMismatch, EngineError, IndexBusy, InvalidInput, UnknownIndex

#: So many changes are remembered before they are committed even without a refresh, to bound the memory.
_MAX_PENDING = 20_000
_BATCH = 1_000


class EmbeddedEngine:
    """:class:`~endcap.engines.base.Engine` in process. Reads never take a lock; one process at a time may write.

    The first change makes this engine the writer, ``refresh`` or ``close`` lets others write again. Until then they get
    an :class:`EngineError` with status 409 after ``lock_timeout_s``.
    """

    name = "embedded"

    def __init__(
        self, data_dir: Path, index: str, lock_timeout_s: float = 5.0, language: str = DEFAULT_LANGUAGE
    ) -> None:
        """``language``: of :data:`~endcap.engines.embedded.schema.LANGUAGES`, for an index that is made."""
        self.store = Store(data_dir, index, lock_timeout_s)
        self._language = language
        self._mutex = threading.RLock()
        self._writer: Writer | None = None
        self._rebuilding = False

    def snapshot(self) -> Snapshot:
        """The state last committed, for those who query the full-text index themselves.

        Raises:
            UnknownIndex: there is no index yet.
        """
        return self.store.snapshot()

    # --- writing -----------------------------------------------------------------------------------------------

    def ensure(self, vector_dims: int | None, encoder_id: str) -> None:
        """See :meth:`Engine.ensure`."""
        with self._mutex:
            if not self.store.exists():
                with self.store.exclusively():
                    # Another process may have made it while this one waited for the lock.
                    if self.store.current() is None:
                        name, _ = self.store.new_generation(Manifest(vector_dims, encoder_id, self._language))
                        self.store.make_current(name)
            have = self.store.published().manifest
        if have.language != self._language:
            raise ConfigurationError(
                f"index [{self.store.index}] was made for {have.language}, the setting analyzer says {self._language}: "
                "rebuild it with `endcap index --rebuild`, or set `analyzer` back"
            )
        if vector_dims is not None and (have.vector_dims, have.encoder_id) != (vector_dims, encoder_id):
            was = f"{have.encoder_id} ({have.vector_dims} numbers)" if have.vector_dims else "no encoder"
            raise EncoderMismatch(
                f"index [{self.store.index}] was made with {was}, the setting says {encoder_id} ({vector_dims} "
                "numbers): rebuild it with `endcap index --rebuild`, or set `text_encoder` back"
            )

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        report = IndexReport()
        for batch in _batches(items):
            with self._mutex:
                report.add(self._guarded(lambda writer, batch=batch: writer.upsert(batch)))
        return report

    def update(self, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> IndexReport:
        """See :meth:`Engine.update`."""
        report = IndexReport()
        for batch in _batches(changes):
            with self._mutex:
                report.add(self._guarded(lambda writer, batch=batch: self._update(writer, batch)))
        return report

    def delete(self, ids: Iterable[str]) -> IndexReport:
        """See :meth:`Engine.delete`."""
        report = IndexReport()
        for batch in _batches(ids):
            with self._mutex:
                report.add(self._guarded(lambda writer, batch=batch: self._delete(writer, batch)))
        return report

    def _guarded(self, work: Any) -> IndexReport:
        writer = self._writing()
        try:
            report: IndexReport = work(writer)
        except BaseException:
            # Half of an item may have been written: nothing since the last commit is kept.
            self._abandon()
            raise
        if len(writer.pending) >= _MAX_PENDING:
            writer.commit()
            self.store.published()
        return report

    def _writing(self) -> Writer:
        if self._rebuilding:
            raise IndexBusy(f"index [{self.store.index}] is being rebuilt: changes can be made once that is done")
        if self._writer is None:
            self.store.lock()
            try:
                snapshot = self.store.published()
                self._writer = Writer(snapshot.index, snapshot.manifest.vector_dims)
            except BaseException:
                self.store.unlock()
                raise
        return self._writer

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.rollback()
                writer.close()
        finally:
            self.store.unlock()

    def _stored(self, writer: Writer, ids: Sequence[str]) -> dict[str, Pending]:
        """Products as they are with what is not committed yet; absent ids map to None."""
        snapshot = self.store.snapshot()
        asked = [one for one in ids if _storable(one) and one not in writer.pending]
        found: dict[str, Pending] = {key: snapshot.stored(at) for key, at in snapshot.find(asked).items()}
        return {one: writer.pending.get(one, found.get(one)) for one in ids if _storable(one)}

    def _update(self, writer: Writer, changes: Sequence[tuple[str, Mapping[str, Any]]]) -> IndexReport:
        report = IndexReport()
        stored = self._stored(writer, [one for one, _ in changes])
        for product_id, change in changes:
            try:
                # A product may be changed twice in one batch.
                writer.change(product_id, writer.pending.get(product_id, stored.get(product_id)), change)
            except (TypeError, ValueError, OverflowError) as error:
                report.errors.append((str(product_id), str(error)))
            else:
                report.done += 1
        return report

    def _delete(self, writer: Writer, ids: Sequence[str]) -> IndexReport:
        report = IndexReport()
        stored = self._stored(writer, ids)
        for product_id in ids:
            if stored.get(product_id) is None:
                report.errors.append((str(product_id), "there is no such product"))
                continue
            writer.delete(product_id)
            stored[product_id] = None
            report.done += 1
        return report

    def refresh(self) -> None:
        """See :meth:`Engine.refresh`."""
        with self._mutex:
            writer = self._writer
            if writer is None:
                return
            try:
                writer.commit()
                snapshot = self.store.published()
                self._writer = None
                writer.close()
                maintain(snapshot)
            except BaseException:
                self._abandon()
                raise
            self.store.unlock()

    def rebuild(self, vector_dims: int | None, encoder_id: str) -> Rebuild:
        """See :meth:`Engine.rebuild`. Until it is done, changes to the live index are refused (status 409)."""
        return _Rebuild(self, Manifest(vector_dims, encoder_id, self._language))

    def close(self) -> None:
        """Commits what was written and lets go of everything. The engine opens itself again when it is used."""
        self.refresh()

    # --- reading -----------------------------------------------------------------------------------------------

    def version(self) -> str:
        """See :meth:`Engine.version`."""
        return self.store.snapshot().version if self.store.exists() else ""

    def hidden_fields(self) -> tuple[str, ...]:
        """See :meth:`Engine.hidden_fields`: raw answers are made without them."""
        return ()

    def count(self) -> int:
        """See :meth:`Engine.count`."""
        return self.store.snapshot().count if self.store.exists() else 0

    def get(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """See :meth:`Engine.get`."""
        snapshot = self.store.snapshot()
        with panics_reported():
            found = snapshot.find([one for one in ids if _storable(one)])
            return [snapshot.document(found[one]) if one in found else None for one in ids]

    def digests(self, ids: Sequence[str]) -> list[str | None]:
        """See :meth:`Engine.digests`."""
        snapshot = self.store.snapshot()
        with panics_reported():
            found = snapshot.find([one for one in ids if _storable(one)])
            return [snapshot.stored(found[one])[1] or None if one in found else None for one in ids]

    def scan(self, vectors: bool = True) -> Iterator[list[tuple[Product, np.ndarray | None]]]:
        """See :meth:`Engine.scan`. Sees one state throughout, whatever is written meanwhile."""
        snapshot = self.store.snapshot()
        rows = np.flatnonzero(snapshot.alive)
        for start in range(0, len(rows), _BATCH):
            seqs = snapshot.seqs[rows[start : start + _BATCH]]
            yield _products(snapshot, int(seqs[0]), int(seqs[-1]), _BATCH, vectors)

    def changes(self, version: str, most: int) -> list[tuple[Product, np.ndarray | None]] | None:
        """See :meth:`Engine.changes`."""
        snapshot = self.store.snapshot()
        since = snapshot.stamp_of(version)
        if since is None:
            return None
        # Commits and writes are numbered in one sequence.
        new = snapshot.seqs[snapshot.alive & (snapshot.seqs > since)]
        if len(new) > most:
            return None
        return _products(snapshot, int(new[0]), int(new[-1]), len(new), True) if len(new) else []

    def search(self, request: SearchRequest) -> SearchResponse:
        """See :meth:`Engine.search`."""
        snapshot = self.store.snapshot()
        with panics_reported():
            return search(snapshot, request)

    def nearest(self, vector: np.ndarray, k: int, filters: Sequence[Filter] = ()) -> Candidates:
        """See :meth:`Engine.nearest`. Exact up to 50,000 products; by a graph (HNSW) above.

        Raises:
            InvalidInput: the vector does not fit the index.
        """
        snapshot = self.store.snapshot()
        if snapshot.vectors is None or k <= 0:
            return Candidates([], np.empty(0, dtype=np.float32))
        asked = np.asarray(vector, dtype=np.float32)
        if asked.shape != (snapshot.vectors.dims,):
            raise InvalidInput(f"the vector has shape {asked.shape}, the index holds ({snapshot.vectors.dims},)")
        norm = float(np.linalg.norm(asked))
        if not np.isfinite(norm) or norm == 0.0:
            raise InvalidInput("the vector is zero or not finite")
        with panics_reported():
            best, scores = nearest(snapshot, asked / norm, k, allowed_rows(snapshot, filters))
        return Candidates([snapshot.ids[row] for row in best], scores)


class _Rebuild:
    """See :class:`~endcap.engines.base.Rebuild`. Holds the writer's lock from beginning to end."""

    def __init__(self, engine: EmbeddedEngine, manifest: Manifest) -> None:
        self._engine = engine
        self._manifest = manifest
        self._name = ""
        self._done = 0
        self._writer: Writer | None = None

    def __enter__(self) -> _Rebuild:
        engine = self._engine
        with engine._mutex:
            engine.refresh()
            if engine._rebuilding:
                raise IndexBusy(f"index [{engine.store.index}] is being rebuilt already")
            engine.store.lock()
            engine._rebuilding = True
            try:
                self._name, index = engine.store.new_generation(self._manifest)
                self._writer = Writer(index, self._manifest.vector_dims, remember=False)
            except BaseException:
                self._leave()
                raise
        return self

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        if self._writer is None:
            raise EngineError("the rebuild is over", status=409)
        report = IndexReport()
        for batch in _batches(items):
            with self._engine._mutex:
                report.add(self._writer.upsert(batch))
        self._done += report.done
        return report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if error is None:
                writer.commit()
                writer.close()
                if (
                    self._done > vectors.EXACT_ROWS
                ):  # the graph first, so that the new index is quick from its first search
                    maintain(load(self._engine.store.folder / self._name, self._name, None))
                self._engine.store.make_current(self._name)
            else:
                writer.rollback()
                writer.close()
                self._engine.store.sweep()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._engine._rebuilding = False
        self._engine.store.unlock()


def _products(
    snapshot: Snapshot, first: int, last: int, count: int, vectors: bool
) -> list[tuple[Product, np.ndarray | None]]:
    """The ``count`` live products that were written as number ``first`` to ``last``."""
    between = tantivy.Query.range_query(snapshot.schema, SEQ, tantivy.FieldType.Unsigned, first, last)
    found: list[tuple[Product, np.ndarray | None]] = []
    for _, address in snapshot.matching(between, count):
        document, _, blob = snapshot.stored(address)
        vector = np.frombuffer(blob, dtype=np.float16).astype(np.float32) if vectors and blob else None
        found.append((Product.from_document(document), vector))
    return found


def _storable(product_id: Any) -> bool:
    try:
        return isinstance(product_id, str) and bool(product_id.encode())
    except UnicodeEncodeError:
        return False


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for one in items:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


__all__ = ["EmbeddedEngine", "UnknownIndex"]
