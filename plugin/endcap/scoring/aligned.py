"""A bundle's view of the product tables in use: at most two, the one that searches use and the one that comes next."""

from __future__ import annotations

import threading

from endcap.bundles import Bundle
from endcap.catalog.table import ProductTable
from endcap.sequences import UNKNOWN, Alignment


class Aligned:
    """Alignments by table. Thread-safe; one is made once however many threads ask for it."""

    def __init__(self, bundle: Bundle, augmentation: bool = True) -> None:
        """``augmentation``: products that training never saw are scored by the bundle's generator, where it has one."""
        self._bundle = bundle
        self._unknown = bundle.newcomer if augmentation else UNKNOWN
        self._lock = threading.Lock()
        self._made: tuple[Alignment, ...] = ()

    def prepare(self, table: ProductTable) -> None:
        """Make it now. Raises ScorerUnavailable where the table does not go with the model."""
        self.of(table)

    def of(self, table: ProductTable) -> Alignment:
        """Raises ScorerUnavailable where the table does not go with the model."""
        for one in self._made:
            if one.table is table:
                return one
        with self._lock:
            for one in self._made:
                if one.table is table:
                    return one
            bundle = self._bundle
            made = Alignment(table, bundle.vocabulary, bundle.spec, bundle.affinity, self._unknown)
            self._made = (made, *self._made[:1])
            return made
