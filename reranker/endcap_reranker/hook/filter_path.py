"""Elasticsearch's ``filter_path``, applied here: a search that is reordered needs the whole answer from the engine."""

from __future__ import annotations

from typing import Any

from endcap_reranker.errors import IllegalArgument

_Pattern = tuple[str, ...]
_NOTHING: Any = object()

#: What one request may ask of this process: every ``**`` is looked for at every depth of the answer.
MAX_PATHS = 100
MAX_ANY_DEPTHS = 10


class FilterPath:
    """``hits.hits._source.*,-hits.hits._score``: dotted paths, ``*`` within a name, ``**`` over any depth, ``-`` to
    take out. Lists do not count as a level. What becomes empty by it goes, too."""

    def __init__(self, expression: str) -> None:
        """Raises:
        IllegalArgument: more paths, or more ``**`` among them, than are taken.
        """
        paths = [path.strip() for path in expression.split(",") if path.strip()]
        if len(paths) > MAX_PATHS or expression.count("**") > MAX_ANY_DEPTHS:
            raise IllegalArgument(
                f"filter_path takes at most {MAX_PATHS} paths here, and at most {MAX_ANY_DEPTHS} times [**]"
            )
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
    """``*`` stands for any characters. Linear, as the pattern is the client's: no regular expression."""
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


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
