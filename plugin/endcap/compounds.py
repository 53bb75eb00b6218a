"""Words made of words: who looks for a *Kanne* means a *Teekanne*, too.

German and its neighbours write compounds as one word, the last part of which says what the thing is. No dictionary
knows a shop's range, so the parts are learnt from it: a title's word is a compound of another one (its *head*) where it
ends in it and what stands before, with or without a linking sound (*Küche-n-maschine*), is a word of the titles as
well, or begins several of them (*Wasser-kocher*, *Wasser-filter*), or both are long. After Koehn and Knight, EACL 2003,
"Empirical methods for compound splitting", which also takes the parts from the texts at hand.

Like synonyms, compounds are applied to what is searched for: they need no index of their own.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from endcap.settings import Settings
from endcap.synonyms import Expansion

#: Analyzers of languages that write compounds as one word.
LANGUAGES = frozenset({"danish", "dutch", "finnish", "german", "norwegian", "swedish"})
#: Other ways of saying a query that are added at most: each is searched for beside it.
MOST_VARIANTS = 12

_WORD = re.compile(r"[^\W\d_]+")
_MIN_HEAD, _MIN_FIRST = 3, 3
#: A first part that is no word of its own has so many letters, and begins so many words.
_MIN_BEGINNING, _BEGINNINGS = 4, 3
#: ... or of so many, before a head of so many: what ends in a long word by chance is rare.
_LONG_FIRST, _LONG_HEAD = 4, 5
#: What may stand between two parts; and what a first part may have lost ("Schul-tasche" of "Schule").
_LINKS = ("", "s", "n", "en", "es", "er", "e", "ns")
_LOST = ("e", "en")
#: Endings of a plural, or of the singular beside it; so many letters have to be left.
_ENDINGS = ("en", "n", "e", "s")
_LEFT = 3
_LONGEST_QUERY, _LONGEST_WORD = 6, 60
#: Words with one ending that are looked at: a search waits for it.
_MOST_LOOKED_AT = 1_000


class Compounds:
    """The compounds among some titles' words. Immutable."""

    def __init__(self, titles: Iterable[str] = ()) -> None:
        counts: Counter[str] = Counter()
        for title in titles:
            counts.update(set(_WORD.findall(title.lower())))
        self._counts = counts
        self._words = sorted(counts)
        self._otherwise = lru_cache(maxsize=10_000)(self._said)
        # Backwards, so that words with one ending lie side by side.
        self._endings = sorted((stem[::-1], word) for word in counts for stem in [_stem(word)])

    def ending_in(self, word: str) -> list[str]:
        """The compounds of which a word (or its other number) is the head, and that other number; most frequent
        first."""
        word = word.lower()
        stem = _stem(word)
        if len(stem) < _MIN_HEAD or not _WORD.fullmatch(stem):
            return []
        backwards = stem[::-1]
        low = bisect_left(self._endings, (backwards, ""))
        found = []
        for reverse, compound in self._endings[low : low + _MOST_LOOKED_AT]:
            if not reverse.startswith(backwards):
                break
            first = reverse[len(backwards) :][::-1]
            long = len(first) >= _LONG_FIRST and len(word) >= _LONG_HEAD
            other_number = not first and compound != word
            if other_number or long or (len(first) >= _MIN_FIRST and self._is_first(first)):
                found.append(compound)
        return sorted(found, key=lambda one: (-self._counts[one], one))

    def parts(self, word: str) -> tuple[str, str] | None:
        """The two words of the titles that a compound is made of; of several ways the one whose rarer part is most
        frequent."""
        word = word.lower()
        best, chosen = 0, None
        for at in range(_MIN_FIRST, len(word) - _MIN_HEAD):
            head = word[at:]
            if not self._counts[head]:
                continue
            for first in self._firsts(word[:at]):
                rarer = min(self._counts[first], self._counts[head])
                if rarer > best:
                    best, chosen = rarer, (first, head)
        return chosen

    def expand(self, said: Expansion) -> Expansion:
        """The query with further ways of saying it: with a compound instead of its head, or a compound's parts instead
        of it; one place at a time."""
        typed = said.text.split()
        if not self._words or not typed or len(typed) > _LONGEST_QUERY:
            return said
        ways = [
            [" ".join([*typed[:place], one, *typed[place + 1 :]]) for one in self._otherwise(word)]
            for place, word in enumerate(typed)
            if len(word) <= _LONGEST_WORD
        ]
        # In turns, so that no word takes all the room.
        added = [each[n] for n in range(MOST_VARIANTS) for each in ways if n < len(each)][:MOST_VARIANTS]
        return Expansion(said.text, tuple(dict.fromkeys([*said.variants, *added])))

    def _said(self, word: str) -> tuple[str, ...]:
        """What a word may be searched for as, beside itself: its parts, then the compounds that end in it."""
        apart = self.parts(word)
        return (*([" ".join(apart)] if apart else []), *self.ending_in(word)[:MOST_VARIANTS])

    def _is_first(self, part: str) -> bool:
        return bool(self._firsts(part)) or (len(part) >= _MIN_BEGINNING and self._begins(part) >= _BEGINNINGS)

    def _firsts(self, part: str) -> Sequence[str]:
        """The words of the titles that a compound may begin with as ``part``."""
        found = [
            stripped
            for link in _LINKS
            if part.endswith(link) and len(stripped := part.removesuffix(link)) >= _MIN_FIRST and self._counts[stripped]
        ]
        return found or [part + lost for lost in _LOST if self._counts[part + lost]]

    def _begins(self, part: str) -> int:
        """How many words begin with it."""
        return bisect_left(self._words, part + "\U0010ffff") - bisect_left(self._words, part)


def splits_compounds(settings: Settings) -> bool:
    """Whether the settings say that words are made of words."""
    return settings.compounds == "on" or (settings.compounds == "auto" and settings.analyzer in LANGUAGES)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEFT:
            return word.removesuffix(ending)
    return word
