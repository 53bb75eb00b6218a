"""The mapping that a client sees: which field names exist, of which type, and where each is in the index.

Every name of the Elasticsearch index that Endcap makes is there (``title.sort``, ``brand.text``,
``attributes.NAME.number``, …), and so is ``.keyword``, the exact form in an index that Elasticsearch mapped by itself.
``brand`` and ``category`` are exact wherever exactness is asked for (term, facet, sort), and words for full-text
queries. ``attributes.NAME`` are exact values, as text; ``image`` and ``url`` are stored only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from endcap.catalog.product import INTERNAL_FIELDS, VECTOR
from endcap.engines.embedded import schema as layout

from .errors import DslError, illegal, refused
from .values import wildcard

Kind = Literal["text", "keyword", "number", "attribute", "title", "folded", "stored"]

#: Fields that `multi_match` without `fields`, and `query_string`, look into.
DEFAULT_FIELDS = ("title", "brand", "category", "description", "attributes.*")

#: Every attribute's words together: what "attributes.*" means to a full-text query.
ALL_ATTRIBUTES = "attributes.*"


@dataclass(frozen=True, slots=True)
class Field:
    """A field as a client names it.

    ``words``: index field of its analysed words, or None. ``exact``: index field of its exact values, or None.
    ``kind``: *text* has words only; *title* is the exact form of the title, which the index holds folded, so that an
    exact comparison has to look at the document; *folded* is that folded form; *stored* can be shown, not searched.
    ``numeric``: of an attribute, only its numbers count.
    """

    name: str
    kind: Kind
    words: str | None = None
    exact: str | None = None
    numeric: bool = False

    @property
    def path(self) -> str:
        """Where the values are in a stored document."""
        if self.name == "_id":
            return "id"
        for suffix in (".keyword", ".text", ".sort", ".number"):
            if self.name.endswith(suffix):
                return self.name.removesuffix(suffix)
        return self.name


def _known() -> dict[str, Field]:
    text = {name: words for name, (words, _) in layout.TEXT_FIELDS.items()}
    fields = [
        Field("_id", "keyword", exact=layout.ID),
        Field("id", "keyword", exact=layout.ID),
        Field("id.keyword", "keyword", exact=layout.ID),
        Field("title", "text", words=text["title"]),
        Field("title.keyword", "title", exact=layout.TITLE_SORT),
        Field("title.sort", "folded", exact=layout.TITLE_SORT),
        Field("description", "text", words=text["description"]),
        Field("brand", "keyword", words=text["brand"], exact="brand"),
        Field("brand.text", "text", words=text["brand"]),
        Field("brand.keyword", "keyword", exact="brand"),
        Field("category", "keyword", words=text["category"], exact="category"),
        Field("category.text", "text", words=text["category"]),
        Field("category.keyword", "keyword", exact="category"),
        Field("price", "number", exact="price"),
        Field("stock", "number", exact="stock"),
        Field("image", "stored"),
        Field("url", "stored"),
        Field(ALL_ATTRIBUTES, "text", words=text["attributes"]),
    ]
    return {field.name: field for field in fields}


_FIELDS = _known()


def resolve(name: str) -> Field | None:
    """The field of that name; None where the mapping has none, so that a query on it matches nothing."""
    if field := _FIELDS.get(name):
        return field
    prefix, _, attribute = name.partition(".")
    if prefix == layout.ATTRIBUTES and attribute and "*" not in attribute:
        numeric = attribute.endswith(".number")
        attribute = attribute.removesuffix(".keyword").removesuffix(".number")
        return Field(name, "attribute", exact=layout.attribute_path(attribute), numeric=numeric) if attribute else None
    return None


def text_fields(pattern: str) -> list[str]:
    """The searchable fields that a pattern of `multi_match` names; a plain name stands for itself, known or not."""
    if "*" not in pattern:
        return [pattern]
    if pattern.startswith("attributes."):
        return [ALL_ATTRIBUTES]
    # Sub-fields would count the same words twice; ids and numbers are left out of patterns.
    names = [name for name, field in _FIELDS.items() if field.words and not name.endswith(".text")]
    return [name for name in names if wildcard(pattern).match(name)]


def aggregatable(name: str, where: str) -> Field | None:
    """The field for an aggregation, a sort or a collapse.

    Raises:
        DslError: the field is text, or only stored.
    """
    field = resolve(name)
    if field is None or name in INTERNAL_FIELDS:
        return None
    if field.kind == "text":
        raise illegal(
            f"Fielddata is disabled on [{name}] in [{where}]. Text fields are not optimised for operations that "
            "require per-document field data like aggregations and sorting. Please use a keyword field instead"
            + (f", [{name}.keyword]." if name == "title" else "."),
            wrapped=True,
        )
    if field.kind == "stored":
        raise illegal(f"Can't load fielddata on [{name}] because fielddata is unsupported on this field.", wrapped=True)
    return field


def not_indexed(name: str) -> DslError:
    return refused(f"Cannot search on field [{name}] since it is not indexed nor has doc values.")


def is_vector(name: str) -> bool:
    return name == VECTOR
