"""Fills an engine with products: encodes what is new, leaves alone what is not, on all cores, in bounded memory.

Three stages run at once, each a few batches ahead of the next: reading and comparing with what the engine has,
encoding, writing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from endcap.catalog.keys import KeySet
from endcap.catalog.product import Product, is_generated, product_key, text_digest
from endcap.encoders.base import TextEncoder
from endcap.engines.base import Engine, IndexReport, Rebuild
from endcap.errors import InvalidInput

#: The encoder id of products without vectors.
NO_ENCODER = "none"

_AHEAD = 3
_T = TypeVar("_T")


@dataclass(slots=True)
class IndexSummary:
    """What became of the products. ``indexed`` were encoded (or had no encoder) and written, ``updated`` were written
    without encoding because their text is as it was, ``refused`` by the engine; ``seconds`` of wall clock."""

    read: int = 0
    indexed: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Products per second."""
        return self.read / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Batch:
    """Products on their way: to be encoded and written, or to be changed. ``read`` counts what it was made of."""

    read: int = 0
    unchanged: int = 0
    new: list[tuple[Product, str]] = field(default_factory=list)
    changes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)
    vectors: np.ndarray | None = None


def index_products(
    products: Iterable[Product],
    engine: Engine,
    encoder: TextEncoder | None,
    *,
    rebuild: bool = False,
    trusted: int = 0,
    batch_size: int = 128,
    durable_every_s: float = 3.0,
    on_progress: Callable[[IndexSummary], None] = lambda summary: None,
    on_refused: Callable[[str, str], None] = lambda product_id, reason: None,
    on_durable: Callable[[int], None] = lambda products_done: None,
) -> IndexSummary:
    """Add ``products`` to the engine's index, or replace those that are there.

    A product whose text the engine already has from the same encoder is not encoded again: its other fields are
    updated if they differ. Of products with the same id the last one wins.

    Args:
        products: any iterable, read once, in another thread.
        engine: where they go; its index is made if it is not there.
        encoder: None for an index without vectors.
        rebuild: fill a new index while the old one serves, and switch at the end; an error leaves the old one.
        trusted: so many products at the beginning were indexed by a run that broke off: if their text is unchanged,
            the rest is taken to be, too.
        batch_size: products encoded and written at once.
        durable_every_s: seconds between refreshes, after which what was done so far survives a crash.
        on_progress: called after each batch.
        on_refused: called with (id, reason) for each product that the engine did not take.
        on_durable: called with the number of products that are now durable.

    Raises:
        EncoderMismatch: the index has vectors of another encoder: ``rebuild`` it.
        InvalidInput: ``rebuild`` would leave an empty index.
        EngineError: the engine failed; what was durable before stays.
    """
    summary = IndexSummary()
    started = time.monotonic()
    encoder_id, dims = (encoder.id, encoder.dims) if encoder else (NO_ENCODER, None)
    with ExitStack() as stack:
        target: Engine | Rebuild
        if rebuild:
            target = stack.enter_context(engine.rebuild(dims, encoder_id))
        else:
            target = engine
            engine.ensure(dims, encoder_id)
        known = None if rebuild or not engine.count() else engine
        batches = _planned(products, known, encoder_id, batch_size, trusted)
        stages = stack.enter_context(_Ahead(_encoded(stack.enter_context(_Ahead(batches)), encoder)))
        last_durable = time.monotonic()
        for batch in stages:
            _write(target, engine, batch, summary, on_refused)
            summary.seconds = time.monotonic() - started
            on_progress(summary)
            if not rebuild and time.monotonic() - last_durable > durable_every_s:
                engine.refresh()
                on_durable(summary.read)
                last_durable = time.monotonic()
        if rebuild and not summary.indexed:
            raise InvalidInput("no product could be indexed: the index stays as it was")
    engine.refresh()
    on_durable(summary.read)
    summary.seconds = time.monotonic() - started
    return summary


def apply_changes(
    changes: Iterable[tuple[str, Mapping[str, Any]]],
    engine: Engine,
    *,
    batch_size: int = 1_000,
    on_progress: Callable[[IndexSummary], None] = lambda summary: None,
    on_refused: Callable[[str, str], None] = lambda product_id, reason: None,
) -> IndexSummary:
    """Change some fields of products (see :meth:`Engine.update`), without encoding.

    Raises:
        EngineError: the engine failed.
    """
    summary = IndexSummary()
    started = time.monotonic()
    for batch in _batches(changes, batch_size):
        # An id that comes again takes its changes on top of the first ones.
        merged: dict[str, dict[str, Any]] = {}
        for product_id, change in batch:
            merged[product_id] = merge(merged.get(product_id, {}), change)
        report = engine.update(merged.items())
        summary.read += len(batch)
        summary.updated += report.done
        _refuse(report, summary, on_refused)
        summary.seconds = time.monotonic() - started
        on_progress(summary)
    engine.refresh()
    summary.seconds = time.monotonic() - started
    return summary


