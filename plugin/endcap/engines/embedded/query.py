"""From the words of a search to full-text queries, from the strictest reading to the loosest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import tantivy

from endcap.engines.base import SPELLING, VARIANT_WEIGHT, so_many_words
from endcap.engines.embedded.schema import TEXT_FIELDS, build_schema, stem, terms, units
from endcap.engines.embedded.spelling import Vocabulary

Query = tantivy.Query
MUST, SHOULD = tantivy.Occur.Must, tantivy.Occur.Should

#: Text field -> weights of a whole word and of a stem in it. Title before brand and category before the rest.
WEIGHTS: Mapping[str, tuple[float, float]] = {
    "title": (4.0, 3.0),
    "brand": (2.5, 0.0),
    "category": (2.0, 1.5),
    "description": (1.0, 0.8),
    "attributes": (0.8, 0.0),
}
#: Of the other fields that hold a word, so much of the score counts beside the best field.
_TIE = 0.2
_PHRASE = {"title": 3.0, "title_stem": 1.5, "category_words": 1.0, "description": 0.5}
#: What a word weighs that is one or two letters off, or only begins like what was asked.
_TYPO = (1.0, 0.6, 0.35)
_COMPLETION = 0.3
#: ... that is written together, or apart, where the other was asked: "smart watch", "smartwatch"; "16gb", "16 gb".
_WRITTEN_OTHERWISE = 0.9

#: With some of the words only, each that matches is worth this beside its own score: more words before rarer words.
_PRESENT = 10.0

#: Words that a product need not hold, where there are others: "mac and cheese" is sold as "Mac & Cheese".
FUNCTION_WORDS = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with"]
)

#: ... in an index of that language, as they are indexed: without accents.
MORE_FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    "german": frozenset(
        ["am", "auf", "aus", "bei", "das", "dem", "den", "der", "des", "die", "ein", "eine", "fur", "im", "mit", "oder",
         "ohne", "und", "vom", "von", "zu", "zum", "zur"]
    )
}  # fmt: skip

#: Words beyond these are not looked at: nobody types them, and they would make a search slow.
MAX_UNITS = 32
_MAX_PHRASE = 12
#: "16gb" is 16 and gb; what has more parts is a number of its own kind.
_PARTS = re.compile(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)")
_MAX_PARTS = 3


@dataclass(slots=True)
class Reading:
    """One way to read what was typed. ``words`` are the whole words that it matches, for highlighting; ``relaxed`` says
    what it gives up."""

    query: tantivy.Query
    words: set[str] = field(default_factory=set)
    relaxed: str = ""


class Words:
    """The words of one search.

    A *unit* is a word, or a pair of neighbouring characters in scripts without spaces.
    """

    def __init__(self, text: str, language: str) -> None:
        """``language``: that of the index that is asked."""
        self.language = language
        self.units = units(text)[:MAX_UNITS]
        self._terms = terms(text)[:MAX_UNITS]
        needed = [unit for unit in self.units if not self._is_function(unit[0])]
        self._needed = needed or self.units
        self._optional = [unit for unit in self.units if unit not in self._needed]
        self._joined: dict[tuple[str, ...], tuple[tuple[str, ...], str]] = {}
        self.plain = [unit[0] for unit in self.units if len(unit) == 1]

    def readings(self, vocabulary: Vocabulary, fuzzy: bool, variants: Sequence[str] = ()) -> Iterator[Reading]:
        """All words, or all of a variant; all words with the unknown ones corrected or completed; with any word
        corrected; some words."""
        self._joined = self._compounds(vocabulary)
        yield self._or_as(self._all({}), variants, vocabulary)
        corrected: dict[str, list[tuple[str, float]]] = {}
        if fuzzy:
            corrected = self._alternatives(vocabulary, unknown_only=True)
            if corrected:
                yield replace(self._all(corrected), relaxed=SPELLING)
            every = self._alternatives(vocabulary, unknown_only=False)
            if every.keys() != corrected.keys():
                yield replace(self._all(every), relaxed=SPELLING)
        if len(self._needed) > 1:
            half = (len(self._needed) + 1) // 2
            yield self._some(corrected, half)
            if half > 1:
                yield self._some(corrected, 1)

    def _or_as(self, reading: Reading, variants: Sequence[str], vocabulary: Vocabulary) -> Reading:
        others = [
            next(words.readings(vocabulary, False)) for one in variants if (words := Words(one, self.language)).units
        ]
        if not others:
            return reading
        said = [Query.boost_query(one.query, VARIANT_WEIGHT) for one in others]
        query = Query.disjunction_max_query([reading.query, *said])
        return Reading(query, reading.words.union(*(one.words for one in others)))

    def _is_function(self, word: str) -> bool:
        return word in FUNCTION_WORDS or word in MORE_FUNCTION_WORDS.get(self.language, ())

    def strict(self) -> tantivy.Query:
        """All words as they were typed."""
        return self._all({}).query

    def _alternatives(self, vocabulary: Vocabulary, unknown_only: bool) -> dict[str, list[tuple[str, float]]]:
        found = {}
        for word in self.plain:
            if self._is_function(word) or (unknown_only and vocabulary.knows(word)):
                continue
            others = [(other, _TYPO[distance]) for other, distance in vocabulary.similar(word)]
            if unknown_only and (parts := vocabulary.split(word)):
                others.append((" ".join(parts), _TYPO[1]))
            if word == self._terms[-1]:
                near = {other for other, _ in others}
                others += [(other, _COMPLETION) for other in vocabulary.completions(word) if other not in near]
            if others:
                found[word] = others
        return found

    def _compounds(self, vocabulary: Vocabulary) -> dict[tuple[str, ...], tuple[tuple[str, ...], str]]:
        """First word -> (the one after it, both as one word), where products hold them written together."""
        found: dict[tuple[str, ...], tuple[tuple[str, ...], str]] = {}
        taken: set[str] = set()
        for one, other in pairwise(self._terms):
            if (one,) not in self._needed or (other,) not in self._needed or one in taken or one == other:
                continue
            if vocabulary.knows(one + other):
                found[one,] = ((other,), one + other)
                taken.add(other)
        return found

    def _all(self, alternatives: Mapping[str, Sequence[tuple[str, float]]]) -> Reading:
        parts = []
        seconds = {second for second, _ in self._joined.values()}
        for unit in self._needed:
            if unit in self._joined:
                second, joined = self._joined[unit]
                apart = Query.boolean_query([(MUST, self._unit(one, alternatives)) for one in (unit, second)])
                together = Query.boost_query(
                    word_query(joined, self.language), 2 * _WRITTEN_OTHERWISE
                )  # stands for two words
                parts.append((MUST, Query.disjunction_max_query([apart, together])))
            elif unit not in seconds:
                parts.append((MUST, self._unit(unit, alternatives)))
        return self._reading([*parts, *self._extras()], alternatives)

    def _some(self, alternatives: Mapping[str, Sequence[tuple[str, float]]], at_least: int) -> Reading:
        units_ = [self._unit(unit, alternatives) for unit in self._needed]
        some = Query.boolean_query([(SHOULD, unit) for unit in units_], minimum_number_should_match=at_least)
        present = [(SHOULD, Query.const_score_query(unit, _PRESENT)) for unit in units_]
        reading = self._reading([(MUST, some), *present, *self._extras()], alternatives)
        return replace(reading, relaxed=so_many_words(at_least, len(units_)))

    def _reading(
        self,
        parts: list[tuple[tantivy.Occur, tantivy.Query]],
        alternatives: Mapping[str, Sequence[tuple[str, float]]],
    ) -> Reading:
        words = {word for unit in self.units for word in unit}
        words.update(joined for _, joined in self._joined.values())
        words.update(part for unit in self._needed if len(unit) == 1 for part in _parts(unit[0]))
        words.update(part for others in alternatives.values() for other, _ in others for part in other.split())
        return Reading(Query.boolean_query(parts), words)

    def _unit(self, unit: tuple[str, ...], alternatives: Mapping[str, Sequence[tuple[str, float]]]) -> tantivy.Query:
        if len(unit) > 1:
            return pair_query(unit)
        others = alternatives.get(unit[0], ())
        parts = _parts(unit[0])
        if not others and not parts:
            return word_query(unit[0], self.language)
        either = [word_query(unit[0], self.language)]
        if parts:
            either.append(Query.boost_query(pair_query(tuple(parts)), _WRITTEN_OTHERWISE))
        either += [Query.boost_query(_words_query(other.split(), self.language), weight) for other, weight in others]
        return Query.disjunction_max_query(either)

    def _extras(self) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        """What is worth more but need not be: function words, and the words next to each other, as they were typed."""
        return [*((SHOULD, self._unit(unit, {})) for unit in self._optional), *self._phrases()]

    def _phrases(self) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        if not 2 <= len(self._terms) <= _MAX_PHRASE:
            return []
        stems = [stem(one, self.language) for one in self._terms]
        schema = build_schema()
        return [
            (
                SHOULD,
                Query.boost_query(
                    Query.phrase_query(schema, name, list(stems if name.endswith("_stem") else self._terms)), weight
                ),
            )
            for name, weight in _PHRASE.items()
        ]


def _parts(word: str) -> list[str]:
    """Letters and figures of a word that has both: "16gb" gives 16 and gb; else nothing."""
    parts = _PARTS.split(word)
    return parts if 2 <= len(parts) <= _MAX_PARTS else []


def _words_query(words: Sequence[str], language: str) -> tantivy.Query:
    if len(words) == 1:
        return word_query(words[0], language)
    return Query.boolean_query([(MUST, word_query(word, language)) for word in words])


def word_query(word: str, language: str) -> tantivy.Query:
    """A word in any text field, the best of them deciding."""
    schema = build_schema()
    parts = []
    for name, (whole, stemmed) in WEIGHTS.items():
        words, stems = TEXT_FIELDS[name]
        parts.append(Query.boost_query(Query.term_query(schema, words, word, "freq"), whole))
        if stems and stemmed:
            parts.append(Query.boost_query(Query.term_query(schema, stems, stem(word, language), "freq"), stemmed))
    return Query.disjunction_max_query(parts, tie_breaker=_TIE)


def pair_query(pair: tuple[str, ...]) -> tantivy.Query:
    """Neighbouring characters, or words, in any text field, the best of them deciding."""
    schema = build_schema()
    parts = [
        Query.boost_query(Query.phrase_query(schema, TEXT_FIELDS[name][0], list(pair)), whole)
        for name, (whole, _) in WEIGHTS.items()
    ]
    return Query.disjunction_max_query(parts, tie_breaker=_TIE)
