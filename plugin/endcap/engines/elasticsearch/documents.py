"""Between products and what Elasticsearch stores for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson

from endcap.catalog.product import INTERNAL_FIELDS, TEXT_DIGEST, VECTOR, Product
from endcap.catalog.values import MAX_ID_BYTES
from endcap.engines.checks import changed, checked

_SPECIAL = re.compile(r"[%.]|^\s*$")


def attribute_field(name: str) -> str:
    """The index field of an attribute. A dot, which Elasticsearch would read as a path, is written ``%2E``."""
    return f"attributes.{_escaped(name)}"


def _escaped(name: str) -> str:
    if not _SPECIAL.search(name):
        return name
    if not name.strip():
        return "".join(f"%{byte:02X}" for byte in name.encode()) or "%"
    return name.replace("%", "%25").replace(".", "%2E")


def _unescaped(name: str) -> str:
    return "" if name == "%" else unquote(name)


def checked_id(product_id: str) -> str:
    """The id, if it can be one.

    Raises:
        TypeError, ValueError: it cannot.
    """
    if not isinstance(product_id, str):
        raise TypeError("id: must be a string")
    size = len(product_id.encode())
    if not product_id or size > MAX_ID_BYTES:
        raise ValueError(f"id: must have 1 to {MAX_ID_BYTES} bytes, this one has {size}")
    return product_id


def stored(product: Product, vector: np.ndarray | None, digest: str, dims: int | None) -> bytes:
    """The JSON of a product's document. ``vector``: float, shape (dims,), made a unit vector.

    Raises:
        TypeError, ValueError: naming the field and the reason.
    """
    checked_id(product.id)
    document = _escape_attributes(checked(product).to_document())
    if digest:
        document[TEXT_DIGEST] = digest
    if vector is not None:
        document[VECTOR] = _unit(vector, dims)
    return _json(document)


def changes(product_id: str, change: Mapping[str, Any]) -> bytes:
    """The JSON of a partial document: fields named in it replace the stored ones, attributes are merged, None removes.

    Raises:
        TypeError, ValueError: naming the field and the reason.
    """
    checked_id(product_id)
    after = checked(changed(Product(id=product_id), change)).to_document()
    partial: dict[str, Any] = {}
    for name in change:
        if name == "attributes" and change[name] is not None:
            # Removals are not in `after`; null takes them away when the engine merges.
            partial[name] = {**dict.fromkeys(change[name]), **after.get(name, {})}
        elif name in ("category", "categories"):
            partial["category"] = after.get("category")
        elif name != "id":
            partial[name] = after.get(name)
    return _json(_escape_attributes(partial))


def document_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """The document as :meth:`Product.to_document` made it: without Endcap's own fields and without what is unknown."""
    document = {key: value for key, value in source.items() if value is not None and key not in INTERNAL_FIELDS}
    attributes = document.get("attributes")
    if attributes is not None:
        document["attributes"] = {_unescaped(key): value for key, value in attributes.items() if value is not None}
        if not document["attributes"]:
            del document["attributes"]
    return document


def _escape_attributes(document: dict[str, Any]) -> dict[str, Any]:
    attributes = document.get("attributes")
    if attributes:
        document["attributes"] = {_escaped(str(name)): _value(value) for name, value in attributes.items()}
    return document


def _value(value: Any) -> Any:
    # 5 and 5.0 are one value to whoever filters by it; as exact text they would be two.
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(value, (list, tuple)):
        return [_value(one) for one in value]
    return value


def _unit(vector: np.ndarray, dims: int | None) -> np.ndarray:
    if dims is None:
        raise ValueError("the index was made without vectors")
    found = np.asarray(vector, dtype=np.float32)
    if found.shape != (dims,):
        raise ValueError(f"the vector has shape {found.shape}, the index holds ({dims},)")
    norm = float(np.linalg.norm(found))
    if not math.isfinite(norm) or norm == 0.0:
        raise ValueError("the vector is zero or not finite")
    return np.ascontiguousarray(found / np.float32(norm))


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be stored: {error}") from None
