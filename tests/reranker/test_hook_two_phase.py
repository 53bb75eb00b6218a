"""Ids for the window, documents for the page: the same answer from less work, or one phase after all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from endcap.engines import WireAnswer
from endcap_reranker.hook.plan import Plan
from endcap_reranker.hook.two_phase import Thrift
from tests.reranker.hook_support import Direct, Shop, engine_call, expected_order, ids, make_index

RED: dict[str, Any] = {"query": {"match": {"title": "red shoe"}}, "size": 5}
PLAN = Plan(0, 10, 100, 100, "red")


class Disturbed(Direct):
    """The engine, with something happening to the index between the phases."""

    def __init__(self, url: str, happens: str) -> None:
        super().__init__(url)
        self.happens = happens

    def send(
        self, method: Any, path: str, query: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> WireAnswer:
        answer = super().send(method, path, query, headers, body, timeout_s)
        happens, self.happens = self.happens, ""
        if happens == "emptied":
            for number in range(180):
                engine_call("DELETE", f"{self.url}/moving/_doc/p{number}")
            engine_call("POST", f"{self.url}/moving/_refresh")
        elif happens == "rescored":
            # Two hundred documents more: every score changes with the statistics.
            lines = "".join(f'{{"index":{{"_id":"n{n}"}}}}\n{{"title":"red red"}}\n' for n in range(200))
            types = {"Content-Type": "application/json"}
            engine_call("POST", f"{self.url}/moving/_bulk?refresh=true", body=lines, headers=types)
        elif happens == "gone":
            engine_call("DELETE", f"{self.url}/moving")
        return answer


def shop_over(engine: str, happens: str) -> Shop:
    make_index(engine, "moving")
    shop = Shop(engine, index="moving", two_phase="always")
    shop.wire = shop.parts.wire = Disturbed(engine, happens)
    shop.rebuild()
    return shop


@pytest.fixture
def twice(shop_engine: str) -> Shop:
    return Shop(shop_engine, two_phase="always", searchable_indices=["shop", "articles"])


def test_documents_are_fetched_for_the_page_only(twice: Shop) -> None:
    answer = twice.search({**RED, "aggs": {"b": {"terms": {"field": "brand"}}}, "highlight": {"fields": {"title": {}}}})
    first, second = twice.wire.bodies()
    assert first["_source"] is False
    assert first["size"] == 50
    assert "aggs" in first
    assert "highlight" not in first
    assert second["size"] == 5
    assert "aggs" not in second
    assert sorted(second["query"]["bool"]["filter"][0]["ids"]["values"]) == sorted(ids(answer))


def test_ids_are_not_marked_as_matches(shop_engine: str) -> None:
    make_index(shop_engine, "coded")
    document = {"title": "red code9 code9", "brand": "code9"}
    engine_call("PUT", f"{shop_engine}/coded/_doc/code9?refresh=true", json=document)
    body = {
        "query": {"match": {"title": {"query": "red", "_name": "by title"}}},
        "size": 20,
        "highlight": {"require_field_match": False, "fields": {"*": {}}, "number_of_fragments": 0},
    }
    twice = Shop(shop_engine, index="coded", two_phase="always")
    once = Shop(shop_engine, index="coded")
    answer = twice.search(body, "/coded/_search")
    assert answer["hits"] == once.search(body, "/coded/_search")["hits"]
    assert answer["hits"]["hits"][0]["matched_queries"] == ["by title"]
    assert len(twice.wire.sent) == 2


@pytest.mark.parametrize("happens", ["emptied", "rescored"])
def test_a_change_in_between_means_one_phase(shop_engine: str, happens: str) -> None:
    shop = shop_over(shop_engine, happens)
    answer = shop.search(RED, "/moving/_search")
    assert len(shop.wire.sent) == 3
    now = shop.direct({**RED, "size": 400}, "/moving/_search")
    assert ids(answer) == expected_order(ids(now))[:5]
    assert answer["hits"]["total"] == now["hits"]["total"]
    assert all("_source" in hit for hit in answer["hits"]["hits"])


def test_an_index_that_goes_in_between_is_the_engines_error(shop_engine: str) -> None:
    shop = shop_over(shop_engine, "gone")
    answer = shop.post(RED, "/moving/_search")
    assert answer.status_code == 404
    assert answer.json["error"]["type"] == "index_not_found_exception"
    shop = shop_over(shop_engine, "gone")
    several = shop.post(b'{"index":"moving"}\n{"query":{"match":{"title":"red"}}}\n', "/_msearch")
    assert several.status_code == 200
    assert several.json["responses"][0]["status"] == 404


@pytest.mark.parametrize("query", ["", "?filter_path=hits.hits._id"])
def test_what_only_the_second_phase_refuses_is_the_engines_error(twice: Shop, query: str) -> None:
    wrong = {**RED, "highlight": {"fields": {"title": {"what": 1}}}}
    answer = twice.post(wrong, f"/shop/_search{query}")
    assert (answer.status_code, answer.json["status"]) == (400, 400)
    assert "unknown field [what]" in answer.json["error"]["root_cause"][0]["reason"]
    assert twice.wire.bodies()[-1] == wrong, "the words are about what the client sent"
    lines = b"".join(b'{"index":"shop"}\n' + orjson.dumps(one) + b"\n" for one in (RED, wrong))
    several = twice.post(lines, "/_msearch").json["responses"]
    assert [one["status"] for one in several] == [400, 400], "the engine takes all or none of them"
    assert several[1]["error"]["type"] == answer.json["error"]["type"]


def test_an_alias_over_two_indices_with_the_same_ids(shop_engine: str) -> None:
    for name in ("left", "right"):
        make_index(shop_engine, name, alias="both")
    twice = Shop(shop_engine, index="both", two_phase="always")
    once = Shop(shop_engine, index="both")
    assert twice.search(RED, "/both/_search")["hits"] == once.search(RED, "/both/_search")["hits"]


@pytest.mark.parametrize(
    "part",
    [
        {"collapse": {"field": "brand"}},
        {"explain": True},
        {"profile": True},
        {"knn": {"field": "vector", "query_vector": [1, 2, 3, 4], "k": 20, "num_candidates": 180}},
        {"terminate_after": 100},
        {"_source": False},
        {"aggs": {"best": {"top_hits": {"size": 1}}}, "fields": ["brand"]},
        {"size": 50},
        {"query": {"function_score": {"query": {"match_all": {}}, "random_score": {}}}},
    ],
)
def test_other_searches_take_one_phase(twice: Shop, part: dict[str, Any]) -> None:
    twice.search({**RED, **part})
    assert len(twice.wire.sent) == 1


def test_parameters_that_shape_hits_take_one_phase(twice: Shop) -> None:
    twice.search(RED, "/shop/_search?_source=title")
    twice.search(None, "/shop/_search?q=red")
    assert len(twice.wire.sent) == 2


def test_auto_learns_what_documents_weigh() -> None:
    thrift = Thrift("auto")
    heavy, light = {"query": {}}, {"query": {}, "_source": ["title"]}
    assert not thrift.pays(heavy, PLAN, "shop")
    for _ in range(5):
        thrift.learn(heavy, "shop", {"_source": {"text": "x" * 20_000}})
        thrift.learn(light, "shop", {"_source": {"text": "x" * 20}})
    assert thrift.pays(heavy, PLAN, "shop")
    assert not thrift.pays(light, PLAN, "shop")
    assert not thrift.pays(heavy, Plan(0, 99, 100, 100, ""), "shop")
    assert not thrift.pays(heavy, PLAN, "other")
    assert thrift.pays({**light, "highlight": {}}, PLAN, "shop")


def test_auto_remembers_a_bounded_number_of_shapes() -> None:
    thrift = Thrift("auto")
    for number in range(2_000):
        thrift.learn({"_source": [f"f{number}"]}, "shop", {"a": 1})
    assert len(thrift._bytes) <= 512


def test_always_and_never() -> None:
    assert Thrift("always").pays({}, PLAN, "shop")
    assert not Thrift("never").pays({"highlight": {}}, PLAN, "shop")
