"""The two endpoints: from the client's request to the engine and back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Request, Response

from endcap.engines import WireAnswer, WireEngine
from endcap.errors import EngineUnavailable
from endcap.serving_log import ServingLog
from endcap.settings import Settings
from endcap.tracing import span
from endcap_reranker import telemetry
from endcap_reranker.errors import Forbidden, MalformedBody, error_of
from endcap_reranker.hook import two_phase, wire
from endcap_reranker.hook.filter_path import FilterPath
from endcap_reranker.hook.guard import Guard, everything
from endcap_reranker.hook.hidden import hide_in_params
from endcap_reranker.hook.msearch import join_searches, split_searches
from endcap_reranker.hook.reorder import Ranker
from endcap_reranker.hook.search import Account, Search, Searches
from endcap_reranker.identity import Identifier, Identity, personalization_off

_INDEX_KEYS = ("index", "indices")
#: The headers of an answer that is Endcap's alone: clients refuse a success without the first one.
_LOCAL_HEADERS = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}


class HookParts(Protocol):
    """What the hook needs of a :class:`~endcap.runtime.Runtime`: no more than this."""

    @property
    def settings(self) -> Settings: ...
    @property
    def wire(self) -> WireEngine: ...
    @property
    def personalizer(self) -> Ranker: ...
    @property
    def serving_log(self) -> ServingLog | None: ...
    @property
    def hidden_fields(self) -> tuple[str, ...]:
        """Fields of the documents of ``settings.index`` that are Endcap's own."""


@dataclass(slots=True)
class Incoming:
    """A request as it was read: decompressed, its parameters taken apart, the headers that travel on."""

    request: Request
    method: str
    params: wire.Params
    headers: dict[str, str]
    body: bytes
    identity: Identity
    personalize: bool
    readable: bool
    account: Account


