"""What shops write for prices, stocks, ids, texts and category paths."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.catalog.values import (
    Unusable,
    is_missing,
    path_separator,
    to_categories,
    to_id,
    to_link,
    to_number,
    to_price,
    to_stock,
    to_text,
    writes_decimal_comma,
)


@pytest.mark.parametrize(
    ("written", "price"),
    [
        (12, 12.0),
        (12.5, 12.5),
        (Decimal("9.90"), 9.9),
        ("1299", 1299.0),
        ("$1,299.00", 1299.0),
        ("1.234,56", 1234.56),
        ("1.234,56 €", 1234.56),
        ("EUR 1.234.567,89", 1234567.89),
        ("€12,50", 12.5),
        ("12,5", 12.5),
        ("1,299", 1299.0),
        ("1,299,000", 1299000.0),
        ("1.299.000", 1299000.0),
        ("1.299", 1.299),
        ("0.999", 0.999),
        ("1 299,00 kr", 1299.0),
        ("1\u00a0299,00\u00a0€", 1299.0),
        ("1'299.50", 1299.5),
        ("1’299.-", 1299.0),
        ("CHF 20.–".replace("–", "-"), 20.0),
        ("US$ 5", 5.0),
        ("£.99", 0.99),
        ("¥1200", 1200.0),
        ("19.90 EUR", 19.9),
        ("Rs. 450", 450.0),
        ("1e3", 1000.0),
        (["7.5"], 7.5),
        ("0", 0.0),
    ],
)
def test_prices_are_read(written: Any, price: float) -> None:
    assert to_price(written) == pytest.approx(price)


def test_a_file_that_writes_decimal_commas_groups_with_points() -> None:
    prices = ["12,50", "3,99", "1.299", "1.234,00 €"]
    assert writes_decimal_comma(prices)
    assert to_price("1.299", decimal_comma=True) == 1299.0
    assert to_price("12,50", decimal_comma=True) == 12.5
    assert to_price("1,299", decimal_comma=True) == 1.299
    assert not writes_decimal_comma(["12.50", "1,299.00", "1,299"])
    assert not writes_decimal_comma([12.5, None, "1,299"])


@pytest.mark.parametrize(
    "written",
    [
        "on request",
        "9.99 - 12.99",
        "12.3.4",
        "1,2,3",
        "--5",
        "nan",
        "inf",
        float("nan"),
        math.inf,
        True,
        {},
        ["1", "2"],
        1e31,
        10**400,
    ],
)
def test_what_is_no_price_is_refused(written: Any) -> None:
    with pytest.raises(Unusable, match="not a number"):
        to_price(written)


@pytest.mark.parametrize("written", [-1, "-1", "-$5.00", "- 3,50", "\u22122"])
def test_negative_prices_are_refused(written: Any) -> None:
    with pytest.raises(Unusable, match="negative"):
        to_price(written)


@pytest.mark.parametrize("written", [None, "", "  ", "N/A", "null", "-", []])
def test_nothing_is_an_unknown_price(written: Any) -> None:
    assert is_missing(written)
    assert to_price(written) is None
    assert to_stock(written) is None


@given(st.decimals(min_value=0, max_value=10**9, places=2), st.sampled_from(["", "$", "€ ", "USD "]))
def test_every_price_survives_both_ways_of_writing_it(price: Decimal, sign: str) -> None:
    english = f"{sign}{price:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert to_price(english) == pytest.approx(float(price))
    assert to_price(german) == pytest.approx(float(price))
    assert to_price(german, decimal_comma=True) == pytest.approx(float(price))


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_unusable(text: str) -> None:
    try:
        assert math.isfinite(to_number(text))
    except Unusable:
        pass


@pytest.mark.parametrize(
    ("written", "stock"),
    [
        (5, 5.0),
        ("12", 12.0),
        (-3, 0.0),
        (True, 1.0),
        (False, 0.0),
        ("In Stock", 1.0),
        ("in_stock", 1.0),
        ("https://schema.org/InStock", 1.0),
        ("http://schema.org/OutOfStock", 0.0),
        ("out of stock", 0.0),
        ("sold-out", 0.0),
        ("yes", 1.0),
        ("FALSE", 0.0),
    ],
)
def test_stocks_are_read(written: Any, stock: float) -> None:
    assert to_stock(written) == stock


def test_words_that_say_nothing_about_stock_are_refused() -> None:
    with pytest.raises(Unusable):
        to_stock("ships in 2 days")


@pytest.mark.parametrize(
    ("written", "product_id"),
    [(17, "17"), (17.0, "17"), (" a1 ", "a1"), ("茶-1", "茶-1"), ("0012", "0012"), ("x" * 512, "x" * 512)],
)
def test_ids_are_read(written: Any, product_id: str) -> None:
    assert to_id(written) == product_id


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "missing"),
        ("", "missing"),
        ("   ", "missing"),
        (1.5, "neither"),
        (True, "neither"),
        ([1], "neither"),
        ({}, "neither"),
        ("x" * 513, "512 bytes"),
        ("茶" * 171, "512 bytes"),
        ("a\0b", "control"),
        ("a\nb", "control"),
    ],
)
def test_bad_ids_are_refused(written: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        to_id(written)


def test_text_is_plain() -> None:
    written = "<p>Tea &amp; honey<br/>\n 500 g</p><script>alert(1)</script> 5 < 6"
    assert to_text(written, 100, strip_tags=True) == "Tea & honey 500 g 5 < 6"
    assert to_text("<b>bold</b>", 100) == "<b>bold</b>"
    assert to_text("a\0b\x07c", 100) == "a b c"
    assert to_text("half \ud800 pair", 100) == "half ? pair"
    assert to_text(["one", None, "two"], 100) == "one two"
    assert to_text(date(2020, 1, 2), 100) == "2020-01-02"
    assert to_text("綠茶" * 100, 10) == "綠茶" * 5
    assert to_text(float("2015"), 10) == "2015"


@given(st.text(max_size=200))
def test_any_text_can_be_stored(text: str) -> None:
    plain = to_text(text, 50, strip_tags=True)
    plain.encode()
    assert len(plain) <= 50
    assert "\0" not in plain


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (["Grocery > Honey"], ("Grocery", "Honey")),
        ([["Grocery", "Honey"]], ("Grocery", "Honey")),
        ([["A", "A > B", "A > B > C"]], ("A", "B", "C")),
        ([[["Beauty", "Skin"], ["All"]]], ("Beauty", "Skin")),
        (["Grocery", "Honey", None], ("Grocery", "Honey")),
        (["Grocery", "Grocery", "Honey"], ("Grocery", "Honey")),
        ([{"name": "Honey", "id": 3}], ("Honey",)),
        ([17], ("17",)),
        ([None], ()),
        (["  >  "], ()),
        (["A >> B > > C"], ("A", "B", "C")),
    ],
)
def test_category_paths_are_read(written: list[Any], path: tuple[str, ...]) -> None:
    assert to_categories(written, " > ") == path


@pytest.mark.parametrize(
    ("paths", "separator"),
    [
        (["A > B", "C"], " > "),
        (["A>B", "C>D"], ">"),
        (["A|B", "C|D"], "|"),
        (["Home/Kitchen", "Home/Bath"], "/"),
        (["TV/Audio", "Kitchen", "Bath", "Garden"], " > "),
        (["A » B"], "»"),
        ([["A", "B"]], " > "),
        ([None, 3], " > "),
    ],
)
def test_the_separator_of_paths_is_found(paths: list[Any], separator: str) -> None:
    assert path_separator(paths, " > ") == separator


def test_deep_and_long_paths_are_bounded() -> None:
    path = to_categories([[f"{n}" * 500 for n in range(1, 40)]], " > ")
    assert len(path) == 12
    assert max(map(len, path)) == 200


@pytest.mark.parametrize(
    ("written", "link"),
    [
        ("http://a/b.jpg", "http://a/b.jpg"),
        (["", "http://a/b.jpg", "http://a/c.jpg"], "http://a/b.jpg"),
        ([{"thumb": "t.jpg", "large": "l.jpg"}], "l.jpg"),
        ("http://a/b.jpg,http://a/c.jpg", "http://a/b.jpg"),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        (None, ""),
    ],
)
def test_links_are_read(written: Any, link: str) -> None:
    assert to_link(written) == link
