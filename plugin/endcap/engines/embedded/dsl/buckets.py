"""Which buckets of a `terms` aggregation are kept, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .errors import DslError, parsing, unsupported
from .values import as_list, as_object, as_text


def orders(order: Any) -> list[tuple[str, bool]]:
    """(path, descending) by rank; the most frequent first, then by key, where nothing is said."""
    if order is None:
        return [("_count", True)]
    found = []
    for one in as_list(order):
        for path, direction in as_object(one, "order").items():
            if str(direction).lower() not in ("asc", "desc"):
                raise parsing(f"Unknown order direction [{direction}]")
            found.append((path, str(direction).lower() == "desc"))
    return found


def ordering(path: str, inner: Any) -> Callable[[dict[str, Any]], Any]:
    """The sort key of a bucket. ``inner``: the sub-aggregations as asked for, which a path may lead to."""
    if path == "_count":
        return lambda bucket: bucket["doc_count"]
    if path in ("_key", "_term"):
        return lambda bucket: bucket["key"]
    steps = path.replace(">", ".").split(".")
    # A bucket without a value counts as what the metric starts from, as in Elasticsearch.
    lowest = steps[-1] == "max" or "max" in (inner or {}).get(steps[0], {})

    def value(bucket: dict[str, Any]) -> float:
        found: Any = bucket
        for step in steps:
            inside = found if isinstance(found, dict) else {}
            found = next((inside[key] for key in inside if key == step or key.endswith(f"#{step}")), None)
        if isinstance(found, dict):
            found = found.get("value", found.get("doc_count"))
        elif found is None and steps[0] not in {key.rpartition("#")[2] for key in bucket}:
            raise DslError(
                "aggregation_execution_exception",
                f"Invalid aggregation order path [{path}]. Unknown aggregation [{steps[0]}]",
                wrapped=True,
            )
        return float(found) if isinstance(found, (int, float)) else -math.inf if lowest else math.inf

    return value


def term_filter(options: dict[str, Any]) -> Callable[[Any], bool]:
    """`include` and `exclude`: lists of values, or a beginning followed by ``.*``; no other regular expressions."""
    include, exclude = _values(options.get("include")), _values(options.get("exclude"))
    return lambda key: (include is None or include(key)) and not (exclude is not None and exclude(key))


def _values(spec: Any) -> Callable[[Any], bool] | None:
    if spec is None:
        return None
    if isinstance(spec, list):
        wanted = {as_text(one, "include") for one in spec}
        return lambda key: as_text(key, "key") in wanted
    text = as_text(spec, "include") if not isinstance(spec, dict) else ""
    beginning = text.removesuffix(".*")
    if not text or set(beginning) & set('.?+*|{}[]()"\\#@&<>~'):
        raise unsupported("terms.include with a regular expression other than [beginning.*]")
    if text.endswith(".*"):
        return lambda key: str(key).startswith(beginning)
    return lambda key: str(key) == beginning
