"""``/v1/events``: checks each event, stores the good ones, says what became of every one."""

from __future__ import annotations

import time
from typing import Any

from werkzeug.exceptions import UnsupportedMediaType

from endcap.errors import InvalidInput, TooLarge
from endcap.events import Event, RejectedEvent, parse_event, split_body
from endcap.runtime import Runtime
from endcap_reranker import telemetry
from endcap_reranker.identity import Identifier, Identity

#: ``navigator.sendBeacon`` sends text/plain, or nothing, unless the page takes pains.
_TYPES = {"application/json", "application/x-ndjson", "application/ndjson", "application/jsonl", "text/plain", ""}


def accept_events(
    runtime: Runtime, identifier: Identifier, body: bytes, mimetype: str, sender: Identity
) -> dict[str, Any]:
    """Store the events of a body; the ``sender`` fills in where an event names no ``client_id``.

    Raises:
        InvalidInput: the body as a whole is unusable.
        TooLarge: more events than allowed.
        LogUnavailable: nothing was stored: the sender has to try again.
    """
    settings = runtime.settings
    if mimetype not in _TYPES:
        raise UnsupportedMediaType(f"{mimetype:.60}: send application/json, application/x-ndjson or text/plain")
    try:
        raws = split_body(body)
    except RejectedEvent as reason:
        raise InvalidInput(str(reason)) from None
    if len(raws) > settings.max_events:
        raise TooLarge(f"{len(raws)} events; at most {settings.max_events} in one request (setting max_events)")
    now = time.time()
    items: list[dict[str, Any]] = []
    good: list[tuple[int, Event]] = []
    for raw in raws:
        try:
            event = parse_event(_signed(raw, identifier, sender), now, settings.max_event_attributes_bytes)
        except RejectedEvent as reason:
            items.append({"status": "rejected", "id": _id_of(raw), "reason": str(reason)})
        else:
            good.append((len(items), event))
            items.append({"status": "", "id": event.id})
    if good:
        for (place, _), new in zip(good, runtime.record([event for _, event in good]), strict=True):
            items[place]["status"] = "accepted" if new else "duplicate"
    counts = {name: sum(item["status"] == name for item in items) for name in ("accepted", "duplicate", "rejected")}
    for name, count in counts.items():
        telemetry.events(name, count)
    return {
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["rejected"],
        "items": items,
    }


def _signed(raw: Any, identifier: Identifier, sender: Identity) -> Any:
    """The raw event with the shopper's true id: checked and, where ids are signed, without the signature."""
    if isinstance(raw, RejectedEvent):
        raise raw
    if not isinstance(raw, dict):
        return raw
    given = raw.get("client_id")
    if given in (None, ""):
        if sender.problem:
            raise RejectedEvent(f"client_id is missing and that of the request does not count ({sender.problem})")
        return {**raw, "client_id": sender.shopper}
    who = identifier.check(given)
    if who.problem == "shopper_signature":
        raise RejectedEvent("client_id is not signed with the shop's secret")
    # Anything else that is wrong with it, parse_event says better.
    return {**raw, "client_id": who.shopper or given}


def _id_of(raw: Any) -> str | None:
    """The id that the sender gave, so that he can tell which event is meant."""
    if not isinstance(raw, dict):
        return None
    given = raw.get("event_id") or raw.get("id")
    return str(given)[:512] if isinstance(given, (str, int)) else None
