"""`query_string` (also the URL's ``q``) and `simple_query_string`, without what could be costly: no regular
expressions, no wildcards but a trailing ``*``, no ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .context import MUST, MUST_NOT, SHOULD, Context, Query, best_of, boosted, everything, filtering, nothing
from .errors import DslError, illegal, parsing, unsupported
from .fulltext import Options, bool_prefix_field, match_field, phrase_field, weigh, weighted_fields
from .fuzzy import Fuzziness
from .minimum import minimum_should_match
from .values import as_int, as_object, as_text, only

_IDLE = {
    "analyze_wildcard", "allow_leading_wildcard", "auto_generate_synonyms_phrase_query", "enable_position_increments",
    "escape", "fuzzy_transpositions", "lenient", "quote_field_suffix", "_name", "boost",
}  # fmt: skip
_SHARED = {"query", "fields", "default_operator", "minimum_should_match", "analyzer", "type", "tie_breaker"}
_MAX_WORDS = 256

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<phrase>"(?:[^"\\]|\\.)*")(?:~(?P<slop>\d+))?
    | (?P<open>\() | (?P<close>\))
    | (?P<operator>&&|\|\||[\-!](?=\S)|[+|])
    | (?P<word>(?:[^\s"()\\|]|\\.)+)
    )""",
    re.VERBOSE,
)
_SPECIAL = re.compile(r"(?<!\\)[\[\]{}/?*]|^\^|[<>]=?\d")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class _Setting:
    fields: list[tuple[str, float]]
    options: Options
    every: bool
    lucene: bool


def query_string(options: Any, context: Context) -> Query:
    """Words, "phrases", ``field:word``, ``+`` ``-`` ``AND`` ``OR`` ``NOT``, brackets, ``word*``, ``word~1``.

    Raises:
        DslError: other Lucene syntax, or unbalanced brackets or quotes.
    """
    options = as_object(options, "query_string")
    only(
        options,
        _SHARED | _IDLE | {"default_field", "fuzziness", "phrase_slop", "max_determinized_states"},
        "query_string",
    )
    if "query" not in options:
        raise parsing("query_string must be provided with a [query]")
    text = as_text(options["query"], "query_string")
    default = options.get("default_field")
    fields = [default] if isinstance(default, str) and default != "*" else options.get("fields")
    setting = _setting(options, fields, lucene=True)
    parser = _Parser(text, setting, context)
    return boosted(parser.whole(), options)


def simple_query_string(options: Any, context: Context) -> Query:
    """Words, "phrases", ``+`` ``|`` ``-``, brackets, ``word*``, ``word~1``; whatever is malformed is taken as text."""
    options = as_object(options, "simple_query_string")
    allowed = _SHARED | _IDLE | {"flags", "fuzzy_max_expansions", "fuzzy_prefix_length"}
    only(options, allowed, "simple_query_string")
    if "query" not in options:
        raise parsing("[simple_query_string] query text missing")
    flags = str(options.get("flags", "ALL")).upper()
    if flags not in ("ALL", "NONE", "-1"):
        raise unsupported("simple_query_string.flags other than ALL and NONE")
    text = as_text(options["query"], "simple_query_string")
    setting = _setting(options, options.get("fields"), lucene=False)
    if flags == "NONE":
        text = re.sub(r"(\W)", lambda found: found[1] if found[1].isspace() else "\\" + found[1], text)
    try:
        return boosted(_Parser(text, setting, context).whole(), options)
    except _Malformed:
        plain = re.sub(r"[^\w\s]", " ", text)
        return boosted(_Parser(plain, setting, context).whole(), options)


def _setting(options: dict[str, Any], fields: Any, lucene: bool) -> _Setting:
    operator = str(options.get("default_operator", "or")).lower()
    if operator not in ("and", "or"):
        raise illegal(f"No enum constant org.elasticsearch.index.query.Operator.{operator.upper()}")
    if options.get("type") not in (None, "best_fields", "most_fields"):
        raise unsupported(f"query_string.type [{options['type']}]")
    parsed = Options.parse({"analyzer": options.get("analyzer"), "lenient": True})
    minimum = options.get("minimum_should_match")
    return _Setting(
        weighted_fields(fields, "query_string"),
        Options(every=parsed.every, minimum=minimum, lenient=True),
        operator == "and",
        lucene,
    )


class _Malformed(DslError):
    def __init__(self, text: str, reason: str) -> None:
        super().__init__("query_shard_exception", f"Failed to parse query [{text[:200]}]: {reason}", wrapped=True)


