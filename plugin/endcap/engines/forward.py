"""Elasticsearch's wire format, forwarded to a running Elasticsearch or OpenSearch over pooled connections."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Literal

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPHeaderDict, HTTPSConnectionPool, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from endcap.engines.address import engine_address
from endcap.engines.base import WireAnswer
from endcap.errors import EngineUnavailable, InvalidInput
from endcap.settings import Settings

log = logging.getLogger(__name__)

#: Headers about one connection, not about the message (RFC 9110, 7.6.1), with the obsolete ones still in use.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Made anew for the engine's side. Bodies come uncompressed: they are read here anyway, and packing costs more time
# than it saves between neighbours.
_OURS_IN_REQUEST = HOP_BY_HOP | {"host", "content-length", "accept-encoding", "expect"}
_OURS_IN_ANSWER = HOP_BY_HOP | {"content-length"}
_CHUNK = 1 << 16


class HttpWireEngine:
    """:class:`~endcap.engines.base.WireEngine` over HTTP. Thread-safe; connections stay open between searches.

    The client's ``Authorization`` goes along. Endcap's own credentials are added where the client sent none and the
    settings hold some. Redirects come back as answers: they are never followed.
    """

    def __init__(self, settings: Settings) -> None:
        address = engine_address(settings)
        self._address = address
        self._pool: HTTPConnectionPool
        if address.tls is not None:
            self._pool = HTTPSConnectionPool(
                address.host, address.port, maxsize=settings.engine_connections, ssl_context=address.tls
            )
        else:
            self._pool = HTTPConnectionPool(address.host, address.port, maxsize=settings.engine_connections)

    def send(
        self,
        method: Literal["GET", "POST", "HEAD"],
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
    ) -> WireAnswer:
        """Forward one search. ``body`` is as ``headers`` describe it; the answer's body is decompressed.

        ``timeout_s`` bounds the whole exchange. The answer's headers are looked up without regard to case.

        Raises:
            EngineUnavailable: refused, cut off, or no complete answer in time (status 504).
            InvalidInput: a header that cannot be sent.
        """
        target = f"{self._address.prefix}/{path.removeprefix('/')}{'?' if query else ''}{query}"
        sent = self._request_headers(headers)
        until = time.monotonic() + timeout_s
        try:
            try:
                return self._exchange(method, target, sent, body, until)
            except ProtocolError:
                # The engine may close a connection that was idle just when it is used again. A search has no effects,
                # so asking a second time is safe; the time is the same.
                return self._exchange(method, target, sent, body, until)
        except (HTTPError, OSError) as error:
            # A refused connection counts among urllib3's timeouts.
            slow = isinstance(error, (ConnectTimeoutError, ReadTimeoutError, TimeoutError))
            if slow and not isinstance(error, NewConnectionError):
                what, status = f"did not answer within {timeout_s:g} s", 504
            else:
                what, status = "cannot be reached", 503
            # Shoppers may see the error; where the engine stands is for the log alone.
            log.warning("the search engine at %s %s: %s", self._address.url, what, error)
            raise EngineUnavailable(f"the search engine {what}", status) from error
        except ValueError as error:
            raise InvalidInput(f"the request cannot be forwarded: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _request_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        dropped = set(_OURS_IN_REQUEST)
        for key, value in headers.items():
            if key.lower() == "connection":
                dropped.update(name.strip().lower() for name in value.split(","))
        sent = {key: value for key, value in headers.items() if key.lower() not in dropped}
        if self._address.authorization and not any(key.lower() == "authorization" for key in sent):
            sent["Authorization"] = self._address.authorization
        sent["Accept-Encoding"] = "identity"
        return sent

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes, until: float) -> WireAnswer:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        answer = self._pool.urlopen(
            method,
            target,
            body=body or None,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=Timeout(total=left),
            preload_content=False,
        )
        try:
            content = _read(answer, until)
        except BaseException:
            # Half an answer is still on the wire.
            answer.close()
            raise
        finally:
            answer.release_conn()
        return WireAnswer(answer.status, _answer_headers(answer), content)


def _read(answer: BaseHTTPResponse, until: float) -> bytes:
    parts = []
    while part := answer.read1(_CHUNK, decode_content=True):
        parts.append(part)
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        socket = getattr(answer.connection, "sock", None)
        if socket is not None:
            # The timeout of a socket bounds each wait; this bounds their sum.
            socket.settimeout(left)
    return b"".join(parts)


def _answer_headers(answer: BaseHTTPResponse) -> HTTPHeaderDict:
    dropped = set(_OURS_IN_ANSWER)
    codings = {one.strip().lower() for one in answer.headers.get("content-encoding", "").split(",")}
    if codings <= set(answer.CONTENT_DECODERS):
        dropped.add("content-encoding")
    kept = HTTPHeaderDict()
    for name, value in answer.headers.iteritems():
        if name.lower() not in dropped:
            kept.add(name, value)
    return kept
