"""Words written together or apart, units and model numbers: found either way, by every engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from endcap.catalog.product import Product
from endcap.engines import Engine, SearchRequest
from tests.contracts.conftest import OpenEngine

PRODUCTS = [
    Product("s1", "Smartwatch Black"),
    Product("s2", "Watch for the smart home"),
    Product("m1", "Memory Stick 16 GB"),
    Product("m2", "Memory Stick 16GB"),
    Product("m3", "Switch with 16 ports and 32 GB"),
    Product("o1", "WD-40 Oil Spray"),
    Product("o2", "Oil Spray 40 ml"),
    Product("n1", "HP Pavilion dv7-1211ea Notebook"),
    Product("n2", "Toner", attributes={"number": "TN-2110"}),
    Product("n3", "HP Pavilion dv7-1299 Notebook"),
]


@pytest.fixture(scope="module")
def shop(open_engine: OpenEngine) -> Iterator[Engine]:
    made = open_engine("contract-written-otherwise")
    made.ensure(None, "none")
    made.upsert((one, None, "") for one in PRODUCTS)
    made.refresh()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smart watch", {"s1", "s2"}),
        ("smart watch black", {"s1"}),
        ("16gb", {"m1", "m2"}),
        ("memory 16gb", {"m1", "m2"}),
        ("wd40", {"o1"}),
        ("wd-40", {"o1"}),
        ("wd40 spray", {"o1"}),
        ("dv7-1211ea", {"n1"}),
        ("smart homes", {"s2"}),
        ("oil sprays", {"o1", "o2"}),
        ("port", {"m3"}),
        ("tn2110", {"n2"}),
        ("toner tn2110", {"n2"}),
    ],
)
def test_together_and_apart_are_the_same(shop: Engine, text: str, expected: set[str]) -> None:
    assert {hit.id for hit in shop.search(SearchRequest(text)).hits} == expected


def test_a_unit_stands_by_its_number(shop: Engine) -> None:
    found = [hit.id for hit in shop.search(SearchRequest("16 gb")).hits]
    assert set(found) == {"m1", "m2", "m3"}
    assert found[-1] == "m3"
