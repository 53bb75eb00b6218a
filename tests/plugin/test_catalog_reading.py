"""Product files of every format, as products and their attributes."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.catalog.json_array import elements
from endcap.catalog.keys import KeySet
from endcap.catalog.product import Product
from endcap.catalog.reading import CatalogReader
from endcap.catalog.rejects import Reject
from tests.plugin.catalog_files import Reading, as_csv, as_json, as_jsonl, as_parquet, write, zipped


@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f.parquet", "f.jsonl.gz", "f.json.gz", "f.csv.gz"])
def test_every_format_gives_the_same_products(tmp_path: Path, name: str) -> None:
    make = {"jsonl": as_jsonl, "json": as_json, "csv": as_csv, "parquet": as_parquet}
    kind = name.split(".")[1]
    path = make[kind](tmp_path / f"f.{kind}")
    reading = Reading(zipped(path) if name.endswith(".gz") else path)
    assert not reading.rejects
    assert not reading.notices
    assert reading.reader.complete
    assert reading.products == [
        Product(
            "a", "Honey, clover", categories=("Grocery", "Honey"), price=4.5, stock=3, attributes={"organic": True}
        ),
        Product("b", 'Say "cheese" please', categories=("Dairy",), price=7, stock=0, attributes={"organic": False}),
        Product("c", "綠茶"),
    ]


@pytest.mark.parametrize("name", ["f.csv", "f.parquet", "f.txt", "f"])
def test_the_content_decides_whatever_the_name(tmp_path: Path, name: str) -> None:
    reading = Reading(as_jsonl(tmp_path / name))
    assert reading.ids == ["a", "b", "c"]
    if name != "f":
        assert "whatever its name says" in reading.notices[0]


def test_repeated_ids_are_counted(tmp_path: Path) -> None:
    reading = Reading(
        write(tmp_path / "f.jsonl", '{"id": "a", "title": "x"}\n{"id": "b"}\n{"id": "a", "title": "y"}\n')
    )
    assert reading.ids == ["a", "b", "a"]
    assert reading.reader.duplicates == 1


@pytest.mark.parametrize(("delimiter", "quote"), [(",", ""), (";", ""), ("\t", ""), ("|", ""), (";", '"')])
def test_csv_dialects(tmp_path: Path, delimiter: str, quote: str) -> None:
    cells = [["sku", "name", "price"], ["1", "Tea, green; loose | leaf", "1.234,50"], ["2", "Coffee", "3,99"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL).writerows(cells)
    reading = Reading(write(tmp_path / "f.csv", text.getvalue()))
    assert [(one.id, one.title, one.price) for one in reading.products] == [
        ("1", "Tea, green; loose | leaf", 1234.5),
        ("2", "Coffee", 3.99),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_csv_encodings(tmp_path: Path, encoding: str) -> None:
    text = "id;title;price\r\n1;Käse für Grüße;1,50\r\n2;Crème brûlée;2,50\r\n"
    reading = Reading(write(tmp_path / "f.csv", text.encode(encoding)))
    assert [one.title for one in reading.products] == ["Käse für Grüße", "Crème brûlée"]
    assert any("Latin-1" in notice for notice in reading.notices) == (encoding in ("latin-1", "cp1252"))


def test_latin_1_in_json_lines_is_read_and_noted_once(tmp_path: Path) -> None:
    lines = ['{"id": "1", "title": "Käse"}\n'.encode("latin-1"), '{"id": "2", "title": "Grüße"}\n'.encode("latin-1")]
    reading = Reading(write(tmp_path / "f.jsonl", b"".join(lines)))
    assert [one.title for one in reading.products] == ["Käse", "Grüße"]
    assert len(reading.notices) == 1


def test_csv_attributes_are_typed_by_their_column(tmp_path: Path) -> None:
    text = (
        "id,size,ean,organic,mixed,weight,note\n"
        "1,38,0095205603217,true,5,1.5,x\n"
        "2,39,5411313452106,false,XL,2,\n"
        "3,40,4006381333931,TRUE,7,3.25,y\n"
    )
    attributes = [dict(one.attributes) for one in Reading(write(tmp_path / "f.csv", text)).products]
    assert attributes[0] == {
        "size": 38,
        "ean": "0095205603217",
        "organic": True,
        "mixed": "5",
        "weight": 1.5,
        "note": "x",
    }
    assert attributes[1] == {"size": 39, "ean": "5411313452106", "organic": False, "mixed": "XL", "weight": 2}


def test_mixed_types_become_text_and_lone_strangers_are_left_out(tmp_path: Path) -> None:
    rows = [{"id": "1", "size": 5, "tags": ["a", "b"]}, {"id": "2", "size": "XL", "tags": "c"}]
    many = [{"id": f"n{n}", "weight": n / 2} for n in range(300)] + [{"id": "odd", "weight": "5 kg"}]
    reading = Reading(write(tmp_path / "f.jsonl", "\n".join(map(json.dumps, [*rows, *many]))))
    by_id = {product.id: product.attributes for product in reading.products}
    assert by_id["1"] == {"size": "5", "tags": ["a", "b"]}
    assert by_id["2"] == {"size": "XL", "tags": ["c"]}
    assert by_id["n3"] == {"weight": 1.5}
    assert by_id["odd"] == {}
    assert reading.reader.notices == {"attribute weight left out where it is not a number": 1}


def test_attributes_are_bounded(tmp_path: Path) -> None:
    row = {
        "id": "1",
        "long": "x" * 10_001,
        "a.b": "dot",
        "n" * 300: 1,
        "big": 10**30,
        **{f"f{n}": n for n in range(300)},
    }
    reading = Reading(write(tmp_path / "f.jsonl", json.dumps(row)))
    attributes = reading.products[0].attributes
    assert len(attributes) == 200
    assert "long" not in attributes
    assert attributes["a_b"] == "dot"
    assert max(map(len, attributes)) == 100
    json.dumps(attributes, allow_nan=False)


def test_parquet_with_nested_columns(tmp_path: Path) -> None:
    import datetime
    import decimal

    rows = [
        {
            "id": 1,
            "title": "x",
            "price": decimal.Decimal("9.90"),
            "path": ["Home", "Kitchen"],
            "tags": ["a", None, "b"],
            "specs": {"colour": "red", "deep": {"er": 1}},
            "images": [{"url": "http://a/1.jpg"}],
            "added": datetime.date(2020, 1, 2),
            "raw": b"bytes",
        },
        {"id": 2, "title": "y", "price": None, "path": None, "tags": [], "specs": None, "images": [], "raw": None},
    ]
    path = tmp_path / "f.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    reading = Reading(path, category="path")
    assert not reading.rejects
    first, second = reading.products
    assert first.price == 9.9
    assert first.categories == ("Home", "Kitchen")
    assert first.image == "http://a/1.jpg"
    assert first.attributes == {
        "tags": ["a", "b"],
        "specs_colour": "red",
        "specs_deep_er": 1,
        "added": "2020-01-02",
        "raw": "bytes",
    }
    assert second == Product("2", "y")


def test_partial_rows_change_what_they_hold(tmp_path: Path) -> None:
    text = "sku,price,stock,title,colour\na,4.50,3,ignored,red\nb,,0,,\nc,,,,\nd,-1,1,,\n"
    rejects: list[Reject] = []
    reader = CatalogReader([write(tmp_path / "f.csv", text)], {}, " > ", rejects.append)
    assert list(reader.changes()) == [
        ("a", {"price": 4.5, "stock": 3.0, "attributes": {"colour": "red"}}),
        ("b", {"stock": 0.0}),
    ]
    assert [(reject.line, reject.reason.split(":")[0]) for reject in rejects] == [
        (4, "nothing to change"),
        (5, "the price is negative"),
    ]
    assert any("title" in notice for notice in reader.notices)
    path = write(tmp_path / "f.jsonl", '{"id": "a", "price": null}\n')
    assert list(CatalogReader([path], {"price": "price"}, " > ", rejects.append).changes()) == [("a", {"price": None})]


def test_reading_needs_no_more_memory_for_a_longer_file(tmp_path: Path) -> None:
    row = json.dumps({"id": "%d", "title": "a title of some words", "description": "d" * 400, "price": 5})

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.json"
        with path.open("w") as stream:
            stream.write("[" + ",\n".join(row.replace("%d", str(n % 1000)) for n in range(rows)) + "]")
        reader = CatalogReader([path], {}, " > ", lambda reject: None)
        tracemalloc.start()
        assert sum(1 for _ in reader.products()) == rows
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(10_000) < 1.5 * peak(2_000)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=20), st.sampled_from([None, 1, 4]), st.integers(0, 5))
def test_array_elements_are_those_that_json_reads(values: list[Any], indent: int | None, blanks: int) -> None:
    text = " \n" * blanks + json.dumps(values, indent=indent, ensure_ascii=False) + "\n" * blanks
    assert [value for _, value in elements(io.StringIO(text), 1_000)] == values


def test_array_elements_longer_than_a_chunk_keep_their_lines() -> None:
    values = [{"id": n, "text": "x" * 90_000} for n in range(5)]
    text = json.dumps(values, indent=1)
    lines = [line for line, _ in elements(io.StringIO(text), 10**6)]
    assert lines == [n for n, line in enumerate(text.splitlines(), 1) if line == " {"]
    with pytest.raises(ValueError, match="line 2"):
        list(elements(io.StringIO(text), 10_000))


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_a_key_set_is_a_set(keys: list[int]) -> None:
    one, other = KeySet(), set()
    for key in keys:
        assert one.add(key) == (key not in other)
        other.add(key)
    assert len(one) == len(other)
    assert all(key in one for key in keys)


def test_a_key_set_stays_right_beyond_its_recent_part() -> None:
    keys = KeySet()
    numbers = [n * 0x9E3779B97F4A7C15 % 2**64 for n in range(450_000)]
    assert all(keys.add(number) for number in numbers)
    assert not any(keys.add(number) for number in numbers[::1000])
    assert len(keys) == len(numbers)
    assert 3 not in keys
