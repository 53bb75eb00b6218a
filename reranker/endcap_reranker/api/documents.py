"""Which product each document of a rerank request is.

Engines send what their mappings and templates make them send: an id, an object or JSON text that holds one, or a text
in which it stands. All ids of a request are looked up in the catalogue together, a few times in all, so that a list of
ids costs next to nothing; texts have to be read one by one, so there may be fewer of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from endcap.catalog.table import ProductTable
from endcap.errors import InvalidInput

#: Documents of a request that are no plain ids. Reading so many takes some milliseconds.
MAX_TEXTS = 1_000
#: A product's id is looked for in so many characters of a text.
_LOOKED_AT = 2_000

_ID_KEYS = ("id", "product_id", "_id")
_NAMED_ID = re.compile(r"""\b(?:product[_ ]?)?id["']?\s*[:=#]\s*["']?([^\s"',;|}]+)""", re.IGNORECASE)
_TOKEN = re.compile(r"[^\s\"'(){}\[\],;|:=]+")
_SPACE = re.compile(r"\s")


def check_texts(documents: Sequence[Any], name: str) -> None:
    """Refuse more texts than are read; ids may be as many as there may be documents.

    Raises:
        InvalidInput: it names the limit.
    """
    if len(documents) <= MAX_TEXTS:
        return
    texts = sum(not _plain(one) for one in documents)
    if texts > MAX_TEXTS:
        raise InvalidInput(
            f"{name}: {texts} texts; at most {MAX_TEXTS} are searched for an id: send the products' ids themselves, "
            'or objects such as {"id": "42"}'
        )


def product_ids(documents: Sequence[Any], table: ProductTable | None) -> list[str | None]:
    """The product that each document is; None where that cannot be told.

    A document is an id, an object or JSON text with ``id`` or ``product_id``, or a text in which exactly one product's
    id stands. Without a table (not loaded yet) the plain readings are believed.
    """
    read = [_reading(one) for one in documents]
    if table is None:
        return [next((one for one in ids if not _SPACE.search(one)), None) for ids, _ in read]
    found: list[str | None] = [None] * len(read)
    # An object may name several ids: the first of each, the second of those without a product, …
    depth = 0
    open_ = [place for place, (ids, _) in enumerate(read) if ids]
    while open_:
        asked = [read[place][0][depth] for place in open_]
        _settle(found, open_, asked, table)
        depth += 1
        open_ = [place for place in open_ if found[place] is None and len(read[place][0]) > depth]
    texts = [place for place, (_, text) in enumerate(read) if text and found[place] is None]
    named = [(place, match[1]) for place in texts if (match := _NAMED_ID.search(read[place][1]))]
    _settle(found, [place for place, _ in named], [one for _, one in named], table)
    _only_one(found, [(place, read[place][1]) for place in texts if found[place] is None], table)
    return found


def _settle(found: list[str | None], places: Sequence[int], ids: Sequence[str], table: ProductTable) -> None:
    """Note those ``ids`` (of the documents at ``places``) that are products."""
    for at in np.flatnonzero(table.rows(ids) >= 0).tolist():
        found[places[at]] = ids[at]


def _only_one(found: list[str | None], texts: Sequence[tuple[int, str]], table: ProductTable) -> None:
    """Note the product of each text in which exactly one product's id stands: "12 oz" may hold another product's id by
    chance, so two candidates are none."""
    tokens = [list(dict.fromkeys(_TOKEN.findall(text))) for _, text in texts]
    flat = [one for each in tokens for one in each]
    owner = np.repeat(np.arange(len(texts)), [len(each) for each in tokens])
    hits = np.flatnonzero(table.rows(flat) >= 0)
    alone = np.bincount(owner[hits], minlength=len(texts)) == 1
    for hit in hits[alone[owner[hits]]].tolist():
        found[texts[owner[hit]][0]] = flat[hit]


def _plain(document: Any) -> bool:
    """Whether a document can only be an id, or an object that holds one."""
    if isinstance(document, dict):
        if any(document.get(name) is not None for name in _ID_KEYS):
            return True
        document = document.get("text", "")
    return not isinstance(document, str) or not (document[:1] == "{" or _SPACE.search(document, 0, _LOOKED_AT))


def _reading(document: Any) -> tuple[list[str], str]:
    """The ids that a document may be, and the text to look for one in where they are none (empty: not at all)."""
    ids: list[str] = []
    if isinstance(document, dict):
        ids = _held(document)
        document = document.get("text", "")
    text = str(document)[:_LOOKED_AT].strip()
    if not text:
        return ids, ""
    ids.append(text)
    if text[0] == "{":
        try:
            inner = orjson.loads(str(document))
        except orjson.JSONDecodeError:
            inner = None
        if isinstance(inner, dict) and any(name in inner for name in _ID_KEYS):
            return [*ids, *_held(inner)], ""  # what it says of itself counts, not what else stands in it
    return ids, text


def _held(document: dict[str, Any]) -> list[str]:
    """What an object has under the names of an id."""
    return [str(given) for name in _ID_KEYS if (given := document.get(name)) not in (None, "")]
