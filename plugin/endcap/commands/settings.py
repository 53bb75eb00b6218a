"""``endcap settings``: every setting with the value in force and where it comes from."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from endcap.settings import Settings, load_settings, setting_sources

_PASSWORD = re.compile(r"(\w+://[^/@\s:]*:)[^/@\s]+@")
_INTRODUCTION = """\
# Settings

<!-- Made by `endcap settings --markdown`: change plugin/endcap/setting_topics instead. -->

Every setting is an environment variable, a key of `endcap.toml` (another file: `ENDCAP_CONFIG`), and a keyword argument
of `endcap.settings.load_settings`. The keyword argument goes before the variable, the variable before the file.
Lists and tables are JSON in a variable: `ENDCAP_CORS_ORIGINS='["https://shop.example"]'`. Secrets are never printed.

`endcap settings` shows the values in force and where each comes from.

| Variable | Key | Type | Default | Meaning |
|---|---|---|---|---|
"""


@click.command()
@click.option("--markdown", "style", flag_value="markdown", help="Print docs/settings.md: the defaults.")
@click.option("--json", "style", flag_value="json", help="Print the values in force as JSON.")
def settings(style: str | None) -> None:
    """Show all settings, the value in force of each, and where it comes from."""
    if style == "markdown":
        click.echo(markdown(), nl=False)
        return
    in_force = load_settings()
    sources = setting_sources()
    if style == "json":
        rows = {
            name: {"value": shown(getattr(in_force, name)), "source": sources[name]} for name in Settings.model_fields
        }
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "from", "meaning"):
        table.add_column(column, overflow="fold")
    for name, field in Settings.model_fields.items():
        value = shown(getattr(in_force, name))
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(name, text, sources[name], field.description or "", style=None)
    # Where it is piped, long lines serve grep better than narrow columns.
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def markdown() -> str:
    """The text of docs/settings.md."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = shown(field.get_default(call_default_factory=True))
        text = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
        cells = (
            f"`ENDCAP_{name.upper()}`",
            f"`{name}`",
            kind(field.annotation),
            f"`{text}`" if text else "",
            field.description or "",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return _INTRODUCTION + "".join(lines)


def kind(annotation: Any) -> str:
    """A type in words for people who do not write Python."""
    words: Mapping[Any, str] = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "folder",
        SecretStr: "secret",
        list[str]: "list of texts",
        list[int]: "list of whole numbers",
        list[dict[str, Any]]: "list of tables",
        dict[str, str]: "table of texts",
    }
    return words[annotation]


def shown(value: Any) -> Any:
    """A value as it may be shown: a secret only says whether it is set, an address comes without its password."""
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else ""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1***@", value)
    return value
