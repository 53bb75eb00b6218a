"""``/v1/events``: checks each event, stores the good ones, says what became of every one."""

from __future__ import annotations

import time
from typing import Any

import orjson
from werkzeug.exceptions import UnsupportedMediaType

from endcap.errors import InvalidInput, TooLarge
from endcap.events import Action, Event, RejectedEvent, parse_event, split_body
from endcap.profiles import DAY_S
from endcap.runtime import Runtime
from endcap.stores.aliases import AliasRefused
from endcap.stores.rejects import reject
from endcap_reranker import telemetry
from endcap_reranker.identity import Identifier, Identity

#: ``navigator.sendBeacon`` sends text/plain, or nothing, unless the page takes pains.
_TYPES = {"application/json", "application/x-ndjson", "application/ndjson", "application/jsonl", "text/plain", ""}


class EventsRefused(InvalidInput):
    """Not one of the events could be used; ``members`` of the answer say why, as they do where some could."""

    kind = "events_rejected"

    def __init__(self, answer: dict[str, Any]) -> None:
        items = answer["items"]
        others = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
        super().__init__(f"{items[0]['reason']}{others}")
        self.members = answer


def accept_events(
    runtime: Runtime, identifier: Identifier, body: bytes, mimetype: str, sender: Identity
) -> dict[str, Any]:
    """Store the events of a body; the ``sender`` fills in where an event names no ``client_id``.

    Raises:
        InvalidInput: the body as a whole is unusable.
        EventsRefused: every event of it is.
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
    for place, raw in enumerate(raws):
        try:
            event = parse_event(_signed(raw, identifier, sender), now, settings.max_event_attributes_bytes)
            if 0 < settings.retention_days * DAY_S < now - event.time:
                raise RejectedEvent("timestamp is older than events are kept (retention_days)", "too_old")
        except RejectedEvent as reason:
            items.append(_rejected(runtime, raw, reason, now))
        else:
            good.append((place, event))
            items.append({"status": "", "id": event.id})
    plain = [(place, event) for place, event in good if event.action is not Action.LOGIN]
    if plain:
        for (place, _), new in zip(plain, runtime.record([event for _, event in plain]), strict=True):
            items[place]["status"] = "accepted" if new else "duplicate"
    for place, event in good:
        if event.action is Action.LOGIN:
            try:
                new = runtime.identify(str(event.attributes["anonymous_id"]), event.shopper, event)
                items[place]["status"] = "accepted" if new else "duplicate"
            except AliasRefused as error:
                items[place] = _rejected(runtime, raws[place], RejectedEvent(str(error), error.kind), now)
    counts = {name: sum(item["status"] == name for item in items) for name in ("accepted", "duplicate", "rejected")}
    for name, count in counts.items():
        telemetry.events(name, count)
    answer = {
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["rejected"],
        "items": items,
    }
    if items and counts["rejected"] == len(items):
        raise EventsRefused(answer)
    return answer


def _signed(raw: Any, identifier: Identifier, sender: Identity) -> Any:
    """The raw event with the shopper's true id: checked and, where ids are signed, without the signature."""
    if isinstance(raw, RejectedEvent):
        raise raw
    if not isinstance(raw, dict):
        return raw
    given = raw.get("client_id")
    if given in (None, ""):
        if sender.problem:
            reason = f"client_id is missing and that of the request does not count ({sender.problem})"
            raise RejectedEvent(reason, "client_id")
        return _checked_login({**raw, "client_id": sender.shopper}, identifier)
    return _checked_login({**raw, "client_id": _checked(given, "client_id", identifier)}, identifier)


def _checked(given: Any, name: str, identifier: Identifier) -> Any:
    who = identifier.check(given)
    if who.problem == "shopper_signature":
        raise RejectedEvent(f"{name} is not signed with the shop's secret", "signature")
    # Anything else that is wrong with it, parse_event says better.
    return who.shopper or given


def _checked_login(raw: dict[str, Any], identifier: Identifier) -> dict[str, Any]:
    """A login names two ids, and both have to be the sender's."""
    attributes = raw.get("event_attributes")
    if isinstance(attributes, dict) and attributes.get("anonymous_id") not in (None, ""):
        before = _checked(attributes["anonymous_id"], "event_attributes.anonymous_id", identifier)
        raw["event_attributes"] = {**attributes, "anonymous_id": before}
    return raw


def identify(runtime: Runtime, identifier: Identifier, body: bytes) -> dict[str, Any]:
    """``/v1/identify``: ``{"from": the anonymous id, "to": the shopper's}``; signed where ids have to be.

    Raises:
        InvalidInput: it does not say so, or an id is none or not signed.
        AliasRefused: the two cannot be joined.
        LogUnavailable: nothing was stored.
    """
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    if not isinstance(raw, dict) or not {"from", "to"} >= raw.keys() >= {"from", "to"}:
        raise InvalidInput('the body must be {"from": "the anonymous id", "to": "the shopper\'s id"}')
    ids = {}
    for name in ("from", "to"):
        who = identifier.check(raw[name])
        if not who.shopper:
            what = "not signed with the shop's secret" if who.problem == "shopper_signature" else "no shopper's id"
            raise InvalidInput(f"{name} is {what}")
        ids[name] = who.shopper
    return {"shopper": ids["to"], "joined": runtime.identify(ids["from"], ids["to"])}


def _rejected(runtime: Runtime, raw: Any, reason: RejectedEvent, now: float) -> dict[str, Any]:
    sent = "" if isinstance(raw, RejectedEvent) else raw
    runtime.rejected.offer(reject(now, reason.code, str(reason), sent))
    return {"status": "rejected", "id": _id_of(raw), "reason": str(reason)}


def _id_of(raw: Any) -> str | None:
    """The id that the sender gave, so that he can tell which event is meant."""
    if not isinstance(raw, dict):
        return None
    given = raw.get("event_id") or raw.get("id")
    return str(given)[:512] if isinstance(given, (str, int)) else None
