"""How a product is laid out in an index that Endcap makes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endcap import __version__
from endcap.catalog.product import TEXT_DIGEST, VECTOR

#: Words of title, brand and category as typed, never stemmed: what spelling is corrected from.
SPELLING = "endcap_spelling"
#: Words of the attributes' strings.
ATTRIBUTE_WORDS = "endcap_attribute_words"
#: The title, folded to lower case: what a list of products is sorted by.
TITLE_SORT = "title.sort"

#: Longer values are shown, but neither filtered nor counted. Lucene refuses terms of more than 32766 bytes.
MAX_KEYWORD = 1000


@dataclass(frozen=True, slots=True)
class IndexMeta:
    """What an index says about itself in its mapping's ``_meta``. ``index`` is the alias it was made for; ``filling``
    is true until a rebuild has succeeded. ``held_until``: another index is being filled to take its place, and nothing
    is written here (seconds since 1970; whoever fills it moves that on while he lives)."""

    index: str
    encoder: str
    dims: int | None
    filling: bool = False
    held_until: float = 0.0

    def to_mapping(self) -> dict[str, Any]:
        """The mapping's ``_meta``."""
        return {
            "endcap": {
                "version": __version__,
                "index": self.index,
                "encoder": self.encoder,
                "dims": self.dims,
                "filling": self.filling,
                **({"held_until": self.held_until} if self.held_until else {}),
            }
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> IndexMeta | None:
        """Read back; None: Endcap did not make this index."""
        meta = (mapping.get("_meta") or {}).get("endcap")
        if not isinstance(meta, dict) or "index" not in meta:
            return None
        return cls(
            str(meta["index"]),
            str(meta.get("encoder") or ""),
            meta.get("dims"),
            bool(meta.get("filling")),
            float(meta.get("held_until") or 0.0),
        )


def concrete_name(index: str) -> str:
    """A name that no other index has or will have: ``products-20260131-235959-1f2e3d``."""
    return f"{index}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def index_body(meta: IndexMeta, analyzer: str) -> dict[str, Any]:
    """Settings and mappings of a new index.

    One shard: scores are then comparable, sorting and counting exact, and a shard holds tens of millions of products.
    """
    text = {"type": "text", "analyzer": analyzer}
    keyword = {"type": "keyword", "ignore_above": MAX_KEYWORD}
    stored_only = {"type": "keyword", "index": False, "doc_values": False}
    properties: dict[str, Any] = {
        "id": {"type": "keyword"},
        "title": {
            **text,
            "copy_to": SPELLING,
            # Lucene refuses terms of more than 32766 bytes; a title this long sorts with those that have none.
            "fields": {"sort": {"type": "keyword", "normalizer": "lowercase", "ignore_above": 8000}},
        },
        "description": text,
        "brand": {**keyword, "copy_to": SPELLING, "fields": {"text": text}},
        "category": {**keyword, "copy_to": SPELLING, "fields": {"text": text}},
        "price": {"type": "double"},
        "stock": {"type": "double"},
        "image": stored_only,
        "url": stored_only,
        "attributes": {"type": "object", "dynamic": True, "subobjects": False},
        TEXT_DIGEST: stored_only,
        SPELLING: {"type": "text", "analyzer": "standard", "norms": False, "index_options": "freqs"},
        ATTRIBUTE_WORDS: text,
    }
    if meta.dims is not None:
        properties[VECTOR] = {
            "type": "dense_vector",
            "dims": meta.dims,
            "index": True,
            "similarity": "cosine",
            # A quarter of the memory of plain HNSW; searches rescore with the exact vectors.
            "index_options": {"type": "int8_hnsw", "m": 16, "ef_construction": 100},
        }
    return {
        "settings": {
            "number_of_shards": 1,
            "mapping": {"total_fields": {"limit": 2000, "ignore_dynamic_beyond_limit": True}},
        },
        "mappings": {
            "_meta": meta.to_mapping(),
            "dynamic": False,
            "date_detection": False,
            "dynamic_templates": [
                {"attribute_words": _attribute("string", {"copy_to": ATTRIBUTE_WORDS})},
                {"attribute_values": _attribute("*", {})},
            ],
            "properties": properties,
        },
    }


def _attribute(kind: str, more: Mapping[str, Any]) -> dict[str, Any]:
    # Exact as text, and as a number where it is one: no shop's attribute keeps to one type over all its products.
    number = {"type": "double", "ignore_malformed": True}
    return {
        "path_match": "attributes.*",
        "match_mapping_type": kind,
        "mapping": {"type": "keyword", "ignore_above": MAX_KEYWORD, "fields": {"number": number}, **more},
    }
