"""What the OpenAPI documents of both APIs have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

REF = "#/components/schemas/{model}"
_PROBLEM_JSON = "application/problem+json"


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="`urn:endcap:error:` and a short stable name that a program can act on.")
    title: str
    status: int
    detail: str = Field(description="For people: what is wrong and what to do.")


def query_parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A model's fields as the parameters of a query string."""
    required = schema.get("required", [])
    parameters = []
    for name, described in schema["properties"].items():
        described = {key: value for key, value in described.items() if key != "title"}
        text = described.pop("description", "")
        parameters.append(
            {"name": name, "in": "query", "required": name in required, "description": text, "schema": described}
        )
    return parameters


def problem_response(text: str) -> dict[str, Any]:
    """An answer that is an RFC 9457 problem."""
    schema = {"$ref": REF.format(model="Problem")}
    return {"description": text, "content": {_PROBLEM_JSON: {"schema": schema}}}
