"""Queries of the body become tantivy queries: compound and exact ones here, full text in :mod:`.fulltext`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from endcap.engines.embedded import schema as layout

from . import fulltext, query_string, scoring, vector
from .context import (
    MUST,
    MUST_NOT,
    SHOULD,
    Context,
    Query,
    any_of,
    best_of,
    boosted,
    constant,
    everything,
    filtering,
    nothing,
)
from .errors import DslError, illegal, parsing, unsupported
from .exact import equal, one_of, starting
from .fields import not_indexed, resolve
from .minimum import minimum_should_match
from .ranges import in_range
from .values import as_bool, as_float, as_list, as_object, as_text, only

#: Queries that Elasticsearch has and that are refused as such rather than as unknown.
REFUSED = frozenset(
    {
        "common",
        "distance_feature",
        "field_masking_span",
        "geo_bounding_box",
        "geo_distance",
        "geo_grid",
        "geo_polygon",
        "geo_shape",
        "has_child",
        "has_parent",
        "intervals",
        "more_like_this",
        "nested",
        "parent_id",
        "percolate",
        "pinned",
        "rank_feature",
        "regexp",
        "rule",
        "script",
        "script_score",
        "semantic",
        "shape",
        "span_containing",
        "span_first",
        "span_multi",
        "span_near",
        "span_not",
        "span_or",
        "span_term",
        "span_within",
        "sparse_vector",
        "terms_set",
        "text_expansion",
        "type",
        "weighted_tokens",
        "wildcard",
        "wrapper",
    }
)


def compile_query(body: Any, context: Context) -> Query:
    """A query clause ``{NAME: …}``.

    Raises:
        DslError: it is not well formed, or has a part that is not answered here.
    """
    clause = as_object(body, "query")
    if len(clause) != 1:
        reason = (
            "query malformed, empty clause found" if not clause else "[bool] malformed query, expected [END_OBJECT]"
        )
        raise illegal(reason) if not clause else parsing(reason)
    (name, options), *_ = clause.items()
    compiler = _COMPILERS.get(name)
    if compiler is None:
        raise unsupported(f"{name} query") if name in REFUSED else parsing(f"unknown query [{name}]")
    context.clause()
    with context.deeper(), context.among_others(alone=name in ("bool", "function_score")):
        query, label = compiler(options, context), _label(options)
        if label is not None:
            context.named[label] = query
        return query


def _label(options: Any) -> str | None:
    """The `_name` of a query: among its options, or among those of its one field."""
    if not isinstance(options, dict):
        return None
    if isinstance(options.get("_name"), str):
        return options["_name"]
    inner = next(iter(options.values()), None) if len(options) == 1 else None
    return inner["_name"] if isinstance(inner, dict) and isinstance(inner.get("_name"), str) else None


#: Queries that score every match alike.
_CONSTANT = frozenset({"match_all", "match_none", "constant_score", "exists", "ids", "prefix", "range", "terms"})


def scores_alike(body: Any) -> bool:
    """Whether every match of a query surely has the same score: filters alone, as a shop's category page sends them."""
    if body is None:
        return True
    if not isinstance(body, dict) or len(body) != 1:
        return False
    (name, options), *_ = body.items()
    if name == "bool" and isinstance(options, dict):
        return not options.get("should") and all(scores_alike(one) for one in as_list(options.get("must")))
    return name in _CONSTANT


def compile_filter(body: Any, context: Context) -> Query:
    """A clause, or a list of clauses that must all match; scores nothing."""
    clauses = [compile_query(one, context) for one in as_list(body)]
    return filtering(Query.boolean_query([(MUST, one) for one in clauses])) if clauses else everything(0.0)


_BOOL = frozenset(
    {"must", "filter", "should", "must_not", "minimum_should_match", "boost", "adjust_pure_negative", "_name"}
)


