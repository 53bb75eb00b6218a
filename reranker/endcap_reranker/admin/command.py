"""``endcap openapi``: the admin API's document, and docs/admin-api.md made from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import orjson

from endcap.settings import load_settings

_HEAD = """\
# Admin API

<!-- Made by `endcap openapi --markdown`: change reranker/endcap_reranker/admin instead. -->

"""
_REF = "#/components/schemas/"


@click.command()
@click.option("--markdown", is_flag=True, help="Print docs/admin-api.md instead.")
def openapi(markdown: bool) -> None:
    """Print the OpenAPI 3.1 document of the admin API (a server has it at /admin/v1/openapi.json)."""
    made = described()
    click.echo(as_markdown(made) if markdown else orjson.dumps(made, option=orjson.OPT_INDENT_2).decode(), nl=False)


def described() -> dict[str, Any]:
    """The document of this release; nothing has to be set up for it."""
    from endcap.runtime import open_runtime
    from endcap_reranker.admin.blueprint import topics
    from endcap_reranker.admin.openapi import document

    with tempfile.TemporaryDirectory() as folder:
        # Whatever else is configured: no engine, database or Redis is asked.
        settings = load_settings(
            data_dir=Path(folder), text_encoder="none", engine_url="", database_url="", redis_url="", triton_url=""
        )
        runtime = open_runtime(settings, start=False)
        try:
            return document(topics(runtime))
        finally:
            runtime.close()


def as_markdown(made: dict[str, Any]) -> str:
    """The text of docs/admin-api.md."""
    lines = [_HEAD, made["info"]["description"], "\n\n"]
    schemas = made["components"]["schemas"]
    operations = [
        (method.upper(), path, one) for path, methods in made["paths"].items() for method, one in methods.items()
    ]
    for tag in made["tags"]:
        lines.append(f"## {tag['name'].capitalize()}\n\n{tag['description']}\n\n")
        for method, path, one in operations:
            if tag["name"] in one["tags"]:
                lines.append(_operation(method, path, one))
    lines.append("## What is sent and answered\n\n")
    for name, schema in schemas.items():
        lines.append(_schema(name, schema))
    return "".join(lines)


def _operation(method: str, path: str, one: dict[str, Any]) -> str:
    text = f"### `{method} {path}`\n\n{one['summary']} {one['description']}\n\n"
    rows = [
        f"| `{parameter['name']}` | {_type(parameter['schema'])} | {_cell(parameter.get('description', ''))} |\n"
        for parameter in one["parameters"]
        if parameter["in"] == "query"
    ]
    if rows:
        text += "| Parameter | Type | Meaning |\n|---|---|---|\n" + "".join(rows) + "\n"
    if "requestBody" in one:
        text += f"Body: {_type(next(iter(one['requestBody']['content'].values()))['schema'])}. "
    for status, answer in one["responses"].items():
        if "content" in answer:
            media, content = next(iter(answer["content"].items()))
            what = _type(content["schema"]) if media == "application/json" else f"`{media}`"
            text += f"Answers {status} with {what}"
    errors = [status for status, answer in one["responses"].items() if "$ref" in answer]
    return text + f"; errors {', '.join(errors)}.\n\n"


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = f"### {name}\n\n{schema.get('description', '')}\n\n"
    rows = [
        f"| `{field}` | {_type(described)} | {_cell(described.get('description', ''))} |\n"
        for field, described in schema.get("properties", {}).items()
    ]
    return text + ("| Field | Type | Meaning |\n|---|---|---|\n" + "".join(rows) + "\n" if rows else "")


def _type(schema: dict[str, Any]) -> str:
    """A type in words, with its default and bounds."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        kinds = [_type(one) for one in schema["anyOf"] if one != {"const": "", "type": "string"}]
        text = " or ".join(dict.fromkeys(kinds))
    elif "enum" in schema:
        text = ", ".join(f"`{one}`" for one in schema["enum"])
    elif schema.get("type") == "array":
        text = f"list of {_type(schema.get('items', {}))}"
    elif schema.get("type") == "object":
        values = schema.get("additionalProperties")
        text = f"table of {_type(values)}" if isinstance(values, dict) and values else "object"
    else:
        text = str(schema.get("type", "any"))
    bounds = [
        f"{words} {schema[key]}"
        for key, words in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in schema
    ]
    if schema.get("default") not in (None, "", {}, []):
        bounds.append(f"default {orjson.dumps(schema['default']).decode()}")
    return f"{text} ({', '.join(bounds)})" if bounds else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
