"""Full-text queries over one field or several, scored by BM25: `match` and its family, `multi_match`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from endcap.engines.embedded import schema as layout

from .context import Context, Query, all_of, any_of, best_of, boosted, everything, nothing, words_of
from .errors import DslError, illegal, parsing, unsupported
from .exact import equal
from .fields import DEFAULT_FIELDS, Field, resolve, text_fields
from .fuzzy import Fuzziness
from .minimum import minimum_should_match
from .values import as_bool, as_float, as_int, as_list, as_object, as_text, only

#: Options that change nothing here: there are no synonyms, no other rewrites, and swaps always count as one edit.
_IDLE = {"auto_generate_synonyms_phrase_query", "fuzzy_rewrite", "cutoff_frequency", "_name", "boost"}
_WORDS = {"operator", "minimum_should_match", "zero_terms_query", "analyzer", "lenient"}
_FUZZY = {"fuzziness", "prefix_length", "max_expansions", "fuzzy_transpositions"}
_MATCH = _IDLE | _WORDS | _FUZZY
_PHRASE = _IDLE | {"analyzer", "slop", "zero_terms_query"}
_TYPES = ("best_fields", "most_fields", "cross_fields", "phrase", "phrase_prefix", "bool_prefix")


@dataclass(frozen=True, slots=True)
class Options:
    """How a text is matched; the defaults are Elasticsearch's."""

    every: bool = False
    minimum: Any = None
    fuzziness: Fuzziness | None = None
    prefix_length: int = 0
    max_expansions: int = 50
    slop: int = 0
    zero_terms_all: bool = False
    lenient: bool = False

    @classmethod
    def parse(cls, options: dict[str, Any]) -> Options:
        operator = str(options.get("operator", "or")).lower()
        if operator not in ("or", "and"):
            raise illegal(f"No enum constant org.elasticsearch.index.query.Operator.{operator.upper()}")
        if options.get("analyzer") not in (None, "standard", "default"):
            raise unsupported(f"analyzer [{options['analyzer']}]")
        if not as_bool(options.get("fuzzy_transpositions", True), "fuzzy_transpositions"):
            raise unsupported("fuzzy_transpositions: false")
        zero_terms = str(options.get("zero_terms_query", "none")).lower()
        if zero_terms not in ("none", "all"):
            raise illegal(f"unsupported zero_terms_query value [{zero_terms}]")
        fuzziness = options.get("fuzziness")
        return cls(
            every=operator == "and",
            minimum=options.get("minimum_should_match"),
            fuzziness=None if fuzziness is None else Fuzziness.parse(fuzziness),
            prefix_length=as_int(options.get("prefix_length", 0), "prefix_length"),
            max_expansions=as_int(options.get("max_expansions", 50), "max_expansions", 1, 1024),
            slop=as_int(options.get("slop", 0), "slop", 0, 1000),
            zero_terms_all=zero_terms == "all",
            lenient=as_bool(options.get("lenient", False), "lenient"),
        )

    def combined(self, queries: list[Query]) -> Query:
        """One query per word, joined by operator and `minimum_should_match`."""
        if not queries:
            return everything() if self.zero_terms_all else nothing()
        # As in Elasticsearch, a single word is no boolean query, so the minimum does not apply to it.
        if len(queries) == 1:
            return queries[0]
        if self.every:
            return all_of(queries)
        needed = 1 if self.minimum is None else minimum_should_match(self.minimum, len(queries))
        return any_of(queries, max(needed, 1))


def one_field(options: Any, query: str, short: str, allowed: set[str]) -> tuple[str, dict[str, Any]]:
    """The field of ``{FIELD: VALUE}`` or ``{FIELD: {short: VALUE, …}}``, and the options.

    Raises:
        DslError: there is not exactly one field, or an option that the query has not.
    """
    options = as_object(options, query)
    if len(options) != 1:
        reason = "query doesn't support multiple fields" if options else "query malformed, no field"
        raise parsing(f"[{query}] {reason}" + (f", found [{'] and ['.join(list(options)[:2])}]" if options else ""))
    (name, value), *_ = options.items()
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise parsing(f"[{query}] unknown token [START_ARRAY] after [{name}]")
        value = {short: value}
    only(value, allowed, query)
    if short not in value:
        raise parsing(f"[{query}] requires a [{short}] for [{name}]")
    return name, value


# --- one field ---------------------------------------------------------------------------------------------------


def match(options: Any, context: Context) -> Query:
    name, rest = one_field(options, "match", "query", _MATCH | {"query"})
    return boosted(match_field(context, name, as_text(rest["query"], "match"), Options.parse(rest)), rest)


def match_field(context: Context, name: str, text: str, options: Options) -> Query:
    field = resolve(name)
    if field is None or not field.words:
        return _whole(context, field, text, options)
    column = field.words
    return options.combined([_unit(context, column, unit, options) for unit in _units(text)])


