"""Which field of a shop's rows is the title, which the price: named by the settings, guessed from names and values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from endcap.catalog.product import ROLES
from endcap.catalog.values import Unusable, is_missing, to_number, to_stock
from endcap.errors import ConfigurationError, InvalidInput

_MAX_DEPTH = 3

#: Names in order of preference, as :func:`_plain` writes them, without ``product_``, ``item_`` and the like.
_NAMES: Mapping[str, str] = {
    "id": "id id_oid sku asin parent_asin uid uuid code number no nr key handle gtin ean upc isbn barcode docid doc_id",
    "title": "title name display_name short_title title_en name_en headline label product item desc_short",
    "description": "description desc long_description full_description description_en body_html body content "
    "short_description short_desc summary overview details text about features about_product bullet_points",
    "brand": "brand brand_name manufacturer manufacturer_name maker make vendor supplier producer designer publisher "
    "author artist",
    "category": "category_path categories category breadcrumbs breadcrumb category_tree category_name taxonomy "
    "category_id cat google_product_category google_category type collection department group class",
    "price": "price sale_price current_price final_price selling_price discounted_price unit_price price_amount "
    "price_value price_current price_eur price_usd price_gbp base_price regular_price retail_price list_price "
    "actual_price msrp rrp amount cost",
    "stock": "stock stock_quantity quantity_in_stock quantity qty stock_qty inventory inventory_quantity stock_level "
    "in_stock is_in_stock instock availability available is_available stock_status on_hand units_available",
    "image": "image image_url im_url image_link image_src main_image primary_image img img_url imgurl images "
    "image_urls picture picture_url pictures photo photo_url photos image_1 image1 thumbnail thumbnail_url thumb "
    "img_500x500",
    "url": "url link page_url permalink href canonical_url page_link detail_url web_url deeplink",
}
#: Several fields that together are a path, from the root to the leaf.
_LEVELS = (
    "department",
    "main_category",
    "top_category",
    "parent_category",
    "category",
    "sub_category",
    "subcategory",
    "sub_sub_category",
)
_PREFIX = re.compile(r"^(?:g_)?(?:(?:products?|items?|articles?|prod|goods|offer|variant)_)?(?=.)")
_NUMBERED = re.compile(r"(?:cat|category|categories|level|category_level|lvl|hierarchy)_?(\d{1,2})(?:_name)?")
_IMAGE_LIKE = re.compile(r"(?:img|image|picture|photo|thumb)")


@dataclass(frozen=True, slots=True)
class Roles:
    """Role -> fields: one each, but ``category`` may have several, from the root to the leaf.

    ``guessed`` names the roles that were not given explicitly.
    """

    fields: Mapping[str, tuple[str, ...]]
    guessed: frozenset[str] = frozenset()

    def used(self) -> frozenset[str]:
        """Fields that play a role."""
        return frozenset(field for fields in self.fields.values() for field in fields)


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects as dotted names: ``{"price": {"amount": 3}}`` becomes ``{"price.amount": 3}``.

    Deeper than three levels is left out; lists stay.
    """
    return dict(_flat(values, "", 1))


