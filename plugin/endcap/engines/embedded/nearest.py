"""The nearest vectors of a large index: a graph (HNSW) proposes, the exact cosine decides.

Up to ``EXACT_ROWS`` vectors no graph is needed. Above, the writer keeps one in a file beside the index. It names
vectors by their content, so changed prices do not touch it; what it lacks is searched exactly until it is extended.
Losing or deleting it costs speed, never results.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from endcap.files import sync, write_atomically

# isort: off
import onnxruntime  # noqa: F401 - must be loaded before usearch: in the other order its import crashes the process
from usearch.index import Index
# isort: on

from endcap.engines.embedded import vectors
from endcap.engines.embedded.snapshot import Snapshot
from endcap.engines.embedded.vectors import VectorTable, best_of

#: With so few products left by filters, all of them are looked at.
_EXACT_FILTERED = 20_000
#: The graph is extended once more vectors than this, and than a tenth of all, are missing in it.
_MAX_MISSING = 10_000
#: Candidates looked at, at least: recall against speed.
_MIN_EXPANSION = 192
_MAX_ASKED = 10_000
#: Vectors as the graph keeps them: a byte a number, which halves memory and time against float16 and proposes the same.
_KIND = "i8"
#: Vectors that are widened at once on their way into the graph.
_BLOCK = 50_000
_DESCRIPTION, _FILE = "graph.json", "graph-{}.usearch"


@dataclass(eq=False)
class Graph:
    """A graph on disk, as one snapshot sees it."""

    index: Index
    file: Path
    table: VectorTable
    alive: np.ndarray

    @cached_property
    def _by_key(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys of the live vectors in ascending order, and their rows. Equal vectors share a key."""
        rows = np.flatnonzero(self.alive & self.table.present)
        keys = self.table.keys[rows]
        order = np.argsort(keys, kind="stable")
        return keys[order], rows[order]

    @cached_property
    def missing(self) -> np.ndarray:
        """Live rows whose vectors the graph lacks; int64."""
        keys, rows = self._by_key
        return np.sort(rows[~np.isin(keys, np.asarray(self.index.keys))])

    @cached_property
    def stale(self) -> int:
        """Vectors in the graph that no live product has."""
        return int((~np.isin(np.asarray(self.index.keys), self._by_key[0])).sum())

    def propose(self, vector: np.ndarray, count: int) -> np.ndarray:
        """Rows of about ``count`` near vectors; int64."""
        found = self.index.search(vector.astype(np.float32), min(count, len(self.index)), threads=1)
        keys, rows = self._by_key
        asked = np.asarray(found.keys, dtype=np.uint64)
        first = np.searchsorted(keys, asked, "left")
        each = np.searchsorted(keys, asked, "right") - first
        # The places first, first + 1, … of each key, one after the other.
        within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        return rows[np.repeat(first, each) + within]


def nearest(snapshot: Snapshot, vector: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the allowed live rows to a unit vector (float32): rows (int64) and cosines (float32).

    Exact for up to ``EXACT_ROWS`` vectors and for narrow filters; else nearly all of the k are the true ones.
    """
    table = snapshot.vectors
    assert table is not None
    allowed = allowed & table.present
    wide = int(np.count_nonzero(allowed))
    graph = _graph(snapshot) if len(table) > vectors.EXACT_ROWS and wide > _EXACT_FILTERED else None
    if graph is None or k >= wide:
        return table.nearest(vector, k, allowed)
    extra = graph.missing[allowed[graph.missing]]
    # Filters are applied to what the graph proposes: the narrower they are, the more it has to propose.
    asked = max(_MIN_EXPANSION, int(2 * k * len(snapshot.seqs) / wide))
    while asked <= _MAX_ASKED:
        rows = graph.propose(vector, asked)
        rows = rows[allowed[rows]]
        if len(rows) + len(extra) >= k:
            rows = np.concatenate([rows, extra])
            return best_of(rows, table.scores(vector, rows), k)
        asked *= 4
    return table.nearest(vector, k, allowed)


def _graph(snapshot: Snapshot) -> Graph | None:
    """The graph that is on disk now, opened once per snapshot and file."""
    table = snapshot.vectors
    try:
        stamp = os.stat(snapshot.folder / _DESCRIPTION).st_mtime_ns
        held = snapshot.derived.get("graph")
        if held is not None and held[0] == stamp:
            return cast(Graph, held[1])
        description = json.loads((snapshot.folder / _DESCRIPTION).read_text())
        file = snapshot.folder / description["file"]
        index = None
        fits = table is not None and (description["dims"], description.get("kind")) == (table.dims, _KIND)
        if fits and file.stat().st_size == description["bytes"]:
            index = Index.restore(str(file), view=True)
    except (OSError, ValueError, KeyError, RuntimeError):
        return None
    if index is None or table is None:
        return None
    graph = Graph(index, file, table, snapshot.alive)
    snapshot.derived["graph"] = (stamp, graph)
    return graph


def maintain(snapshot: Snapshot) -> bool:
    """Make or extend the graph where that is due; only the writer may. Returns whether it did.

    Takes about half a millisecond of one core per vector that is added.
    """
    table = snapshot.vectors
    if table is None or len(table) <= vectors.EXACT_ROWS:
        return False
    graph = _graph(snapshot)
    live = np.flatnonzero(snapshot.alive & table.present)
    if graph is None:
        index, rows = None, live
    elif len(graph.missing) <= max(_MAX_MISSING, len(live) // 10):
        return False
    elif graph.stale > 0.3 * len(graph.index):
        index, rows = None, live
    else:
        index, rows = Index.restore(str(graph.file), view=False), graph.missing
    if index is None:
        index = Index(ndim=table.dims, metric="cos", dtype=_KIND)
    keys, first = np.unique(table.keys[rows], return_index=True)
    for start in range(0, len(keys), _BLOCK):
        some = slice(start, start + _BLOCK)
        index.add(keys[some], table.vectors(rows[first[some]]))
    _save(snapshot.folder, index, table.dims)
    return True


def _save(folder: Path, index: Index, dims: int) -> None:
    """The file first, then the description that makes it count; each appears whole or not at all."""
    old = list(folder.glob(_FILE.format("*")))
    numbers = [int(one.stem.split("-")[1]) for one in old]
    file = folder / _FILE.format(max(numbers, default=0) + 1)
    index.save(str(file))
    sync(file)
    about = {"file": file.name, "bytes": file.stat().st_size, "dims": dims, "kind": _KIND}
    write_atomically(folder / _DESCRIPTION, json.dumps(about).encode(), durable=True)
    for one in old:
        one.unlink(missing_ok=True)