class Hook:
    """Stands in front of a :class:`~endcap.engines.WireEngine`. One per process; thread-safe."""

    def __init__(self, runtime: HookParts) -> None:
        settings = runtime.settings
        self.settings = settings
        self.engine = runtime.wire
        self.guard = Guard(settings.hook_indices, settings.hook_cursors)
        self.identifier = Identifier(settings)
        self.searches = Searches(
            settings,
            runtime.personalizer,
            self.identifier,
            self.guard,
            lambda: runtime.hidden_fields,
            runtime.serving_log,
        )

    def incoming(self, request: Request, ndjson: bool) -> Incoming:
        """Read a request.

        Raises:
            EndcapError: of the 4xx kind, if it cannot be read or may not be asked.
        """
        account = Account()
        params = wire.read_params(request)
        self.guard.params(params)
        headers = wire.forwarded_headers(request, self.settings.shopper_cookie)
        body = wire.read_body(request, self.settings.max_body_bytes)
        if body:
            wire.check_media_type(headers.get("Content-Type"), ndjson)
        source = wire.last(params, "source")
        if source is not None:
            # A body in the URL is a body: it is checked and sent as one.
            if not body:
                media = wire.last(params, "source_content_type")
                wire.check_media_type(media, ndjson)
                headers["Content-Type"] = str(media)
                body = source.encode()
            params = [pair for pair in params if pair[0] not in {"source", "source_content_type"}]
        identity = self.identifier.of_request(request)
        if identity.problem:
            account.degraded[identity.problem] = None
            telemetry.degraded(identity.problem)
        readable = wire.wants_json(params, headers)
        personalize = readable and not personalization_off(request, self.settings)
        return Incoming(request, request.method, params, headers, body, identity, personalize, readable, account)

    def search(self, incoming: Incoming, index: str | None) -> Response:
        """``_search``."""
        # A point in time, where it may be used, names the index itself.
        indices = () if index is None and self.guard.cursors else self._indices(index)
        search = self.searches.prepare(
            incoming.body, indices, incoming.params, incoming.identity, incoming.personalize, incoming.readable
        )
        if not indices and "pit" not in search.body:
            raise everything()
        self._note_problem(search, incoming.account)
        if search.hidden:
            incoming.params = hide_in_params(incoming.params, search.hidden)
            if not incoming.body:
                wire.content_type_for_added_body(incoming.headers)
        path = wire.search_path(indices, "_search")
        if search.plan is None:
            telemetry.searched("untouched", search.untouched)
            return self._untouched(incoming, path, search)
        params = [pair for pair in incoming.params if pair[0] not in {"from", "size", "filter_path"}]
        if not incoming.body:
            wire.content_type_for_added_body(incoming.headers)
        first = self._send(incoming, path, params, wire.dump_search(search.widened()))
        answer, exact = wire.parse_answer(first.body) if first.status == 200 else (None, False)
        if answer is None:
            # An index may allow smaller windows than ours: the search itself decides whether this is an error.
            telemetry.searched("untouched", "engine_error")
            return (
                self._untouched(incoming, path, search)
                if first.status in {200, 400}
                else self._respond(incoming, first)
            )

        def ask(asked: list[tuple[Search, dict[str, Any] | bytes]], second: bool) -> list[dict[str, Any]]:
            nonlocal exact
            answers = []
            for _, body in asked:
                sent = self._send(incoming, path, two_phase.second_params(params) if second else params, _bytes(body))
                found, inexact = wire.parse_answer(sent.body)
                exact = exact or inexact
                answers.append(found if found is not None else _unreadable())
            return answers

        search.answer = answer
        self.searches.finish([search], ask, incoming.account)
        if search.answer.get("status") == 400:  # only the second phase has what the engine cannot parse
            return self._untouched(incoming, path, search)
        return self._respond(incoming, first, search.answer, exact)

    def _untouched(self, incoming: Incoming, path: str, search: Search) -> Response:
        """The engine's own answer, byte for byte, but for what rules hide."""
        if not search.guarded:
            return self._respond(incoming, self._send(incoming, path, incoming.params, search.raw))
        params = [pair for pair in incoming.params if pair[0] != "filter_path"]  # it may leave out the ids
        sent = self._send(incoming, path, params, search.raw)
        answer, exact = wire.parse_answer(sent.body)
        if answer is not None and (self.searches.withhold(search, answer) or len(params) < len(incoming.params)):
            return self._respond(incoming, sent, answer, exact)
        return self._respond(incoming, sent)

    def msearch(self, incoming: Incoming, index: str | None) -> Response:
        """``_msearch``: every search on its own, and all of them in as few round trips as one alone takes."""
        default = self.guard.indices(index) if index is not None else None
        searches: list[Search | dict[str, Any]] = []
        for header, raw in split_searches(incoming.body, self.settings.max_searches):
            searches.append(self._item(incoming, header, raw, default))
        asked = [search for search in searches if isinstance(search, Search)]
        planned = [search for search in asked if search.plan is not None]
        for search in asked:
            if search.plan is None:
                telemetry.searched("untouched", search.untouched)
        guarded = [search for search in asked if search.guarded]
        params = incoming.params
        if not asked:
            return self._respond(incoming, WireAnswer(200, _LOCAL_HEADERS, b""), _multi(searches), False)
        if planned or guarded or len(asked) < len(searches):
            params = [pair for pair in params if pair[0] != "filter_path"]
        path = wire.search_path(default or (), "_msearch")

        def send(bodies: list[tuple[Search, dict[str, Any] | bytes]], second: bool) -> WireAnswer:
            lines = join_searches((search.header, _bytes(body)) for search, body in bodies)
            return self._send(incoming, path, two_phase.second_params(params) if second else params, lines)

        first = send([(one, one.raw if one.plan is None else one.widened()) for one in asked], False)
        if len(asked) == len(searches) and not planned and not guarded:
            return self._respond(incoming, first)
        if first.status == 400 and planned:
            # The engine refuses them all for one that it cannot parse; its words are about what the client sent.
            first = send([(one, one.raw) for one in asked], False)
        whole, exact = wire.parse_answer(first.body) if first.status == 200 else (None, False)
        answers = whole.get("responses") if whole is not None else None
        if whole is None or not isinstance(answers, list) or len(answers) != len(asked):
            return self._respond(incoming, first)

        def ask(bodies: list[tuple[Search, dict[str, Any] | bytes]], second: bool) -> list[dict[str, Any]]:
            nonlocal exact
            found, inexact = wire.parse_answer(send(bodies, second).body)
            exact = exact or inexact
            responses = (found or {}).get("responses")
            if not isinstance(responses, list) or len(responses) != len(bodies):
                # An error of the whole request, where the engine says why, is that of each search in it.
                return [dict(found) if found and "error" in found else _unreadable() for _ in bodies]
            return responses

        for search, answer in zip(asked, answers, strict=True):
            search.answer = answer
        refused = [search for search in planned if search.answer.get("status") == 400]
        if refused:
            for search, answer in zip(refused, ask([(one, one.raw) for one in refused], False), strict=True):
                search.answer, search.plan = answer, None
        self.searches.finish([one for one in planned if "error" not in one.answer and one.plan], ask, incoming.account)
        withheld = [self.searches.withhold(search, search.answer) for search in guarded if search.plan is None]
        if not planned and not any(withheld) and len(params) == len(incoming.params) and len(asked) == len(searches):
            return self._respond(incoming, first)
        whole["responses"] = _multi(searches)["responses"]
        return self._respond(incoming, first, whole, exact)

    def _item(
        self, incoming: Incoming, header: dict[str, Any], raw: bytes, default: tuple[str, ...] | None
    ) -> Search | dict[str, Any]:
        """One search of an ``_msearch``, or the error object that is its answer where it is not allowed.

        Raises:
            MalformedBody: it is no search; all fail by it, as in Elasticsearch.
        """
        try:
            named = [header[key] for key in _INDEX_KEYS if header.get(key) is not None]
            if not named and default is None:
                raise everything()
            indices = self.guard.indices(named[0]) if named else default
            assert indices is not None
            if len(named) > 1:
                raise MalformedBody("a header names its index twice")
            # The header may say how to search, like the URL's parameters; nothing of it moves the page.
            params = [(name, "") for name, value in header.items() if name == "scroll" and value is not None]
            self.guard.params(params)
            search = self.searches.prepare(
                raw,
                indices,
                _without_paging(incoming.params),
                incoming.identity,
                incoming.personalize,
                incoming.readable,
            )
        except Forbidden as error:
            telemetry.searched("refused", error.kind)
            return error_of(error)
        self._note_problem(search, incoming.account)
        rest = {name: value for name, value in header.items() if name not in _INDEX_KEYS}
        # Only where the client names it: an engine may be set not to take an index from a header.
        search.header = {"index": list(indices), **rest} if named else rest
        return search

    def head(self, incoming: Incoming, index: str | None, endpoint: str) -> Response:
        """HEAD: as the engine has it."""
        path = wire.search_path(self._indices(index), endpoint)
        return self._respond(incoming, self._send(incoming, path, incoming.params, b""))

    def info(self, incoming: Incoming) -> Response:
        """``GET /``: the engine's name and version, which some clients look at first."""
        return self._respond(incoming, self._send(incoming, "/", incoming.params, b""))

    def scroll(self, incoming: Incoming) -> Response:
        """The next page of a scroll, where cursors are let through."""
        search = self.searches.prepare(b"", (), [], incoming.identity, False, incoming.readable)
        search.raw = incoming.body
        return self._untouched(incoming, "/_search/scroll", search)

    def _indices(self, index: str | None) -> tuple[str, ...]:
        if index is None:
            raise everything()
        return self.guard.indices(index)

    def _note_problem(self, search: Search, account: Account) -> None:
        problem = search.identity.problem
        if problem and problem not in account.degraded:
            account.degraded[problem] = None
            telemetry.degraded(problem)

    def _send(self, incoming: Incoming, path: str, params: wire.Params, body: bytes) -> WireAnswer:
        started = time.perf_counter()
        try:
            with span("engine", path=path):
                answer = self.engine.send(
                    incoming.method,  # type: ignore[arg-type]
                    path,
                    wire.query_string(params),
                    incoming.headers,
                    body,
                    self.settings.engine_timeout_s,
                )
        finally:
            incoming.account.engine_s += time.perf_counter() - started
        for name, value in answer.headers.items():
            if name.lower() == "warning":
                incoming.account.warnings[value] = None
        return answer

    def _respond(
        self, incoming: Incoming, answer: WireAnswer, value: dict[str, Any] | None = None, exact: bool = False
    ) -> Response:
        """The engine's answer; with ``value``, that in place of its body."""
        body = None
        if value is not None:
            filter_path = wire.last(incoming.params, "filter_path")
            if "error" in value and isinstance(value.get("status"), int):
                answer = WireAnswer(value["status"], answer.headers, b"")  # errors are never filtered
            elif filter_path:
                value = FilterPath(filter_path)(value)
            body = wire.dump_answer(value, exact, wire.flag(incoming.params, "pretty"))
        made = wire.response(incoming.request, answer, body)
        made.headers.update(incoming.account.headers())
        if incoming.account.warnings:
            made.headers["Warning"] = ", ".join(incoming.account.warnings)
        return made


def _bytes(body: dict[str, Any] | bytes) -> bytes:
    return body if isinstance(body, bytes) else wire.dump_search(body)


def _without_paging(params: wire.Params) -> wire.Params:
    return [pair for pair in params if pair[0] not in {"from", "size", "sort", "q"}]


def _multi(searches: list[Search | dict[str, Any]]) -> dict[str, Any]:
    """An ``_msearch`` answer in the order asked."""
    return {"took": 0, "responses": [one.answer if isinstance(one, Search) else one for one in searches]}


def _unreadable() -> dict[str, Any]:
    return error_of(EngineUnavailable("the search engine's answer could not be read"))
