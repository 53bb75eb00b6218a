"""Counts of values over everything that a search matched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tantivy

from endcap.engines.embedded.schema import ATTRIBUTES, KEYWORD_FIELDS, NUMBER_FIELDS, attribute_path
from endcap.engines.embedded.snapshot import Snapshot
from endcap.errors import InvalidInput

MAX_BUCKETS = 10_000
#: No segment may leave out a value that is rare in it but frequent elsewhere.
_SEGMENT_BUCKETS = 65_000


def facet_field(name: str) -> str:
    """The index field of a facet.

    Raises:
        InvalidInput: it cannot be counted.
    """
    prefix, _, attribute = name.partition(".")
    if prefix == ATTRIBUTES and attribute:
        return attribute_path(attribute)
    if name in KEYWORD_FIELDS or name in NUMBER_FIELDS:
        return name
    raise InvalidInput(f"facet {name!r}: use brand, category, price, stock or attributes.NAME")


def facets(snapshot: Snapshot, query: tantivy.Query, wanted: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """Per field the most frequent values with exact counts; equal counts by value."""
    sizes = {name: min(size, MAX_BUCKETS) for name, size in wanted.items()}
    fields = {name: facet_field(name) for name in sizes}
    asked = {name: max(50, 4 * size) for name, size in sizes.items() if size > 0}
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in sizes}
    while asked:
        body = {
            str(at): {"terms": {"field": fields[name], "size": size, "segment_size": max(size, _SEGMENT_BUCKETS)}}
            for at, (name, size) in enumerate(asked.items())
        }
        answer = snapshot.searcher.aggregate(query, body)
        again = {}
        for at, (name, size) in enumerate(asked.items()):
            buckets = answer[str(at)]["buckets"]
            # Which of the values with the last count came along is chance: then all are needed to choose by value.
            tied = len(buckets) == size and buckets[sizes[name] - 1]["doc_count"] == buckets[-1]["doc_count"]
            if tied and size < MAX_BUCKETS:
                again[name] = MAX_BUCKETS
                continue
            pairs = [(_label(bucket), int(bucket["doc_count"])) for bucket in buckets]
            found[name] = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[: sizes[name]]
        asked = again
    return found


def _label(bucket: Mapping[str, Any]) -> str:
    return str(bucket.get("key_as_string", bucket["key"]))
