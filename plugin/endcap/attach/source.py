"""Reads a shop's own index over plain HTTP: Elasticsearch's client refuses OpenSearch, and both speak the same here.

Every change to a document gives it a new sequence number, which counts up within its shard. So what has changed since
a number is a range query, deletions show as fewer documents in a range of numbers than there were, and neither needs a
scan. All but :mod:`endcap.attach.field` only reads, which takes the rights ``read`` and ``view_index_metadata``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import orjson

from endcap.engines.base import WireAnswer
from endcap.engines.forward import HttpWireEngine
from endcap.errors import ConfigurationError, EngineError, EngineUnavailable, UnknownIndex
from endcap.settings import Settings

#: Documents in one request.
PAGE = 500
#: Fewer documents than there are would look like deletions: then rather no answer.
_WHOLE = "allow_partial_search_results=false"
_PATIENCE_S = 60.0
_NOT_NOW = frozenset({429, 502, 503, 504})
#: Kinds of fields that hold numbers for machines; they are long, and say nothing about a product.
_OPAQUE = frozenset({"dense_vector", "knn_vector", "sparse_vector", "rank_features", "binary", "semantic_text"})

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unit:
    """One shard of one index: what sequence numbers count in. ``uuid`` tells an index from one of the same name."""

    index: str
    uuid: str
    shard: int

    @property
    def key(self) -> str:
        """Names it in the ledger."""
        return f"{self.uuid}/{self.shard}"


class Source:
    """The index (or alias) ``name`` at ``settings.engine_url``. Thread-safe."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        self._http = HttpWireEngine(settings)
        self._timeout = max(_PATIENCE_S, settings.engine_timeout_s)
        self._filters: dict[str, dict[str, Any]] = {}
        self._opaque: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def units(self) -> list[Unit]:
        """The shards of every index behind the name, in order.

        Raises:
            UnknownIndex: there is no such index.
            EngineError: the server refuses or is away.
        """
        answer = self.ask("GET", f"/{quote(self.name, safe='')}")
        found = []
        self._opaque = []
        for index in sorted(answer):
            about = answer[index]
            setting = about["settings"]["index"]
            self._filters[index] = about.get("aliases", {}).get(self.name, {}).get("filter", {})
            fields = fields_of(about.get("mappings", {}))
            self._opaque += [name for name, kind in fields.items() if kind in _OPAQUE]
            found += [Unit(index, setting["uuid"], shard) for shard in range(int(setting["number_of_shards"]))]
        return found

    def fields(self) -> dict[str, str]:
        """Dotted field -> its type in the mappings."""
        answer = self.ask("GET", f"/{quote(self.name, safe='')}")
        return {name: kind for about in answer.values() for name, kind in fields_of(about.get("mappings", {})).items()}

    def mappings(self) -> dict[str, Any]:
        """The mappings of each index behind the name."""
        answer = self.ask("GET", f"/{quote(self.name, safe='')}")
        return {index: about.get("mappings", {}) for index, about in answer.items()}

    def having(self, field: str, ids: Sequence[str]) -> set[str]:
        """Which of the ids have a value in a field."""
        both = [{"ids": {"values": list(ids)}}, {"exists": {"field": field}}]
        body = {"size": len(ids), "query": {"bool": {"filter": both}}, "_source": False, "track_total_hits": False}
        hits = self.ask("POST", f"/{quote(self.name, safe='')}/_search", body, _WHOLE)["hits"]["hits"]
        return {hit["_id"] for hit in hits}

    def with_field(self, field: str, size: int) -> list[Document]:
        """Some documents that have a vector in a field, whole.

        Raises:
            EngineError: the server leaves vectors out of them.
        """
        query = {"exists": {"field": field}}
        body = {"size": size, "query": query, "seq_no_primary_term": True, "track_total_hits": False}
        # From 9.2 on vectors have to be asked for; servers before that do not know the words.
        for more in ({}, {"_source": {"exclude_vectors": False}}):
            hits = list(self.ask("POST", f"/{quote(self.name, safe='')}/_search", {**body, **more})["hits"]["hits"])
            if all(field in hit.get("_source", {}) for hit in hits):
                return hits
        raise EngineError(f"[{self.name}] does not give its documents whole: they cannot be written back")

    def refresh(self) -> None:
        """Make what was written visible."""
        self.ask("POST", f"/{quote(self.name, safe='')}/_refresh")

    def made_by_endcap(self) -> bool:
        """Whether the name belongs to an index that Endcap made itself."""
        answer = self.ask("GET", f"/{quote(self.name, safe='')}")
        return any("endcap" in (about.get("mappings", {}).get("_meta") or {}) for about in answer.values())

    def is_elasticsearch(self) -> bool:
        """Whether the server is an Elasticsearch, which Endcap's own indices can be made in."""
        answer = self._send("GET", f"/{quote(self.name, safe='')}", b"")
        named = {name.lower(): value for name, value in answer.headers.items()}
        return str(named.get("x-elastic-product", "")) == "Elasticsearch"

    def sample(self, size: int = 200) -> list[Document]:
        """A few documents (hits with ``_id`` and ``_source``), spread as the server likes."""
        body = {"size": size, "_source": {"excludes": self._opaque}, "track_total_hits": False}
        return list(self.ask("POST", f"/{quote(self.name, safe='')}/_search", body)["hits"]["hits"])

    def changed(self, unit: Unit, after: int) -> Iterator[list[Document]]:
        """Hits (``_id``, ``_source``, ``_seq_no``) whose number is above ``after``, in its order, by pages.

        What is changed while this runs gets a higher number and comes again, later: nothing is passed over.

        Raises:
            ConfigurationError: the index keeps no sequence numbers that can be searched.
        """
        while True:
            body = {
                "size": PAGE,
                "query": self._query(unit, after + 1, None),
                "sort": [{"_seq_no": "asc"}],
                "seq_no_primary_term": True,
                "_source": {"excludes": self._opaque},
                "track_total_hits": False,
            }
            hits = self._search(unit, body)["hits"]["hits"]
            if not hits:
                return
            if "_seq_no" not in hits[-1]:
                raise ConfigurationError(f"[{unit.index}] gives no sequence numbers: attach needs them to see changes")
            yield hits
            after = int(hits[-1]["_seq_no"])

    def count(self, unit: Unit, low: int, high: int) -> int:
        """Documents with a number in [low, high]."""
        body = {"size": 0, "query": self._query(unit, low, high), "track_total_hits": True}
        return int(self._search(unit, body)["hits"]["total"]["value"])

    def ids(self, unit: Unit, low: int, high: int, size: int) -> set[str]:
        """Their ids, ``size`` at most."""
        body = {"size": size, "query": self._query(unit, low, high), "_source": False, "track_total_hits": False}
        return {hit["_id"] for hit in self._search(unit, body)["hits"]["hits"]}

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids there are.

        Raises:
            EngineUnavailable: a part of the index cannot be asked now.
        """
        found: set[str] = set()
        for start in range(0, len(ids), PAGE):
            some = list(ids[start : start + PAGE])
            body = {"size": len(some), "query": {"ids": {"values": some}}, "_source": False, "track_total_hits": False}
            hits = self.ask("POST", f"/{quote(self.name, safe='')}/_search", body, _WHOLE)["hits"]["hits"]
            found.update(hit["_id"] for hit in hits)
        return found

    def _query(self, unit: Unit, low: int, high: int | None) -> dict[str, Any]:
        bounds = {"gte": low} if high is None else {"gte": low, "lte": high}
        conditions: list[dict[str, Any]] = [{"range": {"_seq_no": bounds}}]
        if self._filters.get(unit.index):
            conditions.append(self._filters[unit.index])
        return {"bool": {"filter": conditions}}

    def _search(self, unit: Unit, body: Mapping[str, Any]) -> Any:
        path = f"/{quote(unit.index, safe='')}/_search"
        answer = self.ask("POST", path, body, f"preference=_shards:{unit.shard}")
        if answer.get("timed_out") or answer["_shards"]["failed"]:
            # Fewer documents than there are would look like deletions.
            raise EngineUnavailable(f"shard {unit.shard} of [{unit.index}] did not answer in full")
        return answer

    def ask(self, method: Literal["GET", "POST"], path: str, body: Any = None, query: str = "") -> Any:
        """One request; ``body``: JSON, or bytes that are NDJSON. Errors of the server are raised."""
        content = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
        answer = self._send(method, path, content, query)
        try:
            value = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            value = {}
        if answer.status == 404:
            raise UnknownIndex(f"there is no index [{self.name}] at the search engine")
        if answer.status >= 300 or not isinstance(value, dict):
            error = value.get("error") if isinstance(value, dict) else None
            causes = error.get("root_cause") if isinstance(error, dict) else None
            reason = causes[0].get("reason") if causes else answer.body[:200].decode("utf-8", "replace")
            if answer.status in (401, 403):
                reason = f"{reason} (see engine_api_key, engine_username and engine_password)"
            kind = EngineUnavailable if answer.status in _NOT_NOW else EngineError
            raise kind(f"the search engine refused: {reason}", answer.status, value)
        return value

    def _send(self, method: Literal["GET", "POST"], path: str, body: bytes, query: str = "") -> WireAnswer:
        media = "application/x-ndjson" if path == "/_bulk" else "application/json"
        headers = {"Content-Type": media} if body else {}
        return self._http.send(method, path, query, headers, body, self._timeout)


def fields_of(mappings: Mapping[str, Any]) -> dict[str, str]:
    """Dotted field -> type."""
    found: dict[str, str] = {}

    def walk(properties: Mapping[str, Any], prefix: str) -> None:
        for name, about in properties.items():
            if "properties" in about:
                walk(about["properties"], f"{prefix}{name}.")
            else:
                found[f"{prefix}{name}"] = str(about.get("type", "object"))

    walk(mappings.get("properties", {}), "")
    return found
