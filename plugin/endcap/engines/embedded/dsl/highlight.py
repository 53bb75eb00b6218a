"""`highlight`: fragments of a field with what matched marked, as Elasticsearch's unified highlighter makes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from endcap.engines.embedded import schema as layout

from .context import Context, Marks, Query
from .errors import illegal, parsing, unsupported
from .fields import ALL_ATTRIBUTES, resolve
from .source import leaves
from .values import as_bool, as_int, as_list, as_object, as_text, wildcard

_IDLE = {
    "boundary_chars", "boundary_max_scan", "boundary_scanner", "boundary_scanner_locale", "force_source", "fragmenter",
    "max_analyzed_offset", "max_fragment_length", "phrase_limit", "tags_schema",
}  # fmt: skip
_OPTIONS = {
    "type", "pre_tags", "post_tags", "number_of_fragments", "fragment_size", "no_match_size", "encoder", "order",
    "require_field_match", "highlight_query",
}  # fmt: skip
_MAX_FIELDS = 64
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Style:
    """How fragments are made. ``size`` in characters; ``count`` 0: the whole field as one fragment."""

    before: str = "<em>"
    after: str = "</em>"
    count: int = 5
    size: int = 100
    no_match: int = 0
    html: bool = False
    by_score: bool = False
    same_field: bool = True
    query: Any = None

    def changed(self, options: Mapping[str, Any], where: str) -> Style:
        """With the options of the body, or of one field.

        Raises:
            DslError: an option that is not answered here.
        """
        for key in options:
            if key in ("matched_fields", "fragment_offset") and options[key] not in (None, 0):
                raise unsupported(f"{where}.{key}")
            if key not in _OPTIONS | _IDLE | {"fields", "matched_fields", "fragment_offset"}:
                raise parsing(f"[{where}] unknown field [{key}]")
        if options.get("type") not in (None, "unified", "plain", "fvh"):
            raise illegal(f"unknown highlighter type [{options['type']}] for the field [{where}]")
        if options.get("encoder") not in (None, "default", "html"):
            raise illegal(f"unknown highlight encoder [{options['encoder']}]")
        style = self
        if options.get("pre_tags") is not None:
            style = replace(style, before=_tag(options["pre_tags"], "pre_tags"))
        if options.get("post_tags") is not None:
            style = replace(style, after=_tag(options["post_tags"], "post_tags"))
        if options.get("number_of_fragments") is not None:
            style = replace(style, count=as_int(options["number_of_fragments"], "number_of_fragments", 0, 1000))
        if options.get("fragment_size") is not None:
            size = as_int(options["fragment_size"], "fragment_size", 0, 1_000_000)
            style = replace(style, size=size or 1_000_000)
        if options.get("no_match_size") is not None:
            style = replace(style, no_match=as_int(options["no_match_size"], "no_match_size", 0, 1_000_000))
        if options.get("encoder") is not None:
            style = replace(style, html=options["encoder"] == "html")
        if options.get("order") is not None:
            style = replace(style, by_score=options["order"] == "score")
        if options.get("require_field_match") is not None:
            style = replace(style, same_field=as_bool(options["require_field_match"], "require_field_match"))
        if options.get("highlight_query") is not None:
            style = replace(style, query=options["highlight_query"])
        return style


def _tag(value: Any, where: str) -> str:
    tags = as_list(value)
    return as_text(tags[0], where) if tags else ""


#: Index field -> what was looked for in it.
Marked = Mapping[str, Marks]


@dataclass(frozen=True, slots=True)
class Highlighter:
    """Field patterns with their styles, in the order of the body."""

    fields: tuple[tuple[str, Style], ...]

    def marked(self, context: Context, compile_query: Callable[[Any, Context], Query]) -> list[Marked]:
        """What each field's style is to mark: what the search looked for, or its `highlight_query`."""
        made: list[Marked] = []
        for _, style in self.fields:
            if style.query is None:
                made.append(context.marks)
            else:
                own = Context(context.snapshot)
                compile_query(style.query, own)
                made.append(own.marks)
        return made

    @classmethod
    def parse(cls, body: Any) -> Highlighter | None:
        """From a body's `highlight`; None if there is none."""
        if body is None:
            return None
        body = as_object(body, "highlight")
        style = Style().changed(body, "highlight")
        fields = body.get("fields")
        if isinstance(fields, list):
            pairs = [pair for one in fields for pair in as_object(one, "highlight.fields").items()]
        else:
            pairs = list(as_object(fields or {}, "highlight.fields").items())
        if len(pairs) > _MAX_FIELDS:
            raise illegal(f"at most [{_MAX_FIELDS}] highlighted fields are supported")
        return cls(tuple((name, style.changed(as_object(options, name), name)) for name, options in pairs))

    def fragments(self, document: Mapping[str, Any], marked: list[Marked]) -> dict[str, list[str]]:
        """The `highlight` of a hit: fields without a match are left out. ``marked``: from :meth:`marked`."""
        found: dict[str, list[str]] = {}
        for (pattern, style), sought in zip(self.fields, marked, strict=True):
            for name, texts in _texts(document, pattern):
                marks = _marks(sought, name, style)
                if marks is None and not style.no_match:
                    continue
                made = _fragments(texts, marks or Marks(), style)
                if made:
                    found[name] = made
        return found


