"""What comes in and what goes out: rejected events with their reasons, logged rankings."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from pydantic import Field

from endcap.errors import EndcapError
from endcap.runtime import Runtime
from endcap.stores.rankings import Served
from endcap.stores.rejects import Rejects
from endcap.stores.tokens import allows
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic

_DAY_S = 86_400.0


class UnknownRanking(EndcapError):
    """No ranking with this id was logged: never was, was not sampled, or is older than `retention_days`."""

    status = 404
    kind = "unknown_ranking"


class RejectsQuery(Strict):
    """Which rejected events."""

    code: str = Field("", max_length=100, description="Only those rejected for this.")
    limit: int = Field(50, ge=1, le=1_000, description="At most so many.")
    days: float = Field(7.0, gt=0, le=3_650, description="What `counts` looks back.")


class RejectAnswer(Answer):
    """An event that was not taken."""

    time: float
    code: str
    reason: str
    event: str | None = Field(description="What was sent, cut short; null for the role reader: it names shoppers.")


class RejectList(Answer):
    """Rejected events, newest first."""

    rejects: list[RejectAnswer]
    counts: dict[str, int] = Field(description="How many there were, by code.")


class RankingsQuery(Strict):
    """Which rankings."""

    shopper: str = Field("", max_length=512, description="Only of this shopper.")
    limit: int = Field(20, ge=1, le=200, description="At most so many, newest first.")


class RankingAnswer(Answer):
    """A ranking as it went out."""

    id: str = Field(description="The `query_id` that the storefront was given.")
    time: float
    shopper: str
    session: str
    query: str
    endpoint: str
    index: str
    start: int = Field(description="Products on the pages before.")
    products: list[str]
    positions: list[int]
    engine_positions: list[int]
    scores: list[float | None] | None
    personalized: bool
    scorer: str
    degraded: str
    arm: str
    propensity: float
    context: dict[str, Any]
    features: list[dict[str, float | None]] | None = Field(description="As served; null where not sampled.")


class RankingList(Answer):
    """Rankings, newest first."""

    rankings: list[RankingAnswer]


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("traffic", "Rejected events, and rankings as they went out.")
    rejects = Rejects(runtime.database)

    @topic.operation(
        "GET", "/rejects", role="reader", summary="Events that were not taken, and why.", query=RejectsQuery,
        answer=RejectList,
    )  # fmt: skip
    def list_rejects(query: RejectsQuery) -> RejectList:
        """What was sent is shown from the role operator on."""
        raw = allows(caller().role, "operator")
        found = rejects.latest(query.limit, query.code)
        return RejectList(
            rejects=[
                RejectAnswer(time=one.time, code=one.code, reason=one.reason, event=one.event if raw else None)
                for one in found
            ],
            counts=rejects.counts(time.time() - query.days * _DAY_S),
        )

    @topic.operation(
        "GET", "/rankings", role="operator", summary="The latest logged rankings.", query=RankingsQuery,
        answer=RankingList,
    )  # fmt: skip
    def list_rankings(query: RankingsQuery) -> RankingList:
        log = runtime.rankings
        if query.shopper:
            found = log.of_shopper(query.shopper, query.limit)
        else:
            found = log.since(max(0, log.last_sequence() - query.limit), query.limit)[::-1]
        return RankingList(rankings=[_answer(one) for one in found])

    @topic.operation(
        "GET", "/rankings/<id>", role="operator", summary="One logged ranking.", answer=RankingAnswer, errors=(404,)
    )
    def get_ranking(id: str) -> RankingAnswer:
        found = runtime.rankings.by_id(id)
        if found is None:
            raise UnknownRanking(f"no ranking {id[:100]!r} is in the log")
        return _answer(found)

    return topic


def _answer(one: Served) -> RankingAnswer:
    plain = ("id", "time", "shopper", "session", "query", "endpoint", "index", "start", "personalized", "scorer")
    features = None
    if one.features is not None:
        features = [dict(zip(one.feature_names, _numbers(row))) for row in one.features]
    return RankingAnswer(
        **{name: getattr(one, name) for name in plain},
        products=list(one.products),
        positions=list(one.positions),
        engine_positions=list(one.engine_positions),
        scores=None if one.scores is None else _numbers(one.scores),
        degraded=one.degraded,
        arm=one.arm,
        propensity=one.propensity,
        context=dict(one.context),
        features=features,
    )


def _numbers(values: np.ndarray) -> list[float | None]:
    """Plain numbers; None where there was none."""
    return [value if np.isfinite(value) else None for value in values.astype(np.float64).tolist()]
