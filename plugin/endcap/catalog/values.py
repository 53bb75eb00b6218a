"""Turns the values that shops write into the ones a product has: ids, texts, prices, stocks, category paths."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

from endcap.catalog.product import PATH_SEPARATOR

#: Bytes of UTF-8: what Elasticsearch takes as an ``_id``.
MAX_ID_BYTES = 512
MAX_TITLE = 2_000
MAX_DESCRIPTION = 100_000
_MAX_LEVEL = 200
_MAX_LEVELS = 12

_MISSING = frozenset({"", "-", "n/a", "na", "null", "none", "\\n"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?[a-zA-Z][^<>]{0,1000}>", re.DOTALL | re.IGNORECASE)
_LINK_KEYS = ("url", "src", "link", "hi_res", "large", "thumb")
_SPACES = re.compile(r"\s+")
_SIGN = r"[A-Za-z]{1,4}(?:\.|[^\w\s.,+-])?|[^\w\s.,+-]{1,3}"
_CURRENCY = re.compile(rf"^(?:{_SIGN})?\s*|\s*(?:{_SIGN}|,-+|\.-+)?$")
_PLAIN = re.compile(r"[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(?P<sep>[.,])\d{3})(?:(?P=sep)\d{3})*")

_STOCK_WORDS = {
    1.0: "true yes y t on in_stock instock available limited limitedavailability onlineonly backorder preorder",
    0.0: "false no n f off out_of_stock outofstock oos sold_out soldout unavailable not_available discontinued",
}
_STOCK = {word: pieces for pieces, words in _STOCK_WORDS.items() for word in words.split()}


class Unusable(ValueError):
    """A value that its role cannot take; the message is the reason."""


def is_missing(value: Any) -> bool:
    """None, blank text, and the words that exports write for nothing."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING) or value == []


def to_id(value: Any) -> str:
    """A product's id as text.

    Raises:
        Unusable: it is missing, too long, or neither text nor a whole number.
    """
    if value is None or value == "":
        raise Unusable("the id is missing")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # tools that keep gaps in a column of numbers write 17 as 17.0
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise Unusable(f"the id is neither text nor a whole number: {value!r:.60}")
    text = scalar_text(value).strip()
    if not text:
        raise Unusable("the id is missing")
    if len(text.encode()) > MAX_ID_BYTES:
        raise Unusable(f"the id is longer than {MAX_ID_BYTES} bytes")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise Unusable("the id holds a control character")
    return text


#: Product tables hold float32, in which a larger price is infinite, and spoils every list that it is in.
LARGEST = 1e30


def to_text(value: Any, limit: int, strip_tags: bool = False) -> str:
    """Plain text in one line, at most ``limit`` characters: HTML entities resolved, tags stripped where wanted."""
    if is_missing(value):
        return ""
    if isinstance(value, (list, tuple)):
        return to_text(" ".join(scalar_text(one) for one in value if not is_missing(one)), limit, strip_tags)
    text = scalar_text(value)[: 4 * limit]
    if strip_tags and "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    return _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()[:limit]


def scalar_text(value: Any) -> str:
    """One value as text that can be encoded as UTF-8 (JSON can hold half a surrogate pair)."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    text = value if isinstance(value, str) else value.isoformat() if isinstance(value, (date, time)) else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def to_number(value: Any, decimal_comma: bool = False) -> float:
    """A finite number from what a shop writes: ``1299``, ``"$1,299.00"``, ``"1.234,56 €"``, ``"1'299.-"``.

    A lone point or comma before exactly three digits groups thousands if it is not the decimal mark: the comma, or,
    where ``decimal_comma`` says that the file writes decimals with it, the point.

    Raises:
        Unusable: it is not one finite number.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise Unusable(f"{value!r:.60} is not a number")
    if isinstance(value, str):
        number = float(_ungrouped(value, decimal_comma))
    else:
        try:
            number = float(value)
        except OverflowError:
            raise Unusable(f"{value!r:.60} is too large") from None
    if not math.isfinite(number):
        raise Unusable(f"{value!r:.60} is not a finite number")
    if abs(number) > LARGEST:
        raise Unusable(f"{value!r:.60} is too large")
    return number


def _ungrouped(value: str, decimal_comma: bool) -> str:
    text = _CURRENCY.sub("", value.strip().replace("\u2212", "-"))
    text = re.sub(r"(?<=\d)[\s'’\u00a0\u202f](?=\d{3})", "", text)
    text = re.sub(r"^([+-])\s*(?:[^\w\s.,+-]{1,3}\s*)?", r"\1", text)  # -$5
    decimal, group = (",", ".") if decimal_comma else (".", ",")
    if "," in text and "." in text:
        decimal = max(",.", key=text.rfind)
        group = "." if decimal == "," else ","
        text = text.replace(group, "")
    elif _GROUPED.fullmatch(text) and (group in text or text.count(decimal) > 1):
        text = text.replace(".", "").replace(",", "")
    if text.count(",") == 1:
        text = text.replace(",", ".")
    if not _PLAIN.fullmatch(text):
        raise Unusable(f"{value!r:.60} is not a number")
    return text


