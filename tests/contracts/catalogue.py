"""A small shop whose products tell the promises of an engine apart."""

from __future__ import annotations

import numpy as np

from endcap.catalog.product import Product

DIMS = 8
ENCODER = "contract-encoder"

PRODUCTS = [
    Product("h1", "Wildflower Honey", "From small farms.", "Bee & Co", ("Grocery", "Spreads"), 4.5, 10.0),
    Product("h2", "Breakfast Oats", "Sweetened with honey.", "Mill", ("Grocery", "Cereal"), 3.0, 4.0),
    Product("h3", "Lip Balm", "Soft and mild.", "Honey Works", ("Beauty", "Lips"), 2.0, 0.0),
    Product("h4", "Acacia Honey", "Light and mild honey.", "Bee & Co", ("Grocery", "Spreads"), 6.0, 3.0),
    Product("b1", "Peanut Butter Creamy", "Smooth.", "Nutty", ("Grocery", "Spreads"), 3.5, 7.0),
    Product("b2", "Butter with Peanut Pieces", "Crunchy.", "Nutty", ("Grocery", "Dairy"), 3.5, 7.0),
    Product("b3", "Salted Butter", "Made of cream.", "Meadow", ("Grocery", "Dairy"), 2.5, 20.0),
    Product("c1", "Laundry Detergent", "For whites.", "Fresh", ("Household", "Laundry"), 9.0, 2.0),
    Product("c2", "Detergent Pods", "Thirty pieces.", "Fresh", ("Household", "Laundry"), 12.0, None),
    Product("m1", "红色手机壳", "软胶材质", "小米", ("配件",), 19.0, 5.0),
    Product("m2", "蓝色水杯", "玻璃", "小米", ("家居",), 29.0, 5.0),
    Product(
        "t1", "Red Cotton Shirt", "", "Loom", ("Clothing", "Shirts"), 20.0, 1.0, attributes={"color": "Red", "size": 42}
    ),
    Product(
        "t2",
        "Blue Cotton Shirt",
        "",
        "Loom",
        ("Clothing", "Shirts"),
        20.0,
        1.0,
        attributes={"color": "Blue", "size": 44},
    ),
    Product(
        "t3",
        "Cotton Socks",
        "",
        "Loom",
        ("Clothing", "Socks"),
        5.0,
        9.0,
        attributes={"color": "Red", "organic": True, "tags": ["gift", "winter"]},
    ),
    Product(
        "x1", '<b>Fish</b> & "Chips"', "<script>alert(1)</script> crispy fish", "Sea", ("Grocery", "Frozen"), 7.0, 1.0
    ),
    Product("z1"),
]
BY_ID = {one.id: one for one in PRODUCTS}


def vector_of(seed: int, dims: int = DIMS) -> np.ndarray:
    """A unit vector; float32, shape (dims,)."""
    made = np.random.default_rng(seed).standard_normal(dims).astype(np.float32)
    return made / np.linalg.norm(made)


#: Every product but the bare one has a vector.
VECTORS = {one.id: vector_of(seed) for seed, one in enumerate(PRODUCTS) if one.id != "z1"}


def items() -> list[tuple[Product, np.ndarray | None, str]]:
    """The shop as an engine takes it."""
    return [(one, VECTORS.get(one.id), f"digest-{one.id}") for one in PRODUCTS]
