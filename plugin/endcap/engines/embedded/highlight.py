"""Marks what a search matched in the texts of a hit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from endcap.engines.embedded.query import Words
from endcap.engines.embedded.schema import normalize, stem, stems_analyzer, tokens, words_analyzer

#: Fields that are marked whole.
_WHOLE = ("title", "brand")
_FRAGMENT = 160
_MAX_FRAGMENTS = 2
OPEN, CLOSE = "<em>", "</em>"

Span = tuple[int, int]


class Highlighter:
    """Marks the words of one search, and their other forms."""

    def __init__(self, words: Words, matched: set[str]) -> None:
        """``matched``: every whole word that the reading of the search matches, corrections included."""
        self._pairs = {unit for unit in words.units if len(unit) > 1}
        halves = {one for pair in self._pairs for one in pair}
        self._words = matched - (halves - set(words.plain))
        self._language = words.language
        self._stems = {stem(word, words.language) for word in self._words}

    def fragments(self, document: Mapping[str, Any]) -> dict[str, Sequence[str]]:
        """Fragments by field, for the fields in which something matched."""
        found: dict[str, Sequence[str]] = {}
        for name in (*_WHOLE, "description"):
            text = normalize(str(document.get(name) or ""))
            spans = self.spans(text)
            if not spans:
                continue
            pieces = [(0, len(text))] if name in _WHOLE else _pieces(text, spans)
            found[name] = [_marked(text, piece, spans) for piece in pieces]
        return found

    def spans(self, text: str) -> list[Span]:
        """Where in a normalized text something matched: character offsets, ascending, neighbours joined."""
        words = tokens(words_analyzer(), text)
        stems = tokens(stems_analyzer(self._language), text)
        found: list[Span] = []
        for at, (token, stemmed) in enumerate(zip(words, stems, strict=True)):
            start, end = token.char_offset_from, token.char_offset_to
            following = words[at + 1] if at + 1 < len(words) else None
            if following is not None and (token.text, following.text) in self._pairs:
                end = following.char_offset_to
            elif token.text not in self._words and stemmed.text not in self._stems:
                continue
            if found and start <= found[-1][1]:
                found[-1] = (found[-1][0], max(end, found[-1][1]))
            else:
                found.append((start, end))
        return found


def _pieces(text: str, spans: Sequence[Span]) -> list[Span]:
    """The first parts of a long text that hold matches, cut between words where there are any."""
    if len(text) <= _FRAGMENT:
        return [(0, len(text))]
    pieces: list[Span] = []
    for start, end in spans:
        if pieces and end <= pieces[-1][1]:
            continue
        low = max(0, start - 40, pieces[-1][1] if pieces else 0)
        high = min(len(text), max(low + _FRAGMENT, end))
        if low > 0 and (space := text.find(" ", low, start)) >= 0:
            low = space + 1
        if high < len(text) and (space := text.rfind(" ", end, high)) >= 0:
            high = space
        pieces.append((low, high))
        if len(pieces) == _MAX_FRAGMENTS:
            break
    return pieces


def _marked(text: str, piece: Span, spans: Sequence[Span]) -> str:
    low, high = piece
    made, at = [], low
    for start, end in spans:
        if start < low or end > high:
            continue
        made += [escape(text[at:start]), OPEN, escape(text[start:end]), CLOSE]
        at = end
    made.append(escape(text[at:high]))
    return "".join(made)
