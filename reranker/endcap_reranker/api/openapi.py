"""``/v1/openapi.json``: the storefront API's OpenAPI 3.1 document, made from the models that the routes check with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from endcap import __version__
from endcap.settings import Settings
from endcap_reranker.api.answers import (
    EventBody,
    EventsAnswer,
    IdentifyAnswer,
    IdentifyBody,
    RecommendAnswer,
    RerankAnswer,
    RerankBody,
    SearchAnswer,
    SearchBody,
    SuggestAnswer,
    TeiAnswer,
)  # fmt: skip
from endcap_reranker.api.parameters import FIELDS, RANGES, SearchParameters
from endcap_reranker.api.photo import UPLOAD
from endcap_reranker.api.recommend import RecommendParameters
from endcap_reranker.api.suggest import SuggestParameters
from endcap_reranker.identity import SESSION_HEADER
from endcap_reranker.openapi import REF, Problem, problem_response, query_parameters

_JSON = "application/json"
_INTRODUCTION = """\
Search, recommendations and events for storefronts. No token is needed; a shopper is told by a header or cookie. Errors
are RFC 9457 problem details."""
_TAKEN = {
    "id": "Products by id.",
    "brand": "Exact; repeated, any of the values.",
    "category": "A path or its beginning, such as `Breakfast > Cereal`; repeated, any of the values.",
}
_REASONS = {
    400: "A parameter or the body is not what it should be; `detail` names it.",
    404: "There is no such product.",
    409: "The two ids cannot be joined; or pictures cannot be searched by, `detail` names the command that helps.",
    413: "The body is too large.",
    415: "The body is of a type that is not taken.",
    422: "The picture is none that can be read; `detail` says why.",
    502: "The host named in `image_url` does not give the picture.",
    503: "The engine or the database does not answer now, or too many searches by photo are under way. Try again.",
}


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: str
    summary: str
    answer: type[BaseModel] | None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    errors: tuple[int, ...] = (400, 503)


_FACETS = "Fields to count, with their number of buckets: `brand,category:5`."
_SENT = (400, 413, 415, 503)
_NAMED = (400, 404, 503)
_SHOWN = (400, 409, 503)
_PHOTO = (400, 409, 413, 415, 422, 502, 503)
_DOCUMENTED = (
    _Route("GET", "/search", "Find products, in the shopper's order.", SearchAnswer, SearchParameters, None, _SHOWN),
    _Route("POST", "/search", "Find products by words or by photo.", SearchAnswer, None, SearchBody, _PHOTO),
    _Route("POST", "/events", "Tell what shoppers did.", EventsAnswer, None, EventBody, _SENT),
    _Route("POST", "/identify", "Say who an anonymous visitor is.", IdentifyAnswer, None, IdentifyBody, (*_SENT, 409)),
    _Route("POST", "/rerank", "Score documents for a shopper.", RerankAnswer, None, RerankBody, _SENT),
    _Route("GET", "/suggest", "Complete what is being typed.", SuggestAnswer, SuggestParameters),
    _Route("GET", "/recommend", "Products for a placement.", RecommendAnswer, RecommendParameters),
    _Route("GET", "/similar/{product}", "Products like one.", RecommendAnswer, RecommendParameters, None, _NAMED),
    _Route("GET", "/cross-sell", "What goes with `ids`.", RecommendAnswer, RecommendParameters),
    _Route("GET", "/trending", "What sells better than it did.", RecommendAnswer, RecommendParameters),
    _Route("GET", "/buy-again", "What the shopper bought and may need.", RecommendAnswer, RecommendParameters),
    _Route("GET", "/openapi.json", "This document.", None, None, None, ()),
)  # fmt: skip


def document(settings: Settings) -> dict[str, Any]:
    """The whole document, plain JSON."""
    models: list[tuple[type[BaseModel], Any]] = [(Problem, "serialization"), (TeiAnswer, "serialization")]
    for one in _DOCUMENTED:
        models += [(found, "validation") for found in (one.body, one.query) if found is not None]
        models += [(one.answer, "serialization")] if one.answer is not None else []
    references, found = models_json_schema(list(dict.fromkeys(models)), ref_template=REF)
    by_model: dict[Any, dict[str, Any]] = {model: reference for (model, _), reference in references.items()}
    schemas = dict(sorted(found["$defs"].items()))
    # A query's parameters stand in the document each by itself; their model is not needed besides.
    queries = {
        model: schemas.pop(by_model[model]["$ref"].rpartition("/")[2])
        for model in {one.query for one in _DOCUMENTED if one.query is not None}
    }
    paths: dict[str, dict[str, Any]] = {}
    for one in _DOCUMENTED:
        query = None if one.query is None else queries[one.query]
        paths.setdefault(f"/v1{one.path}", {})[one.method.lower()] = _operation(one, query, by_model, settings)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Endcap storefront API", "version": __version__, "description": _INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": _headers(settings),
            "responses": {str(status): problem_response(text) for status, text in _REASONS.items()},
        },
    }


def _operation(
    one: _Route, query: dict[str, Any] | None, by_model: dict[type[BaseModel], dict[str, Any]], settings: Settings
) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    if one.answer:
        parameters += [{"$ref": f"#/components/parameters/{name}"} for name in _headers(settings)]
    if "{product}" in one.path:
        parameters.append({"name": "product", "in": "path", "required": True, "schema": {"type": "string"}})
    if query is not None:
        parameters += _listed(query_parameters(query))
    made: dict[str, Any] = {
        "operationId": f"{one.method.lower()} {one.path}".translate(str.maketrans(" /-.", "____", "{}")),
        "summary": one.summary,
        "parameters": parameters,
    }
    if one.body is not None:
        made["requestBody"] = {"required": one.path != "/search", "content": _content(one, by_model)}
    schema: dict[str, Any] = by_model[one.answer] if one.answer else {"type": "object"}
    if one.path == "/rerank":
        schema = {"anyOf": [schema, {"type": "array", "items": by_model[TeiAnswer]}]}
    made["responses"] = {"200": {"description": one.summary, "content": {_JSON: {"schema": schema}}}} | {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in one.errors
    }
    return made


def _content(one: _Route, by_model: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    schema = by_model[one.body] if one.body else {}
    if one.path == "/search":
        fields = {"image": {"description": "The picture."}} | {
            parameter["name"]: {"description": parameter.get("description", ""), **parameter["schema"]}
            for parameter in _listed(query_parameters(SearchParameters.model_json_schema(ref_template=REF)))
            if parameter["name"] != "attributes"
        }
        form = {"type": "object", "required": ["image"], "properties": fields}
        return {_JSON: {"schema": schema}, UPLOAD: {"schema": form}}
    if one.path == "/events":
        several = {"anyOf": [schema, {"type": "array", "items": schema}]}
        lines = {"type": "string", "description": "One event a line."}
        return {_JSON: {"schema": several}, "application/x-ndjson": {"schema": lines}}
    return {_JSON: {"schema": schema}}


def _listed(parameters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A query string has no objects: filters are parameters of their own, lists go with commas, facets are texts."""
    made: list[dict[str, Any]] = []
    for one in parameters:
        if one["name"] == "filters":
            made += _filters()
        elif one["name"] == "facets":
            made.append({**one, "description": _FACETS, "schema": {"type": "string"}})
        elif one["schema"].get("type") == "array":
            made.append({**one, "style": "form", "explode": False})
        else:
            made.append(one)
    return made


