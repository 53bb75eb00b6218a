"""Copies a shop's own index into Endcap's, and keeps the copy up to date without scanning.

One mechanism fills the copy, goes on after a break, and follows: each shard is read in the order of its sequence
numbers, and how far it was read is in the database (:mod:`endcap.stores.attached`), with each document's number.

* *Changed and new documents* have a number above what was read. A number may become visible a moment after a higher
  one, so the last :data:`OVERLAP` of them are looked at again; what has the number that it had costs nothing more.
* *Deleted documents* leave no trace in a search. But a range of numbers then holds fewer documents than it did: halving
  the range finds them with a few counts each. Every id is asked for by itself before it is removed here.
* *An index that was made anew* has another UUID, so it is read from the beginning; what is not in it any more is
  removed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from endcap.attach.field import VectorField
from endcap.attach.source import Document, Source, Unit
from endcap.catalog.product import Product, text_digest
from endcap.encoders.base import TextEncoder
from endcap.engines.base import Engine
from endcap.errors import ConfigurationError, InvalidInput
from endcap.foreign import ForeignDocuments
from endcap.indexing import NO_ENCODER, index_products
from endcap.settings import Settings
from endcap.stores.attached import Ledger
from endcap.stores.database import Database

#: Numbers below the highest one read that are looked at again.
OVERLAP = 2_000
#: So few documents are looked for by id rather than by halving further.
_LEAF = 200
#: Documents that are encoded and made durable at once.
_STEP = 2_000


@dataclass(slots=True)
class SyncReport:
    """``read`` documents were new or changed; of those ``indexed`` had other text than before, ``updated`` other fields
    only. ``total``: documents in the copy afterwards. ``vectors``: written into the index itself."""

    read: int = 0
    indexed: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: int = 0
    total: int = 0
    requests_for_deleted: int = 0
    vectors: int = 0
    seconds: float = 0.0


def source_of(settings: Settings) -> str:
    """What the ledger calls the attached index.

    Raises:
        ConfigurationError: none is attached.
    """
    if not settings.source_index:
        raise ConfigurationError("no index is attached: `endcap attach URL INDEX`")
    return f"{settings.engine_url}/{settings.source_index}"


def synchronise(
    settings: Settings,
    engine: Engine,
    database: Database,
    encoder: TextEncoder | None,
    *,
    rate: float = 0.0,
    on_progress: Callable[[SyncReport, int], None] = lambda report, total: None,
) -> SyncReport:
    """Bring the copy up to date, from wherever it is.

    Args:
        engine: where the copy is.
        rate: documents read in a second, at most; 0: as fast as it goes.
        on_progress: called after every step with the report so far and how many documents were to be read.

    Raises:
        ConfigurationError: nothing is attached, or the index keeps no sequence numbers.
        EncoderMismatch: the copy has vectors of another encoder.
        EngineError: the search engine cannot answer; what was done before stays done.
    """
    ledger = Ledger(database, source_of(settings))
    report = SyncReport()
    began = time.monotonic()
    with ExitStack() as stack:
        source = stack.enter_context(closing(Source(settings, settings.source_index)))
        units = source.units()
        encoder_id, dims = (encoder.id, encoder.dims) if encoder else (NO_ENCODER, None)
        engine.ensure(dims, encoder_id)
        field: VectorField | None = None
        if settings.source_vector_field and dims is not None:
            field = VectorField(source, settings.source_vector_field)
            field.ensure(dims)
        if not engine.count():
            ledger.clear()  # the copy is gone, or was never made
        roles = sorted(settings.field_roles.items())
        reading = hashlib.blake2b(repr((encoder_id, roles)).encode(), digest_size=8).hexdigest()
        marks = {unit.key: ledger.read_up_to(unit.key, reading) for unit in units}
        to_read = sum(source.count(unit, marks[unit.key] + 1, _LAST) for unit in units)
        reader: ForeignDocuments | None = None
        pace = _Pace(rate)
        for unit in units:
            mark = marks[unit.key]
            for hits in _steps(_fresh(source, ledger, unit, mark, reading), pace):
                if not hits:
                    continue
                reader = reader or _reader(settings, source)
                places = {str(hit["_id"]): int(hit["_seq_no"]) for hit in hits}
                products = [reader.product(hit) for hit in hits]
                lacking = _lacking(field, hits, products, engine, encoder)
                summary = index_products(products, engine, encoder)
                if field is not None and encoder is not None and lacking:
                    texts = [products[place].text() for place in lacking]
                    report.vectors += field.write([hits[place] for place in lacking], encoder.encode(texts))
                report.read += len(hits)
                report.indexed += summary.indexed
                report.updated += summary.updated
                report.unchanged += summary.unchanged
                report.refused += summary.refused
                mark = max(mark, *places.values())
                ledger.record(unit.key, reading, places, mark)
                report.seconds = time.monotonic() - began
                on_progress(report, max(to_read, report.read))
            marks[unit.key] = mark
        gone = _deleted(source, ledger, units, marks, report)
        if gone:
            report.deleted = engine.delete(gone).done
            engine.refresh()
            ledger.remove(gone)
        keys = {unit.key for unit in units}
        for key in set(ledger.units()) - keys:
            ledger.forget_unit(key)
        report.total = engine.count()
    report.seconds = time.monotonic() - began
    return report


_LAST = 2**53


def _reader(settings: Settings, source: Source) -> ForeignDocuments:
    sample = source.sample()
    if not sample:
        raise InvalidInput(f"[{source.name}] holds no document whose fields could be looked at")
    return ForeignDocuments(settings, sample)


def _lacking(
    field: VectorField | None,
    hits: Sequence[Document],
    products: Sequence[Product],
    engine: Engine,
    encoder: TextEncoder | None,
) -> list[int]:
    """Places of the hits whose vector in the index itself is missing, or of a text that they do not have any more."""
    if field is None or encoder is None:
        return []
    known = engine.digests([product.id for product in products])
    changed = [text_digest(encoder.id, one.text()) != digest for one, digest in zip(products, known, strict=True)]
    missing = field.missing(hits)
    return [place for place in range(len(hits)) if changed[place] or missing[place]]


def _fresh(source: Source, ledger: Ledger, unit: Unit, mark: int, reading: str) -> Iterator[list[Document]]:
    """Pages of documents that were not read yet as they are now."""
    for hits in source.changed(unit, max(-1, mark - OVERLAP)):
        known = ledger.places([str(hit["_id"]) for hit in hits]) if mark >= 0 else {}
        yield [hit for hit in hits if known.get(str(hit["_id"])) != (unit.key, int(hit["_seq_no"]))]


def _steps(pages: Iterator[list[Document]], pace: _Pace) -> Iterator[list[Document]]:
    """The pages, joined until they are worth a commit; the last version of a document counts."""
    step: dict[str, Document] = {}
    for hits in pages:
        pace.spend(len(hits))
        for hit in hits:
            step[str(hit["_id"])] = hit
        if len(step) >= (_STEP if not pace.rate else min(_STEP, max(100.0, 10 * pace.rate))):
            yield list(step.values())
            step = {}
    yield list(step.values())


def _deleted(
    source: Source, ledger: Ledger, units: Sequence[Unit], marks: dict[str, int], report: SyncReport
) -> list[str]:
    """Documents of the ledger that are not in the index any more."""
    by_key = {unit.key: unit for unit in units}
    suspects: list[str] = []
    for key in ledger.units():
        if key not in by_key:
            suspects += ledger.ids(key)
            continue
        unit = by_key[key]
        ranges = [(0, marks[key])]
        while ranges:
            low, high = ranges.pop()
            here = ledger.count(key, low, high)
            report.requests_for_deleted += 1
            if not here or here <= source.count(unit, low, high):
                continue
            if here <= _LEAF:
                report.requests_for_deleted += 1
                there = source.ids(unit, low, high, _LEAF)
                suspects += [one for one in ledger.ids(key, low, high) if one not in there]
                continue
            middle = ledger.middle(key, low, high, here)
            ranges += [(low, middle - 1), (middle, high)]
    if not suspects:
        return []
    existing = source.existing(suspects)
    return [one for one in suspects if one not in existing]


class _Pace:
    """Waits so that no more than ``rate`` documents a second are read."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._began = time.monotonic()
        self._done = 0

    def spend(self, documents: int) -> None:
        """So many were read."""
        self._done += documents
        if self.rate > 0:
            time.sleep(max(0.0, self._done / self.rate - (time.monotonic() - self._began)))
