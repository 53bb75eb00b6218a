"""The OpenAPI 3.1 document, made from the declared operations: what it says is what the routes check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from endcap import __version__
from endcap_reranker.admin.operation import JSON, Nothing, Operation, Topic
from endcap_reranker.openapi import REF, Problem, problem_response, query_parameters

_INTRODUCTION = """\
What operators and their programs do with a running Endcap: start and watch background jobs, promote and roll back
models, look after the catalogue and the shoppers' data. Every call but this document's needs a bearer token
(`endcap token create --role ROLE`); a role may do what the roles before it may: reader, operator, admin. Errors are
RFC 9457 problem details."""

#: What every operation may answer.
_ALWAYS = (400, 401, 403, 429, 503)
_REASONS = {
    400: "A parameter or the body is not what it should be; `detail` names it.",
    401: "The token is missing, unknown, expired or revoked.",
    403: "The token's role may not do this.",
    404: "What the path names is not there.",
    409: "It cannot be done in the state that things are in; `detail` says why.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many calls; `Retry-After` says when to try again.",
    502: "Triton could not be given the version; what was live stays live.",
    503: "The database, or what else is needed, does not answer now. Try again.",
}


def document(topics: Sequence[Topic]) -> dict[str, Any]:
    """The whole document, plain JSON."""
    operations = [one for topic in topics for one in topic.operations]
    references, schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for topic in topics:
        for one in topic.operations:
            paths.setdefault(f"/admin/v1{one.template}", {})[one.method.lower()] = _operation(
                topic, one, references, schemas
            )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Endcap admin API", "version": __version__, "description": _INTRODUCTION},
        "tags": [{"name": topic.name, "description": topic.about} for topic in topics],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {str(status): problem_response(text) for status, text in _REASONS.items()},
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """For each model how it is referred to (two of one name in two modules get longer ones), and all schemas."""
    models: list[tuple[type[BaseModel], Any]] = [(Problem, "serialization")]
    for one in operations:
        if one.query is not Nothing:
            models.append((one.query, "validation"))
        if one.body is not None:
            models.append((one.body, "validation"))
        if one.answer is not None:
            models.append((one.answer, "serialization"))
    references, found = models_json_schema(list(dict.fromkeys(models)), ref_template=REF)
    by_model: dict[Any, dict[str, Any]] = {model: reference for (model, _), reference in references.items()}
    return by_model, dict(sorted(found["$defs"].items()))


def _operation(
    topic: Topic, one: Operation, references: dict[type[BaseModel], dict[str, Any]], schemas: dict[str, Any]
) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in one.parts
    ]
    if one.query is not Nothing:
        # A query's parameters stand in the document each by itself; their model is not needed besides.
        name = references[one.query]["$ref"].rpartition("/")[2]
        schema = schemas.pop(name, None) or one.query.model_json_schema(ref_template=REF)
        parameters += query_parameters(schema)
    made: dict[str, Any] = {
        "operationId": one.name,
        "tags": [topic.name],
        "summary": one.summary,
        "description": f"{one.description} Role: {one.role}.".strip(),
        "parameters": parameters,
        "x-role": one.role,
    }
    statuses = {*_ALWAYS, *one.errors}
    if one.body is not None:
        statuses |= {413, 415}
        made["requestBody"] = {
            "required": bool(one.body.model_json_schema().get("required")),
            "content": {JSON: {"schema": references[one.body]}},
        }
    schema = references[one.answer] if one.answer else {"type": "string"}
    responses: dict[str, Any] = {
        str(one.status): {"description": one.summary, "content": {one.media: {"schema": schema}}}
    }
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    made["responses"] = responses
    return made
