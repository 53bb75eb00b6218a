"""No body, however odd, gets anything but an answer or a refusal in Elasticsearch's shape, and none costs much."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from endcap.engines.embedded import EmbeddedEngine
from endcap.engines.embedded.wire import MAX_SEARCHES, EmbeddedWireEngine
from tests.contracts.wire_shop import DIMS, ENCODER, QUERIES, items

JSON_HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedWireEngine]:
    engine = EmbeddedEngine(tmp_path_factory.mktemp("dsl"), "shop")
    engine.ensure(DIMS, ENCODER)
    engine.upsert(items())
    engine.refresh()
    yield EmbeddedWireEngine(engine, "shop")
    engine.close()


def ask(wire: EmbeddedWireEngine, body: Any, path: str = "/shop/_search", query: str = "") -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = wire.send("POST", path, query, JSON_HEADERS, raw, 5.0)
    return answer.status, json.loads(answer.body)


def refused(answer: tuple[int, Any]) -> str:
    """The reason of a refusal, whose shape is checked."""
    status, body = answer
    assert 400 <= status < 500
    assert body["status"] == status
    (cause,) = body["error"]["root_cause"]
    assert isinstance(body["error"]["type"], str)
    return str(cause["reason"])


#: Bodies with every part that is answered, to be spoilt.
WHOLE: list[dict[str, Any]] = [
    {
        "query": {
            "bool": {
                "must": [{"multi_match": {"query": "red shoo", "fields": ["title^2", "brand"], "fuzziness": "AUTO"}}],
                "filter": [{"range": {"price": {"gte": 1, "lt": 50}}}, {"terms": {"brand": ["Acme", "Loom"]}}],
                "should": [{"match_phrase": {"title": {"query": "red shoe", "slop": 2}}}],
                "must_not": [{"prefix": {"title.keyword": "Gre"}}],
                "minimum_should_match": "2<75%",
            }
        },
        "knn": {"field": "endcap_vector", "query_vector": [1, 0, 0, 1], "k": 3, "num_candidates": 5},
        "aggs": {
            "b": {"terms": {"field": "brand", "order": {"m": "desc"}}, "aggs": {"m": {"max": {"field": "price"}}}},
            "r": {"range": {"field": "price", "ranges": [{"to": 5}, {"from": 5}]}},
            "h": {"histogram": {"field": "price", "interval": 10, "extended_bounds": {"min": 0, "max": 50}}},
            "f": {"filters": {"filters": {"x": {"term": {"brand": "Acme"}}}}},
            "c": {"cardinality": {"field": "attributes.color"}},
        },
        "post_filter": {"exists": {"field": "attributes.color"}},
        "highlight": {"fields": {"title": {"fragment_size": 10}, "*": {}}, "pre_tags": ["<b>"]},
        "_source": {"includes": ["title", "att*"], "excludes": ["*.size"]},
        "fields": ["price", {"field": "brand"}],
        "from": 0,
        "size": 5,
        "min_score": 0.01,
        "track_total_hits": True,
    },
    {
        "query": {"match": {"title": {"query": "blue", "operator": "and", "_name": "n"}}},
        "sort": [{"price": {"order": "desc", "missing": "_first"}}, {"attributes.size": "asc"}, "_score", "id"],
        "search_after": [9.99, 38, 1.5, "p01"],
        "suggest": {"text": "shos", "s": {"term": {"field": "title", "suggest_mode": "always"}}},
    },
    {
        "query": {"simple_query_string": {"query": 'red +(blue | "light sweet"~2) -sho*', "fields": ["title"]}},
        "collapse": {"field": "brand", "inner_hits": {"name": "i", "size": 2, "sort": ["price"]}},
        "sort": "brand",
    },
    {"query": {"query_string": {"query": "title:(red OR blu~1) AND NOT brand:Acme^2"}}, "track_total_hits": 3},
    {
        "query": {
            "function_score": {
                "query": {"match": {"title": "red"}},
                "functions": [
                    {"filter": {"term": {"brand": "Loom"}}, "weight": 2},
                    {"field_value_factor": {"field": "stock", "modifier": "log1p", "missing": 1}},
                    {"gauss": {"price": {"origin": 5, "scale": 3}}},
                ],
                "score_mode": "sum",
                "min_score": 0.1,
            }
        },
        "sort": ["_score", "id"],
    },
    {"query": {"dis_max": {"queries": [{"ids": {"values": ["p01"]}}, {"match_all": {}}], "tie_breaker": 0.3}}},
]

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0, -1, 1e300, 10_001, 2**31, "", "*", "_", "title", "price", "brand", "category", "endcap_vector"]
    ),
    st.sampled_from(["title.keyword", "attributes.size", "attributes.", "attributes.*", "url", "_score", "AUTO:9,1"]),
    st.text(max_size=12),
    st.text(alphabet='+-&|!(){}[]^"~*?:\\/<> ab红手', max_size=16),
    st.lists(st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.sampled_from(["field", "query", "value", "boost", "x"]), st.integers(-2, 2), max_size=2),
    st.just({"match": {"title": "red"}}),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*path, key))


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """A whole body with a few values replaced, removed, or keys renamed."""
    body = json.loads(json.dumps(draw(st.sampled_from(WHOLE))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([*list(_places(body))[1:], ("size",)]))
        holder = body
        for step in path[:-1]:
            holder = holder[step]
        how = draw(st.sampled_from(["replace", "remove", "rename", "double"]))
        if how == "replace" or isinstance(holder, list):
            holder[path[-1]] = json.loads(json.dumps(draw(JUNK)))
        elif how == "remove":
            holder.pop(path[-1], None)
        else:
            value = holder.get(path[-1]) if how == "double" else holder.pop(path[-1], None)
            holder[draw(st.text(max_size=6))] = value
    return body


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(body=spoilt())
def test_a_spoilt_body_is_answered_or_refused(
    wire: EmbeddedWireEngine, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    caplog.clear()
    status, answer = ask(wire, body)
    if status == 200:
        assert set(answer) >= {"took", "timed_out", "_shards", "hits"}
    else:
        assert refused((status, answer))
    # What the reader lets through the index must be able to answer.
    assert not caplog.records


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(text=st.text(alphabet='+-&|!(){}[]^"~*?:\\/<> \t\nabANDORNOT红手title.é\x00', max_size=30))
def test_any_text_is_a_query_or_refused_and_simple_syntax_never_is(wire: EmbeddedWireEngine, text: str) -> None:
    for kind in ("query_string", "simple_query_string"):
        status, answer = ask(wire, {"query": {kind: {"query": text}}})
        if status != 200:
            assert kind == "query_string", answer
            assert refused((status, answer))
    for query in ({"match": {"title": text}}, {"multi_match": {"query": text, "type": "phrase_prefix"}}):
        assert ask(wire, {"query": query})[0] == 200


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(query=QUERIES, size=st.integers(1, 9))
def test_pages_of_any_query_partition_its_matches_and_repeat_exactly(
    wire: EmbeddedWireEngine, query: dict[str, Any], size: int
) -> None:
    def page(start: int, count: int) -> list[tuple[str, float]]:
        _, body = ask(wire, {"query": query, "from": start, "size": count, "_source": False})
        return [(hit["_id"], hit["_score"]) for hit in body["hits"]["hits"]]

    whole = page(0, 100)
    assert [one for start in range(0, len(whole) + size, size) for one in page(start, size)] == whole
    assert whole == sorted(whole, key=lambda one: (-one[1], one[0]))


def test_depth_clauses_and_words_are_bounded(wire: EmbeddedWireEngine) -> None:
    deep: Any = {"match_all": {}}
    for _ in range(200):
        deep = {"bool": {"must": [deep]}}
    assert "nested depth" in refused(ask(wire, {"query": deep}))
    many = [{"term": {"brand": str(number)}} for number in range(1100)]
    assert "maxClauseCount" in refused(ask(wire, {"query": {"bool": {"should": many}}}))
    words = " ".join(f"w{number}" for number in range(1100))
    assert "maxClauseCount" in refused(ask(wire, {"query": {"match": {"title": words}}}))
    assert "maxClauseCount" in refused(ask(wire, {"query": {"match_phrase": {"title": words}}}))
    assert ask(wire, {"query": {"match": {"title": " ".join(words.split()[:500])}}})[0] == 200
    brackets = "(" * 100 + "red" + ")" * 100
    assert "nested depth" in refused(ask(wire, {"query": {"query_string": {"query": brackets}}}))
    buckets = {"h": {"histogram": {"field": "price", "interval": 0.0001}}}
    assert "too many buckets" in refused(ask(wire, {"size": 0, "aggs": buckets}))
    nested: Any = {}
    for _ in range(30):
        nested = {"a": {"filter": {"match_all": {}}, "aggs": nested}} if nested else {"a": {"min": {"field": "price"}}}
    assert "nested deeper" in refused(ask(wire, {"aggs": nested}))
    searches = b'{}\n{"size":0}\n' * (MAX_SEARCHES + 1)
    assert "_msearch" in refused(ask(wire, searches, "/shop/_msearch"))


def test_a_body_of_many_levels_is_refused_by_the_reader(wire: EmbeddedWireEngine) -> None:
    assert refused(ask(wire, b'{"query":' * 5000 + b"{}" + b"}" * 5000))


@pytest.mark.parametrize(
    "body",
    [
        {"query": {"script_score": {"query": {"match_all": {}}, "script": {"source": "1"}}}},
        {"query": {"function_score": {"random_score": {}}}},
        {"query": {"dis_max": {"queries": [{"function_score": {"weight": 2}}, {"match_all": {}}]}}},
        {"query": {"regexp": {"title": ".*.*.*x"}}},
        {"query": {"wildcard": {"title": "*a*"}}},
        {"query": {"more_like_this": {"fields": ["title"], "like": "x"}}},
        {"query": {"query_string": {"query": "/.*x/"}}},
        {"query": {"query_string": {"query": "price:[1 TO 5]"}}},
        {"query": {"terms": {"brand": {"index": "other", "id": "1", "path": "x"}}}},
        {"query": {"range": {"brand": {"gte": "a"}}}},
        {"query": {"match": {"title": {"query": "x", "analyzer": "english"}}}},
        {"knn": {"field": "endcap_vector", "query_vector_builder": {}, "k": 1, "num_candidates": 1}},
        {"aggs": {"a": {"terms": {"script": {"source": "1"}}}}},
        {"aggs": {"a": {"terms": {"field": "brand", "include": ".*(a|b)+"}}}},
        {"aggs": {"a": {"top_hits": {}}}},
        {"sort": [{"_script": {"type": "number", "script": "1"}}]},
        {"suggest": {"s": {"prefix": "x", "completion": {"field": "title"}}}},
        {"runtime_mappings": {"x": {"type": "keyword"}}},
        {"script_fields": {"x": {"script": "1"}}},
        {"rescore": {"window_size": 1, "query": {"rescore_query": {"match_all": {}}}}},
        {"retriever": {"standard": {}}},
        {"pit": {"id": "x"}},
        {"profile": True},
        {"explain": True},
        {"stored_fields": ["title"]},
    ],
)
def test_what_is_not_answered_says_so_and_what_to_do(wire: EmbeddedWireEngine, body: Any) -> None:
    reason = refused(ask(wire, body))
    assert "ENDCAP_ENGINE_URL" in reason


@pytest.mark.parametrize(
    "body", [{"runtime_mappings": {}}, {"ext": {"endcap": {"shopper": "x"}}}, {"explain": False}, {"timeout": "1s"}]
)
def test_what_changes_nothing_is_accepted(wire: EmbeddedWireEngine, body: Any) -> None:
    assert ask(wire, body)[1]["hits"]["total"]["value"] == 60


def test_compressed_bodies_and_their_limits(wire: EmbeddedWireEngine) -> None:
    def send(body: bytes, encoding: str = "gzip") -> tuple[int, Any]:
        headers = {**JSON_HEADERS, "Content-Encoding": encoding}
        answer = wire.send("POST", "/shop/_search", "", headers, body, 5.0)
        return answer.status, json.loads(answer.body)

    assert send(gzip.compress(b'{"size":3}'))[1]["hits"]["hits"][2]
    assert "gzip" in refused(send(b"not gzip"))
    assert "ends early" in refused(send(gzip.compress(b'{"size":3}' * 1000)[:-20]))
    assert send(gzip.compress(b" " * 40_000_000))[0] == 413
    assert send(b"{}", "br")[0] == 415


def test_media_types_must_agree(wire: EmbeddedWireEngine) -> None:
    kind = "application/vnd.elasticsearch+json;compatible-with="

    def send(content: str, accept: str) -> int:
        return wire.send("POST", "/shop/_search", "", {"content-type": content, "ACCEPT": accept}, b"{}", 5.0).status

    assert send(kind + "9", kind + "9") == 200
    assert send(kind + "8", kind + "9") == 400
    assert send("application/json", kind + "8") == 400
    assert send(kind + "8", "application/json") == 400
    assert send(kind + "12", kind + "12") == 400
    assert send("application/json; charset=utf-8", "application/json, text/plain, */*") == 200
    assert send("application/x-www-form-urlencoded", "*/*") == 406


def test_other_paths_and_methods_are_refused(wire: EmbeddedWireEngine) -> None:
    for path in (
        "/_bulk",
        "/shop/_doc/1",
        "/shop/_delete_by_query",
        "/_cluster/health",
        "/shop/_mapping",
        "/a/b/_search",
    ):
        assert "no handler" in refused(ask(wire, {}, path))
    head = wire.send("HEAD", "/", "", {}, b"", 5.0)
    assert (head.status, head.body, head.headers["X-Elastic-Product"]) == (200, b"", "Elasticsearch")
    info = json.loads(wire.send("GET", "/", "", {}, b"", 5.0).body)
    assert info["version"]["number"].startswith("8.")
    assert wire.send("HEAD", "/shop", "", {}, b"", 5.0).status == 200
    assert wire.send("HEAD", "/elsewhere", "", {}, b"", 5.0).status == 404
    assert ask(wire, {"query": {"term": {"brand": "Loom"}}}, "/shop/_count")[1]["count"] > 0


def test_without_an_index_the_answer_is_404(tmp_path: Any) -> None:
    wire = EmbeddedWireEngine(EmbeddedEngine(tmp_path, "shop"), "shop")
    status, body = ask(wire, {})
    assert (status, body["error"]["type"]) == (404, "index_not_found_exception")
    assert ask(wire, b"{}\n{}\n", "/_msearch")[1]["responses"][0]["status"] == 404


def test_internal_fields_are_never_shown(wire: EmbeddedWireEngine) -> None:
    for body in ({}, {"_source": ["*"]}, {"_source": "endcap*"}, {"fields": ["*", "endcap_vector"]}):
        assert "endcap" not in json.dumps(ask(wire, body)[1])
