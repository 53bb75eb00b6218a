"""What a rule hides stays hidden in the hook: whoever ranks, or nobody, over real Elasticsearch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.errors import ScorerUnavailable
from endcap.features import RankingInputs
from endcap.personalizer import Personalizer
from endcap.policy.arrange import Arranger
from endcap.policy.rule import rule_of
from endcap.policy.rules import RuleBook
from endcap.popularity import Popularity
from endcap.profiles import Profile
from tests.reranker.hook_support import COUNT, Shop, ids, products

RED: dict[str, Any] = {"query": {"match": {"title": "red shoe running"}}}
OFF = {"X-Endcap-Personalize": "off"}
TABLE = ProductTable([Product(f"p{n}", one["title"], brand=one.get("brand", "")) for n, one in enumerate(products())])
HIDE = [
    {"name": "by brand", "kind": "hide", "target": {"brands": ["B"]}},
    {"name": "by id", "kind": "hide", "target": {"products": ["p1", "p5", "p7"]}},
]
GONE = {f"p{n}" for n, one in enumerate(products()) if one.get("brand") == "b"} | {"p1", "p5", "p7"}


class Scorer:
    """Answers, fails or hangs, as it is told."""

    name = "told"

    def __init__(self) -> None:
        self.mode = "answer"
        self.release = threading.Event()

    def score(self, inputs: RankingInputs) -> np.ndarray:
        if self.mode == "fail":
            raise ScorerUnavailable("it was told to")
        if self.mode == "hang":
            self.release.wait(120)
        return np.arange(len(inputs.rows), dtype=np.float32)


class Nobody:
    def get(self, shopper: str) -> Profile:
        return Profile()


class Ruled:
    """A hook whose personalizer has the rules, and the scorer in hand."""

    def __init__(self, url: str, table: ProductTable | None = TABLE, **settings: Any) -> None:
        self.scorer = Scorer()
        rules = {number: rule_of(one) for number, one in enumerate(HIDE)}
        self.personalizer = Personalizer(
            self.scorer, Nobody(), Popularity(), table, 60_000.0, 2, arranger=Arranger(rules=RuleBook(rules))  # type: ignore[arg-type]
        )  # fmt: skip
        self.shop = Shop(url, self.personalizer, **settings)

    def close(self) -> None:
        self.scorer.release.set()
        self.personalizer.close()


@pytest.fixture(params=["never", "always"])
def ruled(shop_engine: str, request: pytest.FixtureRequest) -> Iterator[Ruled]:
    made = Ruled(shop_engine, two_phase=request.param)
    yield made
    made.close()


def pages(shop: Shop, size: int, upto: int = 80, **headers: str) -> tuple[list[str], int]:
    """Ids of all pages and the total, which every page must give alike."""
    found: list[str] = []
    totals = set()
    for start in range(0, upto, size):
        answer = shop.search({**RED, "from": start, "size": min(size, upto - start)}, headers=headers)
        found += ids(answer)
        totals.add(answer["hits"]["total"]["value"])
        scores = [hit["_score"] for hit in answer["hits"]["hits"]]
        assert scores == sorted(scores, reverse=True)
    assert len(totals) == 1
    return found, totals.pop()


@pytest.mark.parametrize("state", ["fail", "hang", "warming_up", "off"])
def test_without_a_ranking_pages_are_the_engines_without_what_is_hidden(ruled: Ruled, state: str) -> None:
    plain = ruled.shop.direct({**RED, "size": 80})
    ruled.scorer.mode = state
    headers = OFF if state == "off" else {}
    if state == "warming_up":
        ruled.personalizer.table = None
    if state == "hang":
        ruled.personalizer._deadline_s = 0.02
    for size in (20, 7):
        found, total = pages(ruled.shop, size, **headers)
        assert found == [one for one in ids(plain) if one not in GONE]
        assert total == plain["hits"]["total"]["value"]
    answer = ruled.shop.post({**RED, "size": 5}, headers=headers)
    wanted = {"fail": "scorer_unavailable", "hang": "deadline", "warming_up": "warming_up", "off": None}[state]
    if state == "hang":
        assert answer.headers.get("X-Endcap-Degraded") in {"deadline", "busy"}
    else:
        assert answer.headers.get("X-Endcap-Degraded") == wanted


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({**RED, "size": 60, "sort": [{"price": "asc"}]}, ""),
        ({**RED, "size": 60, "from": 50}, ""),
        ({"query": {"match_all": {}}, "size": 100, "sort": ["price"], "search_after": [20]}, ""),
        ({**RED, "size": 60, "_source": False, "sort": ["price"]}, ""),
        ({**RED, "size": 60, "sort": ["price"]}, "?filter_path=hits.hits._source.title"),
        ({**RED, "size": 60}, "?filter_path=hits.hits._id"),
        ({**RED, "size": 60, "rescore": {"query": {"rescore_query": {"match": {"title": "light"}}}}}, ""),
    ],
)
def test_searches_that_nobody_ranks_lose_what_is_hidden_and_nothing_else(
    shop_engine: str, body: dict[str, Any], query: str
) -> None:
    ruled = Ruled(shop_engine)
    path = f"/shop/_search{query}"
    plain, whole = ruled.shop.direct(body, path), ruled.shop.direct(body)
    found = ruled.shop.search(body, path, shopper="")
    kept = [number for number, one in enumerate(ids(whole)) if one not in GONE]
    assert 0 < len(kept) < len(ids(whole)), "there is something to hide"
    if body.get("sort"):
        assert found["hits"]["hits"] == [plain["hits"]["hits"][number] for number in kept]
        assert found.get("hits", {}).get("total") == plain["hits"].get("total")
    else:
        assert not GONE & set(ids(found))
    ruled.close()


def test_each_search_of_an_msearch(shop_engine: str) -> None:
    ruled = Ruled(shop_engine)
    sorted_ = b'{}\n{"query":{"match_all":{}},"sort":["price"],"size":90}\n'
    ranked = b'{}\n{"query":{"match":{"title":"red"}},"size":40}\n'
    for lines in (sorted_, sorted_ + ranked, ranked + sorted_ + sorted_):
        for headers in ({}, OFF):
            answer = ruled.shop.client.post(
                "/shop/_msearch", data=lines, content_type="application/x-ndjson", headers=headers
            ).get_json()
            assert len(answer["responses"]) == lines.count(b"{}\n")
            for one in answer["responses"]:
                assert ids(one)
                assert not GONE & set(ids(one))
    ruled.close()


@pytest.mark.parametrize("shopper", ["ann", ""])
@pytest.mark.parametrize(
    "part",
    [
        {"collapse": {"field": "color", "inner_hits": {"name": "same", "size": 90}}},
        {"collapse": {"field": "color", "inner_hits": [{"name": "same", "size": 90}]}, "sort": ["price"]},
        {"aggs": {"colors": {"terms": {"field": "color"}, "aggs": {"best": {"top_hits": {"size": 90}}}}}},
        {"aggs": {"best": {"top_hits": {"size": 90, "_source": False}}}, "size": 0},
    ],
)  # fmt: skip
def test_groups_and_facets_show_no_hidden_product(shop_engine: str, part: dict[str, Any], shopper: str) -> None:
    body = {"size": 20, **RED, **part}
    ruled = Ruled(shop_engine, two_phase="always")
    plain, found = ruled.shop.direct(body), ruled.shop.search(body, shopper=shopper)

    def shown(node: Any) -> set[str]:
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return ({node["_id"]} if isinstance(node, dict) and "_id" in node else set()).union(*map(shown, below))

    assert shown(plain) & GONE, "there is something to hide"
    assert not shown(found) & GONE
    assert shown(found.get("aggregations")) == shown(plain.get("aggregations")) - GONE
    if "collapse" in part:  # those who stand behind a hidden first one go with it
        assert len(shown(found)) > len(ids(found)) > 0
    ruled.close()


def test_a_scroll_hides_them_on_every_page(shop_engine: str) -> None:
    ruled = Ruled(shop_engine, hook_cursors=True)
    found = ruled.shop.search({"query": {"match_all": {}}, "size": 60}, "/shop/_search?scroll=1m")
    every = ids(found)
    while found["hits"]["hits"]:
        found = ruled.shop.search({"scroll": "1m", "scroll_id": found["_scroll_id"]}, "/_search/scroll")
        every += ids(found)
    assert set(every) == {f"p{n}" for n in range(COUNT)} - GONE
    ruled.close()


def test_a_product_that_the_table_does_not_know_is_judged_by_its_document(shop_engine: str) -> None:
    """Indexed a moment ago: the table will know it at its next look, the rule holds at once."""
    for two_phase in ("never", "always"):
        ruled = Ruled(shop_engine, ProductTable([]), two_phase=two_phase)
        found = ruled.shop.search({**RED, "size": 20})
        assert ids(found)
        assert not GONE & set(ids(found))
        ruled.close()


def test_without_such_a_rule_answers_pass_byte_for_byte(shop_engine: str) -> None:
    body = {**RED, "sort": ["price"], "size": 3}
    ruled = Ruled(shop_engine)
    boost = {"name": "b", "kind": "boost", "target": {"brands": ["b"]}}
    ruled.personalizer.arranger.rules = RuleBook({1: rule_of(boost)})
    shop = Shop(shop_engine)
    one, other = ruled.shop.post(body).data, shop.post(body).data
    assert one.partition(b",")[2] == other.partition(b",")[2]
    ruled.close()
