"""Autocomplete: what a shopper may be about to type, among queries, products and categories.

Words are indexed in sorted order, so that every word beginning with what was typed lies in one range; typing errors
are found by an edit distance over the whole vocabulary at once. Nothing here asks the engine.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson

from endcap.catalog.product import PATH_SEPARATOR
from endcap.events import Action
from endcap.profiles import DAY_S

if TYPE_CHECKING:
    from endcap.recommend.shelves import Shelves

#: Words of what was typed that count, and of a text that is indexed.
_MOST_TYPED, _MOST_WORDS = 8, 24
#: Letters of a word that the edit distance looks at.
_LETTERS = 12
#: Chinese, Japanese and Thai are written without spaces: each sign is a word.
_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_]+")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def words(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFC", "".join(one for one in folded if not unicodedata.combining(one)))
        # Letters and the signs of unspaced scripts may stand side by side: "usb线".
        folded = _UNSPACED.sub(r" \g<0> ", folded)
    return _WORD.findall(folded)


class WordIndex:
    """Finds texts by the beginnings of their words. Immutable."""

    def __init__(self, texts: Iterable[str]) -> None:
        number: dict[str, int] = {}
        found: list[int] = []
        counts: list[int] = []
        first: list[int] = []
        for text in texts:
            ids = [number.setdefault(word, len(number)) for word in dict.fromkeys(words(text)[:_MOST_WORDS])]
            found.extend(ids)
            counts.append(len(ids))
            first.append(ids[0] if ids else -1)
        self.count = len(counts)
        self._words = sorted(number)
        place = np.empty(len(number) + 1, dtype=np.int32)
        place[[number[word] for word in self._words]] = np.arange(len(number), dtype=np.int32)
        place[-1] = -1
        word = place[np.array(found, dtype=np.int64)]
        rows = np.repeat(np.arange(self.count, dtype=np.int32), counts)
        order = np.argsort(word, kind="stable")
        self._rows = rows[order]
        self._starts = np.searchsorted(word[order], np.arange(len(number) + 1))
        self._first = place[np.array(first, dtype=np.int64)]
        self._letters, self._lengths = _letters(self._words)

    def match(self, typed: str, weights: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The best texts for what was typed: rows (int64) and scores (float64), best first.

        All words must match, the last one as a beginning; words that match nothing are matched with typing errors.
        ``weights``: float (count,), which text is preferred, any scale from 0 up.
        """
        asked = words(typed)[:_MOST_TYPED]
        if not asked or not self.count:
            return np.empty(0, dtype=np.int64), np.empty(0)
        finished = typed[-1:].isspace()
        for errors in (False, True):
            mask, beginning = self._matching(asked, finished, errors)
            rows = np.flatnonzero(mask)
            if len(rows):
                break
        else:
            return np.empty(0, dtype=np.int64), np.empty(0)
        scores = weights[rows] / max(float(weights.max()), 1e-9) + 0.4 * beginning[rows]
        if len(rows) > most:
            best = np.argpartition(-scores, most - 1)[:most]
            rows, scores = rows[best], scores[best]
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order]

    def _matching(self, asked: Sequence[str], finished: bool, errors: bool) -> tuple[np.ndarray, np.ndarray]:
        mask = np.ones(self.count, dtype=bool)
        beginning = np.zeros(self.count, dtype=bool)
        for position, word in enumerate(asked):
            last = position == len(asked) - 1
            low, high = self._range(word, whole=not last or finished)
            if low == high:
                low, high = self._range(word, whole=False)
            ranges = [(low, high)] if low < high else []
            if errors or not ranges:
                ranges += [(one, one + 1) for one in self._near(word, whole=not last or finished).tolist()]
            here = np.zeros(self.count, dtype=bool)
            for low, high in ranges:
                here[self._rows[self._starts[low] : self._starts[high]]] = True
                if position == 0:
                    beginning |= (self._first >= low) & (self._first < high)
            mask &= here
        return mask, beginning

    def _range(self, word: str, whole: bool) -> tuple[int, int]:
        low = bisect_left(self._words, word)
        if whole:
            return low, low + int(low < len(self._words) and self._words[low] == word)
        return low, bisect_left(self._words, word + "\U0010ffff")

    def _near(self, word: str, whole: bool) -> np.ndarray:
        """Words within one typing error of a word of 4 letters or more, two from 8 on; the nearest ones only."""
        allowed = 0 if len(word) < 4 else 1 if len(word) < 8 else 2
        if not allowed or len(word) > _LETTERS:
            return np.empty(0, dtype=np.int64)
        distance = _distance(word, self._letters, self._lengths, whole, allowed)
        near = np.flatnonzero(distance <= allowed)
        return near[distance[near] == distance[near].min()][:200] if len(near) else near


