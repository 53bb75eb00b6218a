"""Makes a product, or a partial change, of a row whose fields' roles are known."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from endcap.catalog.product import Product
from endcap.catalog.roles import Roles, flatten
from endcap.catalog.values import (
    MAX_DESCRIPTION,
    MAX_TITLE,
    Unusable,
    is_missing,
    json_scalar,
    path_separator,
    scalar_text,
    to_categories,
    to_id,
    to_link,
    to_number,
    to_price,
    to_stock,
    to_text,
    writes_decimal_comma,
)

#: Bounds of one product's attributes.
MAX_ATTRIBUTES = 200
MAX_ATTRIBUTE_NAME = 100
MAX_ATTRIBUTE_TEXT = 10_000
MAX_ATTRIBUTE_LIST = 100

_CSV_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,9})(?:\.\d+)?")
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_CSV_BOOLEAN = frozenset({"true", "false"})


class RowReader:
    """Maps rows by ``roles``, with what a sample of the file's rows tells: separators, decimal mark, attribute types.

    ``notices`` counts what was changed or left out on the way, by reason.
    """

    def __init__(
        self,
        roles: Roles,
        sample: Sequence[Mapping[str, Any]],
        category_separator: str = " > ",
        typed: bool = True,
    ) -> None:
        self.roles = roles
        self.notices: Counter[str] = Counter()
        self._typed = typed
        self._single = {role: fields[0] for role, fields in roles.fields.items() if role != "category"}
        self._category = roles.fields.get("category", ())
        self._used = roles.used()
        prices = [row.get(self._single.get("price", "")) for row in sample]
        self._decimal_comma = writes_decimal_comma(prices)
        paths = [row.get(field) for row in sample for field in self._category]
        self._separator = path_separator(paths, category_separator)
        self._kinds: dict[str, str] = {}
        for field in {field for row in sample for field in row} - self._used:
            values = [row[field] for row in sample if not is_missing(row.get(field))]
            if values:
                self._kinds[field] = _kind(values, typed)

    def product_id(self, values: Mapping[str, Any]) -> str:
        """The row's id.

        Raises:
            Unusable: it has none.
        """
        return to_id(values.get(self._single["id"]))

    def product(self, values: Mapping[str, Any]) -> Product:
        """The product of a row as it stands in the file.

        Raises:
            Unusable: the row cannot become a product; the message is the reason.
        """
        row = flatten(values)
        return Product(
            id=self.product_id(row),
            title=self._text(row, "title", MAX_TITLE, False),
            description=self._text(row, "description", MAX_DESCRIPTION, True),
            brand=self._text(row, "brand", MAX_TITLE, False),
            categories=to_categories([row.get(field) for field in self._category], self._separator),
            price=to_price(self._value(row, "price"), self._decimal_comma),
            stock=self._stock(row),
            image=to_link(self._value(row, "image")),
            url=to_link(self._value(row, "url")),
            attributes=self._attributes(row),
        )

    def changes(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """(id, changed fields of the stored document) of a partial row: price, stock, image, url and attributes.

        A field that is not there, and an empty CSV cell, change nothing; JSON's null makes a value unknown. Fields
        that the text encoder reads are left out: changing them takes a whole row.

        Raises:
            Unusable: no id, nothing to change, or a value that its role cannot take.
        """
        row = flatten(values)
        changes: dict[str, Any] = {}
        for role in ("price", "stock", "image", "url"):
            field = self._single.get(role)
            if field is None or field not in row or (not self._typed and is_missing(row[field])):
                continue
            if role == "price":
                changes[role] = to_price(row[field], self._decimal_comma)
            elif role == "stock":
                changes[role] = to_stock(row[field])
            else:
                changes[role] = to_link(row[field]) or None
        if attributes := self._attributes(row):
            changes["attributes"] = attributes
        for role in ("title", "description", "brand"):
            if not is_missing(row.get(self._single.get(role, ""))):
                self.notices[f"{role} is not changed by --partial: it is part of the encoded text"] += 1
        product_id = self.product_id(row)
        if not changes:
            raise Unusable("nothing to change: no price, stock, image, url or attribute")
        return product_id, changes

    def _value(self, row: Mapping[str, Any], role: str) -> Any:
        return row.get(self._single.get(role, ""))

    def _text(self, row: Mapping[str, Any], role: str, limit: int, strip_tags: bool) -> str:
        text = to_text(self._value(row, role), limit, strip_tags)
        if len(text) == limit:
            self.notices[f"{role} cut at {limit:,} characters"] += 1
        return text

    def _stock(self, row: Mapping[str, Any]) -> float | None:
        value = self._value(row, "stock")
        try:
            return to_stock(value)
        except Unusable:
            self.notices["stock unknown: neither a number nor in stock / out of stock"] += 1
            return None

    def _attributes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for field, value in row.items():
            if field in self._used or is_missing(value):
                continue
            if len(attributes) == MAX_ATTRIBUTES:
                self.notices[f"attributes beyond the first {MAX_ATTRIBUTES} left out"] += 1
                break
            kind = self._kinds.get(field) or self._kinds.setdefault(field, _kind([value], self._typed))
            typed = self._attribute(field, value, kind)
            if typed is not None:
                attributes[field.replace(".", "_").strip()[:MAX_ATTRIBUTE_NAME]] = typed
        return attributes

    def _attribute(self, field: str, value: Any, kind: str) -> Any:
        if kind == "list":
            parts = value if isinstance(value, (list, tuple)) else [value]
            texts = [self._short(field, one) for one in parts[:MAX_ATTRIBUTE_LIST] if not isinstance(one, (dict, list))]
            return [text for text in texts if text] or None
        if kind == "text":
            if isinstance(value, (list, tuple)):
                value = ", ".join(scalar_text(json_scalar(one)) for one in value if not isinstance(one, dict))
            return self._short(field, value)
        if kind == "boolean":
            word = value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).strip().lower())
            if word is None:
                self.notices[f"attribute {field} left out where it is not true or false"] += 1
            return word
        try:
            if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value.strip()):
                raise Unusable("a unit, perhaps: 5 kg is not 5")
            number = to_number(json_scalar(value))
        except Unusable:
            if not (isinstance(value, float) and math.isnan(value)):
                self.notices[f"attribute {field} left out where it is not a number"] += 1
            return None
        return int(number) if number.is_integer() and abs(number) < 2**53 else number

    def _short(self, field: str, value: Any) -> str | None:
        text = to_text(json_scalar(value), MAX_ATTRIBUTE_TEXT + 1)
        if len(text) > MAX_ATTRIBUTE_TEXT:
            self.notices[f"attribute {field} left out where it is longer than {MAX_ATTRIBUTE_TEXT:,} characters"] += 1
            return None
        return text or None


def _kind(values: Sequence[Any], typed: bool) -> str:
    """The one type of an attribute, so that an engine can give the field one mapping; mixed values are text."""
    if any(isinstance(value, (list, tuple)) for value in values):
        return "list"
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if typed:
        numbers = all(isinstance(json_scalar(value), (int, float)) and not isinstance(value, bool) for value in values)
        return "number" if numbers else "text"
    texts = [str(value).strip() for value in values]
    if all(text.lower() in _CSV_BOOLEAN for text in texts):
        return "boolean"
    return "number" if all(_CSV_NUMBER.fullmatch(text) for text in texts) else "text"
