"""Reads values of a request body as Elasticsearch reads them: numbers and booleans may be strings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Any

from .errors import DslError, illegal, parsing

#: Elasticsearch's `index.max_result_window`.
MAX_WINDOW = 10_000


def as_object(value: Any, where: str) -> dict[str, Any]:
    """A JSON object, or a refusal that names its place."""
    if not isinstance(value, dict):
        raise parsing(f"[{where}] must be an object, got [{json_kind(value)}]")
    return value


def as_list(value: Any) -> list[Any]:
    """A list; one value alone is a list of one, None is empty."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def as_bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", ""):
        return True
    if value == "false":
        return False
    raise illegal(f"Failed to parse value [{value}] of [{where}] as only [true] or [false] are allowed.")


def as_float(value: Any, where: str) -> float:
    """A finite number."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
        if math.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise DslError("number_format_exception", f'For input string: "{_short(value)}" in [{where}]')


def as_int(value: Any, where: str, low: int = 0, high: int = 2**31 - 1) -> int:
    """A whole number in [low, high]."""
    number = as_float(value, where)
    if number != int(number):
        raise illegal(f"[{where}] must be a whole number, got [{_short(value)}]")
    if not low <= number <= high:
        raise illegal(f"[{where}] must be between [{low}] and [{high}], got [{_short(value)}]")
    return int(number)


def as_text(value: Any, where: str) -> str:
    """A string; numbers and booleans as Elasticsearch writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise parsing(f"[{where}] must be a string or a number, got [{json_kind(value)}]")


def only(body: Mapping[str, Any], allowed: frozenset[str] | set[str], where: str) -> None:
    """Refuses keys outside ``allowed``."""
    for key in body:
        if key not in allowed:
            raise parsing(f"[{where}] query does not support [{key}]" if where else f"unknown key [{key}]")


@lru_cache(maxsize=1024)
def wildcard(pattern: str) -> re.Pattern[str]:
    """A field-name pattern: ``*`` matches anything, every other character itself."""
    return re.compile(translate(pattern.replace("[", "[[]").replace("?", "[?]")))


def matches_any(name: str, patterns: list[str]) -> bool:
    return any(name == pattern or ("*" in pattern and wildcard(pattern).match(name)) for pattern in patterns)


def json_kind(value: Any) -> str:
    """What Elasticsearch calls a value of this type in its messages."""
    kinds: dict[type, str] = {dict: "START_OBJECT", list: "START_ARRAY", str: "VALUE_STRING", bool: "VALUE_BOOLEAN"}
    return "VALUE_NULL" if value is None else kinds.get(type(value), "VALUE_NUMBER")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:100] + "…"
