"""Elasticsearch's HTTP interface over the embedded engine: `_search`, `_msearch`, `_count`, and `GET /`."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, unquote

import orjson

from endcap.engines.base import WireAnswer
from endcap.errors import UnknownIndex

from .dsl.errors import DslError, illegal, no_such_index
from .dsl.parse import flag, with_parameters
from .dsl.search import SHARDS, answer, count
from .dsl.source import FilterPath
from .dsl.values import wildcard
from .snapshot import Snapshot, is_panic

_log = logging.getLogger(__name__)

#: What `GET /` says: clients choose their dialect by it.
COMPATIBLE_VERSION = "8.19.0"
#: Searches in one `_msearch`, and bytes of a body after decompression. The hook in front has stricter limits.
MAX_SEARCHES = 1_000
MAX_BODY = 32_000_000

_JSON = re.compile(
    r"\s*application/(?:vnd\.elasticsearch\+)?(?:json|x-ndjson)\s*(?:;\s*(?P<parameters>[^,]*))?(?:,.*)?", re.IGNORECASE
)
_COMPATIBLE = re.compile(r"compatible-with\s*=\s*\"?(\d+)", re.IGNORECASE)


class Snapshots(Protocol):
    """Where the state to answer from comes from; :class:`EmbeddedEngine` is one."""

    def snapshot(self) -> Snapshot: ...


class EmbeddedWireEngine:
    """:class:`~endcap.engines.base.WireEngine` in process. Thread-safe; holds no state of its own.

    Args:
        engine: the embedded engine.
        index: the name that its index goes by.
    """

    def __init__(self, engine: Snapshots, index: str) -> None:
        self._engine = engine
        self._index = index

    def send(
        self,
        method: Literal["GET", "POST", "HEAD"],
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
    ) -> WireAnswer:
        """See :meth:`WireEngine.send`. ``timeout_s`` has no effect: limits on the request bound every answer."""
        lowered = {name.lower(): value for name, value in headers.items()}
        parameters = dict(parse_qsl(query, keep_blank_values=True, errors="replace"))
        content_type = "application/json"
        try:
            content_type = _media_type(lowered, bool(body))
            status, made = self._route(method, path, parameters, _decoded(lowered, body))
            if made is not None and parameters.get("filter_path"):
                made = FilterPath(parameters["filter_path"]).apply(made)
        except DslError as error:
            status, made = error.status, error.body()
        return _answer(status, made, content_type, parameters, head=method == "HEAD")

    def close(self) -> None:
        """Nothing to let go of: the engine belongs to whoever made it."""

    # --- routing -----------------------------------------------------------------------------------------------

    def _route(self, method: str, path: str, parameters: dict[str, str], body: bytes) -> tuple[int, Any]:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        try:
            match method, parts:
                case (("GET" | "HEAD"), [""]):
                    return 200, _information()
                case "HEAD", [index] if not index.startswith("_"):
                    self._snapshot_of(index, {"ignore_unavailable": "false"})
                    return 200, None
                case (("GET" | "POST"), [*index, "_search"]) if len(index) <= 1:
                    return 200, self._search(index[0] if index else "_all", _object(parameters, body), parameters, path)
                case (("GET" | "POST"), [*index, "_count"]) if len(index) <= 1:
                    return 200, self._count(index[0] if index else "_all", _object(parameters, body), parameters, path)
                case (("GET" | "POST"), [*index, "_msearch"]) if len(index) <= 1:
                    return 200, self._msearch(index[0] if index else "_all", body, parameters, path)
        except UnknownIndex:
            raise no_such_index(self._index) from None
        raise illegal(f"no handler found for uri [{path[:200]}] and method [{method}]")

    def _search(self, index: str, body: dict[str, Any], parameters: Mapping[str, str], path: str) -> dict[str, Any]:
        body = with_parameters(body, parameters, path)
        as_int = flag(parameters, "rest_total_hits_as_int")
        snapshot = self._snapshot_of(index, parameters)
        if snapshot is None:
            total = 0 if as_int else {"value": 0, "relation": "eq"}
            empty = {"total": 0, "successful": 0, "skipped": 0, "failed": 0}
            return {
                "took": 0,
                "timed_out": False,
                "_shards": empty,
                "hits": {"total": total, "max_score": 0.0, "hits": []},
            }
        return _guarded(lambda: answer(snapshot, self._index, body, flag(parameters, "typed_keys"), as_int))

    def _count(self, index: str, body: dict[str, Any], parameters: Mapping[str, str], path: str) -> dict[str, Any]:
        body = with_parameters(body, parameters, path)
        snapshot = self._snapshot_of(index, parameters)
        if snapshot is None:
            return {"count": 0, "_shards": {"total": 0, "successful": 0, "skipped": 0, "failed": 0}}
        return _guarded(lambda: count(snapshot, body))

    def _msearch(self, index: str, body: bytes, parameters: dict[str, str], path: str) -> dict[str, Any]:
        """Every search has a status of its own: one that is refused does not hinder the others."""
        begun = perf_counter()
        # `filter_path` works on the whole answer; the rest of the parameters hold for every search.
        with_parameters({}, parameters, path)
        shared = {name: value for name, value in parameters.items() if name != "filter_path"}
        responses: list[dict[str, Any]] = []
        for header, search in _pairs(body):
            options = dict(shared)
            for name in ("ignore_unavailable", "allow_no_indices"):
                if name in header:
                    options[name] = str(header[name]).lower()
            try:
                made = self._search(_names(header.get("index"), index), search, options, path)
                responses.append({**made, "status": 200})
            except DslError as error:
                responses.append(error.body())
            except UnknownIndex:
                responses.append(no_such_index(self._index).body())
        return {"took": round((perf_counter() - begun) * 1000), "responses": responses}

    def _snapshot_of(self, names: str, parameters: Mapping[str, str]) -> Snapshot | None:
        """The state to search; None where the names leave nothing to search, and that is allowed.

        Raises:
            DslError: 404, an index that is not this engine's.
        """
        found = False
        for name in names.split(","):
            if name == self._index or name in ("_all", ""):
                found = True
            elif "*" in name:
                if wildcard(name).match(self._index):
                    found = True
                elif not flag(parameters, "allow_no_indices", True):
                    raise no_such_index(name)
            elif not flag(parameters, "ignore_unavailable"):
                raise no_such_index(name)
        return self._engine.snapshot() if found else None


def _guarded(work: Any) -> dict[str, Any]:
    """Runs a search; a fault inside the index library is an answer, not a crash.

    Raises:
        DslError: whatever the search raised.
    """
    try:
        made: dict[str, Any] = work()
        return made
    except ValueError as error:
        _log.warning("the index refused a query: %s", error)
        raise illegal(f"failed to create query: {error}", wrapped=True) from None
    except BaseException as error:
        # A panic of the Rust library arrives as a BaseException of its own kind.
        if not is_panic(error):
            raise
        _log.exception("the index failed at a query")
        raise DslError("query_shard_exception", "the index failed at this query", 500, wrapped=True) from None


def _media_type(headers: Mapping[str, str], has_body: bool) -> str:
    """The content type of the answer.

    Raises:
        DslError: a content type other than JSON or NDJSON (406), or versions that contradict each other (400).
    """
    content, accept = headers.get("content-type", ""), headers.get("accept", "")
    if has_body and not _JSON.fullmatch(content):
        raise DslError("content_type_header_exception", f"Content-Type header [{content[:100]}] is not supported", 406)
    asked, sent = _COMPATIBLE.search(accept), _COMPATIBLE.search(content)
    for header, found in (("Accept", asked), ("Content-Type", sent)):
        if found and found[1] not in ("7", "8", "9"):
            raise DslError("media_type_header_exception", f"Invalid media-type value on headers [{header}]")
    if has_body and accept and bool(asked) != bool(sent) and "*/*" not in accept:
        raise DslError(
            "media_type_header_exception",
            "A compatible version is required on both Content-Type and Accept headers if either one has requested a "
            f"compatible version. Accept={accept[:100]}, Content-Type={content[:100]}",
        )
    if asked and sent and asked[1] != sent[1]:
        raise DslError(
            "media_type_header_exception",
            f"A compatible version is required to be the same: Accept={accept[:100]}, Content-Type={content[:100]}",
        )
    return f"application/vnd.elasticsearch+json;compatible-with={asked[1]}" if asked else "application/json"


def _decoded(headers: Mapping[str, str], body: bytes) -> bytes:
    """The body without its compression."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "gzip" and body:
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            body = unpack.decompress(body, MAX_BODY + 1)
        except zlib.error as error:
            raise DslError("illegal_argument_exception", f"the gzip body cannot be read: {error}") from None
        if len(body) <= MAX_BODY and not unpack.eof:
            raise DslError("illegal_argument_exception", "the gzip body ends early")
    elif encoding not in ("identity", "gzip", ""):
        raise DslError("illegal_argument_exception", f"Content-Encoding [{encoding[:50]}] is not supported", 415)
    if len(body) > MAX_BODY:
        raise DslError("too_large", f"the body exceeds [{MAX_BODY}] bytes", 413)
    return body


