"""Words that mean the same, applied to what is searched for – never to the index, so that a change counts at once.

Rules are written as in Solr's ``synonyms.txt``:

* ``tv, television, telly``: whoever types one finds products that say any of them; what was typed counts most.
* ``i-pod, i pod => ipod``: what stands on the left is replaced by what stands on the right (several: any of them).
* ``#`` begins a comment.

Rules are applied once, to what was typed, never to their own results: a cycle (``a => b``, ``b => a``) is harmless.
Case and punctuation do not count.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from endcap.errors import ConfigurationError, EndcapError, InvalidInput

#: Rules in force at once; terms in one rule; words in one term; characters of a rule.
MOST_RULES, MOST_TERMS, MOST_WORDS, MOST_CHARACTERS = 20_000, 50, 6, 2_000
#: Other ways of saying a query that are searched for beside it: each costs a query of its own.
MOST_VARIANTS = 8
#: Longer queries are sentences, in which a word more or less changes little.
_LONGEST_QUERY = 24
_WORD = re.compile(r"[^\W_]+(?:[-'’./+&][^\W_]+)*", re.UNICODE)

Term = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """``sources`` may be said as any of ``targets``. ``replaces``: ... and are not searched for themselves."""

    sources: tuple[Term, ...]
    targets: tuple[Term, ...]
    replaces: bool

    @property
    def written(self) -> str:
        """The rule as one line."""
        right = ", ".join(map(" ".join, self.targets))
        return f"{', '.join(map(' '.join, self.sources))} => {right}" if self.replaces else right


@dataclass(frozen=True, slots=True)
class Expansion:
    """What is searched for: ``text``, and ``variants`` that count as nearly the same."""

    text: str
    variants: tuple[str, ...] = ()


class Synonyms:
    """An immutable set of rules."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        replaced: dict[Term, list[Term]] = {}
        beside: dict[Term, list[Term]] = {}
        for rule in rules:
            known = replaced if rule.replaces else beside
            for source in rule.sources:
                others = known.setdefault(source, [])
                others += [one for one in rule.targets if one not in others and (rule.replaces or one != source)]
        self._replaced: Mapping[Term, Sequence[Term]] = replaced
        self._beside: Mapping[Term, Sequence[Term]] = beside
        self._longest = max(map(len, [*replaced, *beside]), default=0)

    def __bool__(self) -> bool:
        return self._longest > 0

    def expand(self, text: str) -> Expansion:
        """The query as it is to be searched for. The longest rule that fits a place counts there."""
        if not self._longest:
            return Expansion(text)
        typed = _WORD.findall(text)
        if not typed or len(typed) > _LONGEST_QUERY:
            return Expansion(text)
        words = [_folded(one) for one in typed]
        parts: list[list[Term]] = []  # per place: what may stand there, what counts most first
        at, changed = 0, False
        while at < len(words):
            length, others = self._at(words, at)
            parts.append(others or [(typed[at],)])
            changed = changed or bool(others)
            at += length
        if not changed:
            return Expansion(text)
        first = " ".join(" ".join(one[0]) for one in parts)
        variants: list[str] = []
        # One place at a time, then all at once: every combination would be too many.
        for place, ways in enumerate(parts):
            variants += [
                " ".join(" ".join(way if n == place else one[0]) for n, one in enumerate(parts)) for way in ways[1:]
            ]
        if sum(len(ways) > 1 for ways in parts) > 1:
            variants.insert(0, " ".join(" ".join(one[min(1, len(one) - 1)]) for one in parts))
        unlike = [one for one in dict.fromkeys(variants) if one != first]
        return Expansion(first, tuple(unlike[:MOST_VARIANTS]))

    def _at(self, words: Sequence[str], at: int) -> tuple[int, list[Term]]:
        for length in range(min(self._longest, len(words) - at), 0, -1):
            term = tuple(words[at : at + length])
            if term in self._replaced:
                return length, list(self._replaced[term])
            if term in self._beside:
                return length, [term, *self._beside[term]]
        return 1, []


def parse_rule(line: str) -> Rule:
    """One rule.

    Raises:
        InvalidInput: it is none.
    """
    if len(line) > MOST_CHARACTERS:
        raise InvalidInput(f"a synonym rule has {MOST_CHARACTERS:,} characters at most")
    left, arrow, right = line.partition("=>")
    if "=>" in right:
        raise InvalidInput(f"a synonym rule has one => at most: {line.strip()!r:.80}")
    sources, targets = _terms(left, line), _terms(right, line) if arrow else ()
    if arrow and not targets:
        raise InvalidInput(f"nothing stands behind =>: {line.strip()!r:.80}")
    if not sources or (not arrow and len(sources) < 2):
        raise InvalidInput(f"a synonym rule is `a, b` or `a => b`: {line.strip()!r:.80}")
    return Rule(sources, targets or sources, bool(arrow))


def parse_file(text: str) -> list[Rule]:
    """The rules of a whole file.

    Raises:
        InvalidInput: naming the line.
    """
    rules = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        content = line.partition("#")[0]
        if not content.strip():
            continue
        try:
            rules.append(parse_rule(content))
        except InvalidInput as error:
            raise InvalidInput(f"line {number}: {error}") from None
    if len(rules) > MOST_RULES:
        raise InvalidInput(f"{len(rules):,} rules; {MOST_RULES:,} are the most")
    return rules


class LiveSynonyms:
    """The rules in force in this process: the file's and the stored ones, looked at again by :meth:`turn`."""

    def __init__(
        self, file: str, version: Callable[[], object] = lambda: 0, stored: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._file = Path(file) if file else None
        self._version, self._stored = version, stored
        self._seen: object = None
        self._lock = threading.Lock()
        self.current = Synonyms()

    def turn(self) -> float:
        """Look for changes; what was in force stays where the file cannot be read.

        Raises:
            ConfigurationError: the file cannot be read or holds what is no rule.
        """
        began = time.monotonic()
        with self._lock:
            seen = (self._stamp(), self._version())
            if seen != self._seen:
                rules = [parse_rule(one) for one in self._stored()]
                self.current = Synonyms([*self._read(), *rules])
                self._seen = seen
        return 10 * (time.monotonic() - began)

    def _stamp(self) -> object:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError as error:
            raise ConfigurationError(f"synonyms_file cannot be read: {error}") from None
        return found.st_mtime_ns, found.st_size

    def _read(self) -> list[Rule]:
        if self._file is None:
            return []
        try:
            return parse_file(self._file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, EndcapError) as error:
            raise ConfigurationError(f"synonyms_file {self._file}: {error}") from None


def _terms(text: str, line: str) -> tuple[Term, ...]:
    found = []
    for part in text.split(","):
        words = tuple(_folded(one) for one in _WORD.findall(part))
        if not words:
            if part.strip():
                raise InvalidInput(f"{part.strip()!r:.40} holds no word: {line.strip()!r:.80}")
            continue
        if len(words) > MOST_WORDS:
            raise InvalidInput(f"{' '.join(words)!r:.60} has more than {MOST_WORDS} words")
        found.append(words)
    if len(found) > MOST_TERMS:
        raise InvalidInput(f"a synonym rule has {MOST_TERMS} terms at most, this one has {len(found)}")
    return tuple(dict.fromkeys(found))


def _folded(word: str) -> str:
    return word.casefold()
