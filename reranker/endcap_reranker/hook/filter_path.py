"""Elasticsearch's ``filter_path``, applied here: a search that is reordered needs the whole answer from the engine."""

from __future__ import annotations

import re
from typing import Any

_Pattern = tuple[str, ...]
_NOTHING: Any = object()


class FilterPath:
    """``hits.hits._source.*,-hits.hits._score``: dotted paths, ``*`` within a name, ``**`` over any depth, ``-`` to
    take out. Lists do not count as a level. What becomes empty by it goes, too."""

    def __init__(self, expression: str) -> None:
        paths = [path.strip() for path in expression.split(",") if path.strip()]
        self._include = [tuple(path.split(".")) for path in paths if not path.startswith("-")]
        self._exclude = [tuple(path[1:].split(".")) for path in paths if path.startswith("-")]

    def __call__(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer with only what was asked for; parts are shared with the given one."""
        if self._include:
            answer = _included(answer, self._include)
        if self._exclude and answer is not _NOTHING:
            answer = _without(answer, self._exclude)
        return {} if answer is _NOTHING else answer


def _advance(patterns: list[_Pattern], name: str) -> tuple[bool, list[_Pattern]]:
    """Whether a pattern ends at this name, and the rests of those that go on below it."""
    rests: dict[_Pattern, None] = {}
    ends = False
    for pattern in patterns:
        while pattern[0] == "**":
            rests[pattern] = None
            if len(pattern) == 1:
                ends = True
                break
            pattern = pattern[1:]
        else:
            if _matches(pattern[0], name):
                if len(pattern) == 1:
                    ends = True
                else:
                    rests[pattern[1:]] = None
    return ends, list(rests)


def _matches(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern == name
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), name) is not None


def _included(node: Any, patterns: list[_Pattern]) -> Any:
    if isinstance(node, dict):
        kept = {}
        for name, value in node.items():
            ends, rests = _advance(patterns, name)
            if not ends:
                value = _included(value, rests) if rests else _NOTHING
            if value is not _NOTHING:
                kept[name] = value
        return kept or _NOTHING
    if isinstance(node, list):
        return [one for one in (_included(item, patterns) for item in node) if one is not _NOTHING] or _NOTHING
    return _NOTHING


def _without(node: Any, patterns: list[_Pattern]) -> Any:
    if isinstance(node, dict):
        kept = {}
        for name, value in node.items():
            ends, rests = _advance(patterns, name)
            if ends:
                continue
            if rests:
                value = _without(value, rests)
            if value is not _NOTHING:
                kept[name] = value
        return kept if kept or not node else _NOTHING
    if isinstance(node, list):
        items = [one for one in (_without(item, patterns) for item in node) if one is not _NOTHING]
        return items if items or not node else _NOTHING
    return node