def match_phrase(options: Any, context: Context) -> Query:
    name, rest = one_field(options, "match_phrase", "query", _PHRASE | {"query"})
    return boosted(phrase_field(context, name, as_text(rest["query"], "match_phrase"), Options.parse(rest)), rest)


def phrase_field(context: Context, name: str, text: str, options: Options) -> Query:
    field = resolve(name)
    if field is None or not field.words:
        return _whole(context, field, text, options)
    words = words_of(text)
    if not words:
        return options.combined([])
    context.clause(len(words))
    return _phrase(context, field.words, words, options.slop)


def match_phrase_prefix(options: Any, context: Context) -> Query:
    allowed = _PHRASE | {"query", "max_expansions"}
    name, rest = one_field(options, "match_phrase_prefix", "query", allowed)
    text = as_text(rest["query"], "match_phrase_prefix")
    return boosted(phrase_prefix_field(context, name, text, Options.parse(rest)), rest)


def phrase_prefix_field(context: Context, name: str, text: str, options: Options) -> Query:
    field = resolve(name)
    if field is None or not field.words:
        return _whole(context, field, text, options)
    words = words_of(text)
    if not words:
        return options.combined([])
    context.clause(len(words))
    if len(words) == 1:
        context.mark(field.words, prefix=words[-1])
    endings = [word for word, _ in context.beginnings(field.words, words[-1], options.max_expansions)]
    context.expand(len(endings) * len(words))
    return best_of([_phrase(context, field.words, [*words[:-1], ending], options.slop) for ending in endings])


def match_bool_prefix(options: Any, context: Context) -> Query:
    name, rest = one_field(options, "match_bool_prefix", "query", (_MATCH - {"zero_terms_query"}) | {"query"})
    text = as_text(rest["query"], "match_bool_prefix")
    return boosted(bool_prefix_field(context, name, text, Options.parse(rest)), rest)


def bool_prefix_field(context: Context, name: str, text: str, options: Options) -> Query:
    field = resolve(name)
    if field is None or not field.words:
        return _whole(context, field, text, options)
    column = field.words
    units = _units(text)
    queries = [_unit(context, column, unit, options) for unit in units[:-1]]
    if units:
        if len(units[-1]) > 1:
            queries.append(_unit(context, column, units[-1], options))
        else:
            context.clause()
            context.mark(column, prefix=units[-1][0])
            queries.append(context.prefix(column, units[-1][0]))
    return options.combined(queries)


def fuzzy(options: Any, context: Context) -> Query:
    allowed = {"value", "fuzziness", "prefix_length", "max_expansions", "transpositions", "rewrite", "boost", "_name"}
    name, rest = one_field(options, "fuzzy", "value", allowed)
    field = resolve(name)
    if field is None:
        return nothing()
    column = field.words or field.exact
    if field.kind in ("number", "attribute", "title", "stored") or column is None:
        raise unsupported(f"fuzzy query on [{name}]")
    if not as_bool(rest.get("transpositions", True), "transpositions"):
        raise unsupported("transpositions: false")
    parsed = Options.parse({"fuzziness": "AUTO", **{key: value for key, value in rest.items() if key in _FUZZY}})
    return boosted(_unit(context, column, (as_text(rest["value"], "fuzzy"),), parsed), rest)


def _whole(context: Context, field: Field | None, text: str, options: Options) -> Query:
    """A text against a field that is not analysed: as one value."""
    if field is None:
        return nothing()
    context.clause()
    try:
        return equal(context, field, text)
    except DslError:
        if options.lenient:
            return nothing()
        raise


def _units(text: str) -> list[tuple[str, ...]]:
    """The words of a text; neighbouring pairs in scripts without spaces. Repeated words stay repeated."""
    return [(word,) for word in words_of(text)] if text.isascii() else layout.units(text)


def _unit(context: Context, column: str, unit: tuple[str, ...], options: Options) -> Query:
    context.clause()
    if len(unit) > 1:
        return _phrase(context, column, list(unit), 0)
    word = unit[0]
    edits = options.fuzziness.edits(word) if options.fuzziness else 0
    context.mark(column, word=word)
    if not edits:
        return context.term(column, word)
    near = context.vocabulary(column).near(word, edits, options.prefix_length, options.max_expansions)
    if not near:
        return context.term(column, word)
    context.expand(len(near))
    # As Lucene's fuzzy queries do: less for more edits, and every spelling as common as the commonest, so that a rare
    # misspelling in the catalogue does not come first.
    commonest = max(documents for _, _, documents in near)
    spellings = []
    for other, away, documents in near:
        context.mark(column, word=other)
        boost = (1.0 - away / min(len(word), len(other))) * context.idf(commonest) / context.idf(documents)
        spellings.append(Query.boost_query(context.term(column, other), max(boost, 0.0)))
    return any_of(spellings)


