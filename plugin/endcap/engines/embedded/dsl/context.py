"""What a request carries while its queries are made: the index's state, budgets, and what highlighting needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tantivy

from endcap.engines.embedded import schema as layout
from endcap.engines.embedded.snapshot import Snapshot

from .errors import DslError, illegal
from .fuzzy import Vocabulary
from .values import as_float

if TYPE_CHECKING:
    from .scoring import Rescoring

#: Elasticsearch's `indices.query.bool.max_nested_depth` and `max_clause_count`, and a bound on expanded words.
MAX_DEPTH = 30
MAX_CLAUSES = 1024
MAX_EXPANSIONS = 8192

Query = tantivy.Query
MUST, SHOULD, MUST_NOT = tantivy.Occur.Must, tantivy.Occur.Should, tantivy.Occur.MustNot


@dataclass(slots=True)
class Marks:
    """What a query looks for in one index field, for highlighting: words, beginnings of words, words in a row."""

    words: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)
    phrases: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, other: Marks) -> None:
        self.words |= other.words
        self.prefixes |= other.prefixes
        self.phrases |= other.phrases


class Context:
    """One request over one snapshot. Not thread-safe; the caches it fills in the snapshot are."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.schema = snapshot.schema
        self.searcher = snapshot.searcher
        self.marks: dict[str, Marks] = {}
        #: Query name (`_name`) -> query, for `matched_queries`.
        self.named: dict[str, Query] = {}
        #: How scores change after the search; None: not at all.
        self.rescoring: Rescoring | None = None
        #: Whether the query being made gives the whole score.
        self.sole = True
        self._depth = 0
        self._clauses = 0
        self._expansions = 0
        self._unmarked = 0

    @contextmanager
    def among_others(self, alone: bool = False) -> Iterator[None]:
        """Queries within are not the only ones that score, unless they are ``alone``."""
        before, self.sole = self.sole, self.sole and alone
        try:
            yield
        finally:
            self.sole = before

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level down in the query tree.

        Raises:
            DslError: too deep.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise illegal(
                "The nested depth of the query exceeds the maximum nested depth for queries set in "
                f"[indices.query.bool.max_nested_depth]: [{MAX_DEPTH}]"
            )
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def unmarked(self) -> Iterator[None]:
        """What is asked not to match is not highlighted."""
        self._unmarked += 1
        try:
            yield
        finally:
            self._unmarked -= 1

    def clause(self, count: int = 1) -> None:
        """Counts clauses of the query.

        Raises:
            DslError: too many.
        """
        self._clauses += count
        if self._clauses > MAX_CLAUSES:
            raise DslError(
                "too_many_nested_clauses",
                f"Query contains too many nested clauses; maxClauseCount is set to {MAX_CLAUSES}",
            )

    def expand(self, count: int) -> None:
        """Counts words that fuzziness and prefixes have added; bounds the work like :meth:`clause`."""
        self._expansions += count
        if self._expansions > MAX_EXPANSIONS:
            raise DslError(
                "too_many_nested_clauses",
                f"Query expands to more than {MAX_EXPANSIONS} words: use fewer words or fields",
            )

    def mark(
        self, column: str, *, word: str | None = None, prefix: str | None = None, phrase: tuple[str, ...] = ()
    ) -> None:
        if self._unmarked:
            return
        marks = self.marks.setdefault(column, Marks())
        if phrase:
            marks.phrases.add(phrase)
        if word is not None:
            marks.words.add(word)
        if prefix is not None:
            marks.prefixes.add(prefix)

    def count(self, query: Query) -> int:
        """The exact number of matches."""
        return total(self.searcher.search(query, limit=1, count=True))

    # Pieces of queries

    def term(self, column: str, value: Any) -> Query:
        """Documents with exactly this value, scored by BM25."""
        return layout.exact_query(column, value)

    def value(self, column: str, value: Any) -> Query:
        """Documents with exactly this value among theirs, scored by how rare it is alone: that a product has further
        values makes it no worse, as in Elasticsearch's keyword fields."""
        if layout.JSON_TERMS or not column.startswith(layout.ATTRIBUTES):
            documents = self.searcher.doc_freq(column, value)
        else:
            documents = self.count(self.term(column, value))
        return Query.const_score_query(self.term(column, value), self.idf(documents)) if documents else nothing()

    def idf(self, documents: int) -> float:
        """Lucene's weight of a word that so many documents hold."""
        total = max(self.snapshot.count, documents)
        return math.log(1.0 + (total - documents + 0.5) / (documents + 0.5))

    def prefix(self, column: str, beginning: str) -> Query:
        """Documents with a value that begins so; score 1."""
        return Query.const_score_query(Query.fuzzy_term_query(self.schema, column, beginning, 0, True, True), 1.0)

    def beginnings(self, column: str, beginning: str, limit: int) -> list[tuple[str, int]]:
        """Words that begin so with their document counts, the most common first."""
        return list(self.searcher.terms_with_prefix(column, beginning, limit=limit))

    def vocabulary(self, column: str) -> Vocabulary:
        """The words of an index field; built on first need per snapshot."""
        key = f"dsl.vocabulary.{column}"
        found = self.snapshot.derived.get(key)
        if found is None:
            found = self.snapshot.derived[key] = Vocabulary(self.searcher.terms_with_prefix(column, ""))
        return found

    def attribute_values(self, path: str) -> list[Any]:
        """Every distinct value of an attribute; built on first need per snapshot.

        Raises:
            DslError: more values than the index counts.
        """
        key = f"dsl.values.{path}"
        found = self.snapshot.derived.get(key)
        if found is None:
            found = self.snapshot.derived[key] = [bucket["key"] for bucket in self._buckets(path)]
        return found

    def _buckets(self, path: str) -> list[dict[str, Any]]:
        terms = {"field": path, "size": 60_000, "segment_size": 60_000}
        try:
            return self.searcher.aggregate(Query.all_query(), {"values": {"terms": terms}})["values"]["buckets"]
        except ValueError as error:
            raise illegal(f"attribute has too many distinct values: {error}") from None


