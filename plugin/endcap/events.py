"""What shoppers did: UBI events as they arrive, checked, and the compact form that everything else reads.

The wire format is User Behavior Insights (UBI): ``action_name``, ``client_id``, ``session_id``, ``query_id``,
``user_query``, ``timestamp``, ``event_attributes.object.object_id``, ``event_attributes.position.ordinal``. Unknown
keys are kept as they are.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import IntEnum
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from endcap.catalog.product import is_generated


class Action(IntEnum):
    """What a shopper can do, mostly with a product. The numbers are stored: never renumber."""

    IMPRESSION = 1
    VIEW = 2
    CLICK = 3
    CART = 4
    UNCART = 5
    PURCHASE = 6
    RETURN = 7
    SEARCH = 8
    LOGIN = 9  # says who an anonymous visitor is: see endcap.stores.aliases


#: Names accepted on the wire, lower case with ``_`` for ``-`` and spaces.
ACTION_NAMES: Mapping[str, Action] = {
    "impression": Action.IMPRESSION,
    "view": Action.VIEW,
    "product_view": Action.VIEW,
    "detail": Action.VIEW,
    "click": Action.CLICK,
    "item_click": Action.CLICK,
    "product_click": Action.CLICK,
    "add_to_cart": Action.CART,
    "cart": Action.CART,
    "remove_from_cart": Action.UNCART,
    "purchase": Action.PURCHASE,
    "buy": Action.PURCHASE,
    "order": Action.PURCHASE,
    "return": Action.RETURN,
    "refund": Action.RETURN,
    "search": Action.SEARCH,
    "query": Action.SEARCH,
    "login": Action.LOGIN,
    "identify": Action.LOGIN,
}

MAX_ID_LENGTH = 512
#: Actions without a product.
_ALONE = frozenset({Action.SEARCH, Action.LOGIN})
#: An event may lie this far ahead of the server's clock (seconds); farther is a wrong clock. Since nothing can have
#: happened later than now, one that lies ahead counts as of now.
MAX_AHEAD_S = 86_400.0
#: Reads every form of ISO 8601 that browsers and databases write, on every Python.
_DATETIME = TypeAdapter(datetime)
_EARLIEST = datetime(2000, 1, 1, tzinfo=timezone.utc).timestamp()


@dataclass(frozen=True, slots=True)
class Event:
    """One action. ``time`` is in seconds since 1970 (UTC). ``shopper`` is the UBI ``client_id``; ``product`` is empty
    for a search. ``value`` is the money of a purchase line, 0 where unknown."""

    id: str
    time: float
    shopper: str
    action: Action
    product: str = ""
    session: str = ""
    query_id: str = ""
    query: str = ""
    position: int = 0
    quantity: float = 1.0
    value: float = 0.0
    attributes: Mapping[str, Any] = field(default_factory=dict)


class RejectedEvent(ValueError):
    """Why an event was not accepted. ``code`` is the same for all events with this kind of fault."""

    def __init__(self, reason: str, code: str = "malformed") -> None:
        super().__init__(reason)
        self.code = code


def parse_event(raw: Any, now: float | None = None, max_attributes: int = 8_000) -> Event:
    """The event in a UBI object.

    An event without an id gets one made of its content, so that sending it twice counts once; without a timestamp, the
    time of arrival (and then a random id: two equal clicks without a time are two clicks).

    Raises:
        RejectedEvent: with the reason.
    """
    if not isinstance(raw, dict):
        raise RejectedEvent("not an object")
    now = time.time() if now is None else now
    action = ACTION_NAMES.get(
        _text(raw, "action_name", required=True).strip().lower().replace("-", "_").replace(" ", "_")
    )
    if action is None:
        given = f"{raw['action_name']!r:.60}"
        raise RejectedEvent(f"action_name {given} is none of {', '.join(sorted(ACTION_NAMES))}", "action")
    shopper = _text(raw, "client_id", required=True)
    if not shopper.isprintable():
        raise RejectedEvent("client_id contains control characters", "client_id")
    attributes = raw.get("event_attributes") or {}
    if not isinstance(attributes, dict):
        raise RejectedEvent("event_attributes is not an object")
    target = attributes.get("object") or {}
    position = attributes.get("position") or {}
    if not isinstance(target, dict) or not isinstance(position, dict):
        raise RejectedEvent("event_attributes.object and .position must be objects")
    product = _text(target, "object_id")
    if not product and action not in _ALONE:
        raise RejectedEvent("event_attributes.object.object_id is missing: which product?", "product")
    if is_generated(product):
        raise RejectedEvent("event_attributes.object.object_id is of a generated row, not of a product", "product")
    rest = {key: value for key, value in attributes.items() if key not in ("object", "position", "quantity", "value")}
    if rest and len(orjson.dumps(rest)) > max_attributes:
        raise RejectedEvent(f"event_attributes exceed {max_attributes} bytes", "too_large")
    if action is Action.LOGIN and not _text(attributes, "anonymous_id"):
        raise RejectedEvent("event_attributes.anonymous_id is missing: who was the shopper before?", "anonymous_id")
    when = _time(raw.get("timestamp"), now)
    event_id = _text(raw, "event_id") or _text(raw, "id")
    if not event_id:
        event_id = uuid.uuid4().hex if when is None else _content_id(raw)
    return Event(
        id=event_id,
        time=now if when is None else min(when, now),
        shopper=shopper,
        action=action,
        product=product,
        session=_text(raw, "session_id"),
        query_id=_text(raw, "query_id"),
        query=_text(raw, "user_query", limit=2_000),
        position=int(_number(position.get("ordinal"), "position.ordinal", 0, 0, 1e6)),
        quantity=_number(attributes.get("quantity"), "quantity", 1.0, 0, 1e6),
        value=_number(attributes.get("value"), "value", 0.0, -1e9, 1e9),
        attributes=rest,
    )


def to_ubi(event: Event) -> dict[str, Any]:
    """The UBI object of an event: the inverse of :func:`parse_event`."""
    target: dict[str, Any] = {**event.attributes, "quantity": event.quantity, "value": event.value}
    if event.product:
        target["object"] = {"object_id": event.product}
    if event.position:
        target["position"] = {"ordinal": event.position}
    return {
        "event_id": event.id,
        "action_name": event.action.name.lower() if event.action is not Action.CART else "add_to_cart",
        "client_id": event.shopper,
        "session_id": event.session,
        "query_id": event.query_id,
        "user_query": event.query,
        "timestamp": datetime.fromtimestamp(event.time, timezone.utc).isoformat(),
        "event_attributes": target,
    }


def split_body(body: bytes) -> Sequence[Any]:
    """The raw events of a request body: one object, an array, or NDJSON. An unreadable NDJSON line becomes a
    :class:`RejectedEvent` in its place, so that the lines around it still count.

    Raises:
        RejectedEvent: the body as a whole is empty or not JSON.
    """
    text = body.strip()
    if not text:
        raise RejectedEvent("empty body: send an event, an array of events, or one event a line")
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"\n" not in text:
            raise RejectedEvent(f"not JSON: {error}") from None
        return [_line(line) for line in text.splitlines() if line.strip()]
    return parsed if isinstance(parsed, list) else [parsed]


def _line(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return RejectedEvent(f"not JSON: {error}", "not_json")


def _content_id(raw: Mapping[str, Any]) -> str:
    return hashlib.blake2b(orjson.dumps(raw, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _text(raw: Mapping[str, Any], key: str, required: bool = False, limit: int = MAX_ID_LENGTH) -> str:
    value = raw.get(key)
    if value is None or value == "":
        if required:
            raise RejectedEvent(f"{key} is missing", key)
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RejectedEvent(f"{key} is not a string", key)
    text = str(value)
    if len(text) > limit:
        raise RejectedEvent(f"{key} is longer than {limit} characters", "too_large")
    if "\x00" in text:
        raise RejectedEvent(f"{key} contains a NUL character", key)
    return text


def _number(value: Any, name: str, default: float, low: float, high: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RejectedEvent(f"{name} must be a number from {low:g} to {high:g}", "number")
    return float(value)


def _time(value: Any, now: float) -> float | None:
    """Seconds since 1970 from ISO text, seconds or milliseconds."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            seconds = float(value)
        except ValueError:
            try:
                moment = _DATETIME.validate_python(value)
            except ValidationError:
                raise RejectedEvent(f"timestamp {value!r:.40} is not ISO 8601", "timestamp") from None
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=timezone.utc)
            seconds = moment.timestamp()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise RejectedEvent("timestamp is neither text nor a number", "timestamp")
    if seconds > 1e11:  # milliseconds: 1e11 s is the year 5138
        seconds /= 1000.0
    if not _EARLIEST <= seconds <= now + MAX_AHEAD_S:
        raise RejectedEvent("timestamp lies before 2000 or more than a day ahead: a wrong clock?", "clock")
    return seconds