def _flat(values: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            if depth < _MAX_DEPTH:
                yield from _flat(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def find_roles(rows: Sequence[Mapping[str, Any]], explicit: Mapping[str, str]) -> Roles:
    """The roles of the fields of flattened sample ``rows``. ``explicit`` (role -> field, for ``category`` several
    with commas between) goes before every guess.

    Raises:
        ConfigurationError: ``explicit`` names a role that there is not.
        InvalidInput: no field is the id, or the one named is not in the rows.
    """
    samples: dict[str, list[Any]] = {}
    for row in rows:
        for field, value in row.items():
            if not is_missing(value):
                samples.setdefault(field, []).append(value)
            else:
                samples.setdefault(field, [])
    chosen: dict[str, tuple[str, ...]] = {}
    for role, named in explicit.items():
        if role not in ROLES:
            near = difflib.get_close_matches(role, ROLES, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"field_roles: there is no role {role!r}{hint} Roles: {', '.join(ROLES)}")
        parts = [named] if role != "category" or named in samples else [part.strip() for part in named.split(",")]
        if any(parts):
            chosen[role] = tuple(part for part in parts if part)
    guessed = set()
    for role in ROLES:
        if role in explicit:
            continue
        taken = {field for fields in chosen.values() for field in fields}
        free = {field: values for field, values in samples.items() if field not in taken}
        fields = _levels(free) if role == "category" else ()
        fields = fields or _best(role, free, len(rows))
        if fields:
            chosen[role] = fields
            guessed.add(role)
    names = ", ".join(list(samples)[:20])
    if "id" not in chosen:
        raise InvalidInput(f"no field looks like a product's id. Name it: --map id=FIELD. Fields: {names}")
    if chosen["id"][0] not in samples:
        near = difflib.get_close_matches(chosen["id"][0], list(samples), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidInput(f"the id's field {chosen['id'][0]!r} is in none of the first rows.{hint} Fields: {names}")
    return Roles({role: chosen[role] for role in ROLES if role in chosen}, frozenset(guessed))


def _plain(field: str) -> str:
    """``productName``, ``Product-Name`` and ``product name`` are all ``product_name``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field)
    return re.sub(r"[^0-9a-z]+", "_", spaced.lower()).strip("_")


def _best(role: str, samples: Mapping[str, list[Any]], rows: int) -> tuple[str, ...]:
    ranks = {name: rank for rank, name in enumerate(_NAMES[role].split())}
    fits = _FITS[role]
    found: list[tuple[int, int, str]] = []
    for place, (field, values) in enumerate(samples.items()):
        name = _plain(field)
        short = _PREFIX.sub("", name)
        bare = _PREFIX.sub("", _plain(re.sub(r"[(\[].*", "", field)))  # Price (incl. VAT)
        rank = min(ranks.get(one, 999) for one in (name, short, bare))
        if rank == 999 and role == "id" and re.search(r"(_id|_code|_number|_sku|_no|_nr)$", name):
            rank = 900
        if rank == 999 and role == "image" and _IMAGE_LIKE.match(short):
            rank = 900
        if rank < 999 and values and fits(values, rows):
            found.append((rank, place, field))
    return (min(found)[2],) if found else ()


def _levels(samples: Mapping[str, list[Any]]) -> tuple[str, ...]:
    """Fields that hold one level each; none where a single field holds whole paths."""
    numbered: dict[int, str] = {}
    ranked: dict[int, str] = {}
    for field, values in samples.items():
        name = _PREFIX.sub("", _plain(field))
        if not values or not _texts(values, 0):
            continue
        if found := _NUMBERED.fullmatch(name):
            numbered.setdefault(int(found[1]), field)
        elif name in _LEVELS:
            ranked.setdefault(_LEVELS.index(name), field)
    for group in (numbered, ranked):
        fields = tuple(group[level] for level in sorted(group))
        whole = any(re.search(r"\S\s*[>»›]\s*\S", str(value)) for field in fields for value in samples[field])
        if len(fields) > 1 and not whole:
            return fields
    return ()


def _share(values: Sequence[Any], test: Callable[[Any], bool]) -> float:
    return sum(map(test, values)) / len(values)


def _parses(parse: Callable[[Any], Any]) -> Callable[[Sequence[Any], int], bool]:
    def works(value: Any) -> bool:
        try:
            parse(value)
        except Unusable:
            return False
        return True

    return lambda values, rows: _share(values, works) >= 0.6


def _ids(values: Sequence[Any], rows: int) -> bool:
    """Nearly every row has one of its own: a field that repeats names a group, not a product."""
    scalars = [value for value in values if isinstance(value, (str, int, float)) and not isinstance(value, bool)]
    return len(scalars) >= 0.5 * rows and len(set(map(str, scalars))) >= 0.5 * len(scalars)


def _texts(values: Sequence[Any], rows: int) -> bool:
    return _share(values, lambda value: isinstance(value, (str, list, tuple))) >= 0.6


def _words(values: Sequence[Any], rows: int) -> bool:
    return _share(values, lambda value: isinstance(value, str) and not re.fullmatch(r"[\d.,\s]+", value)) >= 0.6


def _links(values: Sequence[Any], rows: int) -> bool:
    def link(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return bool(value) and link(value[0])
        if isinstance(value, Mapping):
            return True
        return isinstance(value, str) and bool(re.match(r"(https?:)?/|data:|[\w./-]+\.\w{2,5}$", value.strip()))

    return _share(values, link) >= 0.6


_FITS: Mapping[str, Callable[[Sequence[Any], int], bool]] = {
    "id": _ids,
    "title": _words,
    "description": _texts,
    "brand": _words,
    "category": lambda values, rows: _share(values, lambda value: not isinstance(value, (bool, float))) >= 0.6,
    "price": _parses(to_number),
    "stock": _parses(to_stock),
    "image": _links,
    "url": _links,
}