def total(result: tantivy.SearchResult) -> int:
    """The number of all matches of a search that counted them."""
    return int(result.count)  # type: ignore[attr-defined]


def nothing() -> Query:
    return Query.empty_query()


def everything(score: float = 1.0) -> Query:
    return Query.const_score_query(Query.all_query(), score)


def filtering(query: Query) -> Query:
    """Matches the same, adds nothing to the score."""
    return Query.const_score_query(query, 0.0)


def constant(query: Query, score: float = 1.0) -> Query:
    return Query.const_score_query(query, score)


def any_of(queries: list[Query], at_least: int | None = None) -> Query:
    """Sum of the scores of those that match; ``at_least`` so many must."""
    if not queries or (at_least is not None and at_least > len(queries)):
        return nothing()
    if len(queries) == 1:
        return queries[0]
    clauses = [(SHOULD, query) for query in queries]
    return Query.boolean_query(clauses, at_least) if at_least and at_least > 1 else Query.boolean_query(clauses)


def all_of(queries: list[Query]) -> Query:
    if len(queries) == 1:
        return queries[0]
    return Query.boolean_query([(MUST, query) for query in queries]) if queries else nothing()


def best_of(queries: list[Query], tie_breaker: float = 0.0) -> Query:
    """The best score of those that match, plus ``tie_breaker`` times the others'."""
    if not queries:
        return nothing()
    return queries[0] if len(queries) == 1 else Query.disjunction_max_query(queries, tie_breaker)


def boosted(query: Query, options: dict[str, Any]) -> Query:
    """With the options' `boost`.

    Raises:
        DslError: it is negative.
    """
    boost = as_float(options.get("boost", 1.0), "boost")
    if boost < 0:
        raise illegal(
            f"negative [boost] are not allowed in [query], use a value between 0 and 1 to deboost, got [{boost}]"
        )
    return query if boost == 1.0 else Query.boost_query(query, boost)


def words_of(text: str) -> list[str]:
    """A text as the whole-word fields hold it."""
    return layout.terms(text)
