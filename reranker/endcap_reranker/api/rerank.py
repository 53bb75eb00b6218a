"""``/v1/rerank``: Endcap where a search engine expects a cross-encoder.

One endpoint speaks the request and answer shapes of Cohere and Jina, of Hugging Face's TEI, of Elasticsearch's custom
inference service and of OpenSearch's ``ml_inference`` (docs/api.md has them). The documents are taken as the first
stage's list, best first.

Every document gets exactly one score, finite and in [0, 1]: engines add up or compare scores of one list, and
Elasticsearch wants them non-negative. A score is the logistic function of the ranker's own, measured from the median
of the documents that Endcap knows; a document that it does not know stands at that median. Where nothing can be
ranked, the scores fall with the order that came in, and a header says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from werkzeug.exceptions import UnsupportedMediaType

from endcap.errors import InvalidInput
from endcap.personalizer import Ranking
from endcap.runtime import Runtime
from endcap_reranker import telemetry
from endcap_reranker.api.documents import check_texts, product_ids
from endcap_reranker.identity import Identifier, Identity
from endcap_reranker.impressions import log_shown

#: The deepest window that Elasticsearch reranks (``index.max_result_window``).
MAX_DOCUMENTS = 10_000
MAX_QUERY_LENGTH = 1_000
#: So many of the best go to the rankings log.
_LOGGED = 50
#: Scores of the incoming order: 1 / (K + place), as in recall's fusion.
_K = 60.0

_DOCUMENT = {str, int, dict}
_QUERY_KEYS = ("q", "query", "text")
_SHOPPER_KEYS = ("user", "user_id", "shopper", "client_id")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A request, whichever shape it came in.

    ``tei`` and ``in_order`` choose the shape of the answer; ``shopper`` is the id as it was sent, None where the body
    names none. ``raw_scores``: differences of the ranker's own scores instead of the logistic scale.
    """

    query: str
    shopper: Any
    documents: tuple[Any, ...]
    tei: bool = False
    in_order: bool = False
    top_n: int | None = None
    return_documents: bool = False
    raw_scores: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class Reranked:
    """The answer's body and the headers that say how it came about."""

    body: Any
    headers: Mapping[str, str]


def parse_rerank(body: bytes, mimetype: str) -> RerankRequest:
    """Read a request of any of the shapes.

    Raises:
        InvalidInput: naming the part that cannot be used.
        UnsupportedMediaType: not announced as JSON.
    """
    if mimetype not in {"application/json", "text/plain", ""}:
        raise UnsupportedMediaType(f"{mimetype:.60}: send application/json")
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidInput('the body must be an object such as {"query": "milk", "documents": ["id 1", "id 2"]}')
    if ("documents" in raw) == ("texts" in raw):
        raise InvalidInput("send documents (Cohere, Jina, Elasticsearch, OpenSearch) or texts (TEI): one of the two")
    tei = "texts" in raw
    query, packed = _query(raw.get("query"))
    shopper = next((raw[name] for name in _SHOPPER_KEYS if raw.get(name) not in (None, "")), None)
    return RerankRequest(
        query=query,
        shopper=packed if packed not in (None, "") else shopper,
        documents=_documents(raw, "texts" if tei else "documents"),
        tei=tei,
        in_order=not tei and "user_id" in raw,
        top_n=_top_n(raw.get("top_n")),
        return_documents=_switch(raw, "return_text" if tei else "return_documents"),
        raw_scores=tei and _switch(raw, "raw_scores"),
        model=raw["model"][:200] if isinstance(raw.get("model"), str) else "",
    )


def rerank(
    runtime: Runtime, wanted: RerankRequest, identifier: Identifier, sender: Identity, switched_off: bool = False
) -> Reranked:
    """Score the documents for the shopper of the body, else the ``sender`` of the HTTP request. Fails open."""
    who = replace(identifier.check(wanted.shopper), session=sender.session) if wanted.shopper is not None else sender
    table = runtime.personalizer.table
    ids = product_ids(wanted.documents, table)
    count = len(ids)
    incoming = (1.0 / (_K + 1.0 + np.arange(count))).astype(np.float32)
    known = np.array([one is not None for one in ids])
    reason = who.problem
    ranking: Ranking | None = None
    if not who.shopper or switched_off:
        pass
    elif table is not None and not known.any():
        reason = "unknown_documents"
    else:
        ranking = runtime.personalizer.rank(who.shopper, wanted.query, [one or "" for one in ids], incoming)
        reason = ranking.degraded
    if ranking is None or ranking.scores is None:
        raw, scores = np.log(incoming / incoming[-1]).astype(np.float64), (incoming / incoming[0]).astype(np.float64)
    else:
        raw, scores = _scaled(ranking.scores, known)
    if ranking is not None:
        _log(runtime, ranking, who, wanted, ids, scores)
    headers = {"X-Endcap-Personalized": "1" if ranking is not None and ranking.personalized else "0"}
    if ranking is not None:
        headers["X-Endcap-Ranking"] = ranking.id
        if ranking.fallback:
            headers["X-Endcap-Fallback"] = ranking.fallback
            telemetry.FALLBACKS.labels(ranking.fallback).inc()
    if reason:
        headers["X-Endcap-Degraded"] = reason
        telemetry.degraded(reason)
    return Reranked(_answer(wanted, raw if wanted.raw_scores else scores), headers)


