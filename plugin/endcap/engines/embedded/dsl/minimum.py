"""Elasticsearch's `minimum_should_match`: "2", "-1", "75%", "-25%", "2<75%", "2<-25% 9<-3"."""

from __future__ import annotations

import re
from typing import Any

from .errors import illegal

_COUNT = re.compile(r"-?\d{1,9}%?")
_SPACE = re.compile(r"\s*<\s*")


def minimum_should_match(spec: Any, clauses: int) -> int:
    """How many of ``clauses`` optional clauses must match; never negative, may exceed ``clauses``.

    Raises:
        DslError: the specification is not one.
    """
    if isinstance(spec, bool) or not isinstance(spec, (int, str)):
        raise illegal(f"[minimum_should_match] must be a number or a string, got [{spec}]")
    return _count(str(spec).strip(), clauses)


def _count(spec: str, clauses: int) -> int:
    if "<" in spec:
        needed = clauses
        for condition in _SPACE.sub("<", spec).split():
            above, _, rest = condition.partition("<")
            if not _COUNT.fullmatch(above) or above.endswith("%") or "<" in rest:
                raise illegal(f"[minimum_should_match] is not understood: [{spec}]")
            if clauses <= int(above):
                return needed
            needed = _count(rest, clauses)
        return needed
    if not _COUNT.fullmatch(spec):
        raise illegal(f"[minimum_should_match] is not understood: [{spec}]")
    number = int(spec.rstrip("%"))
    if spec.endswith("%"):
        # Truncated towards zero, as Lucene does.
        number = int(clauses * number / 100)
    elif spec.startswith("-"):
        pass
    needed = clauses + number if spec.startswith("-") else number
    return max(needed, 0)
