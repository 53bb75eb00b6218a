"""Part and model numbers that are typed without the dashes they are written with."""

from __future__ import annotations

from pathlib import Path

import pytest

from endcap.catalog.product import Product
from endcap.engines import SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.engines.embedded.schema import joined_codes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HP dv7-1211ea, 15.6 inch", ["dv71211ea"]),
        ("PK-1000/II 802.11b", ["PK1000II", "80211b"]),
        ("WD-40", []),  # too short to be told from a word; letters and figures are taken apart in the query
        ("state-of-the-art", []),
        ("https://example.org/img/3920564.jpg", []),
        ("x" * 2_000 + "-1", []),
    ],
)
def test_what_a_code_is(text: str, expected: list[str]) -> None:
    assert joined_codes(text) == expected


def test_codes_are_found_without_their_dashes(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, "products")
    engine.ensure(None, "none")
    products = [
        Product("n1", "HP Pavilion dv7-1211ea Notebook"),
        Product("n2", "Toner", attributes={"part": "TN-2110.A", "old": ["XX-00.001"]}),
        Product("n3", "HP Pavilion dv7-1299 Notebook"),
    ]
    engine.upsert((product, None, "") for product in products)
    engine.refresh()

    def found(text: str) -> list[str]:
        return [hit.id for hit in engine.search(SearchRequest(text)).hits]

    assert found("dv71211ea") == ["n1"]
    assert found("hp DV71211EA notebook") == ["n1"]
    assert found("dv7-1211ea") == ["n1"]
    assert found("tn2110a") == ["n2"]
    assert found("xx00001") == ["n2"]
    engine.close()
