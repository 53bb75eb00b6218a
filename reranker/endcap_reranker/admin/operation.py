"""An operation of the admin API: one declaration from which its route, its checks and its documentation come.

::

    def routes(runtime: Runtime) -> Topic:
        topic = Topic("runs", "Runs of background jobs.")

        @topic.operation("GET", "/runs/<run_id>", role="reader", summary="One run.", answer=RunAnswer, errors=(404,))
        def get_run(run_id: str) -> RunAnswer: ...

        return topic

The function gets the parts of the path by name, and ``query`` or ``body`` where it declares such a model. It gives the
answer's model (or a whole response, where ``media`` is not JSON) and raises Endcap's errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_origin

import orjson
from flask import Response, request
from pydantic import BaseModel, ConfigDict

from endcap.errors import InvalidInput
from endcap.stores.tokens import Role
from endcap_reranker.admin.access import needs
from endcap_reranker.api.parameters import checked, read_body

Method = Literal["GET", "POST", "PUT", "DELETE"]
View = Callable[..., "BaseModel | Response"]
_PART = re.compile(r"<(?:(\w+):)?(\w+)>")
JSON = "application/json"


class Strict(BaseModel):
    """For queries and bodies: what is not known is refused, so that no slip of the pen is silently without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Strict):
    """No parameters."""


class Answer(BaseModel):
    """For answers."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Removed(Answer):
    """What is gone."""

    removed: int


@dataclass(frozen=True, slots=True)
class Operation:
    """See the module. ``name`` is the function's, and the id in the OpenAPI document."""

    name: str
    method: Method
    path: str
    role: Role
    summary: str
    description: str
    query: type[BaseModel]
    body: type[BaseModel] | None
    answer: type[BaseModel] | None
    status: int
    media: str
    errors: tuple[int, ...]
    call: View = field(repr=False)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the path's variable parts."""
        return tuple(name for _, name in _PART.findall(self.path))

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PART.sub(r"{\2}", self.path)

    def view(self, max_body_bytes: int) -> Callable[..., Response]:
        """The Flask view: checks who calls, then what is asked."""

        def answer(**parts: str) -> Response:
            given: dict[str, Any] = dict(parts)
            query = checked(self.query, _query(self.query))
            if self.query is not Nothing:
                given["query"] = query
            if self.body is not None:
                given["body"] = checked(self.body, _body(max_body_bytes), strict=True)
            made = self.call(**given)
            if isinstance(made, Response):
                return made
            return Response(made.model_dump_json(), self.status, content_type=JSON)

        answer.__name__ = self.name
        return needs(self.role)(answer)


class Topic:
    """Operations that belong together, and what the documentation says of them."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self.operations: list[Operation] = []

    def operation(
        self,
        method: Method,
        path: str,
        *,
        role: Role,
        summary: str,
        answer: type[BaseModel] | None = None,
        query: type[BaseModel] = Nothing,
        body: type[BaseModel] | None = None,
        status: int = 200,
        media: str = JSON,
        errors: tuple[int, ...] = (),
    ) -> Callable[[View], View]:
        """Declare one.

        Args:
            path: below ``/admin/v1``, as Flask writes it.
            role: the least role that may call it.
            answer: model of a JSON answer; None where ``media`` is something else.
            errors: statuses of its own besides those that every operation may answer (400, 401, 403, 429, 503).
        """

        def declare(call: View) -> View:
            text = " ".join((call.__doc__ or "").split())
            self.operations.append(
                Operation(
                    call.__name__, method, path, role, summary, text, query, body, answer, status, media, errors, call
                )
            )
            return call

        return declare


def _query(model: type[BaseModel]) -> dict[str, Any]:
    """The query string's values; several of one name only where the model has a list there."""
    raw: dict[str, Any] = {}
    for name in request.args:
        values = request.args.getlist(name)
        wanted = model.model_fields.get(name)
        several = wanted is not None and get_origin(wanted.annotation) in (list, tuple)
        if len(values) > 1 and not several:
            raise InvalidInput(f"{name:.60}: given {len(values)} times")
        raw[name] = values if several else values[0]
    return raw


def _body(limit: int) -> dict[str, Any]:
    if request.mimetype not in (JSON, ""):
        from werkzeug.exceptions import UnsupportedMediaType

        raise UnsupportedMediaType(f"{request.mimetype:.60}: send {JSON}")
    content = read_body(request, limit, keep=True)  # the audit log reads it, too
    try:
        raw = orjson.loads(content) if content.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidInput("the body must be a JSON object")
    return raw
