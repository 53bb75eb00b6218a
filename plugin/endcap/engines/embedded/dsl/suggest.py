"""`suggest`: the term suggester, from the words of the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endcap.engines.embedded import schema as layout

from .context import Context
from .errors import illegal, parsing, unsupported
from .fields import resolve
from .fuzzy import Fuzziness
from .values import as_int, as_object, as_text

_IDLE = {
    "analyzer", "string_distance", "max_inspections", "min_doc_freq", "max_term_freq", "shard_size", "accuracy",
    "lowercase_terms",
}  # fmt: skip
_OPTIONS = {"field", "size", "sort", "suggest_mode", "max_edits", "prefix_length", "min_word_length", "text"} | _IDLE
_MAX_SUGGESTIONS = 50


def suggest(body: Any, context: Context, typed: bool) -> dict[str, Any]:
    """The answer's `suggest`: for every word, others of the vocabulary that are near.

    Raises:
        DslError: another suggester than `term`, or not well formed.
    """
    body = as_object(body, "suggest")
    shared = body.get("text")
    answer: dict[str, Any] = {}
    for name, clause in body.items():
        if name == "text":
            continue
        if len(answer) >= _MAX_SUGGESTIONS:
            raise illegal(f"at most [{_MAX_SUGGESTIONS}] suggestions are supported")
        clause = as_object(clause, name)
        for kind in ("completion", "phrase"):
            if kind in clause:
                raise unsupported(f"{kind} suggester")
        if "prefix" in clause or "regex" in clause:
            raise unsupported("completion suggester")
        if "term" not in clause:
            raise parsing(f"suggester [{name}] must have a type: only [term] is supported")
        options = as_object(clause["term"], name)
        for key in options:
            if key not in _OPTIONS:
                raise parsing(f"suggester[term] doesn't support field [{key}]")
        text = clause.get("text", options.get("text", shared))
        if text is None:
            raise illegal("The required text option is missing")
        answer[f"term#{name}" if typed else name] = _entries(as_text(text, "text"), options, context)
    return answer


def _entries(text: str, options: Mapping[str, Any], context: Context) -> list[dict[str, Any]]:
    name = as_text(options.get("field"), "field")
    field = resolve(name)
    if field is None:
        raise illegal(f"no mapping found for field [{name}]", wrapped=True)
    column = field.words or field.exact
    if field.kind in ("number", "attribute", "stored") or column is None:
        raise unsupported(f"term suggester on [{name}]")
    size = as_int(options.get("size", 5), "size", 1, 100)
    edits = as_int(options.get("max_edits", 2), "max_edits", 1, 2)
    prefix = as_int(options.get("prefix_length", 1), "prefix_length")
    shortest = as_int(options.get("min_word_length", 4), "min_word_length", 1)
    mode = options.get("suggest_mode", "missing")
    if mode not in ("missing", "popular", "always"):
        raise illegal(f"unknown suggest_mode [{mode}]")
    fuzziness = Fuzziness(fixed=edits)
    entries: list[dict[str, Any]] = []
    for token in layout.tokens(layout.words_analyzer(), layout.normalize(text))[:100]:
        word = token.text
        own = context.searcher.doc_freq(column, word)
        found: list[tuple[str, int, int]] = []
        if len(word) >= shortest and not (mode == "missing" and own):
            near = context.vocabulary(column).near(word, fuzziness.edits(word), prefix, 100)
            found = [one for one in near if one[1] and (mode != "popular" or one[2] > own)]
        scored = [(1.0 - away / min(len(word), len(other)), other, documents) for other, away, documents in found]
        if options.get("sort") == "frequency":
            scored.sort(key=lambda one: (-one[2], -one[0], one[1]))
        else:
            scored.sort(key=lambda one: (-one[0], -one[2], one[1]))
        entries.append(
            {
                "text": word,
                "offset": token.char_offset_from,
                "length": token.char_offset_to - token.char_offset_from,
                "options": [{"text": one, "score": score, "freq": freq} for score, one, freq in scored[:size]],
            }
        )
    return entries
