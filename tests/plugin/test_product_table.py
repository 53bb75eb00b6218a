"""A product table with changes is the table that reading everything again would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from endcap.catalog.product import Product, product_keys
from endcap.catalog.table import ProductTable
from endcap.catalog.texts import PackedTexts
from endcap.profile_bytes import profile_keys
from endcap.profiles import short_keys

BEFORE = [
    Product("a", "Ärmel", brand="X", categories=("Shop", "Coats"), price=10.0, stock=3.0, attributes={"size": "S"}),
    Product(
        "b", "Hose", brand="Y", categories=("Shop", "Trousers"), price=20.0, attributes={"size": "M", "margin": 2.0}
    ),
    Product("c", "", brand="", categories=(), attributes={"size": "S", "added_at": "2026-01-02"}),
    Product("d", "Mantel", brand="X", categories=("Shop", "Coats"), price=40.0),
]
CHANGED = [
    replace(BEFORE[1], title="Kurze Hose", brand="Z", price=None, attributes={"size": "XL"}),
    replace(BEFORE[2], title="Cape", categories=("Shop", "Capes")),
]
NEW = [
    Product("e", "Weste", brand="X", categories=("Shop", "Coats"), price=90.0, stock=1.0, attributes={"size": "S"}),
    Product("f", "Schal", brand="W", categories=("Winter", "Scarves"), attributes={"margin": 1.5}),
]
DRAW = np.random.default_rng(0)
VECTORS = {one: DRAW.normal(size=4).astype(np.float32) for one in "abde"}


def read(products: list[Product]) -> ProductTable:
    return ProductTable.collect([[(one, VECTORS.get(one.id)) for one in products]])


def described(table: ProductTable) -> list[tuple[object, ...]]:
    """What each row says, in words: codes are names of this table only."""
    rows = []
    for row in (*range(len(table)), -1):
        codes = [
            names[column[row]] if column[row] >= 0 else ""
            for column, names in ((table.brand, table.brands), (table.category, table.categories))
        ]
        parent = table.parents[table.parent[row]] if table.parent[row] >= 0 else ""
        alike = (table.attributes[:, 0] == table.attributes[row, 0]).tolist()  # of the size, the one that most have
        numbers = [table.price[row], table.stock[row], table.relative_price[row], table.margin[row], table.added[row]]
        assert table.vectors is not None
        rows.append((codes, parent, alike, np.nan_to_num(numbers, nan=-1.0).tolist(), table.vectors[row].tolist()))
    return rows


def test_it_is_the_table_that_reading_everything_would_give() -> None:
    before = read(BEFORE)
    was = described(before)

    made = before.with_changes([(one, VECTORS.get(one.id)) for one in (NEW[0], *CHANGED, NEW[1])])

    whole = read([BEFORE[0], *CHANGED, BEFORE[3], *NEW])
    assert made.ids == whole.ids == list("abcdef")
    assert described(made) == described(whole)
    assert list(made.titles) == ["Ärmel", "Kurze Hose", "Cape", "Mantel", "Weste", "Schal"]
    assert (made.keys == whole.keys).all()
    assert made.rows(["f", "a", "nope"]).tolist() == [5, 0, -1]
    assert made.rows_of_short_keys(short_keys(made.keys[:-1])).tolist() == list(range(6))
    assert made.rows_of_profile_keys(profile_keys(made.keys[:-1])).tolist() == list(range(6))
    strangers = profile_keys(product_keys([f"nobody {number}" for number in range(50)]))
    assert made.rows_of_profile_keys(strangers).tolist() == [-1] * 50
    # The table before is a snapshot: those who read it are not disturbed.
    assert described(before) == was
    assert len(before) == 4


def test_of_changes_of_a_product_the_last_counts() -> None:
    made = read(BEFORE).with_changes([(NEW[0], None), (replace(NEW[0], price=1.0), VECTORS["e"])])

    assert (len(made), made.price[4]) == (5, 1.0)
    assert made.vectors is not None
    assert made.vectors[4].any()


def test_vectors_may_come_with_the_first_change_but_not_in_another_width() -> None:
    bare = ProductTable(BEFORE)
    made = bare.with_changes([(NEW[0], VECTORS["e"])])

    assert made.vectors is not None
    assert made.vectors.any(axis=1).tolist() == [False] * 4 + [True, False]
    assert bare.with_changes([(NEW[0], None)]).vectors is None
    with pytest.raises(ValueError, match="broadcast"):
        made.with_changes([(NEW[1], np.ones(5, dtype=np.float32))])


@pytest.mark.parametrize("changes", [{}, {0: "new"}, {1: "", 3: "end"}, {0: "x", 1: "yy", 2: "zzz"}, {3: "é", 4: "f"}])
def test_packed_texts_with_some_replaced(changes: dict[int, str]) -> None:
    texts = ["ä", "bb", ""]
    wanted = [changes.get(place, text) for place, text in enumerate(texts)]
    wanted += [changes[place] for place in sorted(changes) if place >= len(texts)]

    assert list(PackedTexts(texts).with_changes(changes)) == wanted
