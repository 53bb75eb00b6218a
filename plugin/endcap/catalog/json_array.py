"""Reads a JSON array element by element, so that memory holds one element and not the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

_CHUNK = 1 << 16
_BLANK = " \t\r\n"


def elements(stream: IO[str], max_length: int) -> Iterator[tuple[int, Any]]:
    """(line where it starts, element) of the array in ``stream``.

    Raises:
        ValueError: the text is not a JSON array, breaks off, or an element is longer than ``max_length`` characters.
            What was read before stays read; there is no way to find the next element.
    """
    decode = json.JSONDecoder().raw_decode
    buffer = stream.read(_CHUNK)
    line, at, chunk = 1, 0, _CHUNK
    ended = not buffer
    expected = "["
    while True:
        while at < len(buffer) and buffer[at] in _BLANK:
            line += buffer[at] == "\n"
            at += 1
        if at == len(buffer):
            if ended:
                raise ValueError(f"the text ends at line {line} before the array does")
            buffer, at, chunk = stream.read(_CHUNK), 0, _CHUNK
            ended = not buffer
            continue
        if expected == "[":
            if buffer[at] != "[":
                raise ValueError(f"line {line} does not start an array")
            at, expected = at + 1, "first"
            continue
        if buffer[at] == "]" and expected in ("first", ","):
            return
        if expected == ",":
            if buffer[at] != ",":
                raise ValueError(f"line {line} has {buffer[at]!r} where a comma or ] is due")
            at, expected = at + 1, "element"
            continue
        try:
            element, end = decode(buffer, at)
            # A number at the very end may go on in the next chunk.
            whole = end < len(buffer) or ended
        except RecursionError:
            raise ValueError(f"line {line} is nested too deeply") from None
        except ValueError as error:
            if ended or len(buffer) - at > max_length:
                raise ValueError(f"line {line}: {getattr(error, 'msg', error)}") from None
            whole = False
        if not whole:
            # Each try reads as much again as there is, so that a long element costs twice its length, not its square.
            more = stream.read(max(chunk, len(buffer) - at))
            ended = not more
            buffer, at = buffer[at:] + more, 0
            continue
        yield line, element
        line += buffer.count("\n", at, end)
        at, expected = end, ","