def _log(
    runtime: Runtime,
    ranking: Ranking,
    who: Identity,
    wanted: RerankRequest,
    ids: Sequence[str | None],
    scores: np.ndarray,
) -> None:
    """The head of the list goes to the rankings log: whoever asked may show less, never more than ``top_n``."""
    order = np.argsort(-scores, kind="stable")[: wanted.top_n or _LOGGED]
    shown = [(one, place) for place in order[:_LOGGED].tolist() if (one := ids[place]) is not None]
    log_shown(
        runtime.serving_log,
        ranking,
        who.shopper,
        [one for one, _ in shown],
        [place for _, place in shown],
        endpoint="rerank",
        query=wanted.query,
        session=who.session,
        index=runtime.settings.index,
    )


def _scaled(scores: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative raw scores and scores in [0, 1], float64; unknown documents stand at the median of the others."""
    values = scores.astype(np.float64)
    if known.any():
        values = np.where(known, values, np.median(values[known]))
    centred = values - np.median(values[known] if known.any() else values)
    return values - values.min(), 1.0 / (1.0 + np.exp(-np.clip(centred, -60.0, 60.0)))


def _answer(wanted: RerankRequest, scores: np.ndarray) -> Any:
    order = np.arange(len(scores)) if wanted.in_order else np.argsort(-scores, kind="stable")
    if wanted.top_n is not None:
        kept = np.sort(np.argsort(-scores, kind="stable")[: wanted.top_n]) if wanted.in_order else order[: wanted.top_n]
        order = kept
    named = "score" if wanted.tei else "relevance_score"
    # Elasticsearch's parsers refuse any further key in a result.
    results: list[dict[str, Any]] = [
        {"index": place, named: score} for place, score in zip(order.tolist(), scores[order].tolist(), strict=True)
    ]
    if wanted.return_documents:
        for result in results:
            text = _text(wanted.documents[result["index"]])
            result |= {"text": text} if wanted.tei else {"document": {"text": text}}
    if wanted.tei:
        return results
    return {"model": wanted.model, "results": results} if wanted.model else {"results": results}


def _text(document: Any) -> str:
    if isinstance(document, dict):
        given = document.get("text")
        return given if isinstance(given, str) else orjson.dumps(document).decode()
    return str(document)


def _query(raw: Any) -> tuple[str, Any]:
    """The text of the query and the shopper packed into it, None where there is none."""
    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        try:
            inner = orjson.loads(raw)
        except orjson.JSONDecodeError:
            inner = None  # a query in braces is still a query
        if isinstance(inner, dict):
            raw = inner
    shopper = None
    if isinstance(raw, dict):
        shopper = next((raw[name] for name in _SHOPPER_KEYS if raw.get(name) is not None), None)
        raw = next((raw[name] for name in _QUERY_KEYS if name in raw), "")
    if not isinstance(raw, str):
        raise InvalidInput('query: a text, or {"q": "red shoes", "user": "42"}, also as JSON in a text')
    if len(raw) > MAX_QUERY_LENGTH:
        raise InvalidInput(f"query: {len(raw)} characters; at most {MAX_QUERY_LENGTH}")
    return _SURROGATES.sub(" ", raw), shopper


def _documents(raw: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    given = raw[name]
    if isinstance(given, str) and given.lstrip().startswith("["):
        # A connector's template may have put the list into quotes.
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            pass
    if not isinstance(given, list) or not given:
        raise InvalidInput(f"{name}: a list of at least one document")
    if len(given) > MAX_DOCUMENTS:
        raise InvalidInput(f"{name}: {len(given)} documents; at most {MAX_DOCUMENTS}")
    if not set(map(type, given)) <= _DOCUMENT:
        place = next(place for place, one in enumerate(given) if type(one) not in _DOCUMENT)
        raise InvalidInput(f"{name}.{place}: a text, an id or an object")
    check_texts(given, name)
    return tuple(given)


def _top_n(given: Any) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InvalidInput("top_n: a whole number from 1")
    return given


def _switch(raw: Mapping[str, Any], name: str) -> bool:
    given = raw.get(name)
    if given is not None and not isinstance(given, bool):
        raise InvalidInput(f"{name}: true or false")
    return bool(given)
