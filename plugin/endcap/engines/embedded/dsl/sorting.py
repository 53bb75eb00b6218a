"""`sort` and `search_after`: the matches in the order asked for, ties always by product id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tantivy

from endcap.engines.embedded import ranking
from endcap.engines.embedded import schema as layout

from .context import MUST, MUST_NOT, Context, Query, any_of, filtering, total
from .errors import DslError, illegal, parsing, unsupported
from .exact import fold_title
from .fields import Field, aggregatable
from .scoring import scored
from .source import leaves
from .values import as_float, as_list, as_text

_SCORE = Field("_score", "number")
_OPTIONS = {"order", "missing", "mode", "unmapped_type", "numeric_type"}
#: With `search_after`, so many more are looked at than are wanted: those that tie with the place in the first key.
_MORE = 64
_MODES = ("min", "max", "avg", "sum", "median")


@dataclass(frozen=True, slots=True)
class Key:
    """One level of the order. ``field`` None: an unmapped field that may be missing everywhere."""

    field: Field | None
    descending: bool = False
    missing: Any = "_last"
    mode: str | None = None

    @property
    def by_score(self) -> bool:
        return self.field is _SCORE

    @property
    def column(self) -> str | None:
        """The index field that tantivy can order by just so; None where it cannot."""
        field = self.field
        if field is None or field.kind == "attribute" or self.missing != "_last":
            return None
        if field.exact == "category" and (self.descending or self.mode == "max"):
            return None
        return field.exact

    def shown(self, value: Any) -> Any:
        """A value as a hit's `sort` shows it, and as `search_after` takes it back."""
        if value is None and self.missing not in ("_last", "_first"):
            return self.missing
        if value is None and self.field is not None and self.field.kind == "number":
            return "Infinity" if (self.missing == "_last") != self.descending else "-Infinity"
        return value

    def wrapped(self, value: Any) -> tuple[int, Any]:
        """A value as it compares: missing ones before or after all others, whichever way the order goes."""
        if value is None and self.missing not in ("_last", "_first"):
            value = self.missing
        if value is None:
            last = (self.missing == "_last") != self.descending
            return (2 if last else 0), 0
        if self.field is not None and self.field.kind == "title":
            return 1, fold_title(str(value))
        return 1, value


@dataclass(frozen=True, slots=True)
class Row:
    """One match in its place. ``score`` None: not computed. ``sort`` None: the order is by relevance."""

    address: tantivy.DocAddress
    score: float | None
    sort: list[Any] | None = None


def parse_sort(body: Any) -> list[Key]:
    """The keys of a body's `sort`; empty for plain relevance.

    Raises:
        DslError: a key that is not answered here, or a field that cannot be sorted by.
    """
    items = as_list(body)
    if len(items) > 16:
        raise illegal("at most [16] sort keys are supported")
    keys = [_key(item) for item in items]
    if len(keys) == 1 and keys[0].by_score and keys[0].descending:
        return []
    return keys


def _key(item: Any) -> Key:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise parsing("malformed sort format, within the sort array, an object, or an actual string are allowed")
    (name, options), *_ = item.items()
    options = {"order": options} if isinstance(options, str) else options
    if not isinstance(options, dict):
        raise parsing(f"[sort] failed to parse [{name}]")
    if name in ("_script", "_geo_distance"):
        raise unsupported(f"sort by {name}")
    for option in options:
        if option in ("nested", "format", "nested_path", "nested_filter"):
            raise unsupported(f"sort.{option}")
        if option not in _OPTIONS:
            raise parsing(f"[field_sort] unknown field [{option}]")
    order = str(options.get("order", "desc" if name == "_score" else "asc")).lower()
    if order not in ("asc", "desc"):
        raise illegal(f"Unknown SortOrder [{order}]")
    if name == "_score":
        return Key(_SCORE, order == "desc")
    mode = options.get("mode")
    if mode is not None and mode not in _MODES:
        raise illegal(f"Unknown SortMode [{mode}]")
    field = aggregatable("_id" if name in ("_doc", "_shard_doc") else name, "sort")
    if field is None and "unmapped_type" not in options:
        raise DslError("query_shard_exception", f"No mapping found for [{name}] in order to sort on", wrapped=True)
    missing = options.get("missing", "_last")
    if field is not None and field.kind == "number" and missing not in ("_last", "_first"):
        missing = as_float(missing, "missing")
    elif missing not in ("_last", "_first"):
        missing = as_text(missing, "missing")
    return Key(field, order == "desc", missing, mode)


