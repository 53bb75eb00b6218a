"""What storefronts really use: elasticsearch-py, opensearch-py, and the bodies of Searchkit and Search UI, over a
socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import elasticsearch
import opensearchpy
import pytest
import urllib3

from tests.reranker.hook_support import (
    Shop,
    engine_call,
    expected_order,
    ids,
    make_index,
    serving,
    whole_hits,
    without_hits,
)

RED: dict[str, Any] = {"match": {"title": "red"}}

SEARCHKIT = {
    "aggs": {"brand": {"terms": {"field": "brand", "size": 20}}, "price": {"stats": {"field": "price"}}},
    "query": {
        "bool": {
            "filter": [],
            "must": {
                "bool": {
                    "should": [
                        {
                            "bool": {
                                "should": [
                                    {
                                        "multi_match": {
                                            "query": "red shoe",
                                            "fields": ["title^3", "brand"],
                                            "fuzziness": "AUTO:4,8",
                                        }
                                    },
                                    {
                                        "multi_match": {
                                            "query": "red shoe",
                                            "fields": ["title^1.5", "brand^0.5"],
                                            "type": "bool_prefix",
                                        }
                                    },
                                ]
                            }
                        },
                        {"multi_match": {"query": "red shoe", "type": "phrase", "fields": ["title^6", "brand^2"]}},
                    ]
                }
            },
        }
    },
    "size": 20,
    "from": 0,
    "_source": {"includes": ["title", "price", "brand"]},
    "fields": [],
    "highlight": {"fields": {"title": {"number_of_fragments": 0}}},
    "sort": "_score",
    "runtime_mappings": {"shelf": {"type": "keyword"}},
}
SEARCH_UI = {
    "query": {
        "bool": {
            "must": [
                {
                    "bool": {
                        "should": [
                            {"multi_match": {"query": "red shoe", "fields": ["title^2"], "type": kind}}
                            for kind in ("best_fields", "cross_fields", "phrase", "phrase_prefix")
                        ]
                    }
                }
            ],
            "filter": [],
        }
    },
    "from": 5,
    "size": 5,
    "_source": {"includes": ["title", "price"]},
    "sort": "_score",
    "highlight": {"fields": {"title": {"fragment_size": 200, "number_of_fragments": 1}}},
    "aggs": {"facet_bucket_all": {"aggs": {"brand": {"terms": {"field": "brand"}}}, "filter": {"bool": {"must": []}}}},
    "post_filter": {"bool": {"must": [{"bool": {"should": [{"term": {"brand": "a"}}, {"term": {"brand": "b"}}]}}]}},
}


@pytest.fixture(params=["never", "always", "auto"])
def hook(shop_engine: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, Shop]]:
    shop = Shop(shop_engine, two_phase=request.param, searchable_indices=["shop", "articles"])
    with serving(shop.app) as url:
        yield url, shop


def test_elasticsearch_py(hook: tuple[str, Shop]) -> None:
    url, shop = hook
    client = elasticsearch.Elasticsearch(
        url, headers={"X-Endcap-Shopper": "ann"}, http_compress=True, request_timeout=60
    )
    whole = ids(shop.direct({"query": RED, "size": 180}))
    assert ids(client.search(index="shop", query=RED, size=7)) == expected_order(whole)[:7]
    answer = client.msearch(
        searches=[{"index": "shop"}, {"query": RED, "size": 7}, {}, {"query": RED, "from": 7}], index="shop"
    )
    assert ids(answer["responses"][0]) == expected_order(whole)[:7]
    assert ids(answer["responses"][1]) == expected_order(whole)[7:17]
    as_bob = client.options(headers={"X-Endcap-Shopper": "bob"})
    assert ids(as_bob.search(index="shop", query=RED)) == expected_order(whole, "bob")[:10]
    with pytest.raises(elasticsearch.AuthorizationException):
        client.index(index="shop", document={})
    with pytest.raises(elasticsearch.AuthorizationException):
        client.search(index="secret")
    with pytest.raises(elasticsearch.BadRequestError) as caught:
        client.search(index="shop", query={"nope": {}})
    assert caught.value.body["error"]["type"] == "parsing_exception"
    client.close()


def test_searchkit(hook: tuple[str, Shop]) -> None:
    url, shop = hook
    facets = {**SEARCHKIT, "size": 0, "from": 0}
    data = "".join(f"{json.dumps({'index': 'shop'})}\n{json.dumps(body)}\n" for body in (SEARCHKIT, facets))
    headers = {"Content-Type": "application/json", "X-Endcap-Shopper": "ann"}
    answer = engine_call("POST", f"{url}/_msearch", body=data, headers=headers)
    page, counted = answer.json()["responses"]
    whole = shop.direct({**SEARCHKIT, "size": 180})
    assert ids(page) == expected_order(ids(whole))[:20]
    assert without_hits(page) == {**without_hits(whole), "status": 200}
    assert all(whole_hits(whole)[name] == hit for name, hit in whole_hits(page).items())
    assert counted["aggregations"] == whole["aggregations"]
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"


def test_search_ui(hook: tuple[str, Shop]) -> None:
    url, shop = hook
    headers = {"X-Endcap-Shopper": "ann"}
    answer = engine_call("POST", f"{url}/shop/_search", json=SEARCH_UI, headers=headers).json()
    whole = shop.direct({**SEARCH_UI, "from": 0, "size": 180})
    assert ids(answer) == expected_order(ids(whole))[5:10]
    assert without_hits(answer) == without_hits(whole)
    assert all(whole_hits(whole)[name] == hit for name, hit in whole_hits(answer).items())
    suggest = {"suggest": {"words": {"text": "sho", "term": {"field": "title"}}}, "size": 0}
    asked = engine_call("POST", f"{url}/shop/_search", json=suggest, headers=headers).json()
    assert asked["suggest"] == shop.direct(suggest)["suggest"]


def test_chunked_bodies(hook: tuple[str, Shop]) -> None:
    url, shop = hook
    data = json.dumps({"query": RED}).encode()
    headers = {"Content-Type": "application/json", "X-Endcap-Shopper": "ann"}
    answer = engine_call("POST", f"{url}/shop/_search", body=iter([data[:9], data[9:]]), headers=headers)
    assert ids(answer.json()) == expected_order(ids(shop.direct({"query": RED, "size": 180})))[:10]


def test_an_oversize_body_in_chunks(hook: tuple[str, Shop]) -> None:
    url, _ = hook
    headers = {"Content-Type": "application/json"}
    answer = engine_call("POST", f"{url}/shop/_search", body=iter([b" " * 400_000] * 4), headers=headers)
    assert answer.status == 413


def test_many_shoppers_at_once(hook: tuple[str, Shop]) -> None:
    url, shop = hook
    whole = ids(shop.direct({"query": RED, "size": 180}))
    pool = urllib3.PoolManager(maxsize=8)

    def search(number: int) -> bool:
        name = f"s{number}"
        answer = pool.request(
            "POST", f"{url}/shop/_search", json={"query": RED}, headers={"X-Endcap-Shopper": name}
        ).json()
        return ids(answer) == expected_order(whole, name)[:10]

    with ThreadPoolExecutor(8) as workers:
        assert all(workers.map(search, range(80)))


@pytest.fixture(scope="module")
def open_shop(opensearch: str) -> str:
    make_index(opensearch, "shop", shards=2, vectors=False)
    return opensearch


@pytest.mark.parametrize("phases", ["never", "always"])
def test_opensearch(open_shop: str, phases: str) -> None:
    """OpenSearch answers the same calls; what it says of its own passes."""
    shop = Shop(open_shop, two_phase=phases)
    body = {"query": RED, "highlight": {"fields": {"title": {}}}, "aggs": {"b": {"terms": {"field": "brand"}}}}
    whole = shop.direct({**body, "size": 180})
    with serving(shop.app) as url:
        client = opensearchpy.OpenSearch(url, headers={"X-Endcap-Shopper": "ann"}, timeout=60)
        answer = client.search(index="shop", body=body)
        assert ids(answer) == expected_order(ids(whole))[:10]
        assert without_hits(answer) == without_hits(whole)
        assert all(whole_hits(whole)[name] == hit for name, hit in whole_hits(answer).items())
        several = client.msearch(body=[{"index": "shop"}, body, {"index": "shop"}, {"size": 0}])
        assert ids(several["responses"][0]) == expected_order(ids(whole))[:10]
        assert client.info()["version"]["distribution"] == "opensearch"
        with pytest.raises(opensearchpy.exceptions.AuthorizationException):
            client.indices.delete(index="shop")
        client.close()
    refused = shop.post({"query": {"terms": {"brand": {"index": "x", "id": "1", "path": "brand"}}}})
    assert refused.status_code == 403


def test_opensearch_runs_the_shops_scripts(open_shop: str) -> None:
    body = {"query": {"script_score": {"query": RED, "script": {"source": "doc['price'].size() == 0 ? 1 : 2"}}}}
    shop = Shop(open_shop, two_phase="always")
    assert ids(shop.search(body)) == expected_order(ids(shop.direct({**body, "size": 180})))[:10]
