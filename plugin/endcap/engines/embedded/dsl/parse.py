"""A search body, and the URL's parameters that stand for parts of it, become a checked :class:`Plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .collapsing import Collapse
from .errors import DslError, illegal, parsing, unsupported
from .highlight import Highlighter
from .sorting import Key, parse_after, parse_sort
from .source import SourceFilter, parse_fields
from .values import MAX_WINDOW, as_bool, as_float, as_int, as_list, as_text, json_kind

#: Elasticsearch counts so far unless told otherwise.
DEFAULT_TRACK = 10_000

#: Parts that change nothing here, and parts that Elasticsearch has and this engine has not.
_IDLE = frozenset({"timeout", "ext", "stats", "batched_reduce_size", "preference", "track_scores"})
_REFUSED = frozenset(
    {
        "explain",
        "profile",
        "rescore",
        "script_fields",
        "indices_boost",
        "pit",
        "slice",
        "retriever",
        "rank",
        "scroll",
        "version",
        "seq_no_primary_term",
        "terminate_after",
        "derived",
    }
)
_PARTS = frozenset(
    {
        "query",
        "knn",
        "post_filter",
        "aggs",
        "aggregations",
        "from",
        "size",
        "sort",
        "search_after",
        "_source",
        "fields",
        "docvalue_fields",
        "stored_fields",
        "highlight",
        "suggest",
        "collapse",
        "min_score",
        "track_total_hits",
        "runtime_mappings",
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A search in parts. ``query``, ``knn``, ``post_filter``, ``aggs`` and ``suggest`` are JSON: they need the index.

    ``track``: hits are counted up to here; None: all of them; 0: the answer has no total.
    """

    query: Any
    knn: list[Any]
    post_filter: Any
    aggs: Any
    suggest: Any
    offset: int
    size: int
    keys: list[Key]
    after: list[Any] | None
    source: SourceFilter
    fields: tuple[str, ...]
    highlighter: Highlighter | None
    collapse: Collapse | None
    min_score: float | None
    track: int | None
    scores: bool


def parse_body(body: Mapping[str, Any]) -> Plan:
    """
    Raises:
        DslError: not well formed, not answered here, or out of bounds.
    """
    for key, value in body.items():
        if key in _REFUSED:
            if value not in (None, False, 0, [], {}):
                raise unsupported(key)
        elif key not in _PARTS and key not in _IDLE:
            raise parsing(f"Unknown key for a {json_kind(value)} in [{key}].")
    if body.get("runtime_mappings"):
        raise unsupported("runtime_mappings")
    offset = _counted(body.get("from"), "from", 0)
    size = _counted(body.get("size"), "size", 10)
    if offset + size > MAX_WINDOW:
        raise illegal(
            f"Result window is too large, from + size must be less than or equal to: [{MAX_WINDOW}] but was "
            f"[{offset + size}]. See the scroll api for a more efficient way to request large data sets. This limit "
            "can be set by changing the [index.max_result_window] index level setting.",
            wrapped=True,
        )
    keys = parse_sort(body.get("sort"))
    after = parse_after(body.get("search_after"), keys)
    if after is not None and offset:
        raise DslError(
            "action_request_validation_exception",
            "Validation Failed: 1: [from] parameter must be set to 0 when [search_after] is used;",
        )
    if "aggs" in body and "aggregations" in body:
        raise parsing("[aggs] and [aggregations] are the same: give one of them")
    collapse = Collapse.parse(body.get("collapse"))
    if collapse and after is not None:
        raise unsupported("collapse with search_after")
    return Plan(
        query=body.get("query"),
        knn=as_list(body.get("knn")),
        post_filter=body.get("post_filter"),
        aggs=body.get("aggs", body.get("aggregations")),
        suggest=body.get("suggest"),
        offset=offset,
        size=size,
        keys=keys,
        after=after,
        source=_source(body),
        fields=parse_fields(body.get("fields"), "fields")
        + parse_fields(body.get("docvalue_fields"), "docvalue_fields"),
        highlighter=Highlighter.parse(body.get("highlight")),
        collapse=collapse,
        min_score=None if body.get("min_score") is None else as_float(body["min_score"], "min_score"),
        track=_track(body.get("track_total_hits")),
        scores=as_bool(body.get("track_scores", False), "track_scores"),
    )