def writes_decimal_comma(values: Iterable[Any]) -> bool:
    """Whether a file's prices show that its decimal mark is the comma: "12,50" or "1.234,56" in most that tell."""
    comma = point = 0
    for value in values:
        if isinstance(value, str) and (found := re.search(r"([.,])\d{1,2}\D*$", value)):
            comma += found[1] == ","
            point += found[1] == "."
    return comma > point


def to_price(value: Any, decimal_comma: bool = False) -> float | None:
    """A price; None where nothing is written.

    Raises:
        Unusable: it is not a number, or negative.
    """
    if is_missing(value):
        return None
    try:
        number = to_number(value, decimal_comma)
    except Unusable as error:
        raise Unusable(f"the price is not a number: {error}") from None
    if number < 0:
        raise Unusable(f"the price is negative: {number:g}")
    return number


def to_stock(value: Any) -> float | None:
    """Pieces in stock; a yes counts as 1 and a no as 0, and less than nothing (back orders) as 0. None: unknown.

    Raises:
        Unusable: it is neither a number nor a word for yes or no.
    """
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        word = re.sub(r"[\s_-]+", "_", value.strip().lower().rstrip("/").rsplit("/", 1)[-1])
        if word in _STOCK:
            return _STOCK[word]
    return max(0.0, to_number(value))


def to_link(value: Any) -> str:
    """An address; of a list the first; of objects their ``url``, ``src``, ``link``, ``large`` or ``thumb``."""
    if isinstance(value, (list, tuple)):
        return next((link for one in value if (link := to_link(one))), "")
    if isinstance(value, dict):
        return next(
            (to_link(value[key]) for key in ("url", "src", "link", "hi_res", "large", "thumb") if value.get(key)), ""
        )
    text = to_text(value, 2_048)
    if re.match(r"https?://\S+[,|]\s*https?://", text):
        text = re.split(r"[,|]\s*(?=https?://)", text)[0]
    # An address with code in it would run in a page that shows it.
    return "" if re.match(r"(javascript|vbscript|data):", text, re.IGNORECASE) else text


def to_categories(values: Sequence[Any], separator: str) -> tuple[str, ...]:
    """The path from the root to the leaf: from one string with separators, from a list, or from several fields."""
    levels: list[str] = []
    for value in values:
        for level in _path(value, separator):
            if not levels or level != levels[-1]:
                levels.append(level)
    return tuple(level[:_MAX_LEVEL] for level in levels[:_MAX_LEVELS])


def _path(value: Any, separator: str) -> list[str]:
    if is_missing(value):
        return []
    if isinstance(value, dict):
        value = next((value[key] for key in ("path", "name", "title") if value.get(key)), None)
        return _path(value, separator)
    if isinstance(value, (list, tuple)):
        paths = [path for one in value if (path := _path(one, separator))]
        if any(len(path) > 1 for path in paths):  # several paths: the most specific one
            return max(paths, key=len)
        return [path[0] for path in paths]
    text = to_text(value, MAX_TITLE)
    parts = text.split(separator.strip() or separator) if separator else [text]
    return [level for part in parts for level in map(str.strip, part.split(PATH_SEPARATOR)) if level]


def path_separator(values: Iterable[Any], configured: str) -> str:
    """The separator that a file's category paths use: the configured one where it occurs, else the commonest known."""
    texts: list[str] = []
    for value in values:
        texts += [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, str)]
    if not texts or any(configured in text for text in texts):
        return configured
    for known, share in ((">", 0.02), ("»", 0.02), ("›", 0.02), ("→", 0.02), ("::", 0.02), ("|", 0.1), ("/", 0.5)):
        if sum(known in text for text in texts) > share * len(texts):
            return known
    return configured


def json_scalar(value: Any) -> Any:
    """A Parquet value as JSON knows it: dates as ISO text, decimals as numbers, bytes as text."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def number_or_none(value: Any) -> float | None:
    """A finite number, or None for anything that is none."""
    try:
        return None if is_missing(value) else to_number(value)
    except Unusable:
        return None


#: Numbers above are milliseconds: in seconds it would be the year 5138.
_MILLISECONDS = 1e11


def time_or_none(value: Any) -> float | None:
    """Seconds since 1970 from a number of seconds or milliseconds, or from an ISO 8601 date; None for anything else.

    A date without a zone is UTC.
    """
    if isinstance(value, bool) or is_missing(value):
        return None
    if isinstance(value, (int, float)):
        return (float(value) / 1_000 if abs(value) > _MILLISECONDS else float(value)) if math.isfinite(value) else None
    try:
        moment = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except ValueError:
        number = number_or_none(value)
        return None if number is None else time_or_none(number)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