def _filters() -> list[dict[str, Any]]:
    values = {"type": "array", "items": {"type": "string"}, "maxItems": 200}
    made: list[dict[str, Any]] = [
        {"name": name, "in": "query", "description": _TAKEN[name], "schema": values}
        for name in FIELDS
        if name in _TAKEN
    ]
    for name in RANGES:
        made += [
            {"name": f"{name}_{end}", "in": "query", "description": f"Filters by {name}.", "schema": {"type": "number"}}
            for end in ("min", "max")
        ]
    others = {"type": "object", "additionalProperties": values, "propertyNames": {"pattern": r"^attributes\."}}
    text = "Filters by attributes: `attributes.size=22 lb`; repeated, any of the values."
    made.append({"name": "attributes", "in": "query", "description": text, "explode": True, "schema": others})
    return made


def _headers(settings: Settings) -> dict[str, dict[str, Any]]:
    told = {
        "shopper": (settings.shopper_header, f"The shopper's id; default: the cookie `{settings.shopper_cookie}`."),
        "session": (SESSION_HEADER, "The session's id."),
        "segment": (settings.segment_header, "The shop's own name for a group of shoppers."),
        "personalize": (settings.personalize_header, "`off`: for nobody in particular."),
    }
    return {
        key: {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for key, (name, text) in told.items()
        if name
    }
