"""Answers one search body over one snapshot of the index."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np

from endcap.catalog.product import INTERNAL_FIELDS
from endcap.engines.embedded import schema as layout
from endcap.engines.embedded.snapshot import Snapshot

from . import vector
from .aggregations import Aggregator
from .context import MUST, Context, Query, any_of, everything, filtering, nothing
from .errors import illegal, unsupported
from .parse import Plan, parse_body
from .queries import compile_filter, compile_query, scores_alike
from .scoring import scored
from .sorting import Row, by_id, ordered
from .source import field_values
from .suggest import suggest
from .values import MAX_WINDOW

SHARDS = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
#: Where all scores are equal the order is that of the ids, which the index can give by itself; quickly for so many.
_BY_ID_UP_TO = 500
_INNER_PARTS = frozenset(
    {
        "from",
        "size",
        "sort",
        "_source",
        "fields",
        "docvalue_fields",
        "highlight",
        "track_scores",
        "stored_fields",
    }
)


def answer(
    snapshot: Snapshot, index: str, body: Mapping[str, Any], typed: bool = False, as_int: bool = False
) -> dict[str, Any]:
    """Elasticsearch's answer to a search body.

    Args:
        index: the name that hits carry.
        typed: names of aggregations and suggestions carry their type.
        as_int: `hits.total` is a number.

    Raises:
        DslError: see :func:`~.parse.parse_body`.
    """
    begun = perf_counter()
    plan = parse_body(body)
    context = Context(snapshot)
    query = _matches(plan, context)
    hits_query = query
    if plan.post_filter is not None:
        with context.unmarked(), context.among_others():
            hits_query = Query.boolean_query([(MUST, query), (MUST, compile_filter(plan.post_filter, context))])
    # As in Elasticsearch: a body with a suggestion and nothing to search for finds nothing.
    if plan.suggest and plan.query is None and not plan.knn and not plan.aggs:
        hits_query = nothing()
    hits = _hits(plan, context, hits_query, index)
    if as_int and isinstance(hits.get("total"), dict):
        hits["total"] = hits["total"]["value"]
    made: dict[str, Any] = {"took": 0, "timed_out": False, "_shards": dict(SHARDS), "hits": hits}
    if plan.aggs:
        made["aggregations"] = Aggregator(context, compile_query, typed).run(plan.aggs, query)
    if plan.suggest:
        made["suggest"] = suggest(plan.suggest, context, typed)
    made["took"] = round((perf_counter() - begun) * 1000)
    return made


def count(snapshot: Snapshot, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of `_count`."""
    for key in body:
        if key != "query":
            raise illegal(f"request does not support [{key}]")
    context = Context(snapshot)
    query = compile_query(body["query"], context) if body.get("query") is not None else everything()
    return {"count": context.count(query), "_shards": dict(SHARDS)}


def _matches(plan: Plan, context: Context) -> Query:
    """What matches and how it scores: the query, the nearest neighbours, or both with the sum of their scores."""
    parts = [compile_query(plan.query, context)] if plan.query is not None else []
    with context.among_others():
        parts += [vector.nearest(clause, context, compile_filter, k=max(plan.size, 1)) for clause in plan.knn]
    if context.rescoring is not None and plan.knn:
        raise unsupported("knn beside function_score")
    query = any_of(parts) if parts else everything()
    least = plan.min_score
    if least is None and (context.rescoring is None or context.rescoring.min_score is None):
        return query
    addresses, scores = scored(context, query)
    kept = np.flatnonzero(scores >= least).tolist() if least is not None else range(len(addresses))
    ids = context.snapshot.ids_of([addresses[at] for at in kept])
    if not ids:
        return nothing()
    return Query.boolean_query([(MUST, query), (MUST, filtering(Query.term_set_query(context.schema, layout.ID, ids)))])


