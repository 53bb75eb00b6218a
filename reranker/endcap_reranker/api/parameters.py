"""What a caller asks of ``/v1/search``, from a query string or a JSON body, checked the same way."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import orjson
from flask import Request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, UnsupportedMediaType

from endcap.engines import Filter
from endcap.errors import InvalidInput, TooLarge

#: The engines' own limit on how deep a page may lie (Elasticsearch: ``index.max_result_window``).
MAX_DEPTH = 10_000
MAX_SIZE = 100
MAX_QUERY_LENGTH = 1_000
DEFAULT_BUCKETS = 10

FIELDS = ("id", "brand", "category", "price", "stock")
RANGES = ("price", "stock")
_ON = {
    "": True,
    "on": True,
    "true": True,
    "1": True,
    "yes": True,
    "off": False,
    "false": False,
    "0": False,
    "no": False,
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterBody(_Strict):
    """One filter of a JSON body: ``values`` (any of them) or ``gte`` / ``lte`` (within)."""

    field: str
    values: tuple[StrictStr | StrictBool | StrictInt | StrictFloat, ...] = Field((), max_length=200)
    gte: float | None = None
    lte: float | None = None

    @field_validator("field")
    @classmethod
    def _known(cls, value: str) -> str:
        return _known_field(value)

    @model_validator(mode="after")
    def _something(self) -> FilterBody:
        bounds = [one for one in (self.gte, self.lte) if one is not None]
        if not all(math.isfinite(one) for one in bounds):
            raise ValueError("gte and lte must be finite numbers")
        if not self.values and not bounds:
            raise ValueError("needs values, gte or lte")
        if self.values and bounds:
            raise ValueError("takes values or gte/lte, not both")
        return self

    def to_filter(self) -> Filter:
        return Filter(self.field, self.values, self.gte, self.lte)


class SearchParameters(_Strict):
    """A search as asked for. ``facets`` maps a field to its number of buckets; ``page`` counts from 1."""

    q: str = Field("", max_length=MAX_QUERY_LENGTH)
    filters: tuple[FilterBody, ...] = Field((), max_length=50)
    facets: dict[str, int] = Field(default_factory=dict, max_length=20)
    sort: Literal["relevance", "price:asc", "price:desc", "title:asc"] = "relevance"
    page: int = Field(1, ge=1)
    size: int = Field(10, ge=0, le=MAX_SIZE)
    highlight: bool = False
    personalize: bool = True
    explain: bool = False
    rescue: bool = False
    by: Literal["text", "image"] = "text"

    @field_validator("q")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        # Control characters mean nothing in a query and upset some engines.
        return "".join(" " if ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 else letter for letter in value)

    @field_validator("facets", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return {str(one): DEFAULT_BUCKETS for one in value}
        return value

    @field_validator("facets")
    @classmethod
    def _facets(cls, value: dict[str, int]) -> dict[str, int]:
        for name, buckets in value.items():
            _known_field(name)
            if not 1 <= buckets <= 200:
                raise ValueError(f"{name}: 1 to 200 buckets")
        return value

    @field_validator("personalize", "highlight", "explain", "rescue", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return _ON.get(value.strip().lower(), value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _depth(self) -> SearchParameters:
        if self.page * self.size > MAX_DEPTH:
            raise ValueError(f"page {self.page} of size {self.size} lies beyond the first {MAX_DEPTH} results")
        return self


def from_query(arguments: MultiDict[str, str]) -> SearchParameters:
    """From ``?q=…&brand=A&brand=B&category=…&price_min=1&attributes.size=22 lb&facets=brand,category:5``.

    Raises:
        InvalidInput: naming the parameter and what it takes.
    """
    filters, rest = split_filters(arguments)
    raw: dict[str, Any] = {"filters": filters}
    for name, values in rest.items():
        if name == "facets":
            raw["facets"] = dict(_bucket(one) for value in values for one in value.split(",") if one.strip())
        else:
            raw[name] = values[-1]
    return checked(SearchParameters, raw)


def split_filters(arguments: MultiDict[str, str]) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Filters of a query string (``brand=A&brand=B&price_min=1``) as a JSON body would have them, and the other
    parameters with their values.

    Raises:
        InvalidInput: ``filters`` belongs into a body.
    """
    filters: list[dict[str, Any]] = []
    bounds: dict[str, dict[str, Any]] = {}
    rest: dict[str, list[str]] = {}
    for name in arguments:
        values = arguments.getlist(name)
        if name in {"id", "brand", "category"} or name.startswith("attributes."):
            filters.append({"field": name, "values": values})
        elif name.endswith(("_min", "_max")) and name[:-4] in RANGES:
            bounds.setdefault(name[:-4], {})["gte" if name.endswith("_min") else "lte"] = values[-1]
        elif name == "filters":
            raise InvalidInput("filters: send brand=…, category=…, price_min=…, or the list in a POST body")
        else:
            rest[name] = values
    filters.extend({"field": name, **bound} for name, bound in bounds.items())
    return filters, rest


def from_json(body: bytes, mimetype: str) -> SearchParameters:
    """From the JSON object of a POST body.

    Raises:
        InvalidInput: not JSON, not an object, or a part of it is wrong.
        UnsupportedMediaType: another content type.
    """
    if mimetype not in {"application/json", "text/plain", ""}:
        raise UnsupportedMediaType(f"{mimetype:.60}: send application/json")
    try:
        raw = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidInput('the body must be an object such as {"q": "milk"}')
    return checked(SearchParameters, raw)


def read_body(request: Request, limit: int, keep: bool = False) -> bytes:
    """The body, at most ``limit`` bytes, also where no length was announced; ``keep``: it may be read once more.

    Raises:
        TooLarge: it is longer.
    """
    message = f"the body exceeds {limit} bytes (setting max_body_bytes)"
    if (request.content_length or 0) > limit:
        raise TooLarge(message)
    if request.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        raise UnsupportedMediaType("send the body without Content-Encoding")
    request.max_content_length = limit
    try:
        return request.get_data(cache=keep)
    except RequestEntityTooLarge:
        raise TooLarge(message) from None
    except ClientDisconnected:
        raise InvalidInput("the body ended before its announced length") from None


_Model = TypeVar("_Model", bound=BaseModel)


def checked(model: type[_Model], raw: dict[str, Any], strict: bool = False) -> _Model:
    """The parameters of a route, as its model has them. ``strict``: of JSON, where a text is not taken for a number.

    Raises:
        InvalidInput: naming at most five parameters and what they take.
    """
    try:
        return model.model_validate(raw, strict=strict)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}".removeprefix(": ").replace(
                "Value error, ", ""
            )
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise InvalidInput("; ".join(problems[:5])) from None


def _known_field(name: str) -> str:
    if name in FIELDS or (name.startswith("attributes.") and 0 < len(name) - 11 <= 100):
        return name
    raise ValueError(f"{name!r:.60} is none of {', '.join(FIELDS)}, attributes.NAME")


def _bucket(text: str) -> tuple[str, str | int]:
    name, _, buckets = text.strip().rpartition(":") if text.rpartition(":")[2].isdigit() else (text.strip(), "", "")
    return (name, buckets) if name and buckets else (text.strip(), DEFAULT_BUCKETS)
