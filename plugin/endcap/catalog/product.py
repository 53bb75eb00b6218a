"""One product, and the document that an engine stores for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Roles a shop's field can play. Everything else is an attribute.
ROLES = ("id", "title", "description", "brand", "category", "price", "stock", "image", "url")

#: Fields of a stored document that belong to Endcap and are never shown: the digest of the encoded text, the vector.
TEXT_DIGEST = "endcap_text_digest"
VECTOR = "endcap_vector"
INTERNAL_FIELDS = (TEXT_DIGEST, VECTOR)

#: What the id of a row begins with that a generator made up for training; no product's may.
GENERATED_PREFIX = "endcap-generated:"

#: Between the levels in a stored category path: "Grocery > Honey".
PATH_SEPARATOR = " > "


@dataclass(frozen=True, slots=True)
class Product:
    """A product. Only ``id`` is required; every other field has a neutral default.

    ``categories`` runs from the root to the leaf. ``price`` is in the shop's currency, ``stock`` in pieces; None
    means unknown. ``attributes`` holds strings, numbers, booleans or lists of strings.
    """

    id: str
    title: str = ""
    description: str = ""
    brand: str = ""
    categories: tuple[str, ...] = ()
    price: float | None = None
    stock: float | None = None
    image: str = ""
    url: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """What the text encoder reads: title, brand, leaf category, the beginning of the description."""
        parts = [self.title, self.brand, self.categories[-1] if self.categories else "", self.description[:500]]
        return ". ".join(part for part in parts if part)

    def to_document(self) -> dict[str, Any]:
        """The document an engine stores.

        ``category`` lists every prefix of the path ("Grocery", "Grocery > Honey"), so that one exact filter or facet
        serves each level. Unknown values are left out.
        """
        document: dict[str, Any] = {
            "id": self.id,
            "title": self.title,
            "description": self.description,
            "brand": self.brand,
            "category": [PATH_SEPARATOR.join(self.categories[: n + 1]) for n in range(len(self.categories))],
            "price": self.price,
            "stock": self.stock,
            "image": self.image,
            "url": self.url,
            "attributes": dict(self.attributes),
        }
        return {key: value for key, value in document.items() if value not in (None, "", [], {})}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Product:
        """The product of a document made by :meth:`to_document`; anything missing takes its default."""
        paths = document.get("category") or []
        leaf = max([paths] if isinstance(paths, str) else paths, key=len, default="")
        return cls(
            id=str(document["id"]),
            title=str(document.get("title") or ""),
            description=str(document.get("description") or ""),
            brand=str(document.get("brand") or ""),
            categories=tuple(leaf.split(PATH_SEPARATOR)) if leaf else (),
            price=document.get("price"),
            stock=document.get("stock"),
            image=str(document.get("image") or ""),
            url=str(document.get("url") or ""),
            attributes=document.get("attributes") or {},
        )


def is_generated(product_id: str) -> bool:
    """Whether an id is of a row that a generator made up: never indexed, shown or counted."""
    return product_id.startswith(GENERATED_PREFIX)


def text_digest(encoder_id: str, text: str) -> str:
    """Identifies a text as read by an encoder, so that unchanged text is not encoded twice. 32 hex digits."""
    return hashlib.blake2b(f"{encoder_id}\0{text}".encode(), digest_size=16).hexdigest()


def product_key(product_id: str) -> int:
    """A product's 64-bit key, stable across processes and machines: what profiles store instead of the id.

    Two of 10 million products share a key with probability 3e-6 (birthday bound on 64 bits).
    """
    return int.from_bytes(hashlib.blake2b(product_id.encode(), digest_size=8).digest(), "little")


def product_keys(product_ids: list[str]) -> np.ndarray:
    """:func:`product_key` of each id; uint64, shape (n,)."""
    return np.fromiter((product_key(one) for one in product_ids), dtype=np.uint64, count=len(product_ids))
