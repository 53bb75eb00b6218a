"""A catalogue of any size that looks like a shop's: made up, but with real shops' proportions and a real encoder's
geometry.

Titles combine words as shops do, words as frequent as ranks say (Zipf). A few thousand of them are encoded; every
other product's vector lies near one of those, as products alike do: encoding a million would take the better part of an
hour and tell nothing about the engine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from endcap.catalog.product import Product
from endcap.encoders import TextEncoder

_NOUN_LIST = (
    "laptop phone monitor printer toner keyboard mouse router switch cable charger battery headphones speaker camera "
    "lens tripod tablet television projector drive memory processor board case fan cooler server rack adapter dock "
    "lamp bulb chair desk shelf sofa table mattress pillow blanket towel kettle toaster blender oven fridge washer "
    "dryer vacuum iron heater drill saw hammer screwdriver wrench ladder paint brush tape glue shirt jacket coat "
    "trousers skirt dress shoe boot sandal sock hat scarf glove belt bag wallet watch ring necklace bracelet perfume "
    "shampoo soap cream lotion toothpaste razor milk bread butter cheese yogurt coffee tea juice water beer wine rice "
    "pasta sauce soup cereal honey jam chocolate biscuit crisps nuts apple banana tomato potato onion chicken beef "
    "fish"
)
_KIND_LIST = (
    "black white red blue green grey silver wireless portable compact professional mini large organic classic light "
    "heavy smart digital original premium soft natural fresh slim outdoor kids mens womens waterproof rechargeable "
    "stainless cotton leather wooden plastic ceramic glass foldable adjustable electric manual gaming office "
    "home"
)
_NOUNS, _KINDS = tuple(_NOUN_LIST.split()), tuple(_KIND_LIST.split())
_UNITS = ("{} gb", "{} ml", "{} cm", "{} w", "{} pack", "{} kg", "model {}", "series {}", "{} inch", "size {}")
_ENCODED = 4_000
#: How far a product lies from the one it is like, and from its whole kind: cosines of .6 to .95, as in real catalogues.
_NOISE = 0.6
_BATCH = 5_000


def products(count: int, seed: int) -> Iterator[Product]:
    """``count`` products, the same for the same seed."""
    draw = np.random.default_rng(seed)
    for start in range(0, count, _BATCH):
        n = min(_BATCH, count - start)
        nouns = np.minimum(draw.zipf(1.3, n), 10**6) % len(_NOUNS)
        kinds = (np.minimum(draw.zipf(1.2, (n, 3)), 10**6)) % len(_KINDS)
        brands = np.minimum(draw.zipf(1.3, n), 20_000)
        units, sizes, prices = draw.integers(0, len(_UNITS), n), draw.integers(1, 999, n), draw.lognormal(3, 1, n)
        for at in range(n):
            noun = _NOUNS[nouns[at]]
            words = [_KINDS[one] for one in dict.fromkeys(kinds[at].tolist())]
            brand = f"brand{brands[at]}"
            size = _UNITS[units[at]].format(sizes[at])
            yield Product(
                id=f"p{start + at}",
                title=f"{brand} {' '.join(words)} {noun} {size}",
                description=f"A {' and '.join(words)} {noun} of {brand}, {size}.",
                brand=brand,
                categories=(f"department {nouns[at] % 12}", noun),
                price=round(float(prices[at]), 2),
                stock=float(sizes[at] % 50),
            )


class Vectors:
    """Vectors of made-up products, by their number: near the vector of one whose text was really encoded."""

    def __init__(self, encoder: TextEncoder, seed: int) -> None:
        self._base = encoder.encode([one.text() for one in products(_ENCODED, seed)])
        self._draw = np.random.default_rng(seed + 1)
        self.dims = encoder.dims

    def next(self, count: int) -> np.ndarray:
        """Of the next ``count`` products; unit vectors, float32, shape (count, dims)."""
        base = self._base[self._draw.integers(0, len(self._base), count)]
        noise = self._draw.standard_normal((count, self.dims), dtype=np.float32) / np.float32(np.sqrt(self.dims))
        made = base + np.float32(_NOISE) * noise
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def queries(count: int, seed: int) -> list[str]:
    """What people type there: two or three words of products, one in five misspelt."""
    draw = np.random.default_rng(seed + 2)
    made = []
    for one in products(count, seed + 3):
        words = one.title.split()
        query = " ".join([*words[1:2], one.categories[-1]] if draw.random() < 0.6 else [one.brand, one.categories[-1]])
        if draw.random() < 0.2:
            at = int(draw.integers(1, len(query) - 1))
            query = query[:at] + query[at + 1 :]
        made.append(query)
    return made
