"""How a product is laid out in the full-text index: fields, analysis, documents, exact filters.

Fields come in three kinds. *Text* fields (``title``, ``brand_words``, …) are analysed into folded words; their
``*_stem`` twins additionally strip the endings of the index's language and weigh less. *Keyword* fields (``id``,
``brand``, ``category``, ``attributes.NAME``) hold exact values for filters and facets. *Number* fields (``price``,
``stock``) serve ranges and sorting. ``source``, ``digest`` and ``vector`` are stored only: the index is the one truth,
all else derives from it.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
import tantivy

from endcap.engines.base import Filter
from endcap.errors import InvalidInput

#: Raised when a change of schema or analysis makes older folders unreadable: they must be rebuilt.
FORMAT = 1

#: Before 0.27 (the first without Python 3.10) tantivy has no term queries within JSON: its parser has to find
#: attributes, and takes 13 and "13" for the same.
JSON_TERMS = hasattr(tantivy.TextAnalyzer, "pre_tokenize")

ID = "id"
#: Unsigned, unique per written version of a product and ever increasing: names a document for as long as it lives.
SEQ = "seq"
SOURCE, DIGEST, VECTOR_BYTES = "source", "digest", "vector"
TITLE_SORT = "title_sort"

#: Text field of a stored document -> (field with whole words, field with stems or None).
TEXT_FIELDS: Mapping[str, tuple[str, str | None]] = {
    "title": ("title", "title_stem"),
    "brand": ("brand_words", None),
    "category": ("category_words", "category_stem"),
    "description": ("description", "description_stem"),
    "attributes": ("attribute_words", None),
}
KEYWORD_FIELDS = (ID, "brand", "category")
NUMBER_FIELDS = ("price", "stock")
ATTRIBUTES = "attributes"

WORDS, STEMS = "endcap_words", "endcap_stems"

#: Whose endings can be stripped; the analyzers of these names on Elasticsearch do the same.
LANGUAGES = frozenset(
    ["arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian",
     "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish"]
)  # fmt: skip
DEFAULT_LANGUAGE = "english"

#: Longer attribute values are shown but neither filtered nor counted.
MAX_KEYWORD = 1000
_MAX_TITLE_SORT = 200

# Scripts written without spaces are indexed one character at a time; queries ask for neighbouring pairs (see units()).
_SINGLE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{30FC}"
_TOKEN = rf"[{_SINGLE}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{_SINGLE}]]+"


@cache
def words_analyzer() -> tantivy.TextAnalyzer:
    """Lower-cased words without accents; one token per character in scripts without spaces."""
    return _folded().build()


@cache
def stems_analyzer(language: str) -> tantivy.TextAnalyzer:
    """The words with the endings of one of :data:`LANGUAGES` stripped."""
    return _folded().filter(tantivy.Filter.stemmer(language)).build()


def _folded() -> tantivy.TextAnalyzerBuilder:
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_TOKEN))
    for one in (tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold(), tantivy.Filter.remove_long(256)):
        builder = builder.filter(one)
    return builder


@cache
def _unfolded_analyzer() -> tantivy.TextAnalyzer:
    """The tokens as they are written."""
    return tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_TOKEN)).build()


@cache
def single_analyzer() -> tantivy.TextAnalyzer:
    """Only the characters of scripts without spaces: tells them from words."""
    return tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(rf"[{_SINGLE}]")).build()


@cache
def build_schema() -> tantivy.Schema:
    """The schema of every embedded index."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(ID, stored=True, fast=True, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field(SEQ, indexed=True, fast=True)
    for name in (SOURCE, DIGEST, VECTOR_BYTES):
        builder.add_bytes_field(name, stored=True)
    for words, stems in TEXT_FIELDS.values():
        builder.add_text_field(words, tokenizer_name=WORDS)
        if stems:
            builder.add_text_field(stems, tokenizer_name=STEMS)
    for name in ("brand", "category", TITLE_SORT):
        builder.add_text_field(name, fast=True, tokenizer_name="raw", index_option="basic")
    for name in NUMBER_FIELDS:
        builder.add_float_field(name, indexed=True, fast=True)
    builder.add_json_field(ATTRIBUTES, fast=True, tokenizer_name="raw", index_option="basic")
    return builder.build()


def language_of(analyzer: str) -> str:
    """The language to strip endings by, of the setting ``analyzer``: its own name where it is one's, else English."""
    return analyzer if analyzer in LANGUAGES else DEFAULT_LANGUAGE


def register_analyzers(index: tantivy.Index, language: str) -> None:
    """Every opened index needs its analyzers by name."""
    index.register_tokenizer(WORDS, words_analyzer())
    index.register_tokenizer(STEMS, stems_analyzer(language))


