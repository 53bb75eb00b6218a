"""What may be asked: an allow-list of indices, and nothing in a body that reaches past it.

A search can read other indices than the one it names: by a terms lookup, an indexed shape, a percolated or "more like
this" document, a lookup field, a point in time. All of these are held to the same list. A ``wrapper`` query and a
suggester's ``collate`` hide a query in a text from any check and are refused.

Scripts and ``runtime_mappings`` cannot leave the searched index and storefront clients send them, so they pass; an
engine that must not run them says so itself (``script.allowed_types``, ``search.allow_expensive_queries``). ``scroll``
and points in time hold memory in the engine and their ids name no index: they pass only where ``hook_cursors`` trusts
the callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from endcap_reranker.errors import Forbidden, IllegalArgument

#: Bodies without any of these (and without escapes that could spell them) have nothing that names another index. They
#: can be passed on as received; others are passed on as parsed, so that engine and guard cannot read them differently.
_TELLTALES = (b"index", b"indices", b"wrapper", b"collate", b"pit", b"\\u")


def telltale(raw: bytes) -> bool:
    """Whether a body may contain something that names an index."""
    return any(word in raw for word in _TELLTALES)


#: Elasticsearch's own limit for queries is 30 clauses deep, some three levels each.
MAX_DEPTH = 200


class Guard:
    """Checks searches against the allow-list. ``cursors`` lets ``scroll`` and points in time through."""

    def __init__(self, indices: Iterable[str], cursors: bool = False) -> None:
        self.allowed = frozenset(indices)
        self.cursors = cursors

    def indices(self, expression: Any) -> tuple[str, ...]:
        """The indices that a path segment, a header's string or a list names, each once.

        Raises:
            Forbidden: one of them is not on the list. Wildcards, ``_all``, date math, remote clusters and exclusions
                are names like any other here: none of them is on it.
        """
        parts: Sequence[Any] = expression if isinstance(expression, list) else [expression]
        names: dict[str, None] = {}
        for part in parts:
            if not isinstance(part, str):
                raise _unknown(part)
            for name in part.split(","):
                if name not in self.allowed:
                    raise _unknown(name)
                names[name] = None
        if not names:
            raise everything()
        return tuple(names)

    def params(self, params: Iterable[tuple[str, str]]) -> None:
        """Check the parameters of the URL.

        Raises:
            Forbidden: one of them would widen what the request may see or hold.
        """
        for name, _ in params:
            # Elasticsearch takes what belongs into the path from the parameters, too.
            if name in {"index", "type", "id"}:
                raise Forbidden(f"parameter [{name}] is not allowed here: name the index in the path")
            if name == "scroll" and not self.cursors:
                raise Forbidden("scroll is not allowed here: page with from and size, or with search_after")

    def body(self, body: dict[str, Any]) -> None:
        """Check a search body, level by level.

        Raises:
            Forbidden: it reaches for an index that is not on the list, or hides what it does.
            IllegalArgument: it is nested deeper than any engine follows.
        """
        if "pit" in body and not self.cursors:
            raise Forbidden("a point in time is not allowed here: page with from and size, or with search_after")
        if "indices_boost" in body:
            self._boosts(body["indices_boost"])
        level: list[Any] = [body]
        for _ in range(MAX_DEPTH):
            below: list[Any] = []
            for node in level:
                if type(node) is dict:
                    if not _SUSPECT.isdisjoint(node):
                        self._suspects(node)
                    below += node.values()
                else:
                    below += node
            level = [child for child in below if type(child) is dict or type(child) is list]
            if not level:
                return
        raise IllegalArgument(f"the search is nested deeper than {MAX_DEPTH} levels")

    def _suspects(self, node: dict[str, Any]) -> None:
        # terms lookup, percolate, indexed_shape, lookup of a query vector; a mere field of this name has no id.
        if "index" in node and ("id" in node or "path" in node):
            self.indices(node["index"])
        # more_like_this, pinned documents.
        if "_index" in node and ("_id" in node or "doc" in node):
            self.indices(node["_index"])
        # A runtime field of the type lookup.
        if "target_index" in node and ("type" in node or "input_field" in node):
            self.indices(node["target_index"])
        shape = node.get("indexed_shape")
        if isinstance(shape, dict) and "index" not in shape:
            self.indices("shapes")  # Elasticsearch's default for it
        # Queries as encoded or templated text, which nobody can check.
        for name in ("wrapper", "collate"):
            if isinstance(node.get(name), dict) and "query" in node[name]:
                raise Forbidden(f"[{name}] with a query as text is not allowed here")

    def _boosts(self, boosts: Any) -> None:
        for entry in boosts if isinstance(boosts, list) else [boosts]:
            for name in entry if isinstance(entry, dict) else []:
                self.indices(name)


_SUSPECT = frozenset({"index", "_index", "target_index", "indexed_shape", "wrapper", "collate"})


def everything() -> Forbidden:
    """The error for a search that names no index and so would search all of them."""
    return Forbidden("a search over all indices is not allowed here: name an index that may be searched")


def _unknown(name: Any) -> Forbidden:
    return Forbidden(
        f"action [indices:data/read/search] is not allowed on index [{str(name)[:200]}]: only indices that Endcap is "
        "set to search (searchable_indices), each by its name"
    )
