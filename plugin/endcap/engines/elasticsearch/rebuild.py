"""A new index filled beside the one that serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType

import numpy as np
from elasticsearch import Elasticsearch

from endcap.catalog.product import Product
from endcap.engines.base import IndexReport
from endcap.engines.elasticsearch.indices import HOLD_S, Indices
from endcap.engines.elasticsearch.mapping import IndexMeta
from endcap.engines.elasticsearch.writing import send, upserts
from endcap.errors import EndcapError, EngineError

logger = logging.getLogger(__name__)


class IndexRebuild:
    """See :class:`~endcap.engines.base.Rebuild`. ``serve`` is told what serves once the switch is done."""

    def __init__(
        self,
        client: Elasticsearch,
        indices: Indices,
        meta: IndexMeta,
        guard: Callable[[], AbstractContextManager[None]],
        serve: Callable[[IndexMeta], object],
    ) -> None:
        self._client = client
        self._indices = indices
        self._meta = meta
        self._guard = guard
        self._serve = serve
        self._name = ""
        self._old: tuple[str, IndexMeta] | None = None
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="endcap-rebuild", daemon=True)

    def __enter__(self) -> IndexRebuild:
        with self._guard():
            old = self._indices.serving()  # refuses a name that is not Endcap's, before any work is done
            self._indices.sweep()
            if old is not None:
                self._old = old[0], self._indices.hold(*old)
        try:
            with self._guard():
                self._name = self._indices.create(self._meta, live=False)
        except BaseException:
            self._release()
            raise
        self._beating.start()
        return self

    def _beat(self) -> None:
        while self._old is not None and not self._over.wait(HOLD_S / 8):
            try:
                with self._guard():
                    self._indices.go_on_holding(*self._old)
            except EndcapError as error:
                logger.warning("the rebuild could not say that it goes on: %s", error)

    def _release(self) -> None:
        try:
            if self._old is not None:
                with self._guard():
                    self._indices.release(*self._old)
        except EndcapError as error:
            logger.warning("%s can be written again in %.0f s: %s", self._meta.index, HOLD_S, error)

    def upsert(self, items: Iterable[tuple[Product, np.ndarray | None, str]]) -> IndexReport:
        """See :meth:`Engine.upsert`."""
        if not self._name:
            raise EngineError("the rebuild is over", status=409)
        with self._guard():
            return send(self._client, upserts(items, self._meta.dims), self._name, require_alias=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name, self._name = self._name, ""
        self._over.set()
        self._beating.join()
        if error is not None:
            self._discard(name)
            return
        try:
            with self._guard():
                self._indices.switch(name, self._meta, self._old[0] if self._old else "")
        except BaseException:
            self._discard(name)
            raise
        self._serve(self._meta)

    def _discard(self, name: str) -> None:
        self._release()
        # What went wrong first is the news; a cluster that is gone cannot be tidied, and a later rebuild sweeps.
        try:
            with self._guard():
                self._indices.discard(name)
        except EndcapError as error:
            logger.warning("%s could not be removed: %s", name, error)
