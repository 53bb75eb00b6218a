"""What of a document is shown: `_source` filtering, `fields`, and `filter_path` over the whole answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import parsing, unsupported
from .values import as_bool, as_list, as_text, matches_any, wildcard

#: A pattern that begins with a wildcard and could be any field costs one regular expression per field: bounded.
MAX_PATTERNS = 256

_SUFFIXES = (".keyword", ".text", ".sort")


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """Which fields of `_source` to show. ``enabled`` False: no `_source` at all. No ``includes`` means all."""

    enabled: bool = True
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Any) -> SourceFilter:
        """From a body's `_source`: a boolean, a pattern, a list of patterns, or ``{"includes", "excludes"}``."""
        if value is None or value is True:
            return cls()
        if value is False:
            return cls(enabled=False)
        if isinstance(value, dict):
            for key in value:
                if key not in ("includes", "include", "excludes", "exclude"):
                    raise parsing(f"Unknown key for a START_ARRAY in [{key}].")
            return cls(
                includes=_patterns([*as_list(value.get("includes")), *as_list(value.get("include"))]),
                excludes=_patterns([*as_list(value.get("excludes")), *as_list(value.get("exclude"))]),
            )
        return cls(includes=_patterns(as_list(value)))

    def apply(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a document that is shown."""
        if not self.includes and not self.excludes:
            return dict(document)
        return self._object(document, "")

    def _object(self, document: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in document.items():
            path = prefix + key
            if self._hidden(path):
                continue
            if self._shown(path):
                kept[key] = self._object(value, path + ".") if isinstance(value, Mapping) else value
            elif isinstance(value, Mapping) and (inner := self._object(value, path + ".")):
                kept[key] = inner
        return kept

    def _shown(self, path: str) -> bool:
        return not self.includes or any(_covers(pattern, path) for pattern in self.includes)

    def _hidden(self, path: str) -> bool:
        return any(_covers(pattern, path) for pattern in self.excludes)


def _covers(pattern: str, path: str) -> bool:
    """Whether a pattern names the path or an object that holds it."""
    return pattern == path or path.startswith(pattern + ".") or ("*" in pattern and bool(wildcard(pattern).match(path)))


def _patterns(values: list[Any]) -> tuple[str, ...]:
    if len(values) > MAX_PATTERNS:
        raise parsing(f"[_source] takes at most [{MAX_PATTERNS}] patterns")
    return tuple(as_text(value, "_source") for value in values)


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every field of a document by its dotted name, with its values as a list."""
    for key, value in document.items():
        path = prefix + key
        if isinstance(value, Mapping):
            yield from leaves(value, path + ".")
        else:
            yield path, value if isinstance(value, list) else [value]


def parse_fields(value: Any, where: str) -> tuple[str, ...]:
    """Patterns of a body's `fields` or `docvalue_fields`: strings, or objects with `field`."""
    patterns = []
    for item in as_list(value):
        if isinstance(item, dict):
            if set(item) - {"field", "format", "include_unmapped"}:
                raise parsing(f"[{where}] unknown field [{min(set(item) - {'field', 'format', 'include_unmapped'})}]")
            if item.get("format") not in (None, "use_field_mapping"):
                raise unsupported(f"{where}.format")
            as_bool(item.get("include_unmapped", False), f"{where}.include_unmapped")
            item = item.get("field")
        patterns.append(as_text(item, where))
    if len(patterns) > MAX_PATTERNS:
        raise parsing(f"[{where}] takes at most [{MAX_PATTERNS}] patterns")
    return tuple(patterns)


def field_values(document: Mapping[str, Any], patterns: tuple[str, ...]) -> dict[str, list[Any]]:
    """The `fields` of a hit. Sub-fields (``title.sort``, ``brand.keyword``, …) are shown where a pattern names them."""
    wanted = list(patterns)
    found: dict[str, list[Any]] = {}
    for path, values in leaves(document):
        if path.startswith("attributes."):
            values = [as_text(value, path) for value in values]
        if matches_any(path, wanted):
            found[path] = values
        for suffix in _SUFFIXES:
            if f"{path}{suffix}" in wanted:
                found[path + suffix] = [value.lower() if suffix == ".sort" else value for value in map(str, values)]
    return found


class FilterPath:
    """Elasticsearch's `filter_path`: comma-separated dotted paths, ``*`` for one level, ``**`` for any number of
    levels, and a leading ``-`` to leave something out."""

    def __init__(self, text: str) -> None:
        parts = [part.strip() for part in text.split(",") if part.strip()][:MAX_PATTERNS]
        self._includes = [part.split(".") for part in parts if not part.startswith("-")]
        self._excludes = [part[1:].split(".") for part in parts if part.startswith("-")]

    def apply(self, answer: Any) -> Any:
        if self._excludes:
            answer = self._without(answer, self._excludes)
        if self._includes:
            answer = self._within(answer, self._includes)
        return {} if answer is None else answer

    def _within(self, value: Any, paths: list[list[str]]) -> Any:
        """What the paths lead to; None where they lead nowhere."""
        if isinstance(value, list):
            items = [inside for item in value if (inside := self._within(item, paths)) is not None]
            return items or None
        if not isinstance(value, dict):
            return None
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            rest = _advance(key, paths)
            if any(not path for path in rest):
                kept[key] = inner
            elif rest and (part := self._within(inner, rest)) is not None:
                kept[key] = part
        return kept or None

    def _without(self, value: Any, paths: list[list[str]]) -> Any:
        if isinstance(value, list):
            items = [self._without(item, paths) for item in value]
            return [item for item, old in zip(items, value, strict=True) if item not in ({}, []) or old in ({}, [])]
        if not isinstance(value, dict):
            return value
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            rest = _advance(key, paths)
            if any(not path for path in rest):
                continue
            part = self._without(inner, rest) if rest else inner
            if part not in ({}, []) or inner in ({}, []):
                kept[key] = part
        return kept


def _advance(key: str, paths: list[list[str]]) -> list[list[str]]:
    """The rest of each path after a level called ``key``; an empty rest means: arrived."""
    rest: list[list[str]] = []
    for path in paths:
        head, tail = path[0], path[1:]
        if head == "**":
            rest.append(path)
            if tail:
                rest.extend(_advance(key, [tail]))
            else:
                rest.append([])
        elif head == key or ("*" in head and wildcard(head).match(key)):
            rest.append(tail)
    return rest