def parse_after(values: Any, keys: Sequence[Key]) -> list[Any] | None:
    """`search_after`: one value per key.

    Raises:
        DslError: too few, too many, or of the wrong type.
    """
    if values is None:
        return None
    if not isinstance(values, list) or not values:
        raise parsing("Values must contains at least one value.")
    if not keys and len(values) == 1:
        return [as_float(values[0], "search_after")]
    if len(values) != max(len(keys), 1):
        raise illegal(f"search_after has {len(values)} value(s) but sort has {len(keys)}.", wrapped=True)
    after: list[Any] = []
    for key, value in zip(keys, values, strict=True):
        number = key.field is not None and key.field.kind == "number"
        if value is None or (number and value in ("Infinity", "-Infinity")):
            after.append(None)
        else:
            after.append(as_float(value, "search_after") if number else value)
    return after


def ordered(
    context: Context,
    query: Query,
    keys: list[Key],
    offset: int,
    size: int,
    after: list[Any] | None = None,
    scores: bool = False,
) -> tuple[int, list[Row]]:
    """The exact number of matches, and those from ``offset`` on (after ``after``), at most ``size``."""
    if not keys and after is None and context.rescoring is not None:
        return _by_score(context, query, offset, size)
    if not keys and after is None:
        matches, hits = ranking.top(context.snapshot, query, offset, size)
        return matches, [Row(address, float(score)) for score, address in hits]
    if not keys:
        keys = [Key(_SCORE, True)]
        matches, rows = ordered(context, query, keys, 0, size, after)
        return matches, [Row(row.address, row.score) for row in rows]
    if size <= 0:
        return context.count(query), []
    onwards = _onwards(context, query, keys[0], after[0]) if after is not None else None
    by_id = _scores(context, query) if scores or any(key.by_score for key in keys) else {}
    wanted = offset + size + (_MORE if onwards is not None else 0)
    while True:
        everything = after is not None and onwards is None
        matches, addresses = _candidates(context, onwards or query, keys[0], wanted, everything)
        ids = context.snapshot.ids_of(addresses)
        levels = [_values(context, key, addresses, ids, by_id) for key in keys]
        places = _sorted(keys, levels, ids)
        if after is not None:
            places = [at for at in places if _follows([level[at] for level in levels], after, keys)]
        if onwards is None or len(places) >= size or len(addresses) >= matches:
            break
        wanted *= 4
    shown = places[offset : offset + size]
    rows = [
        Row(addresses[at], by_id.get(ids[at]), [key.shown(level[at]) for key, level in zip(keys, levels, strict=True)])
        for at in shown
    ]
    return (matches if onwards is None else context.count(query)), rows


def _onwards(context: Context, query: Query, first: Key, bound: Any) -> Query | None:
    """The matches that the first key puts at or after a place, where the index can tell; else None."""
    if first.field is None or first.field.kind != "number" or first.column is None or bound is None:
        return None
    low, high = (None, bound) if first.descending else (bound, None)
    ranged = Query.range_query(context.schema, first.column, tantivy.FieldType.Float, low, high)
    missing = Query.boolean_query([(MUST, Query.all_query()), (MUST_NOT, Query.exists_query(first.column))])
    return Query.boolean_query([(MUST, query), (MUST, filtering(any_of([ranged, missing])))])


def _sorted(keys: list[Key], levels: list[list[Any]], ids: list[str]) -> list[int]:
    """The places of documents in order. ``levels``: per key the documents' values."""
    places = sorted(range(len(ids)), key=ids.__getitem__)
    # Stable sorts from the last key to the first.
    for key, values in reversed(list(zip(keys, levels, strict=True))):
        wrapped = [key.wrapped(value) for value in values]
        try:
            places.sort(key=wrapped.__getitem__, reverse=key.descending)
        except TypeError:
            # An attribute that is text in one product and a number in another.
            texts = [(rank, str(value)) for rank, value in wrapped]
            places.sort(key=texts.__getitem__, reverse=key.descending)
    return places


def _by_score(context: Context, query: Query, offset: int, size: int) -> tuple[int, list[Row]]:
    """As :func:`ordered` without keys, by scores that were changed after the search."""
    addresses, scores = scored(context, query)
    ranks = context.snapshot.id_ranks[context.snapshot.rows_of(addresses)]
    places = np.lexsort((ranks, -scores))[offset : offset + size].tolist()
    return len(addresses), [Row(addresses[at], float(scores[at])) for at in places]