def _bool(options: Any, context: Context) -> Query:
    options = as_object(options, "bool")
    for key in options:
        if key not in _BOOL:
            raise DslError("x_content_parse_exception", f"[bool] unknown field [{key}]")
    alone = len(as_list(options.get("must"))) == 1 and not options.get("should") and options.get("boost", 1) == 1
    with context.among_others(alone):
        must = [compile_query(one, context) for one in as_list(options.get("must"))]
    with context.among_others():
        filters = [filtering(compile_query(one, context)) for one in as_list(options.get("filter"))]
        should = [compile_query(one, context) for one in as_list(options.get("should"))]
    with context.unmarked(), context.among_others():
        must_not = [compile_query(one, context) for one in as_list(options.get("must_not"))]
    if not (must or filters or should or must_not):
        return boosted(everything(), options)
    needed = 0 if must or filters else 1
    if options.get("minimum_should_match") is not None:
        needed = minimum_should_match(options["minimum_should_match"], len(should))
    if needed > len(should) and should:
        return nothing()
    if not should and needed > 0 and options.get("minimum_should_match") is not None:
        return nothing()
    if needed == len(should):
        must, should = must + should, []
    clauses = [(MUST, one) for one in must + filters]
    clauses += [(SHOULD, one) for one in should]
    if not clauses:
        clauses.append((MUST, everything(0.0)))
    clauses += [(MUST_NOT, one) for one in must_not]
    query = Query.boolean_query(clauses, needed) if should and needed > 0 else Query.boolean_query(clauses)
    return boosted(query, options)


def _match_all(options: Any, context: Context) -> Query:
    options = as_object(options, "match_all")
    only(options, {"boost", "_name"}, "match_all")
    return boosted(everything(), options)


def _match_none(options: Any, context: Context) -> Query:
    only(as_object(options, "match_none"), {"boost", "_name"}, "match_none")
    return nothing()


def _term(options: Any, context: Context) -> Query:
    name, rest = fulltext.one_field(options, "term", "value", {"value", "boost", "case_insensitive", "_name"})
    if as_bool(rest.get("case_insensitive", False), "case_insensitive"):
        raise unsupported("term query with case_insensitive")
    if rest.get("value") is None:
        raise illegal("value cannot be null")
    field = resolve(name)
    return boosted(equal(context, field, rest["value"]) if field else nothing(), rest)


def _terms(options: Any, context: Context) -> Query:
    options = as_object(options, "terms")
    names = [name for name in options if name not in ("boost", "_name")]
    if len(names) != 1:
        raise parsing(
            "[terms] query requires exactly one field name" if names else "No field specified for terms query"
        )
    values = options[names[0]]
    if isinstance(values, dict):
        raise unsupported("terms lookup")
    if not isinstance(values, list):
        raise parsing("[terms] query does not support [" + names[0] + "]")
    if len(values) > 65_536:
        raise illegal("The number of terms has exceeded the allowed maximum of [65536]")
    if any(value is None for value in values):
        raise parsing("No value specified for terms query")
    field = resolve(names[0])
    return boosted(one_of(context, field, values) if field else nothing(), options)


def _prefix(options: Any, context: Context) -> Query:
    name, rest = fulltext.one_field(
        options, "prefix", "value", {"value", "boost", "case_insensitive", "rewrite", "_name"}
    )
    if as_bool(rest.get("case_insensitive", False), "case_insensitive"):
        raise unsupported("prefix query with case_insensitive")
    field = resolve(name)
    beginning = as_text(rest.get("value"), "prefix")
    return boosted(starting(context, field, beginning) if field else nothing(), rest)


def _range(options: Any, context: Context) -> Query:
    options = as_object(options, "range")
    names = [name for name in options if name not in ("boost", "_name")]
    if len(names) != 1:
        raise parsing("[range] query requires exactly one field name")
    bounds = as_object(options[names[0]], "range")
    field = resolve(names[0])
    return boosted(in_range(context, field, bounds) if field else nothing(), {**options, **bounds})


