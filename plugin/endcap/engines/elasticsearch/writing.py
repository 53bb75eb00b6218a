"""Writing in bulk: each item is checked before it is sent, as one bad item would fail its whole request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import streaming_bulk

from endcap.catalog.product import Product
from endcap.engines.base import IndexReport
from endcap.engines.elasticsearch.connection import reason_of
from endcap.engines.elasticsearch.documents import changes, checked_id, stored

CHUNK_ITEMS, CHUNK_BYTES = 500, 8_000_000
#: How Elasticsearch calls the block that a rebuild sets; others (a full disk's) are another matter.
_HELD = "index write"

#: Operation, and the JSON that goes with it.
Action: TypeAlias = "tuple[dict[str, Any], bytes | None]"
#: Id and reason of what is not even sent.
Refusal: TypeAlias = "tuple[str, str]"


def upserts(items: Iterable[tuple[Product, np.ndarray | None, str]], dims: int | None) -> Iterator[Action | Refusal]:
    """See :meth:`Engine.upsert`; ``dims``: the index's."""

    def action(item: tuple[Product, np.ndarray | None, str]) -> Action:
        product, vector, digest = item
        return {"index": {"_id": product.id}}, stored(product, vector, digest, dims)

    return _each(items, lambda item: item[0].id, action)


def updates(items: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Action | Refusal]:
    """See :meth:`Engine.update`."""

    def action(item: tuple[str, Mapping[str, Any]]) -> Action:
        product_id, change = item
        return {"update": {"_id": product_id, "retry_on_conflict": 3}}, b'{"doc":' + changes(product_id, change) + b"}"

    return _each(items, lambda item: item[0], action)


def deletes(ids: Iterable[str]) -> Iterator[Action | Refusal]:
    """See :meth:`Engine.delete`."""
    return _each(ids, lambda one: one, lambda one: ({"delete": {"_id": checked_id(one)}}, None))


def _each(
    items: Iterable[Any], id_of: Callable[[Any], Any], action: Callable[[Any], Action]
) -> Iterator[Action | Refusal]:
    for item in items:
        try:
            yield action(item)
        except UnicodeEncodeError:
            yield str(id_of(item)), "text with half a surrogate pair cannot be stored"
        except (TypeError, ValueError, OverflowError) as error:
            yield str(id_of(item)), str(error)


class Held(Exception):
    """Nothing may be written to the index (its setting ``index.blocks.write``)."""


def send(client: Elasticsearch, actions: Iterable[Action | Refusal], index: str, require_alias: bool) -> IndexReport:
    """Send what can be sent; requests that the engine puts off are sent again, with growing pauses.

    Raises:
        LookupError: the index, or with ``require_alias`` the alias, is not there.
        Held: it is held for a rebuild.
        elasticsearch.ApiError, elasticsearch.TransportError: a whole request failed.
    """
    report = IndexReport()
    errors: list[tuple[int, str, str]] = []
    sent: deque[int] = deque()

    def sendable() -> Iterator[Action]:
        for place, one in enumerate(actions):
            if isinstance(one[0], str):
                errors.append((place, one[0], str(one[1])))
            else:
                sent.append(place)
                yield one

    outcomes = streaming_bulk(
        client,
        cast(Any, sendable()),
        expand_action_callback=cast(Any, lambda action: action),
        index=index,
        require_alias=require_alias,
        chunk_size=CHUNK_ITEMS,
        max_chunk_bytes=CHUNK_BYTES,
        max_retries=5,
        initial_backoff=0.2,
        max_backoff=5,
        retry_on_status=(429, 503),
        raise_on_error=False,
    )
    for done, outcome in outcomes:
        item = next(iter(outcome.values()))
        # Outcomes come in the order of the actions, but for those that were sent again.
        place = sent.popleft()
        if done:
            report.done += 1
            continue
        error = item.get("error")
        if isinstance(error, dict) and error.get("type") == "index_not_found_exception":
            raise LookupError(index)
        if isinstance(error, dict) and error.get("type") == "cluster_block_exception" and _HELD in reason_of(item):
            raise Held(index)
        errors.append((place, item["_id"], _reason(item)))
    report.errors = [(product_id, reason) for _, product_id, reason in sorted(errors, key=lambda one: one[0])]
    return report


def _reason(item: Mapping[str, Any]) -> str:
    if item.get("status") == 404:
        return "there is no such product"
    return reason_of(item) or f"refused with status {item.get('status')}"
