"""Nearest neighbours as a query: each of the k nearest products with a constant score, so that everything else
(filters, facets, sums with a text query, sorting) works on it as on any query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from endcap.engines.embedded import schema as layout
from endcap.engines.embedded.nearest import nearest as nearest_rows

from .context import Context, Query, any_of, nothing
from .errors import illegal, parsing, refused, unsupported
from .fields import is_vector
from .values import as_float, as_int, as_object

_ALLOWED = {
    "field", "query_vector", "k", "num_candidates", "filter", "similarity", "boost", "_name", "rescore_vector",
    "visit_percentage",
}  # fmt: skip
_MAX_CANDIDATES = 10_000


def nearest(options: Any, context: Context, compile_filter: Callable[[Any, Context], Query], k: int = 10) -> Query:
    """The `knn` clause. Scores are (1 + cosine) / 2, times `boost`. Distances are exact, so `num_candidates` and
    `rescore_vector` have nothing to improve. ``k``: where the clause does not say.

    Raises:
        DslError: no such field, a vector of another size, or a part that is not answered here.
    """
    options = as_object(options, "knn")
    for key in options:
        if key in ("query_vector_builder", "inner_hits"):
            raise unsupported(f"knn.{key}")
        if key not in _ALLOWED:
            raise parsing(f"[knn] unknown field [{key}]")
    name = options.get("field")
    if not isinstance(name, str):
        raise parsing("Required [field] in [knn]")
    k = as_int(options.get("k", k), "k", 1, _MAX_CANDIDATES)
    candidates = as_int(options.get("num_candidates", max(k, 1)), "num_candidates", 1, _MAX_CANDIDATES)
    if candidates < k:
        raise illegal(f"[num_candidates] cannot be less than [k], got [{candidates}] and [{k}]")
    snapshot = context.snapshot
    if not is_vector(name) or snapshot.vectors is None:
        return nothing()
    vector = _unit_vector(options.get("query_vector"), snapshot.vectors.dims)
    allowed = snapshot.alive
    if options.get("filter"):
        allowed = np.zeros_like(snapshot.alive)
        with context.unmarked():
            allowed[snapshot.rows_matching(compile_filter(options["filter"], context))] = True
    rows, cosines = nearest_rows(snapshot, vector, k, allowed)
    if options.get("similarity") is not None:
        rows = rows[cosines >= as_float(options["similarity"], "similarity")]
    boost = as_float(options.get("boost", 1.0), "boost")
    if boost < 0:
        raise illegal(f"negative [boost] are not allowed in [knn], got [{boost}]")
    near = [
        Query.const_score_query(context.term(layout.SEQ, int(snapshot.seqs[row])), (1.0 + float(cosine)) / 2.0 * boost)
        for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=False)
    ]
    return any_of(near) if near else nothing()


def _unit_vector(values: Any, dims: int) -> np.ndarray:
    if not isinstance(values, list) or not values:
        raise parsing("Required [query_vector] in [knn]")
    if len(values) != dims:
        raise refused(
            f"The query vector has a different number of dimensions [{len(values)}] than the document vectors [{dims}]."
        )
    vector = np.array([as_float(value, "query_vector") for value in values], dtype=np.float32)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        raise refused("The [cosine] similarity does not support vectors with zero magnitude.")
    return vector / length