def _object(parameters: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The body, or the `source` parameter that stands for it."""
    text = body.strip() or parameters.get("source", "").encode().strip()
    if not text:
        return {}
    made = _json(text)
    if not isinstance(made, dict):
        raise DslError("parsing_exception", "Expected [START_OBJECT] but found another kind of value")
    return made


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DslError(
            "x_content_parse_exception", f"[{error.lineno}:{error.colno}] the body is not valid JSON: {error.msg}"
        ) from None


def _pairs(body: bytes) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Header and body of each search of an NDJSON body.

    Raises:
        DslError: not NDJSON, no newline at the end, or too many searches.
    """
    if not body.strip():
        raise DslError("parse_exception", "request body is required")
    if not body.endswith(b"\n"):
        raise illegal("The msearch request must be terminated by a newline [\n]")
    lines = body.split(b"\n")[:-1]
    while lines and not lines[-1].strip():
        # Blank lines at the end, as long as they do not stand for the header of a search.
        lines.pop()
    if len(lines) % 2:
        raise illegal("every search of _msearch takes two lines: a header and a body")
    if len(lines) > 2 * MAX_SEARCHES:
        raise illegal(f"more than [{MAX_SEARCHES}] searches in one _msearch")
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for header, search in zip(lines[::2], lines[1::2], strict=True):
        pair = (_json(header) if header.strip() else {}, _json(search))
        if not isinstance(pair[0], dict) or not isinstance(pair[1], dict):
            raise DslError("parsing_exception", "header and body of a search must be objects")
        pairs.append(pair)
    return pairs


def _names(header: Any, default: str) -> str:
    """The index names of a search's header."""
    if header is None or header == []:
        return default
    return ",".join(str(name) for name in header) if isinstance(header, list) else str(header)


def _information() -> dict[str, Any]:
    return {
        "name": "endcap",
        "cluster_name": "endcap",
        "cluster_uuid": "_na_",
        "version": {
            "number": COMPATIBLE_VERSION,
            "build_flavor": "default",
            "build_type": "embedded",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    }


def _answer(status: int, made: Any, content_type: str, parameters: Mapping[str, str], head: bool) -> WireAnswer:
    options = orjson.OPT_INDENT_2 if parameters.get("pretty", "false") in ("", "true") else None
    body = orjson.dumps(made, option=options) if made is not None else b""
    headers = {"X-Elastic-Product": "Elasticsearch", "Content-Type": content_type, "Content-Length": str(len(body))}
    return WireAnswer(status, headers, b"" if head else body)


__all__ = ["SHARDS", "EmbeddedWireEngine"]
