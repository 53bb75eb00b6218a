"""HTTP as Elasticsearch's clients speak it: reading their requests, building the answers.

The URL's parameters are always taken apart and put together again, and paths built from checked names, so that the
engine cannot read a request otherwise than the guard did (it splits parameters at ``;`` too, for one).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

import orjson
from flask import Request, Response

from endcap.engines import WireAnswer
from endcap_reranker.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding, UnsupportedMediaType

Params = list[tuple[str, str]]

#: Only these travel to the engine. An allow-list, as the engine trusts some headers (``es-security-runas-user``).
FORWARDED = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Traceparent",
    "Tracestate",
    "User-Agent",
    "X-Elastic-Client-Meta",
    "X-Forwarded-For",
    "X-Opaque-Id",
)
#: These describe the engine's connection, not its answer.
_NOT_RETURNED = frozenset(
    {"connection", "content-encoding", "content-length", "date", "keep-alive", "proxy-authenticate", "server"}
    | {"te", "trailer", "transfer-encoding", "upgrade", "vary"}
)
_JSON_TYPES = frozenset({"application/json", "application/vnd.elasticsearch+json"})
_NDJSON_TYPES = frozenset({"application/x-ndjson", "application/vnd.elasticsearch+x-ndjson"})
_COMPRESS_FROM = 1400  # bytes: below one packet's worth there is nothing to gain


def read_body(request: Request, limit: int) -> bytes:
    """The request's body, decompressed.

    Raises:
        BodyTooLarge: over ``limit`` bytes, before or after decompression.
        MalformedBody: the compressed data is broken.
        UnsupportedEncoding: compressed in another way than gzip or deflate.
    """
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(f"the body has {request.content_length} bytes; at most {limit} are taken (max_body_bytes)")
    data = request.stream.read(limit + 1)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if data and encoding not in {"", "identity"}:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise UnsupportedEncoding(f"Content-Encoding [{encoding[:40]}] is not supported; send gzip")
        inflate = zlib.decompressobj(47)  # 32 + 15: gzip or zlib, by its header
        try:
            data = inflate.decompress(data, limit + 1)
        except zlib.error as error:
            raise MalformedBody(f"the body is not valid {encoding}: {error}") from None
        if len(data) <= limit and not inflate.eof:
            raise MalformedBody(f"the body is not valid {encoding}: it ends too early")
    if len(data) > limit:
        raise BodyTooLarge(f"the body has more than {limit} bytes (max_body_bytes)")
    return data


def read_params(request: Request) -> Params:
    """The URL's parameters, split as Elasticsearch splits them."""
    query = request.query_string.decode("latin-1")
    if not query:
        return []
    pairs = (part.partition("=") for part in re.split("[&;]", query) if part)
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]


def query_string(params: Iterable[tuple[str, str]]) -> str:
    """The parameters as a raw query string."""
    return urlencode(list(params))


def search_path(indices: Iterable[str], endpoint: str) -> str:
    """``/a,b/_search``; without an index ``/_search``."""
    names = ",".join(quote(name, safe="") for name in indices)
    return f"/{names}/{endpoint}" if names else f"/{endpoint}"


def check_media_type(content_type: str | None, ndjson: bool) -> None:
    """Only JSON (and NDJSON where it belongs) can be read and so be checked.

    Raises:
        UnsupportedMediaType: any other type of body, or none.
    """
    media = (content_type or "").partition(";")[0].strip().lower()
    if media not in _JSON_TYPES and not (ndjson and media in _NDJSON_TYPES):
        raise UnsupportedMediaType(f"Content-Type header [{(content_type or '')[:100]}] is not supported")


def forwarded_headers(request: Request, shopper_cookie: str) -> dict[str, str]:
    """The headers that go to the engine, as received; of the cookies all but Endcap's own."""
    sent = {name: value for name in FORWARDED if (value := request.headers.get(name)) is not None}
    cookies = request.headers.get("Cookie")
    if cookies:
        kept = [part for part in cookies.split(";") if part.partition("=")[0].strip() != shopper_cookie]
        if kept:
            sent["Cookie"] = ";".join(kept).strip()
    return sent


def content_type_for_added_body(headers: dict[str, str]) -> None:
    """Where the client sent no body but the engine gets one: of the type that agrees with ``Accept``."""
    if "Content-Type" not in headers:
        accept = headers.get("Accept", "")
        compatible = "vnd.elasticsearch+json" in accept and "," not in accept
        headers["Content-Type"] = accept if compatible else "application/json"


def wants_json(params: Params, headers: Mapping[str, str]) -> bool:
    """Whether the answer will be JSON (YAML, CBOR and SMILE can be asked for, too)."""
    form = last(params, "format")
    if form is not None:
        return form.lower() == "json"
    accept = headers.get("Accept", "").lower()
    return not accept or "json" in accept or "*/*" in accept


def last(params: Params, name: str) -> str | None:
    """A parameter's value: of several the last, as Elasticsearch has it."""
    for key, value in reversed(params):
        if key == name:
            return value
    return None


def flag(params: Params, name: str) -> bool:
    """A parameter that is on when named without a value."""
    value = last(params, name)
    return value is not None and value.lower() != "false"


def parse_search(raw: bytes) -> Any:
    """A search as JSON, its numbers as they were sent: orjson reads integers beyond 64 bits as floats.

    Raises:
        MalformedBody: it is not valid JSON.
    """
    try:
        if b"0" * 20 in raw.translate(_DIGITS):
            return json.loads(raw.decode(), parse_constant=_no_number)
        return orjson.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the search is not valid JSON: {error}") from None


def dump_search(search: dict[str, Any]) -> bytes:
    """The search as JSON."""
    try:
        return orjson.dumps(search)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(search).encode()


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def parse_answer(body: bytes) -> tuple[dict[str, Any] | None, bool]:
    """An engine's JSON object (None if it is none), and whether it holds numbers that only the slow reader keeps.

    orjson reads integers beyond 64 bits as floats; a document must come out as it went in.
    """
    exact = b"0" * 20 in body.translate(_DIGITS)
    try:
        value = json.loads(body) if exact else orjson.loads(body)
    except ValueError:
        return None, exact
    return (value if isinstance(value, dict) else None), exact


def dump_answer(answer: dict[str, Any], exact: bool, pretty: bool) -> bytes:
    """The answer as JSON."""
    if not exact:
        try:
            return orjson.dumps(answer, option=orjson.OPT_INDENT_2 if pretty else 0)
        except TypeError:
            pass  # nested too deep for it
    return json.dumps(answer, ensure_ascii=False, indent=2 if pretty else None).encode()


_DIGITS = bytes(48 if 48 <= code <= 57 else 32 for code in range(256))


def response(request: Request, answer: WireAnswer, body: bytes | None = None) -> Response:
    """The engine's answer as Flask's, compressed where the client takes it. ``body`` replaces the engine's."""
    body = answer.body if body is None else body
    headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _NOT_RETURNED]
    if len(body) >= _COMPRESS_FROM and _takes_gzip(request.headers.get("Accept-Encoding", "")):
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        body = packer.compress(body) + packer.flush()
        headers.append(("Content-Encoding", "gzip"))
    headers.append(("Vary", "Accept-Encoding"))
    made = Response(body, answer.status, headers)
    if not any(name.lower() == "content-type" for name, _ in headers):
        del made.headers["Content-Type"]
    return made


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
