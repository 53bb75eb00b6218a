"""Every answer that shows a ranking says so here: the one way from the endpoints to the rankings log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from endcap.personalizer import Ranking
from endcap.serving_log import ServingLog
from endcap_reranker import telemetry


def log_shown(
    log: ServingLog | None, ranking: Ranking, shopper: str, products: Sequence[str], places: Sequence[int], **about: Any
) -> None:
    """See :meth:`~endcap.serving_log.ServingLog.shown`; counted. ``log`` None: there is none (the hook alone)."""
    if log is not None:
        telemetry.RANKINGS.labels(log.shown(ranking, shopper, products, places, **about)).inc()
