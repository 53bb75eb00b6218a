"""Endcap's own keyword search over a snapshot."""

from __future__ import annotations

import tantivy

from endcap.engines.base import Hit, SearchRequest, SearchResponse
from endcap.engines.embedded.facets import facets
from endcap.engines.embedded.filters import allowed_rows
from endcap.engines.embedded.highlight import Highlighter
from endcap.engines.embedded.query import FUNCTION_WORDS, MUST, Query, Reading, Words
from endcap.engines.embedded.ranking import SORTS, Ranked, browse, count, top
from endcap.engines.embedded.schema import Token, filter_query, normalize, terms, tokens, words_analyzer
from endcap.engines.embedded.snapshot import Snapshot
from endcap.engines.embedded.spelling import Vocabulary
from endcap.errors import InvalidInput

#: A spelling is suggested only where so few products hold what was typed.
_FEW = 3
MAX_DEPTH = 1_000_000


def search(snapshot: Snapshot, request: SearchRequest) -> SearchResponse:
    """See :meth:`Engine.search`.

    The strictest reading of the words that any product answers is the one that counts; filters narrow it down and
    never loosen it.

    Raises:
        InvalidInput: a filter, facet, sort or page that cannot be answered.
    """
    if request.sort != "relevance" and request.sort not in SORTS:
        raise InvalidInput(f"sort {request.sort!r}: use relevance, {', '.join(SORTS)}")
    if request.offset < 0 or request.size < 0 or request.offset + request.size > MAX_DEPTH:
        raise InvalidInput(f"offset {request.offset} and size {request.size}: use 0 to {MAX_DEPTH} in all")
    # Made first, so that a filter that cannot be answered is refused whatever else was asked.
    filters = [(MUST, Query.const_score_query(filter_query(snapshot.index, one), 0.0)) for one in request.filters]
    words = Words(request.text, snapshot.manifest.language)
    vocabulary = Vocabulary.of(snapshot)
    suggestion = ""
    if words.units:
        reading, suggestion = _read(snapshot, words, vocabulary, request)
    else:
        reading = Reading(Query.all_query())
    query = Query.boolean_query([(MUST, reading.query), *filters]) if filters else reading.query
    field, order = SORTS.get(request.sort, (None, tantivy.Order.Desc))
    if words.units or field is not None:
        total, ranked = top(snapshot, query, request.offset, request.size, field, order)
    else:
        total, ranked = browse(snapshot, allowed_rows(snapshot, request.filters), request.offset, request.size)
    highlighter = Highlighter(words, reading.words) if request.highlight and words.units else None
    return SearchResponse(
        total=total,
        hits=_hits(snapshot, ranked, request, highlighter),
        facets=facets(snapshot, query, request.facets) if request.facets else {},
        suggestion=suggestion,
        relaxed=reading.relaxed,
    )


def _read(snapshot: Snapshot, words: Words, vocabulary: Vocabulary, request: SearchRequest) -> tuple[Reading, str]:
    """The strictest reading that finds anything, and the corrected spelling where it finds more."""
    suggestion = ""
    for at, reading in enumerate(words.readings(vocabulary, request.fuzzy, request.variants)):
        total = count(snapshot, reading.query)
        if at == 0 and total <= _FEW:
            suggestion = _suggestion(snapshot, vocabulary, request.text, total)
        if total:
            return reading, suggestion
    return Reading(Query.empty_query()), suggestion


def _suggestion(snapshot: Snapshot, vocabulary: Vocabulary, text: str, total: int) -> str:
    text = normalize(text)
    made: list[str] = []
    at = 0
    for token in tokens(words_analyzer(), text):
        made += [text[at : token.char_offset_from], _better(vocabulary, token.text) or text[_span(token)]]
        at = token.char_offset_to
    made.append(text[at:])
    corrected = "".join(made)
    if terms(corrected) == terms(text):
        return ""
    return corrected if count(snapshot, Words(corrected, vocabulary.language).strict()) > total else ""


def _better(vocabulary: Vocabulary, word: str) -> str:
    """The known word that a rare one was probably meant to be; a word as rare as the mistake is no correction."""
    own = vocabulary.frequency(word)
    if word in FUNCTION_WORDS or own > _FEW:
        return ""
    return next((other for other, _ in vocabulary.similar(word) if vocabulary.frequency(other) > 3 * own), "")


def _span(token: Token) -> slice:
    return slice(token.char_offset_from, token.char_offset_to)


def _hits(
    snapshot: Snapshot, ranked: list[Ranked], request: SearchRequest, highlighter: Highlighter | None
) -> list[Hit]:
    ids = snapshot.ids_of([address for _, address in ranked])
    hits = []
    for product_id, (key, address) in zip(ids, ranked, strict=True):
        document = snapshot.document(address) if request.documents or highlighter else None
        hits.append(
            Hit(
                id=product_id,
                score=float(key) if request.sort == "relevance" else 0.0,
                document=document if request.documents else None,
                highlights=highlighter.fragments(document) if highlighter and document else {},
            )
        )
    return hits
