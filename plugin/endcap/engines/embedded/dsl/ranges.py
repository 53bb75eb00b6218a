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
    low, high = _lower(bounds, field), _upper(bounds, field)
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


def _lower(bounds: Mapping[str, Any], field: Field) -> tuple[float, bool] | None:
    if bounds.get("gt") is not None:
        return parse_number(bounds["gt"], field), False
    if bounds.get("gte") is not None:
        return parse_number(bounds["gte"], field), True
    if bounds.get("from") is not None:
        return parse_number(bounds["from"], field), as_bool(bounds.get("include_lower", True), "include_lower")
    return None


def _upper(bounds: Mapping[str, Any], field: Field) -> tuple[float, bool] | None:
    if bounds.get("lt") is not None:
        return parse_number(bounds["lt"], field), False
    if bounds.get("lte") is not None:
        return parse_number(bounds["lte"], field), True
    if bounds.get("to") is not None:
        return parse_number(bounds["to"], field), as_bool(bounds.get("include_upper", True), "include_upper")
    return None


def _within(value: float, low: tuple[float, bool] | None, high: tuple[float, bool] | None) -> bool:
    if low and not (value >= low[0] if low[1] else value > low[0]):
        return False
    return not (high and not (value <= high[0] if high[1] else value < high[0]))


def _stored(value: float) -> int | float:
    """A number as the index holds it: whole ones are integers."""
    return int(value) if float(value).is_integer() and math.fabs(value) < 2**53 else value
