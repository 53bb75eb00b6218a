"""`aggs`: what tantivy aggregates in one pass it is given whole; filters and ranges become queries of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .buckets import ordering, orders, term_filter
from .context import MUST, Context, Query, filtering, nothing
from .errors import USE_A_CLUSTER, DslError, illegal, parsing, unsupported
from .exact import equal, parse_number
from .fields import Field, aggregatable
from .ranges import in_range
from .values import as_bool, as_float, as_int, as_list, as_object, as_text, only

#: Elasticsearch's `search.max_buckets`, and how many buckets may have aggregations of their own: each is a query.
MAX_BUCKETS = 65_000
MAX_INNER_BUCKETS = 5_000
MAX_AGGREGATIONS = 200
_MAX_DEPTH = 8
_METRICS = ("min", "max", "avg", "sum", "stats", "value_count", "cardinality")
_TYPES = (*_METRICS, "terms", "range", "histogram", "filter", "filters", "global", "missing")

Compile = Callable[[Any, Context], Query]


class Aggregator:
    """Computes the aggregations of one request.

    Args:
        base: for `global`, which leaves the query aside.
        compile_query: from a clause to a query.
        typed: whether names carry the type (`typed_keys`).
    """

    def __init__(self, context: Context, compile_query: Compile, typed: bool) -> None:
        self._context = context
        self._compile = compile_query
        self._typed = typed
        self._buckets = 0
        self._inner = 0

    def run(self, body: Any, query: Query, depth: int = 0) -> dict[str, Any]:
        """The answer's `aggregations` over the matches of ``query``.

        Raises:
            DslError: not well formed, not answered here, or too much.
        """
        if depth == 0:
            _check(body, 0)
        answer: dict[str, Any] = {}
        for name, clause in as_object(body, "aggs").items():
            kind, options, inner = _parts(name, clause)
            result = getattr(self, f"_{kind if kind not in _METRICS else 'metric'}")(kind, options, inner, query, depth)
            if (meta := clause.get("meta")) is not None:
                result = {"meta": meta, **result}
            answer[f"{self._type(kind, options, result)}#{name}" if self._typed else name] = result
        return answer

    def _type(self, kind: str, options: dict[str, Any], result: dict[str, Any]) -> str:
        if kind != "terms":
            return kind
        field = aggregatable(str(options.get("field")), "terms")
        if field is None:
            return "umterms"
        return "dterms" if field.kind == "number" or field.numeric else "sterms"

    # --- metrics -----------------------------------------------------------------------------------------------

    def _metric(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        if inner:
            raise illegal(f"Aggregator [{kind}] of type [{kind}] cannot accept sub-aggregations")
        only(options, {"field", "missing", "precision_threshold"}, kind)
        field = self._field(options, kind)
        if field is None:
            return _empty_metric(kind)
        number = field.kind in ("number", "attribute")
        if not number and kind not in ("value_count", "cardinality"):
            raise _not_numeric(field, kind)
        if field.kind == "title":
            raise unsupported(f"aggregation over [{field.name}]")
        if kind == "cardinality":
            # Counted, not estimated: the values are few.
            return {"value": len(self._native_terms(field, query, MAX_BUCKETS))}
        native: dict[str, Any] = {"field": field.exact}
        if options.get("missing") is not None:
            native["missing"] = as_float(options["missing"], "missing")
        result = self._native({kind: native}, query)
        if kind == "stats" and not result["count"]:
            return _empty_metric(kind)
        if kind == "value_count":
            return {"value": int(result["value"])}
        if kind == "sum":
            return {"value": result["value"] or 0.0}
        return {key: result[key] for key in (("count", "min", "max", "avg", "sum") if kind == "stats" else ("value",))}

    # --- terms -------------------------------------------------------------------------------------------------

    def _terms(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        allowed = {
            "field", "size", "order", "min_doc_count", "include", "exclude", "missing", "shard_size", "execution_hint",
            "collect_mode", "show_term_doc_count_error", "shard_min_doc_count",
        }  # fmt: skip
        for option in options:
            if option in ("script", "value_type", "format"):
                raise unsupported(f"terms.{option}")
        only(options, allowed, "terms")
        size = as_int(options.get("size", 10), "size", 1, MAX_BUCKETS)
        least = as_int(options.get("min_doc_count", 1), "min_doc_count")
        field = self._field(options, "terms")
        result: dict[str, Any] = {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": []}
        if field is None:
            return result
        if field.kind == "title":
            raise unsupported(f"aggregation over [{field.name}]")
        plain = not (least == 0 or set(options) & {"order", "include", "exclude", "missing"})
        if plain and least == 1 and (quick := self._top_terms(field, query, size)) is not None:
            counts, others = quick
        else:
            counts, others = self._native_terms(field, query, MAX_BUCKETS), 0
        if least == 0:
            counts = {**dict.fromkeys(self._native_terms(field, Query.all_query(), MAX_BUCKETS), 0), **counts}
        if options.get("missing") is not None:
            without = self._missing(kind, {"field": options["field"]}, None, query, depth)["doc_count"]
            if without:
                missing = options["missing"]
                missing = parse_number(missing, field) if field.kind == "number" else as_text(missing, "missing")
                counts[missing] = counts.get(missing, 0) + without
        keep = term_filter(options)
        buckets: list[dict[str, Any]] = [
            {"key": key, "doc_count": count} for key, count in counts.items() if count >= least and keep(key)
        ]
        result["sum_other_doc_count"] = others + sum(bucket["doc_count"] for bucket in buckets)
        levels = orders(options.get("order"))
        by_inner = any(path not in ("_count", "_key", "_term") for path, _ in levels)
        buckets.sort(key=lambda bucket: bucket["key"])
        if by_inner:
            self._fill(buckets, field, inner, query, depth)
        for path, descending in reversed(levels):
            buckets.sort(key=ordering(path, inner), reverse=descending)
        result["buckets"] = buckets = buckets[:size]
        result["sum_other_doc_count"] -= sum(bucket["doc_count"] for bucket in buckets)
        if inner and not by_inner:
            self._fill(buckets, field, inner, query, depth)
        else:
            self._spend(len(buckets))
        return result

    def _fill(self, buckets: list[dict[str, Any]], field: Field, inner: Any, query: Query, depth: int) -> None:
        """Sub-aggregations of each bucket."""
        if not inner:
            raise DslError("aggregation_execution_exception", "Invalid aggregation order path. Unknown aggregation")
        for bucket in buckets:
            self._spend(1)
            with self._context.unmarked():
                inside = _both(query, equal(self._context, field, bucket["key"]))
            bucket.update(self._again(inner, inside, depth))

    def _native_terms(self, field: Field, query: Query, size: int) -> dict[Any, int]:
        """Every value of a field among the matches, with its count."""
        result = self._native({"terms": {"field": field.exact, "size": size, "segment_size": MAX_BUCKETS}}, query)
        counts: dict[Any, int] = {}
        for bucket in result["buckets"]:
            key = bucket.get("key_as_string", bucket["key"])
            if field.kind == "attribute":
                if field.numeric and not isinstance(bucket["key"], (int, float)):
                    continue
                # Attributes are exact text, as in the index that Endcap makes on Elasticsearch.
                key = float(key) if field.numeric and key not in ("true", "false") else as_text(key, "key")
            counts[key] = counts.get(key, 0) + bucket["doc_count"]
        return counts

    def _top_terms(self, field: Field, query: Query, size: int) -> tuple[dict[Any, int], int] | None:
        """The most frequent values and the count of all others; None where several tie for the last place."""
        if field.kind != "keyword":
            return None
        clause = {"terms": {"field": field.exact, "size": size + 1, "segment_size": MAX_BUCKETS}}
        result = self._native(clause, query)
        buckets, others = result["buckets"], result["sum_other_doc_count"]
        if len(buckets) > size:
            if buckets[size - 1]["doc_count"] == buckets[size]["doc_count"]:
                return None
            others += buckets.pop()["doc_count"]
        return {bucket["key"]: bucket["doc_count"] for bucket in buckets}, others

    # --- ranges ------------------------------------------------------------------------------------------------

    def _range(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        only(options, {"field", "ranges", "keyed"}, "range")
        ranges = as_list(options.get("ranges"))
        if not ranges:
            raise illegal("No [ranges] specified for the [range] aggregation")
        field = self._field(options, "range")
        if field is not None and field.kind not in ("number", "attribute"):
            raise _not_numeric(field, kind)
        buckets = []
        for one in ranges:
            one = as_object(one, "ranges")
            only(one, {"from", "to", "key"}, "range")
            low = None if one.get("from") is None else as_float(one["from"], "from")
            high = None if one.get("to") is None else as_float(one["to"], "to")
            key = as_text(one["key"], "key") if one.get("key") is not None else f"{_edge(low)}-{_edge(high)}"
            buckets.append((key, low, high))
        buckets.sort(key=lambda bucket: (_or(bucket[1], -math.inf), _or(bucket[2], math.inf)))
        made: list[dict[str, Any]] = []
        for key, low, high in buckets:
            bucket: dict[str, Any] = {"key": key}
            if low is not None:
                bucket["from"] = low
            if high is not None:
                bucket["to"] = high
            bounds = {"gte": low, "lt": high}
            inside = _both(query, in_range(self._context, field, bounds)) if field else nothing()
            bucket |= self._single(inside, inner, depth)
            made.append(bucket)
        if as_bool(options.get("keyed", False), "keyed"):
            return {"buckets": {bucket.pop("key"): bucket for bucket in made}}
        return {"buckets": made}

    def _histogram(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        allowed = {"field", "interval", "offset", "min_doc_count", "extended_bounds", "hard_bounds", "keyed", "order"}
        only(options, allowed, "histogram")
        for option in ("order", "hard_bounds"):
            if options.get(option) is not None:
                raise unsupported(f"histogram.{option}")
        interval = as_float(options.get("interval"), "interval")
        if interval <= 0:
            raise illegal("[interval] must be >0 for histogram aggregation [histogram]")
        field = self._field(options, "histogram")
        if field is None:
            return {"buckets": []}
        if field.kind not in ("number", "attribute"):
            raise _not_numeric(field, kind)
        native: dict[str, Any] = {
            "field": field.exact,
            "interval": interval,
            "offset": as_float(options.get("offset", 0.0), "offset") % interval,
            "min_doc_count": as_int(options.get("min_doc_count", 0), "min_doc_count"),
        }
        if options.get("extended_bounds") is not None:
            bounds = as_object(options["extended_bounds"], "extended_bounds")
            native["extended_bounds"] = {edge: as_float(bounds.get(edge), edge) for edge in ("min", "max")}
        found = self._native({"histogram": native}, query)["buckets"]
        buckets = [{"key": bucket["key"], "doc_count": bucket["doc_count"]} for bucket in found]
        self._spend(len(buckets))
        if inner:
            for bucket in buckets:
                bounds = {"gte": bucket["key"], "lt": bucket["key"] + interval}
                bucket.update(self._again(inner, _both(query, in_range(self._context, field, bounds)), depth))
        if as_bool(options.get("keyed", False), "keyed"):
            return {"buckets": {str(bucket["key"]): bucket for bucket in buckets}}
        return {"buckets": buckets}

    # --- one bucket --------------------------------------------------------------------------------------------

    def _filter(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        with self._context.unmarked(), self._context.among_others():
            return self._single(_both(query, self._compile(options, self._context)), inner, depth)

    def _filters(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        only(options, {"filters"}, "filters")
        clauses = options.get("filters")
        if isinstance(clauses, list):
            return {"buckets": [self._filter(kind, clause, inner, query, depth) for clause in clauses]}
        named = as_object(clauses, "filters")
        return {"buckets": {name: self._filter(kind, clause, inner, query, depth) for name, clause in named.items()}}

    def _global(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        only(options, set(), "global")
        if depth:
            raise illegal("[global] aggregations can only be defined at the top level", wrapped=True)
        return self._single(Query.all_query(), inner, depth)

    def _missing(self, kind: str, options: dict[str, Any], inner: Any, query: Query, depth: int) -> dict[str, Any]:
        only(options, {"field"}, "missing")
        field = self._field(options, "missing")
        without = {"bool": {"must_not": {"exists": {"field": options["field"]}}}} if field else {"match_all": {}}
        return self._filter(kind, without, inner, query, depth)

    # --- pieces ------------------------------------------------------------------------------------------------

    def _field(self, options: dict[str, Any], kind: str) -> Field | None:
        if "script" in options:
            raise unsupported(f"{kind}.script")
        if not isinstance(options.get("field"), str):
            raise illegal(f"Required one of fields [field, script], but none were specified for [{kind}]")
        return aggregatable(options["field"], kind)

    def _single(self, query: Query, inner: Any, depth: int) -> dict[str, Any]:
        self._spend(1)
        return {"doc_count": self._context.count(query), **self._again(inner, query, depth)}

    def _again(self, inner: Any, query: Query, depth: int) -> dict[str, Any]:
        if not inner:
            return {}
        self._inner += 1
        if self._inner > MAX_INNER_BUCKETS:
            raise _too_many(MAX_INNER_BUCKETS, self._inner)
        return self.run(inner, query, depth + 1)

    def _spend(self, buckets: int) -> None:
        self._buckets += buckets
        if self._buckets > MAX_BUCKETS:
            raise _too_many(MAX_BUCKETS, self._buckets)

    def _native(self, clause: dict[str, Any], query: Query) -> dict[str, Any]:
        try:
            return self._context.searcher.aggregate(query, {"x": clause})["x"]
        except ValueError as error:
            if "bucket limit" in str(error):
                self._spend(MAX_BUCKETS + 1)
            raise illegal(f"aggregation failed: {error}", wrapped=True) from None


def _too_many(limit: int, buckets: int) -> DslError:
    reason = f"Trying to create too many buckets. Must be less than or equal to: [{limit}] but was [{buckets}]."
    return DslError("too_many_buckets_exception", reason, extra={"max_buckets": limit}, wrapped=True)


def _check(body: Any, depth: int) -> int:
    """The number of aggregations in a tree that is well formed, not too deep and not too large.

    Raises:
        DslError: it is not.
    """
    if depth > _MAX_DEPTH:
        raise illegal(f"aggregations are nested deeper than [{_MAX_DEPTH}] levels")
    count = 0
    for name, clause in as_object(body, "aggs").items():
        _, _, inner = _parts(name, clause)
        count += 1 + (_check(inner, depth + 1) if inner is not None else 0)
    if count > MAX_AGGREGATIONS:
        raise illegal(f"more than [{MAX_AGGREGATIONS}] aggregations")
    return count


def _parts(name: str, clause: Any) -> tuple[str, dict[str, Any], Any]:
    clause = as_object(clause, name)
    kinds = [key for key in clause if key not in ("aggs", "aggregations", "meta")]
    if len(kinds) != 1:
        raise parsing(
            f"Found two aggregation type definitions in [{name}]: [{kinds[0]}] and [{kinds[1]}]"
            if kinds
            else f"Missing definition for aggregation [{name}]"
        )
    if kinds[0] not in _TYPES:
        raise parsing(f"Unknown aggregation type [{kinds[0][:100]}] for [{name}]: {USE_A_CLUSTER}")
    return kinds[0], as_object(clause[kinds[0]], name), clause.get("aggs", clause.get("aggregations"))


def _both(query: Query, condition: Query) -> Query:
    return Query.boolean_query([(MUST, query), (MUST, filtering(condition))])


def _edge(value: float | None) -> str:
    return "*" if value is None else str(float(value))


def _empty_metric(kind: str) -> dict[str, Any]:
    if kind == "stats":
        return {"count": 0, "min": None, "max": None, "avg": None, "sum": 0.0}
    return {"value": {"sum": 0.0, "value_count": 0, "cardinality": 0}.get(kind)}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _not_numeric(field: Field, kind: str) -> DslError:
    return illegal(f"Field [{field.name}] of type [keyword] is not supported for aggregation [{kind}]", wrapped=True)