def _phrase(context: Context, column: str, words: list[str], slop: int) -> Query:
    if len(words) == 1 or slop:
        for word in words:
            context.mark(column, word=word)
    else:
        context.mark(column, phrase=tuple(words))
    if len(words) == 1:
        return context.term(column, words[0])
    return Query.phrase_query(context.schema, column, list(words), slop)


# --- several fields ----------------------------------------------------------------------------------------------


def weighted_fields(fields: Any, where: str) -> list[tuple[str, float]]:
    """Field names with their boosts from ``["title^3", "brand", "attributes.*"]``; by default every text field.

    Raises:
        DslError: a boost is not a number.
    """
    weights: dict[str, float] = {}
    for item in as_list(fields) or list(DEFAULT_FIELDS):
        name, caret, boost = as_text(item, where).partition("^")
        weight = as_float(boost, f"{where}.fields") if caret else 1.0
        if weight < 0:
            raise illegal(f"negative [boost] are not allowed in [{where}], got [{weight}]")
        for one in text_fields(name):
            weights[one] = weights.get(one, 1.0) * weight
    return list(weights.items())


def multi_match(options: Any, context: Context) -> Query:
    options = as_object(options, "multi_match")
    only(options, _MATCH | {"query", "fields", "type", "tie_breaker", "slop"}, "multi_match")
    if "query" not in options:
        raise parsing("No text specified for multi_match query")
    kind = options.get("type", "best_fields")
    if kind not in _TYPES:
        raise DslError("parse_exception", f"failed to parse [multi_match] query type [{kind}]. unknown type.")
    if options.get("fuzziness") is not None and kind in ("cross_fields", "phrase", "phrase_prefix"):
        raise parsing(f"Fuzziness not allowed for type [{kind}]")
    text = as_text(options["query"], "multi_match")
    parsed = Options.parse({"lenient": not options.get("fields"), **options})
    fields = weighted_fields(options.get("fields"), "multi_match")
    tie_breaker = as_float(
        options.get("tie_breaker", 1.0 if kind in ("most_fields", "bool_prefix") else 0.0), "tie_breaker"
    )
    if kind == "cross_fields":
        return boosted(cross_fields(context, fields, text, parsed, tie_breaker), options)
    by_field: dict[str, Callable[[Context, str, str, Options], Query]] = {
        "phrase": phrase_field,
        "phrase_prefix": phrase_prefix_field,
        "bool_prefix": bool_prefix_field,
    }
    made = by_field.get(kind, match_field)
    return boosted(
        best_of([weigh(made(context, name, text, parsed), weight) for name, weight in fields], tie_breaker), options
    )


def combined_fields(options: Any, context: Context) -> Query:
    options = as_object(options, "combined_fields")
    allowed = {"query", "fields", "operator", "minimum_should_match", "zero_terms_query", "boost", "_name"}
    only(options, allowed | {"auto_generate_synonyms_phrase_query"}, "combined_fields")
    if "query" not in options or not options.get("fields"):
        raise parsing("[combined_fields] requires query and fields")
    text = as_text(options["query"], "combined_fields")
    fields = weighted_fields(options["fields"], "combined_fields")
    return boosted(cross_fields(context, fields, text, Options.parse(options), 0.0), options)


def cross_fields(
    context: Context, fields: list[tuple[str, float]], text: str, options: Options, tie_breaker: float
) -> Query:
    """Each word may be in any of the analysed fields, as if they were one; the other fields match as a whole."""
    analysed: list[tuple[str, float]] = []
    others: list[Query] = []
    for name, weight in fields:
        field = resolve(name)
        if field and field.words:
            analysed.append((field.words, weight))
        else:
            others.append(weigh(_whole(context, field, text, options), weight))
    words = [
        best_of([_blended(context, column, weight, unit, analysed) for column, weight in analysed], tie_breaker)
        for unit in _units(text)
    ]
    groups = [options.combined(words)] if analysed else []
    return best_of(groups + others, tie_breaker)


def _blended(
    context: Context, column: str, weight: float, unit: tuple[str, ...], fields: list[tuple[str, float]]
) -> Query:
    """A word in one of several fields, weighed as if it were as common there as in the field where it is commonest."""
    context.clause()
    if len(unit) > 1:
        return weigh(_phrase(context, column, list(unit), 0), weight)
    word = unit[0]
    context.mark(column, word=word)
    documents = context.searcher.doc_freq(column, word)
    if not documents:
        return nothing()
    commonest = max(context.searcher.doc_freq(other, word) for other, _ in fields)
    return weigh(context.term(column, word), weight * context.idf(commonest) / context.idf(documents))


def weigh(query: Query, weight: float) -> Query:
    return query if weight == 1.0 else Query.boost_query(query, weight)
