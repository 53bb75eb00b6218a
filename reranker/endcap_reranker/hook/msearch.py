"""``_msearch``'s newline-delimited JSON: taken apart and put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from endcap_reranker.errors import IllegalArgument, MalformedBody


def split_searches(raw: bytes, limit: int) -> list[tuple[dict[str, Any], bytes]]:
    """Headers (an empty line is an empty header) and raw bodies.

    Raises:
        IllegalArgument: more than ``limit`` searches, or no newline at the end.
        MalformedBody: nothing at all, a header that is no JSON object, or a last header without a body.
    """
    if not raw.strip():
        raise MalformedBody("request body or source parameter is required")
    if not raw.endswith(b"\n"):
        raise IllegalArgument("The msearch request must be terminated by a newline [\n]")
    lines = raw[:-1].split(b"\n")
    if len(lines) > 2 * limit:
        raise IllegalArgument(f"{(len(lines) + 1) // 2} searches in one request; at most {limit} are taken")
    if len(lines) % 2:
        # Blank lines at the very end are harmless; a header without a body is not.
        if lines[-1].strip():
            raise MalformedBody(f"line {len(lines)}: the last header has no body")
        lines.pop()
    return [(_header(lines[at], at + 1), lines[at + 1].strip()) for at in range(0, len(lines), 2)]


def _header(line: bytes, number: int) -> dict[str, Any]:
    line = line.strip()
    if not line:
        return {}
    try:
        header = orjson.loads(line)
    except ValueError as error:
        raise MalformedBody(f"line {number}: the header is not valid JSON: {error}") from None
    if header is None:
        return {}
    if not isinstance(header, dict):
        raise MalformedBody(f"line {number}: the header is not a JSON object")
    return header


def join_searches(searches: Iterable[tuple[dict[str, Any], bytes]]) -> bytes:
    """The body of an ``_msearch``. A body of several lines is made one line."""
    parts = []
    for header, body in searches:
        parts.append(orjson.dumps(header))
        parts.append(body or b"{}")
    parts.append(b"")
    return b"\n".join(parts)
