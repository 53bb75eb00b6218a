"""Rows that cannot become products: what is wrong with them, and the file that collects them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import orjson

_EXCERPT = 500


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was left out. ``line`` counts from 1; for Parquet it is the row."""

    file: str
    line: int
    reason: str
    excerpt: str = ""


OnReject = Callable[[Reject], None]


def excerpt(row: Any) -> str:
    """The beginning of a row as text, for people to recognise it by."""
    if isinstance(row, bytes):
        row = row.decode("utf-8", "replace")
    if not isinstance(row, str):
        try:
            row = orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, ValueError):
            row = repr(row)
    return row if len(row) <= _EXCERPT else row[:_EXCERPT] + "…"


class RejectsFile:
    """Collects rejects as JSON lines (file, line, reason, excerpt). The file appears with the first reject.

    ``count`` is their number, ``reasons`` how often each reason occurred.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> RejectsFile:
        self.path.unlink(missing_ok=True)  # an earlier run's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream:
            self._stream.close()

    def add(self, reject: Reject) -> None:
        """Write one reject."""
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("wb")
        line = {"file": reject.file, "line": reject.line, "reason": reject.reason, "excerpt": reject.excerpt}
        self._stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self.count += 1
        self.reasons[reject.reason.split(": ", 1)[0]] += 1