def _hits(plan: Plan, context: Context, query: Query, index: str) -> dict[str, Any]:
    groups: list[Any] = []
    if plan.collapse and plan.size:
        total, pairs = plan.collapse.rows(context, query, plan.keys, plan.offset, plan.size)
        rows, groups = [row for row, _ in pairs], [value for _, value in pairs]
    elif (
        not (plan.keys or plan.knn or plan.after)
        and 0 < plan.offset + plan.size <= _BY_ID_UP_TO
        and scores_alike(plan.query)
    ):
        total, rows = by_id(context, query, plan.offset, plan.size)
    else:
        total, rows = ordered(context, query, plan.keys, plan.offset, plan.size, plan.after, plan.scores)
    hits = _page(plan, context, query, index, rows)
    for hit, value in zip(hits, groups, strict=False):
        assert plan.collapse
        if value is not None:
            hit.setdefault("fields", {})[plan.collapse.name] = [value]
        for name, body in plan.collapse.inner:
            hit.setdefault("inner_hits", {})[name] = {"hits": _inner(plan, context, query, index, value, body)}
    made: dict[str, Any] = {}
    if plan.track is None:
        made["total"] = {"value": total, "relation": "eq"}
    elif plan.track:
        made["total"] = {"value": min(total, plan.track), "relation": "gte" if total > plan.track else "eq"}
    made["max_score"] = _max_score(plan, context, query, rows)
    made["hits"] = hits
    return made


def _max_score(plan: Plan, context: Context, query: Query, rows: list[Row]) -> float | None:
    if not rows or (plan.keys and not plan.scores):
        return None
    if not plan.offset and not plan.keys and plan.after is None:
        return rows[0].score
    if context.rescoring is not None:
        return float(scored(context, query)[1].max())
    best = context.searcher.search(query, limit=1, count=False).hits
    return float(best[0][0]) if best else None


def _page(plan: Plan, context: Context, query: Query, index: str, rows: list[Row]) -> list[dict[str, Any]]:
    snapshot = context.snapshot
    ids = snapshot.ids_of([row.address for row in rows])
    read = plan.source.enabled or plan.fields or plan.highlighter
    marked = plan.highlighter.marked(context, compile_query) if plan.highlighter and rows else []
    named = _named(context, ids)
    hits: list[dict[str, Any]] = []
    for row, one in zip(rows, ids, strict=True):
        hit: dict[str, Any] = {"_index": index, "_id": one, "_score": row.score if _shows_score(plan) else None}
        if read:
            document = {
                key: value for key, value in snapshot.document(row.address).items() if key not in INTERNAL_FIELDS
            }
            if plan.source.enabled:
                hit["_source"] = plan.source.apply(document)
            if plan.fields and (values := field_values(document, plan.fields)):
                hit["fields"] = values
            if plan.highlighter and (fragments := plan.highlighter.fragments(document, marked)):
                hit["highlight"] = fragments
        if row.sort is not None:
            hit["sort"] = row.sort
        if matched := [name for name, matching in named.items() if one in matching]:
            hit["matched_queries"] = matched
        hits.append(hit)
    return hits


def _shows_score(plan: Plan) -> bool:
    return not plan.keys or plan.scores or any(key.by_score for key in plan.keys)


def _named(context: Context, ids: list[str]) -> dict[str, set[str]]:
    """Which of the page's hits each named query matches."""
    if not context.named or not ids:
        return {}
    shown = filtering(Query.term_set_query(context.schema, layout.ID, ids))
    found: dict[str, set[str]] = {}
    for name, query in context.named.items():
        both = Query.boolean_query([(MUST, shown), (MUST, query)])
        hits = context.searcher.search(both, limit=len(ids), count=False).hits
        found[name] = set(context.snapshot.ids_of([address for _, address in hits]))
    return found


def _inner(
    plan: Plan, context: Context, query: Query, index: str, value: Any, body: Mapping[str, Any]
) -> dict[str, Any]:
    """Inner hits of one group."""
    assert plan.collapse
    for key in body:
        if key not in _INNER_PARTS:
            raise illegal(f"[inner_hits] unknown field [{key}]")
    inner = parse_body({**body, "track_total_hits": True})
    if plan.size * inner.size > MAX_WINDOW:
        raise illegal(f"[inner_hits] would return more than [{MAX_WINDOW}] hits")
    return _hits(inner, context, plan.collapse.inside(context, query, value), index)
