"""The shapes of what ``/v1`` takes and answers, for its OpenAPI document.

The routes answer plain dicts (writing a model out costs more than a search may), and events and rerank requests are
read by hand, since they come in many shapes: tests hold these models and real answers together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from endcap.events import ACTION_NAMES, MAX_ID_LENGTH
from endcap_reranker.api.parameters import MAX_QUERY_LENGTH, SearchParameters
from endcap_reranker.api.rerank import MAX_DOCUMENTS


class SearchBody(SearchParameters):
    """A search; with ``image_url`` or ``image`` a search by photo."""

    image_url: str | None = Field(None, description="Where a picture lies; its host has to be allowed.")
    image: str | None = Field(None, description="A picture in base64.", json_schema_extra={"format": "byte"})


class RankingAnswer(BaseModel):
    """How an order came about."""

    id: str = Field(description="Belongs into the `query_id` of the events that follow.")
    personalized: bool
    scorer: str
    fallback: str = Field(description="Better scorers that could not answer, and why.")
    degraded: str = Field(description="Why the answer is less than it could be; empty when all is well.")
    took_ms: float


class HitAnswer(BaseModel):
    """One product of a search."""

    id: str
    score: float
    engine_position: int = Field(description="Its place before it was reordered, from 1.")
    interest: float | None = Field(description="How probable it is that the shopper wants it; null where unknown.")
    document: dict[str, Any]
    highlights: dict[str, list[str]]
    reasons: list[str] = Field(description="Only with `explain`.")
    labels: list[str] = Field(description="What it has to be marked as: `sponsored`.")


class Bucket(BaseModel):
    """A value of a facet and how many products have it."""

    value: str | bool | float
    count: int


class SearchAnswer(BaseModel):
    """What a search found."""

    query: str
    total: int
    took_ms: float
    ranking: RankingAnswer
    hits: list[HitAnswer]
    facets: dict[str, list[Bucket]]
    suggestion: str = Field(description="The query with its spelling corrected, where that finds more.")
    relaxed: list[str] = Field(description="What was given up because nothing matched all that was asked.")
    page: int
    size: int
    pages: int


class ItemAnswer(BaseModel):
    """One recommended product."""

    id: str
    score: float
    sources: list[str] = Field(description="What proposed it.")
    document: dict[str, Any]
    reasons: list[str] = Field(description="Only with `explain`: why it is there, and what business rules did to it.")
    labels: list[str] = Field(description="What it has to be marked as: `sponsored`.")


class RecommendAnswer(BaseModel):
    """What a placement shows."""

    placement: str
    items: list[ItemAnswer]
    fallback: list[str] = Field(description="What had to fill up the list.")
    ranking: RankingAnswer
    took_ms: float


class QuerySuggestion(BaseModel):
    """A query to go on with."""

    text: str


class ProductSuggestion(BaseModel):
    """A product to go to."""

    id: str
    title: str
    brand: str
    category: str
    price: float | None


class CategorySuggestion(BaseModel):
    """A category to go to."""

    path: str
    name: str
    products: int


class SuggestAnswer(BaseModel):
    """Plain text everywhere, never HTML."""

    q: str
    queries: list[QuerySuggestion]
    products: list[ProductSuggestion]
    categories: list[CategorySuggestion]
    personalized: bool
    degraded: str
    took_ms: float


class EventObject(BaseModel):
    """What an event is about."""

    model_config = ConfigDict(extra="allow")

    object_id: str = Field(description="The product's id.", max_length=MAX_ID_LENGTH)


class EventPosition(BaseModel):
    """Where it stood."""

    model_config = ConfigDict(extra="allow")

    ordinal: int = Field(0, ge=0, le=1_000_000, description="Place in the list, from 1.")


class EventAttributes(BaseModel):
    """Further keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    object: EventObject | None = Field(None, description="Needed by all actions but search and login.")
    position: EventPosition | None = None
    quantity: float = Field(1.0, ge=0, le=1e6)
    value: float = Field(0.0, ge=-1e9, le=1e9, description="Money for one piece of a purchase.")
    anonymous_id: str | None = Field(None, description="Of a login: who the shopper was before.")


class EventBody(BaseModel):
    """What a shopper did, as a User Behavior Insights (UBI) event."""

    model_config = ConfigDict(extra="allow")

    action_name: str = Field(description=f"One of {', '.join(ACTION_NAMES)}.")
    client_id: str = Field("", max_length=MAX_ID_LENGTH, description="The shopper; default: the request's.")
    event_id: str | None = Field(None, max_length=MAX_ID_LENGTH, description="An event counts once by its id.")
    session_id: str | None = Field(None, max_length=MAX_ID_LENGTH)
    query_id: str | None = Field(None, max_length=MAX_ID_LENGTH, description="`ranking.id` of the answer.")
    user_query: str | None = Field(None, max_length=2_000)
    timestamp: str | float | None = Field(None, description="ISO 8601, or seconds or milliseconds since 1970.")
    event_attributes: EventAttributes | None = None


class EventAnswer(BaseModel):
    """What became of one event."""

    status: Literal["accepted", "duplicate", "rejected"]
    id: str | None
    reason: str = Field("", description="Why it was rejected.")


class EventsAnswer(BaseModel):
    """What became of the events; ``items`` in the order in which they came."""

    accepted: int
    duplicates: int
    rejected: int
    items: list[EventAnswer]


class IdentifyBody(BaseModel):
    """Who an anonymous visitor turned out to be."""

    model_config = ConfigDict(extra="forbid")

    from_: str = Field(alias="from", description="The anonymous id.")
    to: str = Field(description="The shopper's id.")


class IdentifyAnswer(BaseModel):
    """``joined``: false where that was known already."""

    shopper: str
    joined: bool


class RerankBody(BaseModel):
    """As Cohere, Jina, Elasticsearch and OpenSearch send it (``documents``), or Hugging Face's TEI (``texts``)."""

    model_config = ConfigDict(extra="allow")

    query: str | dict[str, Any] = Field("", description=f"At most {MAX_QUERY_LENGTH:,} characters of text.")
    documents: list[str | int | dict[str, Any]] | None = Field(None, min_length=1, max_length=MAX_DOCUMENTS)
    texts: list[str | int | dict[str, Any]] | None = Field(None, min_length=1, max_length=MAX_DOCUMENTS)
    user: str | int | None = Field(None, description="The shopper; default: the request's.")
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    return_text: bool | None = Field(None, description="TEI's name of it.")
    raw_scores: bool | None = Field(None, description="TEI: the ranker's own scale.")
    model: str | None = None


class TextAnswer(BaseModel):
    """A document given back."""

    text: str


class RerankedAnswer(BaseModel):
    """One document's place in what was sent, and its score in [0, 1]."""

    index: int
    relevance_score: float
    document: TextAnswer | None = None


class RerankAnswer(BaseModel):
    """Best first."""

    model: str | None = None
    results: list[RerankedAnswer]


class TeiAnswer(BaseModel):
    """One document, as TEI answers."""

    index: int
    score: float
    text: str | None = None
