"""Which field is taken for what."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from endcap.catalog.reading import CatalogReader
from endcap.catalog.roles import find_roles, flatten
from endcap.errors import ConfigurationError, InvalidInput


def guess(*rows: dict[str, Any], **explicit: str) -> dict[str, tuple[str, ...]]:
    return dict(find_roles([flatten(row) for row in rows], explicit).fields)


def several(row: dict[str, Any], unique: str) -> list[dict[str, Any]]:
    return [{**row, unique: f"{row[unique]}{n}"} for n in range(5)]


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        pytest.param(
            {
                "sku": "A",
                "productName": "Kettle",
                "Manufacturer": "Acme",
                "Category Path": "Home > Kitchen",
                "Price (EUR)": "12,50 €",
                "In Stock": "yes",
                "Image URL": "https://a.example/1.jpg",
                "Product URL": "https://a.example/1",
                "Long-Description [HTML]": "boils water",
                "colour": "red",
            },
            {
                "id": ("sku",),
                "title": ("productName",),
                "brand": ("Manufacturer",),
                "category": ("Category Path",),
                "price": ("Price (EUR)",),
                "stock": ("In Stock",),
                "image": ("Image URL",),
                "url": ("Product URL",),
                "description": ("Long-Description [HTML]",),
            },
            id="a spreadsheet",
        ),
        pytest.param(
            {
                "asin": "B00",
                "title": "Shampoo",
                "brand": "Acme",
                "main_cat": "Beauty",
                "categories": [["Beauty", "Hair"]],
                "price": "$9.99",
                "imUrl": "http://a.example/i.jpg",
                "details": {"weight": "5 oz"},
            },
            {
                "id": ("asin",),
                "title": ("title",),
                "brand": ("brand",),
                "category": ("categories",),
                "price": ("price",),
                "image": ("imUrl",),
            },
            id="Amazon's review data",
        ),
        pytest.param(
            {
                "g:id": "1",
                "g:title": "Kettle",
                "g:description": "boils",
                "g:link": "https://a.example/1",
                "g:image_link": "https://a.example/1.png",
                "g:availability": "in_stock",
                "g:price": "25.00 USD",
                "g:product_type": "Home > Kitchen",
                "g:brand": "Acme",
            },
            {
                "id": ("g:id",),
                "title": ("g:title",),
                "description": ("g:description",),
                "url": ("g:link",),
                "image": ("g:image_link",),
                "stock": ("g:availability",),
                "price": ("g:price",),
                "category": ("g:product_type",),
                "brand": ("g:brand",),
            },
            id="a Google Merchant feed",
        ),
        pytest.param(
            {"id": "1", "name": "x", "department": "GROCERY", "category": "HONEY", "sub_category": "CLOVER"},
            {"id": ("id",), "title": ("name",), "category": ("department", "category", "sub_category")},
            id="one field for each level",
        ),
        pytest.param(
            {"id": "1", "category_2": "Kitchen", "category_1": "Home", "category_3": "Kettles"},
            {"id": ("id",), "category": ("category_1", "category_2", "category_3")},
            id="numbered levels, out of order",
        ),
        pytest.param(
            {"id": "1", "title": "x", "price": {"amount": 5, "currency": "EUR"}, "brand": {"name": "Acme"}},
            {"id": ("id",), "title": ("title",), "price": ("price.amount",), "brand": ("brand.name",)},
            id="nested objects",
        ),
    ],
)
def test_common_shapes_are_understood(row: dict[str, Any], roles: dict[str, tuple[str, ...]]) -> None:
    unique = roles["id"][0]
    assert guess(*several(row, unique)) == roles


def test_values_decide_where_names_mislead() -> None:
    rows = [
        {"id": "7", "sku": f"s{n}", "price": "cheap", "list_price": 3.5, "image": "none yet", "img": "/a.png"}
        for n in range(9)
    ]
    roles = guess(*rows)
    assert roles["id"] == ("sku",)  # `id` is the same in every row
    assert roles["price"] == ("list_price",)
    assert roles["image"] == ("img",)


def test_what_is_named_goes_before_what_is_guessed() -> None:
    rows = [{"id": n, "code": f"c{n}", "name": "x", "label": "y"} for n in range(5)]
    assert guess(*rows, id="code", title="label") == {"id": ("code",), "title": ("label",)}
    assert guess({"id": 1, "a": "Home", "b": "Bath"}, category="a, b")["category"] == ("a", "b")
    assert "title" not in guess(*rows, title="")  # named as nothing


def test_without_an_id_the_fields_are_listed() -> None:
    with pytest.raises(InvalidInput, match=r"--map id=FIELD. Fields: colour, name"):
        guess({"colour": "red", "name": "x"})


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'article'"):
        guess({"article": "1"}, id="artikle")
    with pytest.raises(ConfigurationError, match="did you mean 'title'"):
        guess({"id": "1"}, titel="name")


def test_flattening_is_bounded() -> None:
    assert flatten({"a": {"b": {"c": 1, "d": {"e": 2}}}, "f": [{"g": 1}]}) == {"a.b.c": 1, "f": [{"g": 1}]}


def test_the_icecat_catalogue_is_understood(shared_dir: Path) -> None:
    """Reads ../shared/data/icecat-chorus-search: 19,406 real products as gzipped JSON arrays."""
    files = sorted((shared_dir / "data" / "icecat-chorus-search").glob("products_*.json.gz"))
    with gzip.open(files[0], "rt", encoding="utf-8") as stream:
        expected = {row["id"]: row for row in json.load(stream)}
    rejects: list[Any] = []
    reader = CatalogReader(files[:1], {}, " > ", rejects.append)
    ((_, roles, _),) = reader.roles()
    assert dict(roles.fields) == {
        "id": ("id",),
        "title": ("title",),
        "description": ("short_description",),
        "brand": ("supplier",),
        "price": ("price",),
        "image": ("img_500x500",),
    }
    products = {product.id: product for product in reader.products()}
    assert not rejects
    assert reader.complete
    assert products.keys() == expected.keys()
    for product_id, product in products.items():
        row = expected[product_id]
        assert product.brand == row["supplier"]
        assert product.price == row.get("price")
        numbers = {key: value for key, value in row.items() if key.startswith("attr_n_")}
        assert {key: product.attributes.get(key) for key in numbers} == numbers
