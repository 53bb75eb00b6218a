"""Product files of every format, good and bad, as products and rejects."""

from __future__ import annotations

import csv
import gzip
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
from endcap.catalog.readers import MAX_ROW
from endcap.catalog.reading import CatalogReader
from endcap.catalog.rejects import Reject, RejectsFile
from endcap.errors import InvalidInput


class Reading:
    """What came of reading some files."""

    def __init__(self, *paths: Path, **roles: str) -> None:
        self.rejects: list[Reject] = []
        self.notices: list[str] = []
        self.reader = CatalogReader(paths, roles, " > ", self.rejects.append, self.notices.append)
        self.products: list[Product] = list(self.reader.products())

    @property
    def ids(self) -> list[str]:
        return [product.id for product in self.products]

    def reasons(self) -> list[tuple[int, str]]:
        return [(reject.line, reject.reason) for reject in self.rejects]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


ROWS: list[dict[str, Any]] = [
    {"id": "a", "title": "Honey, clover", "price": 4.5, "stock": 3, "category": "Grocery > Honey", "organic": True},
    {"id": "b", "title": 'Say "cheese"\nplease', "price": 7, "stock": 0, "category": "Dairy", "organic": False},
    {"id": "c", "title": "綠茶", "price": None, "stock": None, "category": None, "organic": None},
]


def as_jsonl(path: Path) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))


def as_json(path: Path) -> Path:
    return write(path, json.dumps(ROWS, indent=1, ensure_ascii=False))


def as_csv(path: Path) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]))
    writer.writeheader()
    writer.writerows(ROWS)
    return write(path, text.getvalue())


def as_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def zipped(path: Path) -> Path:
    return write(path.with_name(path.name + ".gz"), gzip.compress(path.read_bytes()))


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


def test_bad_rows_are_named_and_stop_nothing(tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "price": 1}',
        '{"price": 2}',
        '{"id": "b", "price": "on request"}',
        '{"id": "c", "price": -1}',
        '{"id": "d", "price": NaN}',
        "",
        '{"id": "e", "price": 1',
        '["f"]',
        json.dumps({"id": "x" * 600, "price": 1}),
        '{"id": "g\\u0000", "price": 1}',
        '{"id": 17, "price": "1.50"}',
        '{"id": true}',
        "[" * 100_000,
        '{"id": "deep", "category": ' + "[" * 500 + "]" * 500 + "}",
        '{"id": "z", "price": 3}',
    ]
    reading = Reading(write(tmp_path / "f.jsonl", "\n".join(lines)))
    assert reading.ids == ["a", "17", "z"]
    reasons = dict(reading.reasons())
    assert sorted(reasons) == [2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14]
    assert reasons[2] == "the id is missing"
    assert reasons[3] == "the price is not a number: 'on request' is not a number"
    assert reasons[4] == "the price is negative: -1"
    assert "not a number" in reasons[5]
    assert reasons[7].startswith("not JSON")
    assert reasons[8] == "the row is not a JSON object"
    assert "512 bytes" in reasons[9]
    assert "control" in reasons[10]
    assert reasons[13].startswith("not JSON")
    assert "nested" in reasons[14]
    assert reading.reader.complete


def test_rejected_ids_count_as_seen_so_that_they_are_not_deleted(tmp_path: Path) -> None:
    from endcap.catalog.product import product_key

    reading = Reading(write(tmp_path / "f.jsonl", '{"id": "a"}\n{"id": "b", "price": -1}\n'))
    assert reading.ids == ["a"]
    assert product_key("b") in reading.reader.seen
    assert product_key("c") not in reading.reader.seen


def test_repeated_ids_are_counted(tmp_path: Path) -> None:
    reading = Reading(
        write(tmp_path / "f.jsonl", '{"id": "a", "title": "x"}\n{"id": "b"}\n{"id": "a", "title": "y"}\n')
    )
    assert reading.ids == ["a", "b", "a"]
    assert reading.reader.duplicates == 1


