"""From the words of a search to queries, from the strictest reading to the loosest.

The first reading that any product answers is the one that counts: all words; all words, with those that the index does
not know corrected or completed; all words with typos; half of the words; any of them. Products that merely share a
word thus never dilute an exact answer, its facets or its total.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from endcap.engines.base import SPELLING as RELAXED_SPELLING
from endcap.engines.base import VARIANT_WEIGHT, so_many_words
from endcap.engines.elasticsearch.mapping import ATTRIBUTE_WORDS, SPELLING

#: Title over brand and category over description and attributes.
FIELDS = ("title^4", "brand.text^2.5", "category.text^2", "description", f"{ATTRIBUTE_WORDS}^0.8")
_PHRASE_FIELDS = ("title^3", "category.text", "description^0.5")
#: Letters that a word may be off by: none below 4 letters, one below 8, then two.
FUZZINESS = "AUTO:4,8"
#: Of the other fields that hold a word, so much of the score counts beside the best field.
_TIE = 0.2
_COMPLETION = 0.3
#: What a product weighs that writes together, or apart, what was asked: "smart watch", "smartwatch"; "16gb", "16 gb".
_WRITTEN_OTHERWISE = 0.9
#: Longer queries are sentences: nobody writes them in one word.
_MAX_JOINED = 5
# "16gb" is 16 and gb.
_PARTS = re.compile(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)")
_MAX_PARTS = 3
_MIN_COMPLETED = 3

#: A query is cut after so many characters and words: nobody types more, and every word costs clauses.
MAX_TEXT, MAX_WORDS = 512, 32

# What Unicode's rules, which the standard analyzer follows, split into single characters: words are then pairs.
_SINGLE = re.compile(r"([\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)")


class Words:
    """The words of one search.

    ``standard``: the index uses the standard analyzer, whose words can be told here: letters and digits, and pairs of
    neighbouring characters in scripts without spaces. Any other analyzer finds the words itself.
    """

    def __init__(self, text: str, standard: bool) -> None:
        # Surrogate halves can be in no document, and cannot be sent.
        text = text[:MAX_TEXT].encode("utf-8", "ignore").decode()
        words = text.split()
        if standard:
            words = [part for word in _plain(text).split() for part in _SINGLE.split(word) if part]
        self.words = words[:MAX_WORDS]
        self.text = " ".join(self.words)
        self.standard = standard

    def all(self) -> dict[str, Any]:
        """Every word somewhere in the product; those that stand together count more."""
        plain = [word for word in self.words if not self._single(word)]
        must = [_phrase(pair) for word in self.words if self._single(word) for pair in _pairs_of(word)]
        if plain:
            as_typed = _across(plain)
            others = self._written_otherwise(plain)
            must.append({"dis_max": {"queries": [as_typed, *others]}} if others else as_typed)
        return {"bool": {"must": must, "should": self._together()}}

    def all_or(self, variants: Sequence[str]) -> dict[str, Any]:
        """:meth:`all`, or every word of one of the other ways of saying it."""
        others = [one for one in (Words(variant, self.standard) for variant in variants) if one.words]
        if not others:
            return self.all()
        said = [{"bool": {"must": [one.all()], "boost": VARIANT_WEIGHT}} for one in others]
        return {"dis_max": {"queries": [self.all(), *said]}}

    def _written_otherwise(self, plain: Sequence[str]) -> list[dict[str, Any]]:
        """The words with two neighbours as one, with letters and figures apart, or with the last in its other number:
        the standard analyzer does not know that laptops are what a laptop is, others strip endings themselves."""
        if len(plain) > _MAX_JOINED:
            return []
        found = []
        if self.standard and (other := _other_number(plain[-1])):
            found.append((_across([*plain[:-1], other]), 1.0))
        for at in range(len(plain) - 1):
            if plain[at].isalnum() and plain[at + 1].isalnum():
                joined = _across([*plain[:at], plain[at] + plain[at + 1], *plain[at + 2 :]])
                # One word stands for two, and should count as they do.
                found.append((joined, len(plain) / (len(plain) - 1)))
        for at, word in enumerate(plain):
            rest = [_across([*plain[:at], *plain[at + 1 :]])] if len(plain) > 1 else []
            parts = _PARTS.split(word)
            if 2 <= len(parts) <= _MAX_PARTS:
                found.append(({"bool": {"must": [_phrase(" ".join(parts)), *rest]}}, 1.0))
        return [{"bool": {"must": [one], "boost": _WRITTEN_OTHERWISE * weight}} for one, weight in found]

    def looser(self, misspelled: Collection[int], fuzzy: bool) -> list[tuple[str, dict[str, Any]]]:
        """The readings after :meth:`all`, each with what it gives up. ``misspelled``: places of the words that the
        index does not know."""
        readings: list[tuple[str, dict[str, Any]]] = []
        places = range(len(self.words))
        if fuzzy:
            if misspelled:
                readings.append((RELAXED_SPELLING, self._every(misspelled)))
            readings.append((RELAXED_SPELLING, self._every(places)))
        if len(self.words) > 1:
            some = [self._word(place, fuzzy and place in misspelled) for place in places]
            half = (len(some) + 1) // 2
            readings += [
                (so_many_words(least, len(some)), {"bool": {"should": some, "minimum_should_match": least}})
                for least in ((half, 1) if half > 1 else (1,))
            ]
        if not self.standard:
            # What is one word by its spaces may be several to the analyzer.
            any_of_them = {"multi_match": {"query": self.text, "fields": FIELDS, "tie_breaker": _TIE}}
            readings.append((so_many_words(1, len(self.words)) if len(self.words) > 1 else "", any_of_them))
        return readings

    def _every(self, loose: Collection[int]) -> dict[str, Any]:
        must = [self._word(place, place in loose) for place in range(len(self.words))]
        return {"bool": {"must": must, "should": self._together()}}

    def _word(self, place: int, loose: bool) -> dict[str, Any]:
        word = self.words[place]
        if self._single(word):
            return {"bool": {"must": [_phrase(pair) for pair in _pairs_of(word)]}}
        match = {"query": word, "type": "best_fields", "operator": "and", "fields": FIELDS, "tie_breaker": _TIE}
        if not loose:
            return {"multi_match": match}
        either: list[dict[str, Any]] = [{"multi_match": {**match, "fuzziness": FUZZINESS}}]
        if place == len(self.words) - 1 and len(word) >= _MIN_COMPLETED:
            begins = {"query": word, "type": "phrase_prefix", "fields": FIELDS, "boost": _COMPLETION}
            either.append({"multi_match": begins})
        return {"dis_max": {"queries": either}}

    def _together(self) -> list[dict[str, Any]]:
        if len(self.words) < 2:
            return []
        return [{"multi_match": {"query": self.text, "type": "phrase", "fields": _PHRASE_FIELDS}}]

    def _single(self, word: str) -> bool:
        return self.standard and _SINGLE.fullmatch(word) is not None

    def suggest(self) -> dict[str, Any]:
        """The part of a search body that asks for words spelled almost like those that the index does not know."""
        term = {"field": SPELLING, "suggest_mode": "missing", "min_word_length": 4, "prefix_length": 0, "size": 1}
        return {"text": self.text, "spelling": {"term": term}}

    def spelled(self, answer: Mapping[str, Any]) -> tuple[str, set[int]]:
        """From the answer to :meth:`suggest`: the corrected query (empty: nothing to correct), and the places of the
        words that the index does not know."""
        entries = [one for one in answer.get("suggest", {}).get("spelling", []) if one["options"]]
        # Offsets count UTF-16 units, as Java does; from the end, so that earlier ones stay true.
        units = self.text.encode("utf-16-le")
        for entry in reversed(entries):
            start, end = 2 * entry["offset"], 2 * (entry["offset"] + entry["length"])
            units = units[:start] + entry["options"][0]["text"].encode("utf-16-le") + units[end:]
        return (units.decode("utf-16-le") if entries else ""), {self._place(entry["offset"]) for entry in entries}

    def _place(self, offset: int) -> int:
        return self.text.encode("utf-16-le")[: 2 * offset].decode("utf-16-le", "ignore").count(" ")


def _plain(text: str) -> str:
    """The text without punctuation and symbols, but for what stands within words: "don't", "3.5"."""
    shown = []
    for place, one in enumerate(text):
        if unicodedata.category(one)[0] in "LMN":
            shown.append(one)
        else:
            within = one in ".'’" and text[place - 1 : place].isalnum() and text[place + 1 : place + 2].isalnum()
            shown.append(one if within else " ")
    return "".join(shown)


def _other_number(word: str) -> str:
    """A noun's plural, or its singular, as English makes most of them; empty where it is no such word."""
    if len(word) < _MIN_COMPLETED or not (word.isascii() and word.isalpha()):
        return ""
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("s"):
        return "" if word.endswith("ss") else word[:-1]
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def _across(words: Sequence[str]) -> dict[str, Any]:
    """Over all fields as over one: "red nike" need not be in one field, and a word is as rare as it is overall."""
    match = {"query": " ".join(words), "type": "cross_fields", "operator": "and"}
    return {"multi_match": {**match, "fields": FIELDS, "tie_breaker": _TIE}}


def _phrase(text: str) -> dict[str, Any]:
    return {"multi_match": {"query": text, "type": "phrase", "fields": FIELDS, "tie_breaker": _TIE}}


def _pairs_of(word: str) -> Sequence[str]:
    return [word] if len(word) < 2 else [word[at : at + 2] for at in range(len(word) - 1)]
