"""What a hit has to be marked as, without touching what the engine said about it.

A hit stays as the engine wrote it. That it is sponsored stands in the answer's header ``X-Endcap-Sponsored``: the
positions on the page, from 1, of a ``_search``. Whoever asks by ``"ext": {"endcap": {"labels": true}}`` finds it in
the hit's ``fields`` too, as ``endcap.labels``, and what rules did as ``endcap.notes``: that is where an engine puts
what was asked for besides the document, so that typed clients read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from endcap.policy.rules import SPONSORED

if TYPE_CHECKING:
    from endcap_reranker.hook.search import Account, Search


def mark(search: Search, account: Account) -> None:
    """Mark what is on the page of a finished search, in place."""
    ranking = search.ranking
    if ranking is None or not (ranking.labels or (search.labelled and ranking.notes)):
        return
    for position, (place, hit) in enumerate(zip(search.places, search.page, strict=True), start=1):
        labels, notes = list(ranking.labels.get(place, ())), list(ranking.notes.get(place, ()))
        if SPONSORED in labels and not search.header:  # the header of an `_msearch` could not say of which search
            account.sponsored.append(position)
        if search.labelled and (labels or notes):
            fields = hit.get("fields") if isinstance(hit.get("fields"), dict) else {}
            hit["fields"] = {**(fields or {}), "endcap.labels": labels, "endcap.notes": notes}