def normalize(text: str) -> str:
    """Text as it is analysed: composed accents, no lone surrogates. Lengths can change; offsets refer to the result."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.encode("utf-8", "ignore").decode())


def terms(text: str) -> list[str]:
    """The words of a text as the whole-word fields hold them."""
    return words_analyzer().analyze(normalize(text))


def stem(word: str, language: str) -> str:
    """A word as the stem fields of an index in that language hold it."""
    stems = stems_analyzer(language).analyze(word)
    return stems[0] if stems else word


class Token(NamedTuple):
    """A word as it is indexed, and where (in characters) it stands in the text."""

    text: str
    char_offset_from: int
    char_offset_to: int


def tokens(analyzer: tantivy.TextAnalyzer, text: str) -> Sequence[Token]:
    """The tokens of a text, by :func:`words_analyzer` or :func:`stems_analyzer`."""
    if hasattr(analyzer, "pre_tokenize"):
        return cast(Sequence[Token], analyzer.pre_tokenize(text).tokens)
    return tokens_one_by_one(analyzer, text)  # tantivy before 0.27, the last for Python 3.10


def tokens_one_by_one(analyzer: tantivy.TextAnalyzer, text: str) -> list[Token]:
    """The same without tantivy's help, which gives no offsets before 0.27."""
    found: list[Token] = []
    end = 0
    for word in _unfolded_analyzer().analyze(text):
        # Nothing between two tokens can be part of one, so the next place it is found at is its own.
        start = text.index(word, end)
        end = start + len(word)
        found += [Token(folded, start, end) for folded in analyzer.analyze(word)]
    return found


def units(text: str) -> list[tuple[str, ...]]:
    """What a query asks for: ``(word,)``, or ``(a, b)`` for each neighbouring pair in scripts without spaces.

    "手机壳 case" gives ("手", "机"), ("机", "壳"), ("case",). A pair is meant as a phrase.
    """
    found: list[tuple[str, ...]] = []
    run: list[str] = []
    end = -1
    for token in tokens(words_analyzer(), normalize(text)):
        single = not token.text.isascii() and bool(single_analyzer().analyze(token.text))
        if run and (not single or token.char_offset_from != end):
            found.extend(_pairs(run))
            run = []
        if single:
            run.append(token.text)
        else:
            found.append((token.text,))
        end = token.char_offset_to
    found.extend(_pairs(run))
    return list(dict.fromkeys(found))


def _pairs(run: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return itertools.pairwise(run) if len(run) > 1 else [tuple(run)] if run else []


#: A part or model number in several pieces.
_PIECES = re.compile(r"[^\W_]+(?:[-./][^\W_]+)+")
_CODE_LENGTHS = range(5, 41)


def joined_codes(text: str) -> list[str]:
    """Part and model numbers of a text as people type them, in one piece: "HP dv7-1211ea" gives dv71211ea."""
    if len(text) > MAX_KEYWORD or "://" in text:
        return []
    joined = (re.sub(r"[-./]", "", found) for found in _PIECES.findall(text))
    return [one for one in joined if len(one) in _CODE_LENGTHS and any(letter.isdecimal() for letter in one)]


def attribute_path(name: str) -> str:
    """The index field of an attribute, usable in every tantivy call: "Screen size" -> "attributes.Screen_20_size".

    Anything but ASCII letters and digits is written as its code point, so that no name needs quoting.
    """
    return f"{ATTRIBUTES}.{_attribute_key(name)}"


def _attribute_key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match.group()):x}_", name)


