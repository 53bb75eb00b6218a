"""Keeps Endcap's own fields (vectors, digests) out of the documents of an index that Endcap made.

Elasticsearch returns them with every document otherwise. Only such an index is touched: of another one the answer must
come out byte for byte, and a filtered ``_source`` is written anew by the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from endcap_reranker.hook.wire import Params

_SOURCE_PARAMS = frozenset({"_source", "_source_includes", "_source_excludes"})


def hide_in_body(body: dict[str, Any], fields: Sequence[str], stored_in_url: str | None = None) -> None:
    """Exclude the fields from the documents that a search asks for; in place.

    Where ``stored_fields`` are asked for, in the body or the URL, there are no documents unless it says so: to name
    fields of them would ask for them.
    """
    stored = body.get("stored_fields") if stored_in_url is None else stored_in_url.split(",")
    names = [stored] if isinstance(stored, str) else stored
    if isinstance(names, list) and "_source" not in names and "_source" not in body:
        return
    wanted = body.get("_source", True)
    if wanted is False:
        return
    if isinstance(wanted, (str, list)):
        wanted = {"includes": wanted}
    rules = dict(wanted) if isinstance(wanted, dict) else {}
    spelled = next((name for name in ("excludes", "exclude") if name in rules), "excludes")
    before = rules.get(spelled, [])
    rules[spelled] = [*([before] if isinstance(before, str) else before), *fields]
    body["_source"] = rules


def hide_in_params(params: Params, fields: Sequence[str]) -> Params:
    """The same in the URL, whose parameters go before the body's ``_source``; unchanged where it has none of them."""
    given = {name: value for name, value in params if name in _SOURCE_PARAMS}
    if not given or given.get("_source") == "false":
        return params
    before = given.get("_source_excludes")
    excluded = ",".join([*([before] if before else []), *fields])
    return [*(pair for pair in params if pair[0] != "_source_excludes"), ("_source_excludes", excluded)]
