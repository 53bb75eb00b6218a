"""The order of hits: by score or by a field, ties always by product id, so that pages partition the answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import tantivy

from endcap.engines.embedded.schema import TITLE_SORT
from endcap.engines.embedded.snapshot import Snapshot

#: (sort key: a score, number, text or None; where the document is)
Ranked = tuple[Any, tantivy.DocAddress]

SORTS = {
    "price:asc": ("price", tantivy.Order.Asc),
    "price:desc": ("price", tantivy.Order.Desc),
    "title:asc": (TITLE_SORT, tantivy.Order.Asc),
}


def top(
    snapshot: Snapshot,
    query: tantivy.Query,
    offset: int,
    size: int,
    field: str | None = None,
    order: tantivy.Order = tantivy.Order.Desc,
) -> tuple[int, list[Ranked]]:
    """The exact number of matches, and those from ``offset`` on, at most ``size``.

    By score where ``field`` is None, else by that fast field; documents without a value come last either way.
    """
    wanted = offset + size
    if size <= 0:
        return count(snapshot, query), []
    limit = wanted + 1
    while True:
        result = snapshot.searcher.search(query, limit=limit, count=True, order_by_field=field, order=order)
        hits = result.hits
        # The engine breaks ties by where a document happens to lie. Only a page that ends between two different keys,
        # or at the end, holds all that tie: otherwise look further.
        if len(hits) < limit or limit >= snapshot.count or hits[wanted - 1][0] != hits[-1][0]:
            break
        # Where everything ties (nothing was asked for but a filter), go straight to the end.
        limit = snapshot.count if hits[0][0] == hits[-1][0] else limit * 4
    return int(cast(Any, result).count), _by_id(snapshot, hits, offset, wanted)


def count(snapshot: Snapshot, query: tantivy.Query) -> int:
    """The exact number of matches."""
    return int(cast(Any, snapshot.searcher.search(query, limit=1, count=True)).count)


def _by_id(snapshot: Snapshot, hits: list[Ranked], offset: int, wanted: int) -> list[Ranked]:
    """The hits ``offset:wanted`` after each run of equal keys has been put in the order of product ids."""
    if not hits or offset >= len(hits):
        return []
    first, last = offset, min(wanted, len(hits)) - 1
    while first > 0 and hits[first - 1][0] == hits[offset][0]:
        first -= 1
    while last + 1 < len(hits) and hits[last + 1][0] == hits[min(wanted, len(hits)) - 1][0]:
        last += 1
    near = hits[first : last + 1]
    rows = snapshot.rows_of([address for _, address in near])
    # Ranking every id of the index pays only where many of them tie.
    names = snapshot.id_ranks[rows] if len(near) > 1000 else np.array([snapshot.ids[row] for row in rows], dtype=object)
    changes = [False, *(one[0] != other[0] for one, other in pairwise(near))]
    order = np.lexsort((names, np.cumsum(changes)))[offset - first : wanted - first]
    return [near[at] for at in order.tolist()]


def browse(snapshot: Snapshot, allowed: np.ndarray, offset: int, size: int) -> tuple[int, list[Ranked]]:
    """As :func:`top` for a search without words: the allowed rows (bool) by product id, all with score 1."""
    rows = np.flatnonzero(allowed)
    wanted = offset + size
    ranks = snapshot.id_ranks[rows] if size and offset < len(rows) else np.empty(0, np.int64)
    if wanted < len(ranks):
        first = np.argpartition(ranks, wanted)[:wanted]
        page = rows[first[np.argsort(ranks[first])][offset:]]
    else:
        page = rows[np.argsort(ranks)][offset:] if len(ranks) else rows[:0]
    names = [snapshot.ids[row] for row in page]
    places = snapshot.find(names)
    return len(rows), [(1.0, places[name]) for name in names]