def test_half_a_gzip_gives_what_can_be_read_and_says_so(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": str(n), "title": f"{n * 7919 % 1000003} {n}"}) + "\n" for n in range(50_000))
    whole = gzip.compress(rows.encode())
    reading = Reading(write(tmp_path / "f.jsonl.gz", whole[: len(whole) // 2]))
    assert 1_000 < len(reading.products) < 49_000
    assert reading.ids == [str(n) for n in range(len(reading.ids))]
    assert not reading.reader.complete
    assert "breaks off" in reading.rejects[-1].reason
    assert reading.rejects[-1].line == len(reading.ids) + 1


def test_damage_inside_a_gzip_is_reported(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": str(n), "title": f"{n * 7919 % 1000003}"}) + "\n" for n in range(50_000))
    damaged = bytearray(gzip.compress(rows.encode()))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 200] = b"\xff" * 200
    reading = Reading(write(tmp_path / "f.jsonl.gz", bytes(damaged)))
    assert reading.products
    assert not reading.reader.complete
    with pytest.raises(InvalidInput, match="damaged"):
        Reading(write(tmp_path / "g.gz", b"\x1f\x8b" + b"\xff" * 1000))


def test_a_json_array_that_breaks_off_gives_its_beginning(tmp_path: Path) -> None:
    text = json.dumps([{"id": str(n)} for n in range(10)], indent=1)
    reading = Reading(write(tmp_path / "f.json", text[: len(text) // 2]))
    assert reading.ids == [str(n) for n in range(len(reading.ids))]
    assert 3 <= len(reading.ids) <= 6
    assert not reading.reader.complete
    assert "breaks off" in reading.rejects[-1].reason


@pytest.mark.parametrize(
    ("content", "name"), [("", "f.jsonl"), ("\n \n", "f.csv"), ("[]", "f.json"), ("\ufeff", "f.csv")]
)
def test_an_empty_file_has_no_products(tmp_path: Path, content: str, name: str) -> None:
    reading = Reading(write(tmp_path / name, content))
    assert not reading.products
    assert not reading.rejects
    assert reading.reader.complete


def test_a_header_without_rows_has_no_products(tmp_path: Path) -> None:
    reading = Reading(write(tmp_path / "f.csv", "id,title\n"))
    assert not reading.products
    assert reading.reader.complete


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04\0\0", b"\0\0\0\0"])
def test_binary_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match="binary"):
        Reading(write(tmp_path / "f.csv", content))


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a folder"):
        Reading(tmp_path)
    with pytest.raises(InvalidInput, match="No such file"):
        Reading(tmp_path / "no.csv")


def test_a_damaged_parquet_file_is_reported(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "f.parquet")
    reading = Reading(write(tmp_path / "g.parquet", path.read_bytes()[:200]))
    assert not reading.products
    assert "damaged" in reading.rejects[0].reason
    assert not reading.reader.complete


def test_a_file_without_an_id_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.csv", "colour,size\nred,3\n")
    reading = Reading(bad, as_jsonl(tmp_path / "good.jsonl"))
    assert reading.ids == ["a", "b", "c"]
    assert "looks like a product's id" in reading.reader.failures[0]
    assert not reading.reader.complete


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


def test_ragged_csv_rows_are_rejected_with_their_line(tmp_path: Path) -> None:
    text = 'id,title,price\n1,"two\nlines",5\n2,too,many,7\n3,few\n4,fine,9\n5,trailing,9,,\n'
    reading = Reading(write(tmp_path / "f.csv", text))
    assert reading.ids == ["1", "4", "5"]
    assert reading.reasons() == [
        (4, "4 cells, but the header names 3"),
        (5, "2 cells only, but the header names 3"),
    ]


def test_an_unclosed_quote_costs_the_rows_it_swallows_and_is_reported(tmp_path: Path) -> None:
    reading = Reading(write(tmp_path / "f.csv", 'id,title\n1,fine\n2,"never closed\n3,x\n'))
    assert reading.ids == ["1", "2"] or reading.rejects


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


def test_a_field_of_a_megabyte_is_cut_and_a_row_of_many_is_rejected(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": "1", "title": "x" * 1_000_000, "description": "y" * 1_000_000}),
        json.dumps({"id": "2", "description": "y" * MAX_ROW}),
        json.dumps({"id": "3"}),
    ]
    reading = Reading(write(tmp_path / "f.jsonl", "\n".join(lines)))
    assert reading.ids == ["1", "3"]
    assert len(reading.products[0].title) == 2_000
    assert len(reading.products[0].description) == 100_000
    assert [line for line, reason in reading.reasons() if "longer than" in reason] == [2]
    text = "id,title\n1," + "x" * (MAX_ROW + 10) + "\n2,fine\n"
    reading = Reading(write(tmp_path / "f.csv", text))
    assert reading.ids[-1] == "2"


def test_nul_and_control_characters_do_not_come_through(tmp_path: Path) -> None:
    rows = '{"id": "1", "title": "a\\u0000b", "x": "c\\u0007d"}\n'
    (product,) = Reading(write(tmp_path / "f.jsonl", rows)).products
    assert product.title == "a b"
    assert product.attributes == {"x": "c d"}
    head = "id,title\n" + "".join(f"{n},fine\n" for n in range(500))
    reading = Reading(write(tmp_path / "f.csv", head.encode() + b"500,a\0b\n501,fine\n"))
    assert reading.ids[-1] == "501"
    assert len(reading.ids) + len(reading.rejects) == 502


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


def test_the_rejects_file_holds_line_reason_and_excerpt(tmp_path: Path) -> None:
    path = write(tmp_path / "rejects.jsonl", "an earlier run's")
    with RejectsFile(path):
        pass
    assert not path.exists()
    with RejectsFile(path) as rejects:
        rejects.add(Reject("f.csv", 7, "the price is negative: -1", '{"id": "茶"}'))
        rejects.add(Reject("f.csv", 9, "the price is negative: -2"))
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first == {"file": "f.csv", "line": 7, "reason": "the price is negative: -1", "excerpt": '{"id": "茶"}'}
    assert second["line"] == 9
    assert rejects.count == 2
    assert rejects.reasons == {"the price is negative": 2}


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
