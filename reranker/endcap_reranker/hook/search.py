"""One search on its way through the hook: checked, planned, answered by the engine, ranked, cut to its page.

``_search`` and ``_msearch`` share all of it. They differ in how bodies reach the engine, which is an :data:`Ask`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from endcap.personalizer import Ranking
from endcap.serving_log import ServingLog
from endcap.settings import Settings
from endcap_reranker import telemetry
from endcap_reranker.errors import MalformedBody
from endcap_reranker.hook import two_phase
from endcap_reranker.hook.guard import Guard, telltale
from endcap_reranker.hook.hidden import hide_in_body
from endcap_reranker.hook.marks import mark
from endcap_reranker.hook.plan import Plan, plan_search, query_text, settle_neighbours
from endcap_reranker.hook.reorder import (
    Ranker,
    hits_of,
    ordered_page,
    places_of,
    put_page,
    rank_hits,
    shown_of,
    shows_elsewhere,
    withhold_elsewhere,
)
from endcap_reranker.hook.wire import Params, dump_search, last, parse_search
from endcap_reranker.identity import Identifier, Identity
from endcap_reranker.impressions import log_shown


@dataclass(slots=True)
class Account:
    """What a request cost and what became of it: for the answer's headers and the metrics."""

    started: float = field(default_factory=time.perf_counter)
    engine_s: float = 0.0
    rankings: list[str] = field(default_factory=list)
    personalized: bool = False
    degraded: dict[str, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    fallbacks: dict[str, None] = field(default_factory=dict)
    sponsored: list[int] = field(default_factory=list)

    def headers(self) -> dict[str, str]:
        """The ``X-Endcap-*`` and ``Server-Timing`` headers."""
        own_s = max(time.perf_counter() - self.started - self.engine_s, 0.0)
        telemetry.ENGINE_SECONDS.observe(self.engine_s)
        telemetry.OWN_SECONDS.observe(own_s)
        made = {
            "X-Endcap-Personalized": "1" if self.personalized else "0",
            "Server-Timing": f"engine;dur={self.engine_s * 1000:.2f},endcap;dur={own_s * 1000:.2f}",
        }
        if self.rankings:
            made["X-Endcap-Ranking"] = ",".join(self.rankings)
        if self.degraded:
            made["X-Endcap-Degraded"] = ",".join(self.degraded)
        if self.sponsored:
            made["X-Endcap-Sponsored"] = ",".join(map(str, self.sponsored))
        if self.fallbacks:
            made["X-Endcap-Fallback"] = ",".join(self.fallbacks)
        return made


@dataclass(slots=True)
class Search:
    """A checked search. ``raw`` is what the engine gets where the search is left alone (``plan`` is then None and
    ``untouched`` says why); ``params`` are the URL's as they apply to ``raw``."""

    indices: tuple[str, ...]
    body: dict[str, Any]
    raw: bytes
    identity: Identity
    plan: Plan | None = None
    untouched: str = ""
    two_phase: bool = False
    hidden: tuple[str, ...] = ()
    header: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    ranking: Ranking | None = None
    page: list[dict[str, Any]] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    labelled: bool = False
    #: What a rule hides has to be taken out of the answer, although nobody ranks it.
    guarded: bool = False
    query: str = ""

    def widened(self) -> dict[str, Any]:
        """The body that fetches the window."""
        assert self.plan is not None
        if self.two_phase:
            return two_phase.first_phase(self.body, self.plan)
        return {**self.body, "from": 0, "size": self.plan.fetch}


#: Sends searches with the given bodies (and, if True, as a second phase), gives the engine's answers in their order;
#: an error is an answer, too: Elasticsearch's error object.
Ask = Callable[[list[tuple[Search, dict[str, Any] | bytes]], bool], list[dict[str, Any]]]


class Searches:
    """Prepares and finishes searches. One per process; thread-safe."""

    def __init__(
        self,
        settings: Settings,
        personalizer: Ranker,
        identifier: Identifier,
        guard: Guard,
        hidden_fields: Callable[[], tuple[str, ...]],
        serving_log: ServingLog | None = None,
    ) -> None:
        self.window = settings.window
        self.products = settings.product_indices
        self.personalizer = personalizer
        self.identifier = identifier
        self.guard = guard
        self.own_index = settings.index
        self.hidden_fields = hidden_fields
        self.serving_log = serving_log
        self.thrift = two_phase.Thrift(settings.two_phase)

    def prepare(
        self,
        raw: bytes,
        indices: tuple[str, ...],
        params: Params,
        identity: Identity,
        personalize: bool,
        readable: bool = True,
    ) -> Search:
        """Check a search and decide what becomes of it.

        Args:
            readable: the answer will be JSON.

        Raises:
            Forbidden: it reaches past the allow-list.
            MalformedBody: it is no JSON object.
        """
        body: Any = {}
        if raw:
            body = parse_search(raw)
            if not isinstance(body, dict):
                raise MalformedBody("the search is not a JSON object")
            self.guard.body(body)
        labelled = _wants_labels(body)
        identity, stripped = self._identity(body, identity)
        hidden = self.hidden_fields() if self.own_index in indices else ()
        if hidden:
            hide_in_body(body, hidden, last(params, "stored_fields"))
        if stripped or hidden or telltale(raw):
            raw = dump_search(body)
        search = Search(indices, body, raw, identity, hidden=hidden, labelled=labelled)
        if not personalize:
            search.untouched = "off"
        elif not identity.shopper and not self.personalizer.rules_in_force:
            search.untouched = identity.problem or "anonymous"
        elif not self.products.issuperset(indices):
            search.untouched = "other_index"
        else:
            plan = plan_search(body, params, self.window)
            if isinstance(plan, str):
                search.untouched = plan
            else:
                search.plan = plan
                if b"knn" in raw:
                    settle_neighbours(body, plan.size)
                search.query = plan.query
                search.two_phase = two_phase.possible(raw, body, params, plan, indices) and self.thrift.pays(
                    body, plan, indices[0]
                )
        if readable and self.personalizer.hiding and self.products.issuperset(indices):
            search.guarded = True
            search.query = search.query or query_text(body, params)
        return search

    def withhold(self, search: Search, answer: dict[str, Any]) -> bool:
        """Take out of an answer that nobody ranked what rules hide; True where there was something.

        Its page is then the shorter: which page a hit stands on is the engine's to say, and so is the total.
        """
        if not search.guarded:
            return False
        elsewhere = self._withhold_elsewhere(search, answer)
        hits = hits_of(answer)
        kept = shown_of(self.personalizer, search.query, hits, search.identity.visit) if hits else []
        if len(kept) == len(hits):
            return elsewhere
        answer["hits"]["hits"] = [hits[place] for place in kept]
        return True

    def _withhold_elsewhere(self, search: Search, answer: dict[str, Any]) -> bool:
        if not search.guarded or not shows_elsewhere(search.raw):
            return False
        return withhold_elsewhere(self.personalizer, search.query, answer, search.identity.visit)

    def _identity(self, body: dict[str, Any], identity: Identity) -> tuple[Identity, bool]:
        """The search's shopper, and whether something of Endcap's own was taken out of the body."""
        ext = body.get("ext")
        if not isinstance(ext, dict) or "endcap" not in ext:
            return identity, False
        own = ext.pop("endcap")
        if not ext:
            del body["ext"]
        if not identity.shopper and not identity.problem and isinstance(own, dict) and "shopper" in own:
            found = self.identifier.check(own["shopper"])
            identity = replace(found, session=identity.session, visit=identity.visit)
        return identity, True

    def finish(self, searches: list[Search], ask: Ask, account: Account) -> None:
        """Turn answers to widened bodies into the pages that were asked for, in place."""
        for search in searches:
            self._rank(search)
        thrifty = [search for search in searches if search.two_phase and search.page]
        if thrifty:
            self._fetch_documents(thrifty, ask)
        for search in searches:
            if search.guarded and search.page:
                self._withhold_late(search)
        for search in searches:
            if "error" in search.answer:
                continue
            _account_for(search, account)
            self._log(search)
            if search.page or hits_of(search.answer):
                put_page(search.answer, search.page, search.scores)
                mark(search, account)
            if search.page:
                self.thrift.learn(search.body, search.indices[0], search.page[0])
            self._withhold_elsewhere(search, search.answer)

    def _withhold_late(self, search: Search) -> None:
        """What the ranking could not know to be hidden: of products that are new, or while they are being loaded."""
        kept = shown_of(self.personalizer, search.query, search.page, search.identity.visit, whole=False)
        if len(kept) < len(search.page):
            search.page = [search.page[place] for place in kept]
            search.scores = search.scores[: len(kept)]
            search.places = [search.places[place] for place in kept]

    def _log(self, search: Search) -> None:
        ranking, plan = search.ranking, search.plan
        if plan is None or (not search.page and (hits_of(search.answer) or plan.start)):
            return
        if ranking is None:  # nothing was found: how often that happens is worth knowing
            telemetry.found_nothing()
            ranking = Ranking(uuid.uuid4().hex, np.empty(0, dtype=np.int64), personalized=False)
        log_shown(
            self.serving_log,
            ranking,
            search.identity.shopper,
            [hit["_id"] for hit in search.page],
            search.places,
            endpoint="hook",
            query=plan.query,
            session=search.identity.session,
            index=",".join(search.indices),
            start=plan.start,
        )

    def _rank(self, search: Search) -> None:
        plan = search.plan
        assert plan is not None
        hits = hits_of(search.answer)
        search.ranking, search.page, search.scores, search.places = None, [], [], []
        if hits:
            who = search.identity
            search.ranking = rank_hits(self.personalizer, who.shopper, plan.query, hits[: plan.window], who.visit)
            search.places = places_of(search.ranking, len(hits), plan.start, plan.size)
            search.page, search.scores = ordered_page(hits, search.ranking, plan.start, plan.size)

    def _fetch_documents(self, searches: list[Search], ask: Ask) -> None:
        """The second phase; for those that do not come out the same, the whole search again in one phase."""
        simple: list[Search] = []
        again: list[Search] = []
        for search in searches:
            (simple if two_phase.single_index(hits_of(search.answer)) else again).append(search)
        if simple:
            answers = ask(
                [(one, two_phase.second_phase(one.body, [hit["_id"] for hit in one.page])) for one in simple], True
            )
            for search, answer in zip(simple, answers, strict=True):
                filled = two_phase.documents_for(search.page, hits_of(answer))
                if filled is None:
                    again.append(search)
                    continue
                search.page = filled
                if isinstance(search.answer.get("took"), int) and isinstance(answer.get("took"), int):
                    search.answer["took"] += answer["took"]
                telemetry.TWO_PHASE.labels("done").inc()
        if again:
            for search in again:
                search.two_phase = False
                telemetry.TWO_PHASE.labels("repeated").inc()
            for search, answer in zip(again, ask([(one, one.widened()) for one in again], False), strict=True):
                search.answer = answer
                if "error" not in answer:
                    self._rank(search)


def _wants_labels(body: dict[str, Any]) -> bool:
    own = body.get("ext", {}).get("endcap") if isinstance(body.get("ext"), dict) else None
    return isinstance(own, dict) and own.get("labels") is True


def _account_for(search: Search, account: Account) -> None:
    ranking = search.ranking
    if ranking is None:
        telemetry.searched("untouched", "empty")
        return
    account.rankings.append(ranking.id)
    account.personalized = account.personalized or ranking.personalized
    if ranking.fallback:
        account.fallbacks.update(dict.fromkeys(ranking.fallback.split(",")))
        telemetry.FALLBACKS.labels(ranking.fallback).inc()
    if ranking.degraded:
        account.degraded[ranking.degraded] = None
        telemetry.degraded(ranking.degraded)
        telemetry.searched("degraded", ranking.degraded)
    else:
        telemetry.searched("ranked", "personal" if ranking.personalized else "unknown_shopper")
