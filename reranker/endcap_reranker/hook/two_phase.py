"""Fetching ids for the window and documents for the page only.

A window of 100 hits costs the engine 100 documents (and highlights) where the page shows 10. So the first request asks
for ids and scores, with aggregations, totals and suggestions; a second one asks for the page's documents by wrapping
the query with an ids filter, which changes no score. It is done only for searches made of parts that are known to
come out the same this way, and only where the documents saved outweigh the second round trip. Should a document be
missing in the second answer, or its score differ (the index changed in between), the search is done again in one.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Any

from endcap_reranker.hook.plan import Plan
from endcap_reranker.hook.wire import Params

#: What decides which hits come in which order: sent in both phases.
_MATCHING = frozenset({"query", "runtime_mappings", "timeout", "track_scores", "indices_boost"})
#: What belongs to the answer as a whole: the first phase only.
_WHOLE = frozenset({"aggs", "aggregations", "suggest", "post_filter", "min_score", "track_total_hits", "sort", "ext"})
#: What belongs to each hit: the second phase only.
_PER_HIT = frozenset(
    {"_source", "docvalue_fields", "fields", "highlight", "script_fields", "seq_no_primary_term"}
    | {"stored_fields", "version"}
)
_PAGING = frozenset({"from", "size"})
_KNOWN = _MATCHING | _WHOLE | _PER_HIT | _PAGING
_PARAMS = frozenset(
    {"allow_no_indices", "allow_partial_search_results", "batched_reduce_size", "ccs_minimize_roundtrips"}
    | {"error_trace", "expand_wildcards", "filter_path", "from", "human", "ignore_unavailable", "preference", "pretty"}
    | {"max_concurrent_searches", "max_concurrent_shard_requests", "pre_filter_shard_size", "rest_total_hits_as_int"}
    | {"routing", "search_type", "size", "timeout", "track_total_hits", "typed_keys"}
)
#: Parameters that shape the whole answer: not wanted in the second phase.
_WHOLE_PARAMS = frozenset({"filter_path", "from", "rest_total_hits_as_int", "size", "track_total_hits"})

#: Scores that are new each time; hits within aggregations, into which Elasticsearch lets the search's ``fields`` leak.
_NEVER = (b"random_score", b"top_hits")

#: Documents (bytes) saved from which a second round trip pays: measured with Elasticsearch 8.19 on the same machine,
#: where a further megabyte of documents costs some 5 ms and the second round trip some 2 ms.
WORTHWHILE_BYTES = 450_000
#: A highlighted hit costs the engine about as much as this many bytes of documents (35 µs; the same measurement).
HIGHLIGHT_BYTES = 6_500
#: Assumed until the first answer has been seen.
_FIRST_GUESS = 1_000.0
_SHAPES = 512


def possible(raw: bytes, body: dict[str, Any], params: Params, plan: Plan, indices: tuple[str, ...]) -> bool:
    """Whether a search comes out the same in two phases."""
    if any(word in raw for word in _NEVER):
        return False
    if len(indices) != 1 or not _KNOWN.issuperset(body) or plan.size >= plan.fetch:
        return False
    if not all(name in _PARAMS for name, _ in params):
        return False
    highlight = body.get("highlight")
    if highlight is not None and not isinstance(highlight, dict):
        return False
    # Without documents to save there is nothing to gain.
    return not (body.get("_source") is False and not (_PER_HIT - {"_source"}) & body.keys())


def first_phase(body: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Ids and scores of all that is fetched, with everything that belongs to the answer as a whole."""
    sent = {name: value for name, value in body.items() if name not in _PER_HIT}
    return {**sent, "from": 0, "size": plan.fetch, "_source": False}


def second_phase(body: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    """The documents of these ids, with the same query so that scores, highlights and query names come out the same."""
    sent = {name: value for name, value in body.items() if name in _MATCHING or name in _PER_HIT}
    query = body.get("query") or {"match_all": {}}
    sent["query"] = {"bool": {"must": [query], "filter": [{"ids": {"values": ids}}]}}
    highlight = body.get("highlight")
    if highlight is not None and "highlight_query" not in highlight:
        # The ids are not what the shopper searched for: they must not be marked.
        sent["highlight"] = {**highlight, "highlight_query": query}
    return {**sent, "from": 0, "size": len(ids), "track_total_hits": False}


def second_params(params: Params) -> Params:
    """The parameters of the second request."""
    return [(name, value) for name, value in params if name not in _WHOLE_PARAMS]


def single_index(hits: list[dict[str, Any]]) -> bool:
    """Whether ids alone name these hits (an alias may stand for several indices)."""
    return len({hit.get("_index") for hit in hits}) <= 1 and len({hit.get("_id") for hit in hits}) == len(hits)


def documents_for(page: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The page's hits with their documents, in the page's order; None if one is missing or has another score."""
    by_id = {hit.get("_id"): hit for hit in found}
    filled = []
    for hit in page:
        whole = by_id.get(hit["_id"])
        if whole is None or whole.get("_index") != hit.get("_index"):
            return None
        if not math.isclose(whole.get("_score") or 0.0, hit.get("_score") or 0.0, rel_tol=1e-4, abs_tol=1e-6):
            return None
        filled.append(whole)
    return filled


class Thrift:
    """Decides whether two phases pay, from the bytes per hit seen in earlier answers of the same shape. Thread-safe."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._bytes: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._lock = threading.Lock()

    def pays(self, body: dict[str, Any], plan: Plan, index: str) -> bool:
        """Whether to fetch in two phases (that it is possible is known)."""
        if self.mode != "auto":
            return self.mode == "always"
        per_hit = self._bytes.get(_shape(body, index), _FIRST_GUESS)
        if "highlight" in body:
            per_hit += HIGHLIGHT_BYTES
        return (plan.fetch - plan.size) * per_hit >= WORTHWHILE_BYTES

    def learn(self, body: dict[str, Any], index: str, hit: dict[str, Any]) -> None:
        """Remember the size of a whole hit."""
        if self.mode != "auto":
            return
        try:
            hit_bytes = len(repr(hit))
        except RecursionError:  # a document nested a thousand levels deep
            return
        shape = _shape(body, index)
        with self._lock:
            old = self._bytes.pop(shape, hit_bytes)
            self._bytes[shape] = old + 0.2 * (hit_bytes - old)
            if len(self._bytes) > _SHAPES:
                self._bytes.popitem(last=False)


def _shape(body: dict[str, Any], index: str) -> tuple[str, int]:
    """Searches that ask for the same parts of documents."""
    return index, hash(
        tuple(repr(body.get(name)) for name in ("_source", "fields", "docvalue_fields", "script_fields"))
    )
