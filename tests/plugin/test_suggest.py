"""Autocomplete: matching against plain reference implementations, in several languages, within bounds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.catalog.texts import PackedTexts
from endcap.events import Action
from endcap.popularity import Popularity
from endcap.profiles import DAY_S
from endcap.recommend.behaviour import Behaviour
from endcap.recommend.shelves import Shelves
from endcap.suggest import FEWEST_SHOPPERS, QueryCounts, Suggester, WordIndex, _distance, _letters, shown_query, words

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Family Cereal, 18 oz", ["family", "cereal", "18", "oz"]),
        ("Crème brûlée", ["creme", "brulee"]),
        ("Weiße Äpfel", ["weisse", "apfel"]),
        ("牛奶巧克力", ["牛", "奶", "巧", "克", "力"]),
        ("USB线 2m", ["usb", "线", "2m"]),
        ("WD-40", ["wd", "40"]),
        ("  <b>\x00", ["b"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def osa(left: str, right: str) -> int:
    """Optimal string alignment, as in textbooks."""
    rows = [[i + j if i * j == 0 else 0 for j in range(len(right) + 1)] for i in range(len(left) + 1)]
    for i in range(1, len(left) + 1):
        for j in range(1, len(right) + 1):
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (left[i - 1] != right[j - 1]))
            if i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("most", [1, 2])
def test_typing_errors_are_counted_as_in_the_textbook(whole: bool, most: int) -> None:
    source = random.Random(most)
    vocabulary = ["".join(source.choices("abc", k=source.randint(1, 11))) for _ in range(400)]
    letters, lengths = _letters(vocabulary)
    for _ in range(40):
        word = "".join(source.choices("abc", k=source.randint(2, 10)))
        found = _distance(word, letters, lengths, whole, most)
        for other, distance in zip(vocabulary, found.tolist()):
            parts = [other] if whole else [other[:end] for end in range(len(other) + 1)]
            expected = min(osa(word, part) for part in parts)
            assert (distance if distance <= most else most + 1) == min(expected, most + 1), (word, other)


def test_matching_is_by_words_and_the_last_ones_beginning() -> None:
    source = random.Random(3)
    syllables = ["mil", "ko", "cho", "cola", "te", "bar", "red", "ice"]
    texts = [" ".join("".join(source.choices(syllables, k=2)) for _ in range(source.randint(1, 4))) for _ in range(500)]
    index, weights = WordIndex(texts), np.ones(500)
    for typed in ("milko", "milko cho", "teb", "barred ice", "colacola m", "rediceX"):
        *others, last = words(typed)
        expected = [
            row
            for row, text in enumerate(texts)
            if all(one in text.split() for one in others) and any(one.startswith(last) for one in text.split())
        ]
        rows, scores = index.match(typed, weights, 500)
        if expected:
            assert sorted(rows.tolist()) == expected
        assert (np.diff(scores) <= 0).all()


def test_what_sells_comes_first_and_what_begins_so_counts() -> None:
    index = WordIndex(["chocolate milk", "milk", "milk bar", "soap"])
    assert index.match("mil", np.array([1.0, 1.0, 1.0, 9.0]), 10)[0].tolist() == [1, 2, 0]
    assert index.match("mil", np.array([9.0, 1.0, 2.0, 0.0]), 2)[0].tolist() == [0, 2]
    assert index.match("milk ", np.zeros(4), 10)[0].tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("typed", "found"),
    [("milhc", 0), ("vollmlich fri", 0), ("kaese", 1), ("seife", None), ("käs", 1), ("牛", 2), ("牛奶", 2)],
)
def test_other_languages(typed: str, found: int | None) -> None:
    index = WordIndex(["Milch frisch Vollmilch", "Käse jung", "纯牛奶 1L"])
    rows = index.match(typed, np.ones(3), 5)[0].tolist()
    assert rows == ([] if found is None else [found])


@pytest.mark.parametrize("typed", ["", "   ", "?!", "zzzzzz", "x" * 500, "a " * 500, "\ud800", "'; DROP TABLE"])
def test_anything_may_be_typed(typed: str) -> None:
    assert WordIndex(["milk"]).match(typed, np.ones(1), 5)[0].tolist() == []
    assert WordIndex([]).match(typed, np.ones(0), 5)[0].tolist() == []


def test_titles_are_kept_as_they_are() -> None:
    texts = ["Milk", "", "牛奶 🥛", "é" * 200]
    packed = PackedTexts(texts)
    assert list(packed) == texts
    with pytest.raises(IndexError):
        packed[4]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("  Oat   MILK ", "oat milk"),
        ("Äpfel", "äpfel"),
        ("16gb ddr4 3200", "16gb ddr4 3200"),
        ("x", ""),
        ("ann@example.org", ""),
        ("4111 1111 1111 1111", ""),
        ("<b>milk", ""),
        ("https://example.org", ""),
        ("m" * 61, ""),
        ("milk\u202e", ""),
    ],
)
def test_what_may_be_shown_to_others(typed: str, shown: str) -> None:
    assert shown_query(typed) == shown


def counts_of(rows: list[tuple[str, str, float, Action]], most: int = 100) -> QueryCounts:
    counts = QueryCounts(most)
    counts.add(
        [row[0] for row in rows],
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows], dtype=np.uint8),
        [row[1] for row in rows],
    )
    return counts


def test_queries_need_several_shoppers_and_fade() -> None:
    rows = [("oat milk", f"s{number}", NOW, Action.SEARCH) for number in range(FEWEST_SHOPPERS)]
    rows += [("old milk", f"s{number}", NOW - 28 * DAY_S, Action.SEARCH) for number in range(FEWEST_SHOPPERS)]
    rows += [("my secret", "s1", NOW, Action.SEARCH)] * 50 + [("seen", "s1", NOW, Action.IMPRESSION)]
    best = counts_of(rows).best(NOW)
    assert list(best) == ["oat milk", "old milk"]
    assert best["oat milk"] == pytest.approx(FEWEST_SHOPPERS)
    assert best["old milk"] == pytest.approx(FEWEST_SHOPPERS / 4)
    assert counts_of(rows).best(NOW + 300 * DAY_S) == {}


def test_queries_are_bounded_and_survive_a_restart() -> None:
    rows = [("often asked", f"s{number}", NOW, Action.SEARCH) for number in range(5)]
    counts = counts_of(rows, most=50)
    for start in range(0, 500, 20):
        more = [(f"query {start + number}", "s", NOW, Action.SEARCH) for number in range(20)]
        counts.add(
            [one[0] for one in more], np.full(20, NOW), np.full(20, Action.SEARCH, np.uint8), [one[1] for one in more]
        )
        assert len(counts) <= 50
    assert list(counts.best(NOW)) == ["often asked"]
    other = QueryCounts(50)
    other.restore(counts.to_bytes())
    assert other.best(NOW) == counts.best(NOW)
    assert len(other) == len(counts)


def test_a_new_table_is_searched_anew_and_an_old_one_keeps_its_words() -> None:
    def shelves(*titles: str) -> Shelves:
        products = [Product(str(number), title, categories=("Food", title)) for number, title in enumerate(titles)]
        return Shelves(ProductTable(products), Popularity(), Behaviour(), NOW)

    first = shelves("Milk", "Milk", "")
    one = Suggester.over(first, {"milk shake": 2.0})
    assert [product.title for product in one.products("mi", 5)] == ["Milk"], "one title once"
    assert [product.title for product in one.products("2", 5)] == ["2"], "the id where there is no title"
    assert [category.path for category in one.categories("mi", 5)] == ["Food > Milk"]
    assert one.categories("food", 5)[0].products == 3
    assert one.queries("mi", 5) == ["milk shake"]
    assert Suggester.over(first, {}, one)._products is one._products
    assert [product.title for product in Suggester.over(shelves("Mint"), {}, one).products("mi", 5)] == ["Mint"]
