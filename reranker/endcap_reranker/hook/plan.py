"""What becomes of one search: which hits are fetched for reordering, or why it is left alone.

A search is reordered if its hits come in score order. Then the top ``window`` hits are fetched, whatever page is asked
for, so that every page is cut from the same reordered list; a page across the window's edge fetches up to its own end
and the hits beyond the window keep the engine's order. Pages beyond the window are the engine's own. So pages never
repeat or lose a hit.

``knn`` and compound retrievers decide by ``k`` and ``rank_window_size`` which products *match*: totals, facets and the
pages' ends follow from them. They are therefore not raised, which would change the answer's meaning; what the engine
matches is reordered. A shop that wants a wider choice raises them in its query. A ``k`` that is not said is the
``size`` of the request, so it is written down before the window is fetched (:func:`settle_neighbours`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from endcap_reranker.hook.wire import Params, last

DEFAULT_SIZE = 10
_LARGEST = 2**31 - 1

#: Queries whose text is what the shopper typed, and the keys that hold it.
_TEXT_QUERIES = frozenset(
    {"combined_fields", "match", "match_bool_prefix", "match_phrase", "match_phrase_prefix", "multi_match"}
    | {"query_string", "semantic", "simple_query_string"}
)
#: Retrievers that rank a fixed number of hits; all but the plain ones.
_PLAIN_RETRIEVERS = frozenset({"standard", "knn"})
_MAX_QUERY_TEXT = 1_000


@dataclass(slots=True)
class Plan:
    """Fetch ``[0, fetch)``, reorder the first ``window`` of it, answer ``[start, start + size)``."""

    start: int
    size: int
    fetch: int
    window: int
    query: str


def plan_search(body: dict[str, Any], params: Params, window: int) -> Plan | str:
    """The plan, or in one word why the search is left alone. ``params`` are the URL's, which outrank the body."""
    start = _count(last(params, "from"), body.get("from"), 0)
    size = _count(last(params, "size"), body.get("size"), DEFAULT_SIZE)
    if start is None or size is None:
        return "malformed"  # the engine says so better
    if size == 0:
        return "no_hits"
    reason = _left_alone(body, params)
    if reason:
        return reason
    limit = _LARGEST
    if body.get("retriever") is not None:
        limit = _retriever_window(body["retriever"])
        if size > limit:
            return "retriever"
        window = min(window, limit)
    if start >= window:
        return "beyond_window"
    return Plan(start, size, min(max(window, start + size), limit), window, query_text(body, params))


def _count(in_url: str | None, in_body: Any, default: int) -> int | None:
    value = in_body if in_url is None else in_url
    if value is None:
        return default
    if isinstance(value, str):
        value = value.strip()
        if not value.isascii() or not value.isdigit() or len(value) > 10:
            return None
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        return None
    return value


def _left_alone(body: dict[str, Any], params: Params) -> str:
    for name, _ in params:
        if name in {"scroll", "search_after"}:
            return "cursor"
    if any(body.get(name) is not None for name in ("search_after", "scroll", "pit", "slice")):
        return "cursor"
    if not _by_score(body.get("sort")) or not _by_score_in_url(last(params, "sort")):
        return "sorted"
    # The engine rescores a fixed number of hits only: past them the scores are of another kind.
    if body.get("rescore") is not None:
        return "rescore"
    if body.get("rank") is not None or body.get("sub_searches") is not None:
        return "rank"
    # Without _id nobody can tell which product a hit is.
    stored = body.get("stored_fields")
    if "_none_" in (stored, last(params, "stored_fields")) or (isinstance(stored, list) and "_none_" in stored):
        return "no_ids"
    return ""


def settle_neighbours(body: dict[str, Any], size: int) -> None:
    """Write down how many neighbours each kNN search of a body means where it leaves that to ``size``; in place.

    Elasticsearch takes the request's ``size`` for it, which the hook is about to raise.
    """
    stack: list[Any] = [body]
    while stack:
        node = stack.pop()
        if type(node) is list:
            stack += node
        elif type(node) is dict:
            found = node.get("knn")
            for search in found if type(found) is list else [found]:
                if type(search) is not dict or "field" not in search or "k" in search:
                    continue
                if "query_vector" in search or "query_vector_builder" in search:
                    search["k"] = size
            stack += node.values()


def _by_score(sort: Any) -> bool:
    if sort is None or sort == [] or sort == "_score":
        return True
    if isinstance(sort, list):
        return len(sort) == 1 and not isinstance(sort[0], list) and _by_score(sort[0])
    if isinstance(sort, dict) and len(sort) == 1 and "_score" in sort:
        order = sort["_score"]
        if isinstance(order, dict):
            if set(order) - {"order"}:
                return False
            order = order.get("order", "desc")
        return isinstance(order, str) and order.lower() == "desc"
    return False


def _by_score_in_url(sort: str | None) -> bool:
    return sort is None or sort in {"", "_score", "_score:desc"}


def _retriever_window(retriever: Any) -> int:
    """How many hits the retriever ranks; 0 if it is not in score order or does not say."""
    limit = _LARGEST
    stack = [retriever]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict) or len(node) != 1:
            return 0
        ((name, options),) = node.items()
        if not isinstance(options, dict):
            return 0
        if name in _PLAIN_RETRIEVERS:
            if options.get("search_after") is not None or not _by_score(options.get("sort")):
                return 0
            continue
        size = options.get("rank_window_size")
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            return 0
        limit = min(limit, size)
        children = options.get("retrievers", options.get("retriever"))
        wrapped = children if isinstance(children, list) else [children]
        # `linear` wraps each one together with its weight.
        stack += [one["retriever"] if isinstance(one, dict) and "retriever" in one else one for one in wrapped]
    return limit


def query_text(body: dict[str, Any], params: Params) -> str:
    """What the shopper typed, as far as the search shows it: ``q``, or the first text query's text."""
    text = last(params, "q")
    if text is None:
        text = _first_text(body.get("query")) or _first_text(body.get("retriever")) or ""
    return text[:_MAX_QUERY_TEXT]


def _first_text(query: Any) -> str:
    stack = [query]
    while stack:
        node = stack.pop()
        if type(node) is list:
            stack.extend(reversed(node))
        elif type(node) is dict:
            for name, value in node.items():
                if name in _TEXT_QUERIES and type(value) is dict:
                    found = value.get("query")
                    if type(found) is not str and len(value) == 1:
                        (found,) = value.values()
                        if type(found) is dict:
                            found = found.get("query")
                    if type(found) is str and found.strip():
                        return found
            stack.extend(value for value in reversed(node.values()) if type(value) is dict or type(value) is list)
    return ""
