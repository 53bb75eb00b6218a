"""What every engine checks before it stores a product, and what a partial change means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from endcap.catalog.product import PATH_SEPARATOR, Product
from endcap.catalog.values import LARGEST

MAX_ID = 512
_CHANGEABLE = frozenset(one.name for one in fields(Product)) - {"id", "categories"} | {"category"}


def checked(product: Product) -> Product:
    """The product, if it can be stored.

    Raises:
        TypeError, ValueError: naming the field and the reason.
    """
    if not isinstance(product.id, str) or not product.id:
        raise ValueError("id: must be a string that is not empty")
    if len(product.id) > MAX_ID:
        raise ValueError(f"id: longer than {MAX_ID} characters")
    for name in ("price", "stock"):
        number = getattr(product, name)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, (int, float, np.integer, np.floating)):
            raise TypeError(f"{name}: {number!r} is not a number")
        if not math.isfinite(number):
            raise ValueError(f"{name}: {number!r} is not finite")
        if abs(float(number)) > LARGEST:
            raise ValueError(f"{name}: {number!r} is larger than {LARGEST:g}")
    for name in ("title", "description", "brand", "image", "url"):
        if not isinstance(getattr(product, name), str):
            raise TypeError(f"{name}: {getattr(product, name)!r} is not a string")
    if not all(isinstance(one, str) for one in product.categories):
        raise TypeError(f"categories: {product.categories!r} are not strings")
    return product


def changed(product: Product, changes: Mapping[str, Any]) -> Product:
    """A product with some fields of its document changed, as :meth:`Engine.update` says.

    ``category`` is the leaf's whole path ("A > B") or, as documents have it, every prefix.

    Raises:
        TypeError, ValueError: there is no such field, or it cannot be changed.
    """
    unknown = set(changes) - _CHANGEABLE - ({"id"} if changes.get("id") == product.id else set())
    if unknown:
        raise ValueError(f"{', '.join(sorted(map(str, unknown)))}: not a field that can be changed")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "attributes":
            merged = {**product.attributes, **(value or {})}
            values[name] = {key: one for key, one in merged.items() if one is not None} if value is not None else {}
        elif name == "category":
            leaf = value if isinstance(value, str) else max(value or [], key=len, default="")
            values["categories"] = tuple(leaf.split(PATH_SEPARATOR)) if leaf else ()
        elif name != "id":
            values[name] = "" if value is None and name not in ("price", "stock") else value
    return replace(product, **values)
