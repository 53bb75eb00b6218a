"""`collapse`: the best hit of each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .context import MUST, MUST_NOT, Context, Query, filtering
from .errors import illegal, parsing, unsupported
from .exact import equal
from .fields import Field, aggregatable
from .sorting import Key, Row, document_value, ordered
from .values import as_list, as_object, as_text

_IDLE = {"max_concurrent_group_searches"}
_MAX_INNER = 5
#: Matches that are looked through for groups at most.
_MAX_SCANNED = 100_000


@dataclass(frozen=True, slots=True)
class Collapse:
    """``inner``: (name, body) of each inner hits to answer."""

    name: str
    field: Field
    inner: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    @classmethod
    def parse(cls, body: Any) -> Collapse | None:
        """From a body's `collapse`; None if there is none.

        Raises:
            DslError: a field that cannot be collapsed on, or a part that is not answered here.
        """
        if body is None:
            return None
        body = as_object(body, "collapse")
        for key in body:
            if key == "collapse":
                raise unsupported("second-level collapse")
            if key not in _IDLE | {"field", "inner_hits"}:
                raise parsing(f"[collapse] unknown field [{key}]")
        name = as_text(body.get("field"), "collapse")
        field = aggregatable(name, "collapse")
        if field is None:
            raise illegal(f"no mapping found for `{name}` in order to collapse on", wrapped=True)
        if field.kind in ("title", "folded"):
            raise unsupported(f"collapse on [{name}]")
        inner: list[tuple[str, Mapping[str, Any]]] = []
        for one in as_list(body.get("inner_hits")):
            one = dict(as_object(one, "inner_hits"))
            inner.append((as_text(one.pop("name", name), "inner_hits.name"), {"size": 3, **one}))
        if inner and field.exact == "category":
            raise unsupported("collapse.inner_hits on [category], which has several values")
        if len(inner) > _MAX_INNER:
            raise illegal(f"at most [{_MAX_INNER}] inner_hits are supported")
        return cls(name, field, tuple(inner))

    def rows(
        self, context: Context, query: Query, keys: list[Key], offset: int, size: int
    ) -> tuple[int, list[tuple[Row, Any]]]:
        """The number of matches (not of groups), and the first of each group with its value, in order."""
        wanted = offset + size
        batch = max(4 * wanted, 100)
        while True:
            total, rows = ordered(context, query, keys, 0, min(batch, _MAX_SCANNED))
            groups: dict[Any, Row] = {}
            for row in rows:
                value = self.value(context.snapshot.document(row.address))
                if value not in groups:
                    groups[value] = row
                    if len(groups) >= wanted:
                        break
            if len(groups) >= wanted or len(rows) < batch or batch >= _MAX_SCANNED:
                break
            batch *= 4
        return total, [(row, value) for value, row in groups.items()][offset:wanted]

    def value(self, document: Mapping[str, Any]) -> Any:
        """The group of a document: of a category path the leaf; None without a value."""
        return document_value(dict(document), self.field, highest=True)

    def inside(self, context: Context, query: Query, value: Any) -> Query:
        """The matches of one group."""
        if value is None:
            held = Query.exists_query(str(self.field.exact))
            return Query.boolean_query([(MUST, query), (MUST_NOT, held)])
        with context.unmarked():
            return Query.boolean_query([(MUST, query), (MUST, filtering(equal(context, self.field, value)))])
