"""Refusals in Elasticsearch's error shape."""

from __future__ import annotations

from typing import Any

import orjson

#: Says what to do about a part of the Query DSL that exists but is not answered here.
USE_A_CLUSTER = "the embedded engine does not answer it; set ENDCAP_ENGINE_URL to use an Elasticsearch cluster"


class DslError(Exception):
    """A request that is refused: HTTP ``status`` and Elasticsearch's error ``type`` and ``reason``.

    ``extra`` holds further keys of the root cause (``index``, ``resource.id``, …). ``wrapped``: Elasticsearch reports
    what fails on a shard inside a ``search_phase_execution_exception``.
    """

    def __init__(
        self, type: str, reason: str, status: int = 400, *, extra: dict[str, Any] | None = None, wrapped: bool = False
    ) -> None:
        super().__init__(reason)
        self.type = type
        self.reason = reason
        self.status = status
        self.extra = extra or {}
        self.wrapped = wrapped

    def body(self) -> dict[str, Any]:
        """``{"error": {"root_cause": […], "type", "reason"}, "status"}``."""
        cause = {"type": self.type, "reason": self.reason, **self.extra}
        if not self.wrapped:
            return {"error": {"root_cause": [cause], **cause}, "status": self.status}
        error = {
            "root_cause": [cause],
            "type": "search_phase_execution_exception",
            "reason": "all shards failed",
            "phase": "query",
            "grouped": True,
            "failed_shards": [{"shard": 0, "reason": cause}],
            "caused_by": cause,
        }
        return {"error": error, "status": self.status}

    def encode(self) -> bytes:
        return orjson.dumps(self.body())


def parsing(reason: str) -> DslError:
    """The body has a part that is not understood."""
    return DslError("parsing_exception", reason)


def illegal(reason: str, *, wrapped: bool = False) -> DslError:
    """A part is understood, its value is not acceptable."""
    return DslError("illegal_argument_exception", reason, wrapped=wrapped)


def refused(reason: str) -> DslError:
    """A query cannot be made for this field or value."""
    return DslError("query_shard_exception", f"failed to create query: {reason}", wrapped=True)


def unsupported(part: str) -> DslError:
    """A part that Elasticsearch has and the embedded engine has not."""
    return DslError("illegal_argument_exception", f"[{part}] is not supported: {USE_A_CLUSTER}")


def no_such_index(name: str) -> DslError:
    extra = {"resource.type": "index_or_alias", "resource.id": name, "index_uuid": "_na_", "index": name}
    return DslError("index_not_found_exception", f"no such index [{name}]", 404, extra=extra)
