"""Log lines, for people or as JSON, each with the request or run that it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

import orjson

from endcap.settings import Settings

#: What the work at hand belongs to: the id of a request or of a run; in every line that is logged meanwhile.
REQUEST_ID: ContextVar[str] = ContextVar("endcap_request_id", default="")

#: Attributes that every record has; what else a record carries (``extra=``) is part of the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, ``request_id``, and any extras."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if REQUEST_ID.get():
            line["request_id"] = REQUEST_ID.get()
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, orjson.JSONEncodeError):  # halves of surrogate pairs, numbers beyond 64 bits
            return json.dumps(line, default=str, skipkeys=True)


class TextLines(logging.Formatter):
    """``2026-11-27T16:30:58Z info endcap.runtime: message``, extras as ``name=value`` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        extras = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if REQUEST_ID.get():
            extras["request_id"] = REQUEST_ID.get()
        # A line is a line: what a client sent must not be able to begin another one.
        text = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_moment(record)} {record.levelname.lower()} {record.name}: {text}"
        line += "".join(f" {name}={value}" for name, value in extras.items() if value not in ("", None))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logs(settings: Settings) -> None:
    """Have everything that this process logs written to standard error, as the settings ask. Calling it again changes
    the way of writing, not the number of lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    for old in [one for one in root.handlers if getattr(one, "endcap", False)]:
        root.removeHandler(old)
    handler.endcap = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    # Clients of our own that tell every request at this level.
    for name in ("elastic_transport", "urllib3", "httpx"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def formatter(settings: Settings) -> logging.Formatter:
    """How lines are written."""
    return JsonLines() if settings.log_format == "json" else TextLines()


def _moment(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