def _texts(document: Mapping[str, Any], pattern: str) -> Iterator[tuple[str, list[str]]]:
    """The text fields that a pattern names, with their texts."""
    suffix = next((end for end in (".keyword", ".text", ".sort") if pattern.endswith(end)), "")
    base = pattern.removesuffix(suffix)
    for path, values in leaves(document):
        if path in ("image", "url") or not (path == base or ("*" in base and wildcard(base).match(path))):
            continue
        texts = [value for value in values if isinstance(value, str)]
        if path == "category":
            # Of the path's prefixes only the longest is analysed; as exact values all are there.
            texts = texts if suffix == ".keyword" else [max(texts, key=len)] if texts else []
        if texts:
            yield path + suffix, texts


def _marks(sought: Marked, name: str, style: Style) -> Marks | None:
    """What was looked for in a field. Words looked for in all attributes together were looked for in each."""
    field = resolve(name)
    columns: list[str | None] = []
    if not style.same_field:
        columns = list(sought)
    elif field is not None:
        columns = [field.words or field.exact]
        if field.kind == "keyword" and field.words:
            columns.append(field.exact)
        if field.kind == "attribute":
            every = resolve(ALL_ATTRIBUTES)
            columns.append(every.words if every else None)
    marks = Marks()
    for column in columns:
        if column is not None and column in sought:
            marks.add(sought[column])
    return marks if marks.words or marks.prefixes or marks.phrases else None


def _fragments(texts: list[str], marks: Marks, style: Style) -> list[str]:
    scored: list[tuple[int, int, str]] = []
    for text in map(layout.normalize, texts):
        hits = _hits(text, marks)
        for start, end in [(0, len(text))] if style.count == 0 else _passages(text, hits, style.size):
            inside = [hit for hit in hits if start <= hit[0] and hit[1] <= end]
            if inside:
                scored.append(
                    (len({text[a:b].lower() for a, b in inside}), len(scored), _marked(text, start, end, inside, style))
                )
    if not scored:
        return [_escaped(texts[0][: style.no_match].rstrip(), style)] if style.no_match else []
    if style.count == 0:
        return [fragment for _, _, fragment in scored]
    best = sorted(scored, key=lambda item: (-item[0], item[1]))[: style.count]
    if not style.by_score:
        best.sort(key=lambda item: item[1])
    return [fragment for _, _, fragment in best]


def _hits(text: str, marks: Marks) -> list[tuple[int, int]]:
    """Character ranges of the text that were looked for."""
    if text in marks.words:
        return [(0, len(text))]
    prefixes = tuple(marks.prefixes)
    tokens = layout.tokens(layout.words_analyzer(), text)
    words = [token.text for token in tokens]
    found = [
        (token.char_offset_from, token.char_offset_to)
        for token, word in zip(tokens, words, strict=True)
        if word in marks.words or (prefixes and word.startswith(prefixes))
    ]
    if not marks.phrases:
        return found
    starts = {phrase[0] for phrase in marks.phrases}
    for at, word in enumerate(words):
        if word in starts:
            found += [
                (tokens[at].char_offset_from, tokens[at + len(phrase) - 1].char_offset_to)
                for phrase in marks.phrases
                if tuple(words[at : at + len(phrase)]) == phrase
            ]
    return _merged(sorted(found))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ranges, those that overlap as one."""
    made: list[tuple[int, int]] = []
    for start, end in ranges:
        if made and start < made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made


def _passages(text: str, hits: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Sentences that hold a hit; longer ones are cut around their hits, at spaces, to about ``size`` characters."""
    made: list[tuple[int, int]] = []
    start = 0
    edges = [(match.start(), match.end()) for match in _SENTENCE.finditer(text)]
    for stop, following in [*edges, (len(text), len(text))]:
        inside = [hit for hit in hits if start <= hit[0] and hit[1] <= stop]
        if inside:
            made.extend(_cut(text, start, stop, inside, size))
        start = following
    return made


def _cut(text: str, start: int, stop: int, hits: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    if stop - start <= size:
        yield start, stop
        return
    done = start
    for first, last in hits:
        if last <= done:
            continue
        left = done
        if first - done > size // 2:
            space = text.rfind(" ", done, first - size // 4)
            left = space + 1 if space >= 0 else first
        right = min(stop, max(left + size, last))
        if right < stop:
            space = text.find(" ", right, right + 20)
            right = space if space >= 0 else right
            # Never through a word that is marked.
            right = max([right, *(b for a, b in hits if a < right < b)])
        yield left, right
        done = right


def _marked(text: str, start: int, end: int, hits: list[tuple[int, int]], style: Style) -> str:
    parts, at = [], start
    for first, last in hits:
        parts += [_escaped(text[at:first], style), style.before, _escaped(text[first:last], style), style.after]
        at = last
    return "".join([*parts, _escaped(text[at:end], style)]).strip()


def _escaped(text: str, style: Style) -> str:
    return escape(text, quote=True) if style.html else text
