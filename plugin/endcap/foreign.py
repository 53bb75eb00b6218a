"""Products of an index that Endcap did not make: the shop's own documents, read for their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from endcap.catalog.product import Product
from endcap.catalog.roles import Roles, find_roles, flatten
from endcap.catalog.rows import RowReader
from endcap.catalog.values import Unusable
from endcap.settings import Settings

#: The document's own id is the product's: it is what hits, and so events, name.
ID = "_id"


class ForeignDocuments:
    """Reads documents as products, with roles named by the settings or guessed from a first batch of hits."""

    def __init__(self, settings: Settings, hits: Sequence[Mapping[str, Any]]) -> None:
        roles, sample = guess(settings.field_roles, hits)
        self._reader = RowReader(roles, sample, settings.category_separator)

    def product(self, hit: Mapping[str, Any]) -> Product:
        """The product of a hit. A document that cannot be read as one is known by its id alone."""
        try:
            return self._reader.product(_row(hit))
        except Unusable:
            return Product(str(hit["_id"]))


def guess(named: Mapping[str, str], hits: Sequence[Mapping[str, Any]]) -> tuple[Roles, list[dict[str, Any]]]:
    """The roles of documents' fields, those not ``named`` guessed; and the documents, flattened."""
    sample = [flatten(_row(hit)) for hit in hits]
    return find_roles(sample, {"id": ID, **{role: one for role, one in named.items() if role != "id"}}), sample


def _row(hit: Mapping[str, Any]) -> dict[str, Any]:
    return {**hit.get("_source", {}), ID: hit["_id"]}
