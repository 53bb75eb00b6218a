"""Product files that are damaged, cut short, empty, or none at all: what can be read is, and the rest is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from endcap.catalog.readers import MAX_ROW
from endcap.catalog.rejects import Reject, RejectsFile
from endcap.errors import InvalidInput
from tests.plugin.catalog_files import Reading, as_jsonl, as_parquet, write


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