def by_id(context: Context, query: Query, offset: int, size: int) -> tuple[int, list[Row]]:
    """As :func:`ordered` without keys, for a query that scores all its matches alike."""
    first = context.searcher.search(query, limit=1, count=True)
    if not first.hits:
        return 0, []
    score, limit = float(first.hits[0][0]), offset + size
    found = context.searcher.search(query, limit=limit, count=False, order_by_field=layout.ID, order=tantivy.Order.Asc)
    return total(first), [Row(address, score) for _, address in found.hits[offset:]]


def _candidates(
    context: Context, query: Query, first: Key, wanted: int, everything: bool
) -> tuple[int, list[tantivy.DocAddress]]:
    """Matches among which the first ``wanted`` in the whole order are: as the first key orders them, up to a place
    where that key's value changes."""
    rescored = first.by_score and context.rescoring is not None
    if everything or rescored or not ((first.by_score and first.descending) or first.column):
        matches = context.snapshot.matching(query)
        return len(matches), [address for _, address in matches]
    order = tantivy.Order.Desc if first.descending else tantivy.Order.Asc
    limit = wanted + 1
    while True:
        result = context.searcher.search(query, limit=limit, count=True, order_by_field=first.column, order=order)
        hits = result.hits
        if len(hits) < limit or hits[wanted - 1][0] != hits[-1][0]:
            return total(result), [address for _, address in hits]
        limit *= 4


def _scores(context: Context, query: Query) -> dict[str, float]:
    addresses, scores = scored(context, query)
    return dict(zip(context.snapshot.ids_of(addresses), scores.tolist(), strict=True))


def _values(
    context: Context, key: Key, addresses: list[tantivy.DocAddress], ids: list[str], scores: dict[str, float]
) -> list[Any]:
    """The key's value per document, None where there is none."""
    field = key.field
    if field is None or not addresses:
        return [None] * len(addresses)
    if key.by_score:
        return [scores.get(one, 0.0) for one in ids]
    if field.kind == "number":
        return list(context.searcher.fast_field_values(str(field.exact), addresses))
    if field.exact == layout.ID:
        return list(ids)
    column = context.snapshot.derived.get(f"dsl.column.{field.exact}.{_highest(key)}")
    if column is None and len(addresses) > 1000:
        column = _column(context, key, field)
    if column is not None:
        return [column[row] for row in context.snapshot.rows_of(addresses).tolist()]
    return [document_value(context.snapshot.document(address), field, _highest(key)) for address in addresses]


def _highest(key: Key) -> bool:
    """Which of several values counts: as in Elasticsearch the highest when descending, else the lowest."""
    return key.mode == "max" or (key.mode is None and key.descending)


def _column(context: Context, key: Key, field: Field) -> list[Any]:
    """The key's value of every row; kept with the snapshot."""
    column: list[Any] = [None] * len(context.snapshot.seqs)
    for row, address in context.snapshot.matching(Query.all_query()):
        column[row] = document_value(context.snapshot.document(address), field, _highest(key))
    context.snapshot.derived[f"dsl.column.{field.exact}.{_highest(key)}"] = column
    return column


def document_value(document: dict[str, Any], field: Field, highest: bool = False) -> Any:
    """The value of a field in a stored document: of several the highest or the lowest; None if there is none."""
    values = [value for value in _all_values(document, field.path) if value is not None]
    if field.kind == "folded":
        values = [fold_title(str(value)) for value in values]
    if field.kind == "attribute":
        numbers = (int, float)
        values = [value for value in values if isinstance(value, numbers) or not field.numeric]
    if not values:
        return None
    try:
        return max(values) if highest else min(values)
    except TypeError:
        return max(values, key=str) if highest else min(values, key=str)


def _all_values(document: dict[str, Any], name: str) -> list[Any]:
    if name in document:
        value = document[name]
        return value if isinstance(value, list) else [value]
    return next((values for path, values in leaves(document) if path == name), [])


def _follows(values: list[Any], after: list[Any], keys: list[Key]) -> bool:
    """Whether a document comes strictly after the given place."""
    for value, bound, key in zip(values, after, keys, strict=True):
        one, other = key.wrapped(value), key.wrapped(bound)
        if one == other or (key.by_score and np.isclose(one[1], other[1], rtol=1e-6, atol=0.0)):
            continue
        try:
            larger = one > other
        except TypeError:
            larger = (one[0], str(one[1])) > (other[0], str(other[1]))
        return larger != key.descending
    return False