def _counted(value: Any, name: str, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, (int, float)) and value < 0:
        raise illegal(f"[{name}] parameter cannot be negative, found [{value}]")
    return as_int(value, name)


def _source(body: Mapping[str, Any]) -> SourceFilter:
    stored = as_list(body.get("stored_fields"))
    if stored == ["_none_"]:
        return SourceFilter(enabled=False)
    if stored and stored != ["_source"]:
        raise unsupported("stored_fields")
    # As in Elasticsearch: asking for stored fields, even none, leaves `_source` out unless it is asked for too.
    if body.get("stored_fields") == [] and body.get("_source") is None:
        return SourceFilter(enabled=False)
    return SourceFilter.parse(body.get("_source"))


def _track(value: Any) -> int | None:
    if value is None:
        return DEFAULT_TRACK
    if isinstance(value, bool) or value in ("true", "false"):
        return None if as_bool(value, "track_total_hits") else 0
    if isinstance(value, int) and value == -1:
        return None
    return as_int(value, "track_total_hits") or 0


#: Parameters of the URL that change how, not what, is searched.
IDLE_PARAMETERS = frozenset(
    {
        "allow_no_indices",
        "allow_partial_search_results",
        "batched_reduce_size",
        "ccs_minimize_roundtrips",
        "error_trace",
        "expand_wildcards",
        "filter_path",
        "human",
        "ignore_throttled",
        "ignore_unavailable",
        "include_named_queries_score",
        "max_concurrent_searches",
        "max_concurrent_shard_requests",
        "pre_filter_shard_size",
        "preference",
        "pretty",
        "request_cache",
        "rest_total_hits_as_int",
        "routing",
        "search_type",
        "source",
        "source_content_type",
        "timeout",
        "typed_keys",
        "force_synthetic_source",
    }
)
_QUERY_STRING = ("analyzer", "analyze_wildcard", "default_operator", "df", "lenient")


def with_parameters(body: Mapping[str, Any], parameters: Mapping[str, str], path: str) -> dict[str, Any]:
    """The body with what the URL says instead.

    Raises:
        DslError: a parameter that Elasticsearch has not, or that is not answered here.
    """
    made = dict(body)
    includes = excludes = None
    for name, value in parameters.items():
        if name in IDLE_PARAMETERS or name in _QUERY_STRING:
            continue
        if name == "q":
            query = {"query": value, **{key: parameters[key] for key in _QUERY_STRING if key in parameters}}
            if "df" in query:
                query["default_field"] = query.pop("df")
            made["query"] = {"query_string": query}
        elif name in ("from", "size", "min_score", "track_total_hits", "track_scores"):
            made[name] = value if value in ("true", "false", "") else as_float(value, name)
            if isinstance(made[name], float) and name != "min_score":
                made[name] = as_int(value, name, -1)
        elif name == "sort":
            pairs = [one.rpartition(":") if ":" in one else (one, "", "") for one in value.split(",") if one]
            made["sort"] = [{field: direction} if direction else field for field, _, direction in pairs]
        elif name == "_source":
            made["_source"] = {"true": True, "false": False}.get(value, value.split(","))
        elif name in ("_source_includes", "_source_include"):
            includes = value.split(",")
        elif name in ("_source_excludes", "_source_exclude"):
            excludes = value.split(",")
        elif name in ("docvalue_fields", "stored_fields"):
            made[name] = value.split(",")
        elif name in ("explain", "version", "seq_no_primary_term", "scroll", "terminate_after", "profile"):
            if value not in ("false", "0"):
                raise unsupported(name)
        elif name in ("suggest_field", "suggest_mode", "suggest_size", "suggest_text", "format"):
            raise unsupported(name)
        else:
            raise illegal(f"request [{path}] contains unrecognized parameter: [{as_text(name, 'parameter')}]")
    if includes is not None or excludes is not None:
        made["_source"] = {"includes": includes or [], "excludes": excludes or []}
    return made


def flag(parameters: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A boolean parameter of the URL; ``?name`` alone is true."""
    return as_bool(parameters[name], name) if name in parameters else default


__all__ = ["DEFAULT_TRACK", "DslError", "Plan", "flag", "parse_body", "with_parameters"]