class _Parser:
    """Recursive descent over the tokens. Clauses of one level are joined as Lucene's classic parser joins them."""

    def __init__(self, text: str, setting: _Setting, context: Context) -> None:
        self._text = text
        self._setting = setting
        self._context = context
        self._tokens: list[re.Match[str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise _Malformed(text, f"unexpected [{text[at : at + 20].strip()}]")
            self._tokens.append(found)
            at = found.end()
        if len(self._tokens) > 4 * _MAX_WORDS:
            raise illegal(f"query_string takes at most [{4 * _MAX_WORDS}] words and operators")
        self._at = 0

    def whole(self) -> Query:
        if not self._tokens:
            return nothing()
        query = self._level(0)
        if self._at < len(self._tokens):
            raise _Malformed(self._text, "unbalanced brackets")
        return query

    def _level(self, depth: int) -> Query:
        """Clauses up to a closing bracket."""
        clauses: list[tuple[Any, Query]] = []
        conjunction = ""
        required: bool | None = None
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token["close"]:
                break
            self._at += 1
            word = token["operator"] or token["word"] or ""
            if word in ("&&", "||", "|") or (self._setting.lucene and word in ("AND", "OR")):
                conjunction = "and" if word in ("&&", "AND") else "or"
                continue
            if token["operator"] or (self._setting.lucene and word == "NOT"):
                required = word == "+"
                if not self._setting.lucene and required:
                    # simple_query_string's + joins both neighbours.
                    conjunction, required = "and", None
                continue
            with self._context.deeper():
                if required is False:
                    with self._context.unmarked():
                        query = self._one(token, depth)
                else:
                    query = self._one(token, depth)
            self._add(clauses, query, conjunction, required)
            conjunction, required = "", None
        if self._setting.lucene and (conjunction or required is not None):
            raise _Malformed(self._text, "it ends after an operator")
        return self._joined(clauses)

    def _one(self, token: re.Match[str], depth: int) -> Query:
        if token["open"]:
            query = self._level(depth + 1)
            if self._at >= len(self._tokens):
                raise _Malformed(self._text, "unbalanced brackets")
            self._at += 1
            return query
        if token["phrase"]:
            return self._phrase(self._setting.fields, token["phrase"][1:-1], token["slop"])
        return self._word(token["word"])

    def _add(self, clauses: list[tuple[Any, Query]], query: Query, conjunction: str, required: bool | None) -> None:
        every = self._setting.every
        if clauses and clauses[-1][0] is not MUST_NOT:
            if conjunction == "and":
                clauses[-1] = (MUST, clauses[-1][1])
            elif conjunction == "or" and every:
                clauses[-1] = (SHOULD, clauses[-1][1])
        if required is False:
            occur = MUST_NOT
        elif required or conjunction == "and" or (every and conjunction != "or"):
            occur = MUST
        else:
            occur = SHOULD
        clauses.append((occur, query))

    def _joined(self, clauses: list[tuple[Any, Query]]) -> Query:
        if not clauses:
            return nothing()
        if len(clauses) == 1 and clauses[0][0] is not MUST_NOT:
            return clauses[0][1]
        self._context.clause(len(clauses))
        optional = sum(occur is SHOULD for occur, _ in clauses)
        if all(occur is MUST_NOT for occur, _ in clauses):
            clauses = [(MUST, filtering(everything())), *clauses]
        if optional and self._setting.options.minimum is not None:
            needed = minimum_should_match(self._setting.options.minimum, optional)
            return (
                Query.boolean_query(clauses, needed)
                if 0 < needed <= optional
                else (Query.boolean_query(clauses) if needed == 0 else nothing())
            )
        return Query.boolean_query(clauses)

    def _word(self, word: str) -> Query:
        setting, fields = self._setting, self._setting.fields
        boost = 1.0
        if setting.lucene:
            name, colon, rest = word.partition(":")
            if colon and name and not name.endswith("\\"):
                fields = weighted_fields([_ESCAPED.sub(r"\1", name)], "query_string")
                if rest:
                    word = rest
                else:
                    return self._bracketed(fields)
            if found := re.fullmatch(r"(.+)\^(\d+(?:\.\d+)?)", word):
                word, boost = found[1], float(found[2])
        return weigh(self._plain(word, fields), boost)

    def _bracketed(self, fields: list[tuple[str, float]]) -> Query:
        """What follows ``field:``: a phrase or something in brackets."""
        if self._at >= len(self._tokens):
            raise _Malformed(self._text, "nothing follows [:]")
        token = self._tokens[self._at]
        self._at += 1
        if token["phrase"]:
            return self._phrase(fields, token["phrase"][1:-1], token["slop"])
        if not token["open"]:
            raise _Malformed(self._text, "nothing follows [:]")
        outer, self._setting = self._setting, _Setting(fields, self._setting.options, self._setting.every, True)
        try:
            return self._one(token, 0)
        finally:
            self._setting = outer

    def _plain(self, word: str, fields: list[tuple[str, float]]) -> Query:
        if word == "*":
            return everything()
        fuzziness: Fuzziness | None = None
        if found := re.fullmatch(r"(.*[^\\])~(\d?)", word):
            edits = as_int(found[2] or 2, "fuzziness")
            word, fuzziness = found[1], Fuzziness(fixed=min(edits, 2))
        prefix = word.endswith("*") and not word.endswith("\\*")
        word = word[:-1] if prefix else word
        if self._setting.lucene and _SPECIAL.search(word):
            raise unsupported(f"query_string syntax in [{word[:100]}]")
        word = _ESCAPED.sub(r"\1", word)
        options = Options(every=True, fuzziness=fuzziness, lenient=True)
        made = bool_prefix_field if prefix else match_field
        return best_of([weigh(made(self._context, name, word, options), weight) for name, weight in fields], 1.0)

    def _phrase(self, fields: list[tuple[str, float]], text: str, slop: str | None) -> Query:
        options = Options(lenient=True, slop=as_int(slop or 0, "slop", 0, 1000))
        text = _ESCAPED.sub(r"\1", text)
        return best_of(
            [weigh(phrase_field(self._context, name, text, options), weight) for name, weight in fields], 1.0
        )
