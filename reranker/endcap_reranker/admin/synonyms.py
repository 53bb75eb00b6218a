"""Synonyms: words that mean the same when somebody searches."""

from __future__ import annotations

from pydantic import Field

from endcap.runtime import Runtime
from endcap.stores.synonyms import StoredSynonym, SynonymStore, UnknownSynonym
from endcap.synonyms import MOST_CHARACTERS
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Removed, Strict, Topic


class NewSynonym(Strict):
    """A rule as Solr writes them: ``tv, television`` (either finds both) or ``telly => tv`` (replaced)."""

    rule: str = Field(min_length=3, max_length=MOST_CHARACTERS)


class SynonymAnswer(Answer):
    """A rule as stored. ``created`` is in seconds since 1970 (UTC)."""

    id: int
    rule: str
    created: float
    by: str


class SynonymList(Answer):
    """All stored rules, by number; those of `synonyms_file` are in force, too, and not listed."""

    synonyms: list[SynonymAnswer]


class Expanded(Answer):
    """What a query is searched for as."""

    text: str
    variants: list[str]


class Asked(Strict):
    """A query."""

    q: str = Field(min_length=1, max_length=1_000)


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("synonyms", "Synonyms, applied to what is searched for: changes count within about a second.")
    store = SynonymStore(runtime.database)

    @topic.operation("GET", "/synonyms", role="reader", summary="All stored rules.", answer=SynonymList)
    def list_synonyms() -> SynonymList:
        return SynonymList(synonyms=[_shown(one) for one in store.all()])

    @topic.operation(
        "POST", "/synonyms", role="operator", summary="A new rule.", body=NewSynonym, answer=SynonymAnswer, status=201
    )
    def add_synonym(body: NewSynonym) -> SynonymAnswer:
        return _shown(store.add(body.rule, caller().name))

    @topic.operation(
        "DELETE", "/synonyms/<number>", role="operator", summary="Remove a rule.", answer=Removed, errors=(404,)
    )
    def remove_synonym(number: str) -> Removed:
        if not (number.isascii() and number.isdigit() and len(number) < 16):
            raise UnknownSynonym(f"there is no synonym rule {number!r:.40}: rules have numbers")
        store.remove(int(number))
        return Removed(removed=int(number))

    @topic.operation(
        "GET", "/synonyms/expand", role="reader", summary="What a query is searched for as, with compounds.",
        query=Asked, answer=Expanded,
    )  # fmt: skip
    def expand_query(query: Asked) -> Expanded:
        made = runtime.discovery.compounds.expand(runtime.synonyms.current.expand(query.q))
        return Expanded(text=made.text, variants=list(made.variants))

    return topic


def _shown(one: StoredSynonym) -> SynonymAnswer:
    return SynonymAnswer(id=one.id, rule=one.rule, created=one.created, by=one.by)