def _exists(options: Any, context: Context) -> Query:
    options = as_object(options, "exists")
    only(options, {"field", "boost", "_name"}, "exists")
    if not isinstance(options.get("field"), str) or not options["field"]:
        raise parsing("[exists] must be provided with a [field]")
    return boosted(constant(_has(options["field"], context)), options)


def _has(name: str, context: Context) -> Query:
    if name == "attributes":
        return Query.exists_query(layout.ATTRIBUTES, True)
    field = resolve(name)
    if field is None:
        return nothing()
    if field.kind == "stored":
        raise not_indexed(name)
    if field.exact:
        return Query.exists_query(field.exact)
    # Text alone: any word at all.
    return Query.fuzzy_term_query(context.schema, str(field.words), "", 0, True, True)


def _ids(options: Any, context: Context) -> Query:
    options = as_object(options, "ids")
    only(options, {"values", "boost", "_name"}, "ids")
    if "values" not in options:
        raise parsing("[ids] requires providing at least [values]")
    values = as_list(options["values"])
    if len(values) > 65_536:
        raise illegal("The number of ids has exceeded the allowed maximum of [65536]")
    field = resolve("_id")
    assert field is not None
    return boosted(one_of(context, field, [as_text(value, "ids") for value in values]), options)


def _constant_score(options: Any, context: Context) -> Query:
    options = as_object(options, "constant_score")
    only(options, {"filter", "boost", "_name"}, "constant_score")
    if "filter" not in options:
        raise parsing("[constant_score] requires a 'filter' element")
    return boosted(constant(compile_query(options["filter"], context)), options)


def _dis_max(options: Any, context: Context) -> Query:
    options = as_object(options, "dis_max")
    only(options, {"queries", "tie_breaker", "boost", "_name"}, "dis_max")
    queries = [compile_query(one, context) for one in as_list(options.get("queries"))]
    if not queries:
        raise parsing("[dis_max] requires 'queries' field with at least one clause")
    return boosted(best_of(queries, as_float(options.get("tie_breaker", 0.0), "tie_breaker")), options)


def _boosting(options: Any, context: Context) -> Query:
    options = as_object(options, "boosting")
    only(options, {"positive", "negative", "negative_boost", "boost", "_name"}, "boosting")
    for part in ("positive", "negative", "negative_boost"):
        if part not in options:
            raise parsing(f"[boosting] query requires '{part}' to be set")
    share = as_float(options["negative_boost"], "negative_boost")
    if share < 0:
        raise parsing("[boosting] query requires 'negative_boost' to be set to be a positive value")
    positive = compile_query(options["positive"], context)
    with context.unmarked():
        negative = compile_query(options["negative"], context)
    plain = Query.boolean_query([(MUST, positive), (MUST_NOT, negative)])
    lowered = Query.boolean_query([(MUST, positive), (MUST, filtering(negative))])
    return boosted(any_of([plain, Query.boost_query(lowered, share)]), options)


_COMPILERS: dict[str, Callable[[Any, Context], Query]] = {
    "bool": _bool,
    "boosting": _boosting,
    "combined_fields": fulltext.combined_fields,
    "constant_score": _constant_score,
    "dis_max": _dis_max,
    "exists": _exists,
    "function_score": lambda options, context: scoring.function_score(options, context, compile_query),
    "fuzzy": fulltext.fuzzy,
    "ids": _ids,
    "knn": lambda options, context: vector.nearest(options, context, compile_filter),
    "match": fulltext.match,
    "match_all": _match_all,
    "match_bool_prefix": fulltext.match_bool_prefix,
    "match_none": _match_none,
    "match_phrase": fulltext.match_phrase,
    "match_phrase_prefix": fulltext.match_phrase_prefix,
    "multi_match": fulltext.multi_match,
    "prefix": _prefix,
    "query_string": query_string.query_string,
    "range": _range,
    "simple_query_string": query_string.simple_query_string,
    "term": _term,
    "terms": _terms,
}