def _letters(vocabulary: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The first letters of each word, uint16 (_LETTERS + 2, n), 0 behind its end; and the words' lengths, uint8."""
    letters = np.zeros((len(vocabulary), _LETTERS + 2), dtype=np.uint16)
    for row, word in enumerate(vocabulary):
        codes = [min(ord(letter), 0xFFFF) for letter in word[: _LETTERS + 2]]
        letters[row, : len(codes)] = codes
    lengths = np.array([min(len(word), 255) for word in vocabulary], dtype=np.uint8)
    return np.ascontiguousarray(letters.T), lengths


def _distance(word: str, letters: np.ndarray, lengths: np.ndarray, whole: bool, most: int) -> np.ndarray:
    """Errors (insertion, deletion, another letter, two letters exchanged) between a word and each word of the
    vocabulary, or the nearest beginning of it; uint8, right up to ``most``, larger above."""
    size = len(letters), len(lengths)
    far = np.uint8(most + 1)
    before: list[np.ndarray] = []
    row = [np.full(size[1], min(j, most + 1), dtype=np.uint8) for j in range(size[0] + 1)]
    for i, letter in enumerate(word, start=1):
        code = np.uint16(min(ord(letter), 0xFFFF))
        new = [np.full(size[1], far, dtype=np.uint8)] * (size[0] + 1)
        if i <= most:
            new[0] = np.full(size[1], i, dtype=np.uint8)
        # Outside of this band the distance is larger than allowed.
        for j in range(max(1, i - most), min(size[0], i + most) + 1):
            cost = row[j - 1] + (letters[j - 1] != code)
            np.minimum(cost, row[j] + np.uint8(1), out=cost)
            np.minimum(cost, new[j - 1] + np.uint8(1), out=cost)
            if i > 1 and j > 1:
                swapped = (letters[j - 2] == code) & (letters[j - 1] == np.uint16(min(ord(word[i - 2]), 0xFFFF)))
                np.minimum(cost, np.where(swapped, before[j - 2] + np.uint8(1), far), out=cost)
            new[j] = np.minimum(cost, far)
        before, row = row, new
    result = np.full(size[1], far, dtype=np.uint8)
    for j in range(max(0, len(word) - most), min(size[0], len(word) + most) + 1):
        here = lengths == j if whole else lengths >= j
        np.minimum(result, np.where(here, row[j], far), out=result)
    return result


_T0 = 1_420_070_400.0  # 2015-01-01, as in popularity.py: decayed sums do not depend on the order of events
_HALF_LIFE_S = 14 * DAY_S
#: A query is shown to others once so many shoppers have typed it: what one alone types may be his own affair.
FEWEST_SHOPPERS = 3
_MOST_QUERIES = 20_000
_LONGEST_QUERY = 60


def shown_query(text: str) -> str:
    """A query as it may be suggested to others: lower case, one space between words; empty if it may not be: markup,
    addresses, long numbers (a card, a phone), very long ones."""
    plain = " ".join(text.lower().split())
    if not 2 <= len(plain) <= _LONGEST_QUERY or not plain.isprintable():
        return ""
    if any(sign in plain for sign in "<>@\"'`{}\\") or "://" in plain or sum(map(str.isdigit, plain)) > 8:
        return ""
    return plain


class QueryCounts:
    """How often queries were typed, decayed by half in two weeks: at most 20,000, the rarest given up first.

    One writer. A query that led to a click or a purchase counts for it again, half.
    """

    def __init__(self, most: int = _MOST_QUERIES) -> None:
        self._most = most
        self._sums: dict[str, float] = {}
        self._shoppers: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, queries: Sequence[str], times: np.ndarray, actions: np.ndarray, shoppers: Sequence[str]) -> None:
        """Count a batch of the log, all (m,)."""
        for row, query in enumerate(queries):
            if not query or actions[row] == Action.IMPRESSION:
                continue
            text = shown_query(query)
            if not text:
                continue
            weight = 1.0 if actions[row] == Action.SEARCH else 0.5
            self._sums[text] = self._sums.get(text, 0.0) + weight * 2.0 ** ((float(times[row]) - _T0) / _HALF_LIFE_S)
            known = self._shoppers.get(text, ())
            if len(known) < FEWEST_SHOPPERS and (key := _short_hash(shoppers[row])) not in known:
                self._shoppers[text] = (*known, key)
        if len(self._sums) > self._most:
            kept = sorted(self._sums, key=self._sums.__getitem__, reverse=True)[: self._most * 3 // 4]
            self._sums = {text: self._sums[text] for text in kept}
            self._shoppers = {text: self._shoppers[text] for text in kept}

    def best(self, now: float) -> dict[str, float]:
        """The queries that may be shown, with their decayed counts as of ``now``."""
        scale = 2.0 ** ((_T0 - now) / _HALF_LIFE_S)
        found = {
            text: value * scale
            for text, value in self._sums.items()
            if len(self._shoppers[text]) >= FEWEST_SHOPPERS and value * scale > 0.01
        }
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def to_bytes(self) -> bytes:
        """Everything, for a snapshot."""
        return orjson.dumps([[text, value, self._shoppers[text]] for text, value in self._sums.items()])

    def restore(self, content: bytes) -> None:
        """Take up what :meth:`to_bytes` gave."""
        rows = orjson.loads(content)
        self._sums = {text: value for text, value, _ in rows}
        self._shoppers = {text: tuple(shoppers) for text, _, shoppers in rows}


def _short_hash(shopper: str) -> int:
    from endcap.recommend.behaviour import shopper_key

    return shopper_key(shopper)


@dataclass(frozen=True, slots=True)
class ProductChoice:
    """A product that was matched; ``score`` from 0 up."""

    id: str
    title: str
    brand: str
    category: str
    price: float | None
    score: float


@dataclass(frozen=True, slots=True)
class CategoryChoice:
    """A category: its path, its own name, how many products it has."""

    path: str
    name: str
    products: int


class Suggester:
    """What may be suggested over one product table. Immutable, thread-safe."""

    def __init__(self, shelves: Shelves, queries: dict[str, float], products: WordIndex) -> None:
        self._shelves = shelves
        self._products = products
        self._weights = shelves.selling
        self._queries = list(queries)
        self._query_weights = np.log1p(np.fromiter(queries.values(), dtype=np.float64, count=len(queries)))
        self._query_index = WordIndex(self._queries)
        counts: dict[str, int] = {}
        per_leaf = np.bincount(shelves.table.category[:-1] + 1, minlength=len(shelves.paths) + 1)[1:]
        for code, path in enumerate(shelves.paths):
            parts = path.split(PATH_SEPARATOR)
            for depth in range(1, len(parts) + 1):
                above = PATH_SEPARATOR.join(parts[:depth])
                counts[above] = counts.get(above, 0) + int(per_leaf[code])
        self._paths = list(counts)
        self._counts = list(counts.values())
        self._category_weights = np.log1p(np.array(self._counts, dtype=np.float64))
        self._category_index = WordIndex(path.rpartition(PATH_SEPARATOR)[2] for path in self._paths)

    @classmethod
    def over(cls, shelves: Shelves, queries: dict[str, float], old: Suggester | None = None) -> Suggester:
        """The suggester of some shelves; the words of an ``old`` one serve again if the products are the same."""
        if old is not None and old._shelves.table is shelves.table:
            return cls(shelves, queries, old._products)
        return cls(shelves, queries, WordIndex(shelves.table.titles))

    def queries(self, typed: str, most: int) -> list[str]:
        """Queries that go on from what was typed, most frequent first."""
        rows, _ = self._query_index.match(typed, self._query_weights, most + 1)
        already = " ".join(typed.lower().split())
        return [self._queries[row] for row in rows.tolist() if self._queries[row] != already][:most]

    def categories(self, typed: str, most: int) -> list[CategoryChoice]:
        """Categories of whose own name the words are part."""
        rows, _ = self._category_index.match(typed, self._category_weights, most)
        return [
            CategoryChoice(self._paths[row], self._paths[row].rpartition(PATH_SEPARATOR)[2], self._counts[row])
            for row in rows.tolist()
        ]

    def products(self, typed: str, most: int) -> list[ProductChoice]:
        """Products by the words of their titles, best selling first; of one title only the best."""
        table = self._shelves.table
        rows, scores = self._products.match(typed, self._weights, 4 * most)
        chosen: dict[str, ProductChoice] = {}
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            title = table.titles[row]
            if title not in chosen:
                price = float(table.price[row])
                chosen[title] = ProductChoice(
                    table.ids[row],
                    title,
                    table.brands[table.brand[row]] if table.brand[row] >= 0 else "",
                    self._shelves.path(int(table.category[row])),
                    price if np.isfinite(price) else None,
                    score,
                )
                if len(chosen) == most:
                    break
        return list(chosen.values())
