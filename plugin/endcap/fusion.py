"""How the keyword order and the nearness of meaning become one order, and which neighbours may join.

Weighted reciprocal-rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a product's score is the sum over both lists
of ``weight / (K + rank)``. It needs no calibration between BM25 and cosines. The weights below are the ones that
``endcap evaluate icecat`` judges (docs/search-quality.md); models that learn an order from scores, coverage and fields
were tried there too and did no better on queries that they had not seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from endcap.engines import Candidates

#: Smooths the head of each list; the value of the paper.
FUSION_K = 60.0
KEYWORD_WEIGHT = 1.0
#: Below the keywords: a word match that is also near in meaning should win over one that is only near.
VECTOR_WEIGHT = 0.6
#: Above them, where the keywords matched something else than what was meant.
VECTOR_WEIGHT_WEAK = 1.5
#: A part number means nothing to a language model.
VECTOR_WEIGHT_CODE = 0.1

#: Keyword matches are weak if a smaller share of the neighbours than this is among them ...
WEAK_OVERLAP = 0.05
#: ... and about the same things from this share on.
SAME_OVERLAP = 0.5
#: The share of a full window that neighbours get: of weak matches; of others, times the share of strangers among them.
SHARE_WEAK = 0.5
SHARE = 0.3

#: So many keyword hits are an answer; then a product without the words must be close in meaning to join them.
ENOUGH = 10
#: Cosine that a vector-only product needs, by whether the keywords found enough. Set on short product titles with
#: MiniLM: nonsense reaches .36 and unknown words .42, a paraphrase ("kids snack") .5, a good one .6.
FLOOR_ENOUGH = 0.47
FLOOR_FEW = 0.45
#: ... and this share of the best cosine, so that one good match does not draw a tail of vague ones behind it.
FLOOR_RELATIVE = 0.65

_WORD = re.compile(r"[^\W_]+(?:[-/.][^\W_]+)*")
_QUANTITY = re.compile(r"\d+(?:[.]\d+)?[^\W\d_]{1,3}")
_MIN_CODE = 5


def is_code(text: str) -> bool:
    """Whether a search holds a part or model number: figures and letters in one word ("tn-2110", "dv7-1211ea"), or
    nothing but a long number. A quantity ("128gb") is none."""
    words = _WORD.findall(text)
    if len(words) == 1 and words[0].isdecimal():
        return len(words[0]) >= _MIN_CODE
    return any(
        len(word) >= _MIN_CODE
        and sum(one.isdecimal() for one in word) >= 2
        and any(one.isalpha() for one in word)
        and not _QUANTITY.fullmatch(word)
        for word in words
    )


def room_for(window: int, total: int, overlap: float) -> int:
    """How many neighbours may join ``total`` keyword matches in a window.

    ``overlap``: which share of the neighbours the keyword matches in the window hold. What the keywords leave free is
    theirs; of a full window the less, the more both sides are about the same things.
    """
    if total < window:
        return window - total
    if overlap < WEAK_OVERLAP:
        return int(SHARE_WEAK * window)
    return int(SHARE * (1.0 - overlap) * window) if overlap < SAME_OVERLAP else 0


def newcomers(keyword: Sequence[str], near: Candidates, room: int) -> list[str]:
    """At most ``room`` of the neighbours that are not among the keyword hits and near enough to join them."""
    if room <= 0 or not near.ids:
        return []
    known = set(keyword)
    floor = max(FLOOR_ENOUGH if len(known) >= ENOUGH else FLOOR_FEW, FLOOR_RELATIVE * float(near.scores[0]))
    close = zip(near.ids, near.scores, strict=True)
    return [one for one, cosine in close if cosine >= floor and one not in known][:room]


def fuse(
    keyword: Sequence[str], near: Candidates, added: Sequence[str], vector_weight: float
) -> tuple[list[str], np.ndarray]:
    """The keyword hits and the neighbours ``added`` to them, by fused score.

    Returns ids and scores (float32, non-increasing); ties keep keyword order, then neighbour order.
    """
    fused = {one: KEYWORD_WEIGHT / (FUSION_K + rank) for rank, one in enumerate(keyword, start=1)}
    fused.update(dict.fromkeys(added, 0.0))
    for rank, one in enumerate(near.ids, start=1):
        if one in fused:
            fused[one] += vector_weight / (FUSION_K + rank)
    ids = sorted(fused, key=lambda one: -fused[one])
    return ids, np.fromiter((fused[one] for one in ids), dtype=np.float32, count=len(ids))
