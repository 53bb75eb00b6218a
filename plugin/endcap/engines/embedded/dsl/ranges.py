"""Numeric ranges: bounds of a `range` query, over prices, stock and numeric attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tantivy

from .context import Context, Query, any_of, constant, nothing
from .errors import unsupported
from .exact import parse_number
from .fields import Field, not_indexed
from .values import as_bool, only

_ALLOWED = {"gte", "gt", "lte", "lt", "from", "to", "include_lower", "include_upper", "boost", "relation", "_name"}


def in_range(context: Context, field: Field, bounds: Mapping[str, Any]) -> Query:
    """Documents with a number within the bounds; score 1. Without bounds: with any value.

    Raises:
        DslError: a bound is not a number, or the field holds text.
    """
    if bounds.get("format") is not None or bounds.get("time_zone") is not None:
        raise unsupported("range over dates")
    only(bounds, _ALLOWED, "range")
    if field.kind == "stored":
        raise not_indexed(field.name)
    if field.kind not in ("number", "attribute"):
        raise unsupported(f"range over text, here [{field.name}]")
    low = _bound(bounds, ("gt", "gte", "from"), field)
    high = _bound(bounds, ("lt", "lte", "to"), field)
    assert field.exact
    if low is None and high is None:
        return constant(Query.exists_query(field.exact))
    if field.kind == "number":
        return constant(
            Query.range_query(
                context.schema,
                field.exact,
                tantivy.FieldType.Float,
                lower_bound=low[0] if low else None,
                upper_bound=high[0] if high else None,
                include_lower=low[1] if low else True,
                include_upper=high[1] if high else True,
            )
        )
    # tantivy's ranges over JSON want bounds of the column's own type, which differs between segments; the distinct
    # values are few and exact.
    held = [
        value
        for value in context.attribute_values(field.exact)
        if isinstance(value, (int, float)) and _within(float(value), low, high)
    ]
    if not held:
        return nothing()
    return constant(any_of([context.term(field.exact, _stored(value)) for value in held]))


def _bound(bounds: Mapping[str, Any], names: tuple[str, str, str], field: Field) -> tuple[float, bool] | None:
    """A bound and whether it is included; of several, as in Elasticsearch, the last one."""
    _, inclusive, legacy = names
    found: tuple[float, bool] | None = None
    for name, value in bounds.items():
        if name in names:
            included = name == inclusive
            if name == legacy:
                flag = "include_lower" if legacy == "from" else "include_upper"
                included = as_bool(bounds.get(flag, True), flag)
            found = None if value is None else (parse_number(value, field), included)
    return found


def _within(value: float, low: tuple[float, bool] | None, high: tuple[float, bool] | None) -> bool:
    if low and not (value >= low[0] if low[1] else value > low[0]):
        return False
    return not (high and not (value <= high[0] if high[1] else value < high[0]))


def _stored(value: float) -> int | float:
    """A number as the index holds it: whole ones are integers."""
    return int(value) if float(value).is_integer() and math.fabs(value) < 2**53 else value