def delete_missing(engine: Engine, keep: KeySet, on_refused: Callable[[str, str], None] = lambda one, why: None) -> int:
    """Delete the products whose keys are not in ``keep``; returns how many."""
    # The scan ends before anything changes under it; ids alone are small.
    missing = [
        product.id
        for batch in engine.scan(vectors=False)
        for product, _ in batch
        if product_key(product.id) not in keep
    ]
    summary = IndexSummary()
    for ids in _batches(missing, 1_000):
        report = engine.delete(ids)
        summary.deleted += report.done
        _refuse(report, summary, on_refused)
    if missing:
        engine.refresh()
    return summary.deleted


def merge(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """One change after another as a single one: fields replace, attributes are merged by name."""
    merged = {**before, **change}
    if isinstance(before.get("attributes"), Mapping) and isinstance(change.get("attributes"), Mapping):
        merged["attributes"] = {**before["attributes"], **change["attributes"]}
    return merged


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The change (as :meth:`Engine.update` takes it) that makes the document ``before`` the document ``after``."""
    change = {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    if "attributes" in change:
        old, new = before.get("attributes") or {}, after.get("attributes") or {}
        change["attributes"] = {
            name: new.get(name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)
        }
    return change


def _planned(
    products: Iterable[Product], known: Engine | None, encoder_id: str, size: int, trusted: int
) -> Iterator[_Batch]:
    """Batches, with what the engine already has taken out."""
    seen = KeySet()
    position = 0
    for group in _batches(products, size):
        batch = _Batch(read=len(group))
        position += len(group)
        latest = {product.id: product for product in group if not is_generated(product.id)}
        batch.generated = [product.id for product in group if is_generated(product.id)]
        fresh: dict[str, bool] = {}
        for product_id in latest:
            # What the engine has says nothing about an id that this run may be about to write.
            fresh[product_id] = seen.add(product_key(product_id))
        ids = [product_id for product_id in latest if fresh[product_id]] if known else []
        stored = dict(zip(ids, known.digests(ids), strict=True)) if known and ids else {}
        same = []
        for product_id, product in latest.items():
            digest = text_digest(encoder_id, product.text())
            if stored.get(product_id) == digest:
                same.append(product_id)
            else:
                batch.new.append((product, digest))
        if same and known and position > trusted:
            for product_id, document in zip(same, known.get(same), strict=True):
                change = difference(document or {}, latest[product_id].to_document())
                if change:
                    batch.changes.append((product_id, change))
        batch.unchanged = len(same) - len(batch.changes)
        yield batch


def _encoded(batches: Iterable[_Batch], encoder: TextEncoder | None) -> Iterator[_Batch]:
    for batch in batches:
        if encoder and batch.new:
            batch.vectors = encoder.encode([product.text() for product, _ in batch.new])
        yield batch


def _write(
    target: Engine | Rebuild,
    engine: Engine,
    batch: _Batch,
    summary: IndexSummary,
    on_refused: Callable[[str, str], None],
) -> None:
    if batch.new:
        vectors: Iterable[np.ndarray | None] = [None] * len(batch.new) if batch.vectors is None else batch.vectors
        items = [(product, vector, digest) for (product, digest), vector in zip(batch.new, vectors, strict=True)]
        report = target.upsert(items)
        summary.indexed += report.done
        _refuse(report, summary, on_refused)
    if batch.changes:
        report = engine.update(batch.changes)
        summary.updated += report.done
        _refuse(report, summary, on_refused)
    summary.unchanged += batch.unchanged
    summary.read += batch.read
    for product_id in batch.generated:
        summary.refused += 1
        on_refused(product_id, "made up by a generator: it is for training only and never a product")


def _refuse(report: IndexReport, summary: IndexSummary, on_refused: Callable[[str, str], None]) -> None:
    summary.refused += len(report.errors)
    for product_id, reason in report.errors:
        on_refused(product_id, reason)


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class _Ahead(Iterable[_T]):
    """Runs an iterator in a thread, a few items ahead of its reader. Its errors are raised where the items would be.

    Leaving the ``with`` block ends the thread.
    """

    def __init__(self, items: Iterable[_T]) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endcap-indexing", daemon=True)

    def __enter__(self) -> _Ahead[_T]:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def __iter__(self) -> Iterator[_T]:
        while True:
            try:
                kind, value = self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._stop.is_set():
                    return
                continue
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put((kind, value), timeout=0.2)
                return True
            except queue.Full:
                continue
        return False
