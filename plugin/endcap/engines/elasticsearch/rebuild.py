"""A new index filled beside the one that serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType

import numpy as np
from elasticsearch import Elasticsearch

from endcap.catalog.product import Product
from endcap.engines.base import IndexReport
from endcap.engines.elasticsearch.indices import Indices
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

    def __enter__(self) -> IndexRebuild:
        with self._guard():
            self._indices.serving()  # refuses a name that is not Endcap's, before any work is done
            self._indices.sweep()
            self._name = self._indices.create(self._meta, live=False)
        return self

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
        if error is not None:
            self._discard(name)
            return
        try:
            with self._guard():
                self._indices.switch(name, self._meta)
        except BaseException:
            self._discard(name)
            raise
        self._serve(self._meta)

    def _discard(self, name: str) -> None:
        # What went wrong first is the news; a cluster that is gone cannot be tidied, and a later rebuild sweeps.
        try:
            with self._guard():
                self._indices.discard(name)
        except EndcapError as error:
            logger.warning("%s could not be removed: %s", name, error)
