"""One shopper: what is remembered, why he sees what he sees, his data given out, his data erased."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson
from flask import Response, stream_with_context
from pydantic import Field

from endcap.engines import SearchRequest
from endcap.errors import EndcapError
from endcap.events import MAX_ID_LENGTH, to_ubi
from endcap.recall import Recaller
from endcap.runtime import Runtime
from endcap_reranker.admin.operation import Answer, Strict, Topic

NDJSON = "application/x-ndjson"


class UnknownShopper(EndcapError):
    """No shopper can have this id."""

    status = 404
    kind = "unknown_shopper"


class ShopperAnswer(Answer):
    """What is remembered of a shopper. One who was never seen has nothing of all this."""

    shopper: str
    also_known_as: list[str] = Field(description="Ids under which he was anonymous before he logged in.")
    parted: list[str] = Field(description="Ids that were joined to him and that a person has parted from him.")
    excluded: bool = Field(description="Flagged as fraud, and so left out of what is learned.")
    products: int = Field(description="Products that he has done something with.")
    purchases: int
    interest: float = Field(description="All that he did, each action by its weight and age.")
    profile_bytes: int
    events: list[dict[str, Any]] = Field(description="The latest, newest first, as UBI has them.")


class ShopperQuery(Strict):
    """How much of it."""

    events: int = Field(40, ge=0, le=1_000, description="Latest events to list.")


class AliasBody(Strict):
    """Which id."""

    id: str = Field(min_length=1, max_length=MAX_ID_LENGTH, description="The id that was or is to be joined.")


class AliasesAnswer(Answer):
    """The ids that count for a shopper, and those that do not any more."""

    shopper: str
    also_known_as: list[str]
    parted: list[str]


class WhyQuery(Strict):
    """Which search."""

    q: str = Field(min_length=1, max_length=1_000, description="The query.")
    size: int = Field(20, ge=1, le=100, description="Products to list.")


class WhyProduct(Answer):
    """One product of the shopper's order."""

    id: str
    title: str
    place: int = Field(description="In the shopper's order, from 1.")
    engine_place: int = Field(description="In the engine's own order, from 1.")
    score: float | None
    reasons: list[str] = Field(description="At most two, strongest first.")


class WhyAnswer(Answer):
    """A search as the shopper would see it now. Nothing of it is logged: nobody was shown anything."""

    shopper: str
    query: str
    personalized: bool
    scorer: str
    arm: str = Field(description="The policy that chose the order.")
    degraded: str = Field(description="Why the engine's order stands; empty where it does not.")
    candidates: int
    products: list[WhyProduct]


