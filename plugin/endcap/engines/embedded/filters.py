"""Which products pass a set of exact filters: worked out once per state, as shoppers browse the same shelves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import tantivy

from endcap.engines.base import Filter
from endcap.engines.embedded.schema import filter_query
from endcap.engines.embedded.snapshot import Snapshot

_KEPT, _KEPT_BYTES = 64, 16_000_000


def allowed_rows(snapshot: Snapshot, filters: Sequence[Filter]) -> np.ndarray:
    """The live rows that pass every filter; bool, shape (rows,). Not to be changed.

    Raises:
        InvalidInput: a filter that cannot be answered.
    """
    if not filters:
        return snapshot.alive
    kept = cast("dict[tuple[Filter, ...], np.ndarray]", snapshot.derived.setdefault("allowed_rows", {}))
    key = tuple(filters)
    found = kept.get(key)
    if found is None:
        must = [(tantivy.Occur.Must, filter_query(snapshot.index, one)) for one in filters]
        found = np.zeros(len(snapshot.seqs), dtype=bool)
        found[snapshot.rows_matching(tantivy.Query.boolean_query(must))] = True
        while len(kept) >= max(1, min(_KEPT, _KEPT_BYTES // (len(found) + 1))):
            kept.pop(next(iter(kept), key), None)  # the oldest; another thread may have been quicker
        kept[key] = found
    return found
