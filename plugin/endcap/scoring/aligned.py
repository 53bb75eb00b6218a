"""A bundle's view of the product tables in use: at most two, the one that searches use and the one that comes next."""

from __future__ import annotations

import threading

from endcap.bundles import Bundle
from endcap.catalog.table import ProductTable
from endcap.sequences import Alignment


class Aligned:
    """Alignments by table. Thread-safe; one is made once however many threads ask for it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
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
            made = Alignment(table, self._bundle.vocabulary, self._bundle.spec, self._bundle.affinity)
            self._made = (made, *self._made[:1])
            return made
