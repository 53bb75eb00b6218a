"""The client, and what its faults mean for Endcap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from elasticsearch import (
    ApiError,
    AuthenticationException,
    AuthorizationException,
    ConnectionTimeout,
    Elasticsearch,
    NotFoundError,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from endcap.engines.address import Address
from endcap.errors import ConfigurationError, EngineError, EngineUnavailable, UnknownIndex
from endcap.settings import Settings

#: What a cluster answers that is there but cannot serve now: overload, no master, a proxy without a node behind it.
_NOT_NOW = frozenset({429, 502, 503, 504})


def connect(address: Address, settings: Settings) -> Elasticsearch:
    """A client; nothing is sent yet. Thread-safe, with ``engine_connections`` pooled connections."""
    options: dict[str, Any] = {"ssl_context": address.tls} if address.tls else {}
    if address.authorization:
        options["headers"] = {"authorization": address.authorization}
    return Elasticsearch(
        [address.url],
        request_timeout=settings.engine_timeout_s,
        connections_per_node=settings.engine_connections,
        # A refused connection is retried once; a slow engine never, as the retry would wait as long again.
        max_retries=1,
        retry_on_timeout=False,
        retry_on_status=(),
        **options,
    )


@contextmanager
def translated(address: Address, index: str) -> Iterator[None]:
    """Raise the client's errors as Endcap's.

    Raises:
        EngineUnavailable: not reached, no answer in time, or the cluster says that it cannot now.
        UnknownIndex: the index is not there.
        ConfigurationError: it is not Elasticsearch.
        EngineError: anything else it refused, with its status and body.
    """
    try:
        yield
    except UnsupportedProductError:
        raise foreign() from None
    except ApiError as error:
        raise _of_answer(error, address, index) from error
    except ConnectionTimeout as error:
        raise EngineUnavailable(
            f"the search engine at {address.url} did not answer in time: {error.message}"
        ) from error
    except SerializationError as error:
        raise EngineError(f"the search engine at {address.url} sent what cannot be read: {error.message}") from error
    except TransportError as error:
        raise EngineUnavailable(f"the search engine at {address.url} cannot be reached: {error.message}") from error


def foreign() -> ConfigurationError:
    """The error for a server that is not Elasticsearch."""
    return ConfigurationError(
        "engine_url: the server is not an Elasticsearch; others can be searched through the hook, but not indexed to"
    )


def _of_answer(error: ApiError, address: Address, index: str) -> Exception:
    status, reason = int(error.status_code), reason_of(error.body) or str(error.message)
    if isinstance(error, (AuthenticationException, AuthorizationException)):
        hint = "see the settings engine_api_key, engine_username and engine_password"
        return EngineError(f"the search engine at {address.url} refuses access: {reason} ({hint})", status, error.body)
    if isinstance(error, NotFoundError) and error_type(error.body) == "index_not_found_exception":
        return UnknownIndex(f"there is no index [{index}] at {address.url}: `endcap index` makes it")
    if status in _NOT_NOW:
        return EngineUnavailable(f"the search engine at {address.url} cannot answer now: {reason}", 503, error.body)
    return EngineError(f"the search engine at {address.url} refused: {reason}", status, error.body)


def error_type(body: Any) -> str:
    """``error.type`` of an error answer; empty where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def reason_of(body: Any) -> str:
    """The most telling sentence of an error answer: what went wrong at the bottom of it."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return str(error or "")
    causes = error.get("root_cause") or [error]
    deepest = causes[0]
    while isinstance(deepest.get("caused_by"), dict):
        deepest = deepest["caused_by"]
    first = str(causes[0].get("reason") or causes[0].get("type") or "")
    last = str(deepest.get("reason") or "")
    return f"{first}: {last}" if last and last not in first else first
