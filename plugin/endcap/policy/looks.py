"""How probable it is that a place is looked at, from the rankings log: what harvesting needs, kept page by page."""

from __future__ import annotations

from collections import deque

import numpy as np

from endcap.catalog.product import product_keys
from endcap.errors import InvalidInput
from endcap.events import Action
from endcap.policy.examination import Examination, assumed, harvested
from endcap.stores.outcomes import Outcome

#: Answers to a search; what is recommended without one is no list of its kind.
SEARCHES = ("hook", "search", "rerank")
#: Places whose examination is estimated; those below count as the last of them.
PLACES = 40
#: Says that a product was looked at.
_LOOKED = (Action.VIEW, Action.CLICK, Action.CART, Action.PURCHASE)
#: The latest pages that it is estimated from.
_MOST_EXAMINED = 50_000


class Looks:
    """The latest pages of a log, as impressions: what stood where, and whether it was looked at.

    A label is a product for a query; where the order was the shopper's own, for this shopper: else what stands high
    would be what he likes, and places would seem to matter more than they do.
    """

    def __init__(self) -> None:
        self._pages: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque(maxlen=_MOST_EXAMINED)

    def take(self, outcome: Outcome) -> None:
        served = outcome.ranking
        who = served.shopper if served.personalized else ""
        shown = [number for number, place in enumerate(served.positions) if place <= PLACES]
        if not shown:
            return
        labels = product_keys([f"{who}\0{served.query}\0{served.products[number]}" for number in shown])
        looked = {one.position for one in outcome.reactions if one.action in _LOOKED}
        positions = np.array([served.positions[number] for number in shown], dtype=np.int16)
        self._pages.append((labels.view(np.int64), positions, np.isin(positions, list(looked))))

    def examination(self) -> Examination:
        """As estimated; as usual where no product ever stood at two places."""
        if not self._pages:
            return assumed(PLACES)
        item, position, clicked = (np.concatenate(one) for one in zip(*self._pages, strict=True))
        try:
            return harvested(PLACES, item, position, clicked)
        except InvalidInput:
            return assumed(PLACES)
