"""What was served goes to the rankings log: sampled, in the background, never in a search's way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from endcap.features import FEATURES
from endcap.personalizer import Ranking
from endcap.stores.background import Background
from endcap.stores.rankings import Rankings, Served

log = logging.getLogger(__name__)

#: Seconds that a ranking may wait before it is written.
WRITE_EVERY_S = 0.25
#: Products of one page that are kept: nobody looks at more.
MOST_PRODUCTS = 200
#: Longest id, and query, that is kept of what a client sent.
_LONGEST = 2_000


class ServingLog:
    """Takes rankings as they go out. One per process; thread-safe.

    Which rankings, and which features, are kept follows from the ranking's id, a random number: a sample drawn by it
    is the same wherever it is drawn.
    """

    def __init__(
        self,
        rankings: Rankings,
        share: float = 1.0,
        feature_share: float = 0.1,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``share`` of the rankings is kept, and with ``feature_share`` of these their features; both in [0, 1]."""
        self.queue: Background[Served] = Background(rankings.append, capacity)
        self._share = share
        self._feature_share = feature_share
        self._clock = clock

    def shown(
        self,
        ranking: Ranking,
        shopper: str,
        products: Sequence[str],
        places: Sequence[int],
        *,
        endpoint: str,
        query: str = "",
        session: str = "",
        index: str = "",
        start: int = 0,
    ) -> str:
        """A page goes out. Never raises and never waits.

        Args:
            products: ids on the page, best first; none on a first page: a search without results is logged, too.
            places: for each, its place in the engine's order, from 0; -1 where it has none. Places behind the
                ranking's candidates kept the engine's order.
            start: how many products stood on the pages before.

        Returns:
            What became of it: ``logged``, ``not_sampled`` or ``dropped``.
        """
        try:
            if (not len(products) and start) or _chance(ranking.id, 0) >= self._share:
                return "not_sampled"
            served = self._served(ranking, shopper, products, places, endpoint, query, session, index, start)
            return "logged" if self.queue.offer(served) else "dropped"
        except Exception:
            log.exception("a ranking was not logged")
            return "dropped"

    def _served(
        self, ranking: Ranking, shopper: str, products: Sequence[str], places: Sequence[int],
        endpoint: str, query: str, session: str, index: str, start: int,
    ) -> Served:  # fmt: skip
        products = products[:MOST_PRODUCTS]
        where = np.asarray(places[:MOST_PRODUCTS], dtype=np.int64)
        outside = (where < 0) | (where >= len(ranking.order) + ranking.hidden)
        inside = np.where(outside, 0, where)
        scores = features = None
        if ranking.scores is not None:
            scores = np.where(outside, np.float32(np.nan), ranking.scores[inside]).astype(np.float32)
        if ranking.features is not None and _chance(ranking.id, 8) < self._feature_share:
            # Half precision: a tenth of a per cent, against twice the disk.
            features = np.clip(ranking.features[inside], -65_504.0, 65_504.0).astype(np.float16)
            features[outside] = np.nan
        return Served(
            id=ranking.id,
            time=self._clock(),
            shopper=shopper,
            products=tuple(products),
            session=session[:_LONGEST],
            query=query[:_LONGEST],
            endpoint=endpoint,
            index=index,
            start=start,
            engine_positions=tuple((where + 1).tolist()),
            candidates=len(ranking.order) + ranking.hidden,
            personalized=ranking.personalized,
            scorer=ranking.scorer,
            degraded=ranking.degraded,
            arm=ranking.arm,
            propensity=ranking.propensity,
            context=ranking.context or {},
            scores=scores,
            features=features,
            feature_names=FEATURES,
        )


def _chance(id: str, start: int) -> float:
    """A number in [0, 1) from eight hexadecimal digits of a ranking's id."""
    return int(id[start : start + 8], 16) / 2**32