class ErasedAnswer(Answer):
    """What was deleted."""

    shopper: str
    rows: dict[str, int] = Field(description="Rows by table.")


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("shoppers", "One shopper's data (GDPR articles 15, 17, 20), and why he sees what he sees.")
    recaller = Recaller(
        runtime.engine, runtime.encoder, lambda: runtime.synonyms.current, lambda: runtime.discovery.compounds
    )

    @topic.operation(
        "GET", "/shoppers/<path:shopper>", role="operator", summary="What is remembered of a shopper.",
        query=ShopperQuery, answer=ShopperAnswer, errors=(404,),
    )  # fmt: skip
    def get_shopper(shopper: str, query: ShopperQuery) -> ShopperAnswer:
        shopper = checked_shopper(shopper)
        also = list(runtime.aliases.of(shopper))
        profile = runtime.profiles.get(shopper)
        found = runtime.log.history(shopper, query.events, also) if query.events else []
        return ShopperAnswer(
            shopper=shopper,
            also_known_as=also,
            parted=runtime.aliases.parted(shopper),
            excluded=shopper in runtime.flags.excluded_shoppers(),
            products=len(profile.counters),
            purchases=int(profile.buys().sum()),
            interest=float(profile.weights(time.time()).sum()),
            profile_bytes=profile.nbytes,
            events=[to_ubi(one) for one in found],
        )

    @topic.operation(
        "GET", "/shoppers/<path:shopper>/why", role="operator", summary="Why a shopper sees this order.",
        query=WhyQuery, answer=WhyAnswer, errors=(404,),
    )  # fmt: skip
    def why_ranking(shopper: str, query: WhyQuery) -> WhyAnswer:
        return why(runtime, recaller, checked_shopper(shopper), query.q, query.size)

    @topic.operation(
        "GET", "/shoppers/<path:shopper>/export", role="admin", summary="All that is kept about a shopper.",
        media=NDJSON, errors=(404,),
    )  # fmt: skip
    def export_shopper(shopper: str) -> Response:
        """One JSON object a line, each with its `kind`: `shopper`, `profile`, `event` (as UBI), `ranking`, or the name
        of a table."""
        return exported(runtime, checked_shopper(shopper))

    def joined(shopper: str) -> AliasesAnswer:
        also, parted = runtime.aliases.of(shopper), runtime.aliases.parted(shopper)
        return AliasesAnswer(shopper=shopper, also_known_as=also, parted=parted)

    @topic.operation(
        "POST", "/shoppers/<path:shopper>/part", role="admin", summary="Undo that an id was joined to a shopper.",
        body=AliasBody, answer=AliasesAnswer, errors=(404,),
    )  # fmt: skip
    def part_shopper(shopper: str, body: AliasBody) -> AliasesAnswer:
        """For a wrong `/v1/identify`: what the id did no longer counts for the shopper, whose profile is made anew
        without it in every process, and a login does not join the two again. Both keep what is their own."""
        shopper = checked_shopper(shopper)
        runtime.erasure.separate(body.id, shopper)
        return joined(shopper)

    @topic.operation(
        "POST", "/shoppers/<path:shopper>/join", role="admin", summary="Join an id to a shopper by hand.",
        body=AliasBody, answer=AliasesAnswer, errors=(404, 409),
    )  # fmt: skip
    def join_shopper(shopper: str, body: AliasBody) -> AliasesAnswer:
        """As `/v1/identify` does, also where the two were parted before."""
        shopper = checked_shopper(shopper)
        runtime.identify(checked_shopper(body.id), shopper, by_hand=True)
        return joined(shopper)

    @topic.operation(
        "DELETE",
        "/shoppers/<path:shopper>",
        role="admin",
        summary="Erase a shopper.",
        answer=ErasedAnswer,
        errors=(404,),
    )
    def erase_shopper(shopper: str) -> ErasedAnswer:
        """Everything, under all his ids, at once and for good. Counts without names keep what they learned. Doing it
        again is no harm."""
        shopper = checked_shopper(shopper)
        return ErasedAnswer(shopper=shopper, rows=runtime.erasure.erase(shopper))

    return topic


def checked_shopper(shopper: str) -> str:
    """The id, as the shop's own system has it: without a signature.

    Raises:
        UnknownShopper: no shopper can have it.
    """
    shopper = shopper.strip()
    if not shopper or len(shopper) > MAX_ID_LENGTH or not shopper.isprintable():
        raise UnknownShopper("this is not the id of a shopper: no event that names it would be taken")
    return shopper


def exported(runtime: Runtime, shopper: str) -> Response:
    """All that is kept about a shopper, as a download."""
    rows = runtime.erasure.export(shopper)
    first = next(rows)  # a database that is away must show before the answer has begun
    lines = (orjson.dumps(one, default=str) + b"\n" for one in _again(first, rows))
    response = Response(stream_with_context(lines), content_type=NDJSON)
    response.headers["Content-Disposition"] = 'attachment; filename="shopper.ndjson"'
    return response


def why(runtime: Runtime, recaller: Recaller, shopper: str, query: str, size: int) -> WhyAnswer:
    """A search in the shopper's order, with the reasons."""
    recall = recaller.recall(SearchRequest(text=query), runtime.settings.window)
    ids = list(recall.ids)
    ranking = runtime.personalizer.rank(shopper, query, ids, recall.scores)
    places = [int(place) for place in ranking.order[:size]] if ids else []
    mine = [ids[place] for place in places]
    names = titles(runtime, mine)
    reasons = runtime.personalizer.reasons(shopper, query, mine)
    products = [
        WhyProduct(
            id=one,
            title=names.get(one, one),
            place=number + 1,
            engine_place=place + 1,
            score=None if ranking.scores is None else float(ranking.scores[place]),
            reasons=list(why_),
        )
        for number, (one, place, why_) in enumerate(zip(mine, places, reasons, strict=True))
    ]
    return WhyAnswer(
        shopper=shopper,
        query=query,
        personalized=ranking.personalized,
        scorer=ranking.scorer,
        arm=ranking.arm,
        degraded=ranking.degraded,
        candidates=len(ids),
        products=products,
    )


def titles(runtime: Runtime, ids: Sequence[str]) -> dict[str, str]:
    """Titles of the products that the engine has; empty where it cannot answer."""
    wanted = list(dict.fromkeys(one for one in ids if one))
    try:
        documents = runtime.engine.get(wanted) if wanted else []
    except EndcapError:
        return {}
    return {one: str(document.get("title") or one) for one, document in zip(wanted, documents) if document is not None}


def _again(first: Any, rest: Any) -> Any:
    yield first
    yield from rest
