"""Numbers and times as the console's pages write them."""

from __future__ import annotations

import time
from datetime import datetime, timezone

_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def number(value: float | None, digits: int = 0) -> str:
    """12,345 or 0.123; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def figure(value: object) -> str:
    """A figure of unknown size with four digits that say something; texts as they are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return f"{value:,d}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def share(part: float, whole: float) -> str:
    """A part of a whole as a percentage; a dash where there is no whole."""
    if not whole:
        return "–"
    percent = 100.0 * part / whole
    return f"{percent:.0f} %" if percent >= 10 or not percent else f"{percent:.1f} %"


def moment(seconds: float | None) -> str:
    """A moment (seconds since 1970) as date and time, UTC."""
    if not seconds:
        return "–"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: float | None) -> str:
    """How long a moment is past: ``now``, ``40 s ago``, ``3 h ago``."""
    if not seconds:
        return "never"
    passed = time.time() - seconds
    if -5 < passed < 2:
        return "now"
    if 0 < passed < 60:
        return f"{passed:.0f} s ago"
    return f"in {span(-passed)}" if passed < 0 else f"{span(passed)} ago"


def span(seconds: float | None) -> str:
    """A length of time in its largest unit."""
    if seconds is None:
        return "–"
    for size, unit in _STEPS:
        if seconds >= size:
            whole = seconds / size
            return f"{whole:.1f} {unit}" if whole < 10 and size > 60 else f"{whole:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def file_size(size: float) -> str:
    """Bytes as B, kB, MB or GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
