"""What ``endcap attach`` writes into the settings' file, between two marks; ``endcap detach`` takes it out again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endcap.errors import ConfigurationError
from endcap.files import write_atomically

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BEGIN, _END = "# --- endcap attach: begin", "# --- endcap attach: end"
_BLOCK = re.compile(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}\n\n?", re.DOTALL)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_attachment(file: Path, values: Mapping[str, Any]) -> None:
    """Put settings into the file, in place of an earlier attachment's.

    Raises:
        ConfigurationError: the file is no TOML, cannot be written, or sets one of them otherwise.
    """
    rest = _BLOCK.sub("", _text(file))
    try:
        set_already = tomllib.loads(rest)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None
    others = [name for name in values if name in set_already and set_already[name] != values[name]]
    if others:
        raise ConfigurationError(f"{file} sets {', '.join(others)} to something else: take that out first")
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if name not in set_already]
    # In front: what follows a table's heading belongs to the table.
    _write(
        file, "\n".join([_BEGIN, *lines, _END]) + "\n\n" + rest if rest else "\n".join([_BEGIN, *lines, _END]) + "\n"
    )


def remove_attachment(file: Path) -> bool:
    """Take it out; a file that held nothing else is removed. False: there was none.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    text = _text(file)
    rest = _BLOCK.sub("", text)
    if rest == text:
        return False
    if rest.strip():
        _write(file, rest)
    else:
        file.unlink(missing_ok=True)
    return True


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text.encode(), durable=True)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error}") from None


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{name if _BARE.fullmatch(name) else _toml(name)} = {_toml(one)}" for name, one in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # TOML's basic strings are JSON's, and so are its numbers and booleans.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