def _attribute_value(value: Any) -> str | int | float | bool | None:
    """A value as it is indexed: whole floats as ints, so that 5 and 5.0 are the same; None: not indexable."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, str):
        return value if len(value) <= MAX_KEYWORD else None
    if isinstance(value, (int, float, np.integer, np.floating)):
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None


def tantivy_document(document: Mapping[str, Any], digest: str, vector: bytes) -> tantivy.Document:
    """What is written for a stored document (as :meth:`Product.to_document` makes it), but for its ``seq``.

    ``vector`` holds the unit vector's float16 values in machine order, or is empty.

    Raises:
        TypeError, ValueError, UnicodeEncodeError: a value cannot be stored.
    """
    made = tantivy.Document()
    made.add_bytes(SOURCE, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))
    made.add_text(ID, document["id"])
    if digest:
        made.add_bytes(DIGEST, digest.encode())
    if vector:
        made.add_bytes(VECTOR_BYTES, vector)
    for name in ("title", "brand", "description"):
        if text := document.get(name):
            _add_text(made, name, text)
            if name == "title":
                _add_codes(made, text)
    if title := document.get("title"):
        made.add_text(TITLE_SORT, normalize(title).casefold()[:_MAX_TITLE_SORT])
    if brand := document.get("brand"):
        made.add_text("brand", brand)
    paths = document.get("category") or []
    for path in paths:
        made.add_text("category", path)
    if paths:
        _add_text(made, "category", max(paths, key=len))
    for name in NUMBER_FIELDS:
        if (number := document.get(name)) is not None:
            made.add_float(name, float(number))
    _add_attributes(made, document.get(ATTRIBUTES) or {})
    return made


def _add_text(made: tantivy.Document, name: str, text: str) -> None:
    text = normalize(text)
    for field in TEXT_FIELDS[name]:
        if field:
            made.add_text(field, text)


def _add_codes(made: tantivy.Document, text: str) -> None:
    """Beside the attributes, which words of any kind are among: a word of its own would weigh no more."""
    if codes := joined_codes(normalize(text)):
        made.add_text(TEXT_FIELDS[ATTRIBUTES][0], " ".join(codes))


def _add_attributes(made: tantivy.Document, attributes: Mapping[str, Any]) -> None:
    indexed: dict[str, Any] = {}
    for name, value in attributes.items():
        several = value if isinstance(value, (list, tuple)) else [value]
        values = [one for one in map(_attribute_value, several) if one is not None]
        if values:
            indexed[_attribute_key(str(name))] = values if len(values) > 1 else values[0]
        for one in values:
            if isinstance(one, str):
                _add_text(made, ATTRIBUTES, one)
                _add_codes(made, one)
    if indexed:
        made.add_json(ATTRIBUTES, indexed)


def filter_query(index: tantivy.Index, condition: Filter) -> tantivy.Query:
    """The query of an exact filter. Scores are not meaningful: wrap or use under Must with a constant.

    Raises:
        InvalidInput: the field cannot be filtered, or a bound is not a number.
    """
    name, schema = condition.field, build_schema()
    if name in KEYWORD_FIELDS:
        if condition.gte is not None or condition.lte is not None:
            raise InvalidInput(f"filter on {name!r}: gte and lte need a number field; give values")
        # What cannot be encoded was never stored, so it equals nothing.
        values = [str(one) for one in condition.values if _encodable(str(one))]
        return tantivy.Query.term_set_query(schema, name, values) if values else tantivy.Query.empty_query()
    if name in NUMBER_FIELDS:
        return _numbers(schema, condition)
    prefix, _, attribute = name.partition(".")
    if prefix == ATTRIBUTES and attribute:
        return _attribute(index, attribute, condition)
    raise InvalidInput(f"filter on {name!r}: use id, brand, category, price, stock or attributes.NAME")


def _numbers(schema: tantivy.Schema, condition: Filter) -> tantivy.Query:
    either = [
        tantivy.Query.term_query(schema, condition.field, float(one)) for one in condition.values if _is_number(one)
    ]
    if condition.gte is not None or condition.lte is not None:
        low, high = _bound(condition.gte), _bound(condition.lte)
        either.append(tantivy.Query.range_query(schema, condition.field, tantivy.FieldType.Float, low, high))
    return any_of(either)


def _attribute(index: tantivy.Index, attribute: str, condition: Filter) -> tantivy.Query:
    path = attribute_path(attribute)
    either = []
    for raw in condition.values:
        value = _attribute_value(raw)
        if value is not None and not (isinstance(value, str) and not _encodable(value)):
            either.append(exact_query(path, value))
    low, high = _bound(condition.gte), _bound(condition.lte)
    # Only the query parser makes ranges over a JSON path (which is made of safe characters), and tantivy 0.27 panics
    # where one bound is whole and the other is not: so each bound is a range of its own.
    ranges = [f"[{low:.10f} TO *]"] if low is not None else []
    ranges += [f"[* TO {high:.10f}]"] if high is not None else []
    if ranges:
        both = [(tantivy.Occur.Must, index.parse_query(f"{path}:{one}", ["title"])) for one in ranges]
        either.append(tantivy.Query.boolean_query(both))
    return any_of(either)


def exact_query(field: str, value: Any) -> tantivy.Query:
    """Documents with exactly this value in a field or attribute (its :func:`attribute_path`)."""
    if JSON_TERMS or not field.startswith(f"{ATTRIBUTES}."):
        return tantivy.Query.term_query(build_schema(), field, value)
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return _parser().parse_query(f'{field}:"{quoted}"', ["title"])


@cache
def _parser() -> tantivy.Index:
    return tantivy.Index(build_schema())


def any_of(queries: Sequence[tantivy.Query]) -> tantivy.Query:
    """Matches where at least one does; nothing where there is none."""
    if len(queries) == 1:
        return queries[0]
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, one) for one in queries])


def _bound(value: float | None) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise InvalidInput(f"filter bound {value!r} is not a finite number")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
