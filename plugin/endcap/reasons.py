"""Why a product stands where it does, in a few words, from the features that the scorer saw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from endcap.features import INDEX, RankingInputs
from endcap.sequences import KNOWS

MOST_REASONS = 2


_KNOWN = {
    KNOWS["brand"]: "brand",
    KNOWS["category"]: "category",
    KNOWS["content"]: "description",
    KNOWS["picture"]: "picture",
}
#: Up to this weight of events (log(1 + weight)) a product is called new.
_FEW = math.log1p(10.0)


def reasons(inputs: RankingInputs, new: np.ndarray | None = None) -> list[list[str]]:
    """At most two reasons for each candidate, strongest first; an empty list where nothing sets it apart.

    ``new``: uint8 (n,), for candidates whose embedding a generator made, what it knew of them (see
    :attr:`endcap.sequences.Alignment.newcomers`).

    A reason states a fact about the shopper's own behaviour or the product's sales, never a guess about him.
    """
    features, table = inputs.features, inputs.table
    best_brand = _best(features, "brand_share", 0.3)
    best_recent = _best(features, "recent_share", 0.6)
    alike = _standing_out(features[:, INDEX["similarity"]])
    found: list[list[str]] = []
    for number, row in enumerate(inputs.rows.tolist()):
        column = features[number]
        said: list[str] = []
        if new is not None and new[number] and column[INDEX["total"]] <= _FEW:
            said.append(_newcomer(inputs, number, int(new[number])))
        buys = round(float(np.expm1(column[INDEX["own_buys"]])))
        if buys >= 2:
            said.append(f"You bought this {'more than 30' if buys > 30 else buys} times")
        elif buys == 1:
            said.append("You bought this before")
        elif column[INDEX["own_any"]]:
            said.append("You looked at this" if column[INDEX["own_decayed"]] < 0.25 else "You were interested in this")
        brand = table.brands[table.brand[row]] if row >= 0 and table.brand[row] >= 0 else ""
        if brand and best_brand[number]:
            said.append(f"You often choose {brand} here")
        if column[INDEX["attribute_share"]] > 0.5 and not said:
            said.append("Like what you usually buy here")
        if alike[number] and not said:
            said.append("Close to what you like")
        if best_recent[number]:
            said.append("Popular now")
        elif column[INDEX["trend"]] > 0.7 and column[INDEX["recent"]] > 1.5:
            said.append("Selling faster than usual")
        found.append(said[:MOST_REASONS])
    return found


def _newcomer(inputs: RankingInputs, number: int, knows: int) -> str:
    known = [word for bit, word in _KNOWN.items() if knows & bit]
    if not known:
        return "New here; nothing is known of it yet"
    judged = known[0] if len(known) == 1 else f"{', '.join(known[:-1])} and {known[-1]}"
    first = ", and by its first buyers" if inputs.features[number, INDEX["total"]] > 0 else ""
    return f"New here; judged by {judged}{first}"


def _standing_out(similarity: np.ndarray) -> Sequence[bool]:
    """Near to the shopper, and clearly nearer than what else answers the query: half of it always is near."""
    return ((similarity > 0.5) & (similarity > similarity.mean() + 1.5 * similarity.std())).tolist()


def _best(features: np.ndarray, name: str, least: float) -> Sequence[bool]:
    """Candidates at the least given value and near the largest of this column."""
    column = features[:, INDEX[name]]
    return (column >= max(least, 0.8 * float(column.max(initial=0.0)))).tolist()
