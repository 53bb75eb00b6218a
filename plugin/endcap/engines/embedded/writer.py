"""Writing to one generation: checks each item, keeps what is not committed yet, commits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import tantivy

from endcap.catalog.product import Product
from endcap.engines.base import IndexReport
from endcap.engines.checks import changed, checked
from endcap.engines.embedded.schema import ID, SEQ, tantivy_document
from endcap.errors import EngineError

_HEAP_BYTES = 64_000_000

#: Document, text digest and the vector's float16 bytes; None: deleted.
Pending: TypeAlias = "tuple[dict[str, Any], str, bytes] | None"


class Writer:
    """One session of writing, from the first change to the commit. Not thread-safe."""

    def __init__(self, index: tantivy.Index, vector_dims: int | None, remember: bool = True) -> None:
        """``remember``: keep what was written in ``pending``, for partial updates before the commit."""
        self._vector_dims = vector_dims
        self._remember = remember
        self.pending: dict[str, Pending] = {}
        try:
            # One thread: documents keep the order they were written in, and the machine stays free for searches.
            self._writer = index.writer(_HEAP_BYTES, 1)
            # What a commit left that was killed on the way bears the names that the same changes need again.
            self._writer.garbage_collect_files()
        except ValueError as error:
            raise EngineError(f"the embedded index cannot be written: {error}", status=500) from error

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        report = IndexReport()
        for product, vector, digest in items:
            try:
                blob = self._blob(vector)
                self._put(checked(product).to_document(), digest, blob)
            except (TypeError, ValueError, OverflowError) as error:  # UnicodeEncodeError is a ValueError
                report.errors.append((str(product.id), _reason(error)))
            else:
                report.done += 1
        return report

    def change(self, product_id: str, stored: Pending, changes: Mapping[str, Any]) -> None:
        """Write a product anew with some fields changed; digest and vector stay.

        Raises:
            TypeError, ValueError: a change cannot be applied.
        """
        if stored is None:
            raise ValueError("there is no such product")
        document, digest, blob = stored
        self._put(checked(changed(Product.from_document(document), changes)).to_document(), digest, blob)

    def delete(self, product_id: str) -> None:
        self._writer.delete_documents_by_term(ID, product_id)
        if self._remember:
            self.pending[product_id] = None

    def commit(self) -> None:
        """Everything so far becomes durable; the session is over."""
        try:
            self._writer.commit()
            self.pending.clear()
        except ValueError as error:
            raise EngineError(f"the embedded index could not be committed: {error}", status=500) from error

    def close(self) -> None:
        """Wait for merges under way and let go of the generation. Nothing may be written afterwards."""
        self._writer.wait_merging_threads()

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._writer.rollback()
        self.pending.clear()

    def _put(self, document: dict[str, Any], digest: str, blob: bytes) -> None:
        # Operations are numbered consecutively across commits and sessions: a sequence that never repeats.
        product_id = document["id"]
        made = tantivy_document(document, digest, blob)
        seq = self._writer.delete_documents_by_term(ID, product_id) + 1
        made.add_unsigned(SEQ, seq)
        if self._writer.add_document(made) != seq:
            raise EngineError("the embedded index numbers its operations in an unexpected way", status=500)
        if self._remember:
            self.pending[product_id] = (document, digest, blob)

    def _blob(self, vector: np.ndarray | None) -> bytes:
        if vector is None:
            return b""
        if self._vector_dims is None:
            raise ValueError("the index was made without vectors")
        found = np.asarray(vector, dtype=np.float32)
        if found.shape != (self._vector_dims,):
            raise ValueError(f"the vector has shape {found.shape}, the index holds ({self._vector_dims},)")
        norm = float(np.linalg.norm(found))
        if not math.isfinite(norm) or norm == 0.0:
            raise ValueError("the vector is zero or not finite")
        return (found / norm).astype(np.float16).tobytes()


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "text with half a surrogate pair cannot be stored"
    return str(error)
