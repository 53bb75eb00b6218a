"""From Endcap's search request to the body of ``_search``, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from endcap.catalog.product import INTERNAL_FIELDS
from endcap.engines.base import Filter, Hit, SearchRequest
from endcap.engines.elasticsearch.documents import attribute_field, document_of
from endcap.engines.elasticsearch.mapping import TITLE_SORT
from endcap.errors import InvalidInput

#: Elasticsearch's ``index.max_result_window``: hits that can be paged through.
MAX_WINDOW = 10_000

SORTS: Mapping[str, list[Any]] = {
    "relevance": [{"_score": "desc"}, {"id": "asc"}],
    "price:asc": [{"price": "asc"}, {"id": "asc"}],
    "price:desc": [{"price": "desc"}, {"id": "asc"}],
    "title:asc": [{TITLE_SORT: "asc"}, {"id": "asc"}],
}

#: Endcap's field -> the index field that is highlighted for it.
_HIGHLIGHTED = {"title": "title", "brand": "brand.text", "category": "category.text", "description": "description"}

_KEYWORDS = frozenset({"id", "brand", "category"})
_NUMBERS = frozenset({"price", "stock"})


def search_body(request: SearchRequest, query: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``_search`` for one reading of the request's words.

    Raises:
        InvalidInput: the request asks for what cannot be done.
    """
    if request.offset < 0 or request.size < 0:
        raise InvalidInput("offset and size must not be negative")
    if request.offset + request.size > MAX_WINDOW:
        raise InvalidInput(
            f"a page can end at hit {MAX_WINDOW} at most, this one ends at {request.offset + request.size}: narrow "
            "the search by filters instead of paging so far"
        )
    if request.sort not in SORTS:
        raise InvalidInput(f"sort {request.sort!r} is none of {', '.join(SORTS)}")
    body: dict[str, Any] = {
        "query": filtered(query, request.filters),
        "from": request.offset,
        "size": request.size,
        "sort": SORTS[request.sort],
        "track_total_hits": True,
        "_source": {"excludes": list(INTERNAL_FIELDS)} if request.documents else False,
    }
    # Named by their place: an aggregation's name may not hold every character that an attribute's may.
    facets = {
        str(place): {"terms": {"field": _facet_field(name), "size": size}}
        for place, (name, size) in enumerate(request.facets.items())
        if size > 0
    }
    if facets:
        body["aggs"] = facets
    if request.highlight and request.size:
        body["highlight"] = {
            "encoder": "html",
            "pre_tags": ["<em>"],
            "post_tags": ["</em>"],
            "max_analyzed_offset": 100_000,
            "fields": {
                field: {"number_of_fragments": 2, "fragment_size": 160}
                if name == "description"
                else {"number_of_fragments": 0}
                for name, field in _HIGHLIGHTED.items()
            },
        }
    return body


def filtered(query: Mapping[str, Any], filters: Sequence[Filter]) -> dict[str, Any]:
    """The query, among the products that pass every filter."""
    if not filters:
        return dict(query)
    return {"bool": {"must": [query], "filter": [filter_query(one) for one in filters]}}


def filter_query(condition: Filter) -> dict[str, Any]:
    """The query of an exact filter.

    Raises:
        InvalidInput: the field cannot be filtered, or a bound is not a number.
    """
    name = condition.field
    bounds = {
        key: _bound(value) for key, value in (("gte", condition.gte), ("lte", condition.lte)) if value is not None
    }
    either: list[dict[str, Any]] = []
    if name in _KEYWORDS:
        if bounds:
            raise InvalidInput(f"filter on {name!r}: gte and lte need a number field; give values")
        either = [{"terms": {name: texts}} for texts in [_texts(condition.values)] if texts]
    elif name in _NUMBERS:
        numbers = [float(one) for one in condition.values if _is_number(one)]
        either = [{"terms": {name: numbers}}] if numbers else []
        either += [{"range": {name: bounds}}] if bounds else []
    elif name.startswith("attributes.") and name != "attributes.":
        field = attribute_field(name.removeprefix("attributes."))
        numbers = [float(one) for one in condition.values if _is_number(one)]
        texts = _texts(one for one in condition.values if not _is_number(one))
        either = [{"terms": {f"{field}.number": numbers}}] if numbers else []
        either += [{"terms": {field: texts}}] if texts else []
        either += [{"range": {f"{field}.number": bounds}}] if bounds else []
    else:
        raise InvalidInput(f"filter on {name!r}: use id, brand, category, price, stock or attributes.NAME")
    if not either:
        return {"match_none": {}}
    return either[0] if len(either) == 1 else {"bool": {"should": either, "minimum_should_match": 1}}


def _texts(values: Any) -> list[str]:
    texts = [str(one).lower() if isinstance(one, bool) else str(one) for one in values]
    # What cannot be encoded was never stored, so it equals nothing.
    return [one for one in texts if one.encode("utf-8", "ignore").decode() == one]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _bound(value: Any) -> float:
    if not _is_number(value):
        raise InvalidInput(f"filter bound {value!r} is not a finite number")
    return float(value)


def _facet_field(name: str) -> str:
    if name in _KEYWORDS or name in _NUMBERS:
        return name
    if name.startswith("attributes.") and name != "attributes.":
        return attribute_field(name.removeprefix("attributes."))
    raise InvalidInput(f"facet on {name!r}: use id, brand, category, price, stock or attributes.NAME")


def hits_of(answer: Mapping[str, Any]) -> list[Hit]:
    """The hits of an answer to :func:`search_body`."""
    return [
        Hit(
            id=hit["_id"],
            score=float(hit["_score"] or 0.0),
            document=document_of(hit["_source"]) if "_source" in hit else None,
            highlights={
                name: hit["highlight"][field]
                for name, field in _HIGHLIGHTED.items()
                if field in hit.get("highlight", ())
            },
        )
        for hit in answer["hits"]["hits"]
    ]


def facets_of(request: SearchRequest, answer: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """The facets of an answer to :func:`search_body`."""
    found = answer.get("aggregations", {})
    return {
        name: [(_label(bucket["key"]), bucket["doc_count"]) for bucket in found.get(str(place), {}).get("buckets", [])]
        for place, name in enumerate(request.facets)
    }


def _label(key: Any) -> str:
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)
