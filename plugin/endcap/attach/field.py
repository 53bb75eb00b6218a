"""Vectors in a field of the attached index itself, where the shop asked for it: for kNN queries of its own.

Only that field is written, by partial updates, so nothing that the shop writes meanwhile is lost. A document needs its
vector where its text has changed or where the shop has written it anew without one. Writing gives it a new sequence
number, so it is seen once more by the next sync, which then finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from endcap.attach.source import PAGE, Document, Source
from endcap.errors import ConfigurationError, EngineError

#: Times that documents are tried anew which somebody else changed at the same moment.
_ATTEMPTS = 5


class VectorField:
    """The field ``name`` of an attached index on Elasticsearch."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self.name = name

    def ensure(self, dims: int) -> None:
        """Add the field to the mappings, if it is not there.

        Raises:
            ConfigurationError: it is there and holds something else; or the index does not keep whole documents, and
                writing a field would lose what it does not keep.
            EngineError: the credentials may not.
        """
        every = self._source.mappings()
        for index, mappings in every.items():
            kept = mappings.get("_source", {})
            if kept.get("excludes") or kept.get("includes") or kept.get("enabled", True) in (False, "false"):
                raise ConfigurationError(
                    f"source_vector_field: [{index}] keeps only parts of its documents (`_source` in its mappings): "
                    "the other parts would be lost with the first write: leave --into-field out"
                )
        for index, mappings in every.items():
            have = mappings.get("properties", {}).get(self.name)
            if have is None:
                field = {"type": "dense_vector", "dims": dims, "index": True, "similarity": "cosine"}
                self._source.ask("POST", f"/{index}/_mapping", {"properties": {self.name: field}})
            elif (have.get("type"), have.get("dims")) != ("dense_vector", dims):
                raise ConfigurationError(
                    f"source_vector_field: [{index}] has a field {self.name!r} that does not hold vectors of {dims} "
                    "numbers: name another"
                )

    def missing(self, hits: Sequence[Document]) -> list[bool]:
        """Of each hit, whether it has no vector."""
        with_one = self._source.having(self.name, [str(hit["_id"]) for hit in hits])
        return [str(hit["_id"]) not in with_one for hit in hits]

    def write(self, hits: Sequence[Document], vectors: np.ndarray) -> int:
        """Give hits their vectors (float32, shape (n, dims)). How many were written; one that is gone is none."""
        lines: list[bytes] = []
        for hit, vector in zip(hits, vectors, strict=True):
            lines += [
                orjson.dumps({"update": {**_where(hit), "retry_on_conflict": 3}}),
                orjson.dumps({"doc": {self.name: vector}}, option=orjson.OPT_SERIALIZE_NUMPY),
            ]
        return self._bulk(lines, allowed=(404,))

    def remove(self) -> int:
        """Take the vectors out of all documents; the field's name stays in the mappings, where nothing can be removed.

        Raises:
            EngineError: others keep writing the same documents; or the server gives no whole ones.
        """
        removed = 0
        for _ in range(_ATTEMPTS):
            self._source.refresh()
            before = removed
            while hits := self._source.with_field(self.name, PAGE):
                lines: list[bytes] = []
                for hit in hits:
                    rest = {name: value for name, value in hit["_source"].items() if name != self.name}
                    unchanged = {"if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
                    lines += [orjson.dumps({"index": {**_where(hit), **unchanged}}), orjson.dumps(rest)]
                done = self._bulk(lines, allowed=(404, 409))
                self._source.refresh()
                removed += done
                if not done:
                    break
            else:
                return removed
            if removed == before:
                break
        raise EngineError(f"some documents keep their field {self.name!r}: others write them all the time")

    def _bulk(self, lines: Sequence[bytes], allowed: Sequence[int]) -> int:
        if not lines:
            return 0
        answer = self._source.ask("POST", "/_bulk", b"\n".join([*lines, b""]))
        done = 0
        for item in answer["items"]:
            [outcome] = item.values()
            if outcome["status"] < 300:
                done += 1
            elif outcome["status"] not in allowed:
                raise EngineError(f"the vector of {outcome['_id']!r} was refused: {outcome.get('error')}")
        return done


def _where(hit: Document) -> dict[str, Any]:
    where = {"_index": hit["_index"], "_id": hit["_id"]}
    return {**where, "routing": hit["_routing"]} if "_routing" in hit else where
