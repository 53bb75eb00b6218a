"""``_msearch`` through the hook against a real Elasticsearch."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.reranker.hook_support import Shop, engine_call, expected_order, ids, whole_hits, without_hits

RED: dict[str, Any] = {"query": {"match": {"title": "red"}}, "size": 6}
FACETS: dict[str, Any] = {"size": 0, "aggs": {"brands": {"terms": {"field": "brand"}}}}
TOO_FAR: dict[str, Any] = {"query": {"match_all": {}}, "size": 20_000}
BY_PRICE: dict[str, Any] = {"query": {"match_all": {}}, "sort": [{"price": "asc"}], "size": 3}


def ndjson(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def msearch(shop: Shop, data: bytes, path: str = "/_msearch", **options: Any) -> Any:
    answer = shop.post(data, path, **options)
    assert answer.status_code == 200, answer.data
    return answer.json


def direct(shop: Shop, data: bytes, path: str = "/_msearch") -> Any:
    headers = {"Content-Type": "application/x-ndjson"}
    return json.loads(engine_call("POST", f"{shop.url}{path}", body=data, headers=headers).data)


def reordered(answer: Any, whole: Any, size: int) -> None:
    """The answer is a page of what the engine gave, in the shopper's order."""
    assert ids(answer) == expected_order(ids(whole))[:size]
    assert without_hits(answer) == {**without_hits(whole), "status": 200}
    found = whole_hits(whole)
    assert all(found[name] == hit for name, hit in whole_hits(answer).items())


def test_order_and_statuses_are_kept(shop: Shop) -> None:
    data = ndjson(
        {"index": "shop"}, RED,
        {"index": "articles"}, RED,
        {"index": "shop"}, FACETS,
        {"index": "shop"}, TOO_FAR,
        {"index": "shop"}, BY_PRICE,
        {"index": "secret"}, RED,
        {"index": "shop"}, {**RED, "from": 4},
    )  # fmt: skip
    answer = msearch(shop, data)
    responses, alone = answer["responses"], direct(shop, data)["responses"]
    whole = shop.direct({**RED, "size": 180})
    reordered(responses[0], whole, 6)
    assert responses[1]["hits"] == alone[1]["hits"]
    assert responses[2]["aggregations"] == alone[2]["aggregations"]
    assert responses[3] == alone[3]
    assert responses[3]["status"] == 400
    assert responses[4]["hits"] == alone[4]["hits"]
    assert responses[5]["status"] == 403
    assert responses[5]["error"]["type"] == "security_exception"
    assert ids(responses[6]) == expected_order(ids(whole))[4:10]
    assert [one["status"] for one in responses] == [200, 200, 200, 400, 200, 403, 200]
    assert isinstance(answer["took"], int)


def test_one_round_trip_for_all(shop: Shop) -> None:
    data = ndjson({"index": "shop"}, RED, {"index": "shop"}, {**RED, "size": 3}, {"index": "shop"}, FACETS)
    msearch(shop, data)
    assert len(shop.wire.sent) == (2 if shop.parts.settings.two_phase == "always" else 1)


@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson", "application/json; charset=utf-8"])
def test_media_types(shop: Shop, media: str) -> None:
    """Searchkit posts NDJSON as application/json."""
    answer = msearch(shop, ndjson({"index": "shop"}, RED), headers={"Content-Type": media})
    assert ids(answer["responses"][0]) == expected_order(ids(shop.direct({**RED, "size": 50})))[:6]
    assert shop.wire.sent[0][3]["Content-Type"] == media


@pytest.mark.parametrize("header", [b"", b"{}", b" ", b"null"])
def test_empty_headers_search_the_paths_index(shop: Shop, header: bytes) -> None:
    answer = msearch(shop, ndjson(header, RED, {"index": "articles"}, RED), "/shop/_msearch")
    reordered(answer["responses"][0], shop.direct({**RED, "size": 50}), 6)
    assert {hit["_index"] for hit in answer["responses"][1]["hits"]["hits"]} == {"articles"}
    # Some engines are set to take no index from a header: then only the path may name it.
    _, path, _, _, sent = shop.wire.sent[0]
    assert (path, sent.split(b"\n")[0]) == ("/shop/_msearch", b"{}")


def test_an_empty_header_without_an_index_in_the_path_is_refused(shop: Shop) -> None:
    answer = msearch(shop, ndjson(b"", RED, {"index": "shop"}, RED))
    assert answer["responses"][0]["status"] == 403
    reordered(answer["responses"][1], shop.direct({**RED, "size": 50}), 6)


@pytest.mark.parametrize("index", ["shop", ["shop"], "shop,shop", ["shop", "shop"]])
def test_index_as_string_or_list(shop: Shop, index: Any) -> None:
    reordered(msearch(shop, ndjson({"index": index}, RED))["responses"][0], shop.direct({**RED, "size": 50}), 6)


@pytest.mark.parametrize(
    "index", ["*", "_all", "sh*", "shop,secret", ["shop", "secret"], "shop,-articles", "<shop-{now/d}>", "c:shop", "",
              [], [["shop"]], 5, {"a": 1}, "shop,", ["shop", None]],
)  # fmt: skip
def test_other_indices_are_refused(shop: Shop, index: Any) -> None:
    answer = msearch(shop, ndjson({"index": index}, RED))
    assert answer["responses"][0]["status"] == 403
    assert shop.wire.sent == []


def test_all_refused_is_still_a_success_that_clients_accept(shop: Shop) -> None:
    answer = shop.post(ndjson({"index": "secret"}, RED), "/_msearch")
    assert answer.status_code == 200
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"


def test_several_product_free_indices_are_left_alone(shop: Shop) -> None:
    data = ndjson({"index": ["shop", "articles"]}, {**RED, "size": 50})
    assert msearch(shop, data)["responses"][0]["hits"] == direct(shop, data)["responses"][0]["hits"]


def test_header_options_travel(shop: Shop) -> None:
    header = {"index": "shop", "preference": "_local", "search_type": "dfs_query_then_fetch", "request_cache": True}
    whole = direct(shop, ndjson(header, {**RED, "size": 50}))["responses"][0]
    reordered(msearch(shop, ndjson(header, RED))["responses"][0], whole, 6)


def test_an_item_that_cannot_be_widened_is_answered_as_it_is(shop_engine: str) -> None:
    shop = Shop(shop_engine, window=10_000)
    engine_call("PUT", f"{shop_engine}/articles/_settings", json={"index.max_result_window": 500})
    narrow = Shop(shop_engine, window=1000, personalized_indices=["shop", "articles"])
    data = ndjson({"index": "articles"}, RED, {"index": "shop"}, RED)
    answer = msearch(narrow, data)["responses"]
    assert ids(answer[0]) == ids(direct(shop, data)["responses"][0])
    assert ids(answer[1]) == expected_order(ids(shop.direct({**RED, "size": 180})), window=1000)[:6]


def test_each_search_may_have_its_own_shopper(shop: Shop) -> None:
    def of(name: str) -> dict[str, Any]:
        return {**RED, "ext": {"endcap": {"shopper": name}}}

    data = ndjson({"index": "shop"}, of("bob"), {"index": "shop"}, of("eve"), {"index": "shop"}, RED)
    answer = msearch(shop, data, shopper="")["responses"]
    whole = ids(shop.direct({**RED, "size": 180}))
    assert ids(answer[0]) == expected_order(whole, "bob")[:6]
    assert ids(answer[1]) == expected_order(whole, "eve")[:6]
    assert ids(answer[2]) == whole[:6]
    assert b"endcap" not in shop.wire.sent[0][4]


def test_without_a_shopper_the_answer_is_the_engines(shop: Shop) -> None:
    data = ndjson({"index": "shop"}, RED, {"index": "shop"}, FACETS)
    answer, alone = msearch(shop, data, shopper=""), direct(shop, data)
    for one in [*answer["responses"], *alone["responses"], answer, alone]:
        one.pop("took")
    assert answer == alone


def test_personalisation_off_gives_the_engines_answer(shop: Shop) -> None:
    data = ndjson({"index": "shop"}, b'{ "query" : {"match":{"title":"red"}} }', {"index": "shop"}, FACETS)
    answer = shop.post(data, "/_msearch", headers={"X-Endcap-Personalize": "off"})
    headers = {"Content-Type": "application/x-ndjson"}
    alone = engine_call("POST", f"{shop.url}/_msearch", body=data, headers=headers).data

    def but_for_took(text: bytes) -> bytes:
        return re.sub(rb'"took":\d+', b"", text)

    assert but_for_took(answer.data) == but_for_took(alone)
    assert answer.headers["X-Endcap-Personalized"] == "0"


def test_filter_path(shop: Shop) -> None:
    path = "/_msearch?filter_path=responses.hits.hits._id,responses.status"
    answer = msearch(shop, ndjson({"index": "shop"}, RED, {"index": "shop"}, FACETS), path)
    whole = ids(shop.direct({**RED, "size": 180}))
    assert answer == {
        "responses": [
            {"hits": {"hits": [{"_id": one} for one in expected_order(whole)[:6]]}, "status": 200},
            {"status": 200},
        ]
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "required"),
        (b"\n\n", "required"),
        (b'{"index":"shop"}\n{}', "terminated by a newline"),
        (b'{"index":"shop"}\n', "no body"),
        (b'{"index":"shop"\n{}\n', "line 1: the header is not valid JSON"),
        (b'["shop"]\n{}\n', "line 1: the header is not a JSON object"),
        (b'{"index":"shop"}\n{}\n{"index":"shop"}\n', "line 3: the last header has no body"),
    ],
)
def test_malformed_ndjson_is_an_error_in_elasticsearchs_shape(shop: Shop, data: bytes, reason: str) -> None:
    answer = shop.post(data, "/_msearch")
    assert answer.status_code == 400
    assert answer.json["status"] == 400
    assert reason in answer.json["error"]["reason"]
    assert answer.json["error"]["root_cause"][0]["reason"] == answer.json["error"]["reason"]


@pytest.mark.parametrize("body", [b"{nope", b"[]"])
def test_a_malformed_body_fails_the_request_as_in_elasticsearch(shop: Shop, body: bytes) -> None:
    data = ndjson({"index": "shop"}, RED, {"index": "shop"}, body)
    answer = shop.post(data, "/_msearch")
    assert answer.status_code == direct(shop, data)["status"] == 400
    assert answer.json["error"]["root_cause"]


def test_what_the_engine_cannot_parse_is_answered_verbatim(shop: Shop) -> None:
    data = ndjson({"index": "shop"}, RED, {"index": "shop"}, {"query": {"nope": {}}})
    answer = shop.post(data, "/_msearch")
    assert answer.status_code == 400
    assert answer.json == direct(shop, data)


def test_more_searches_than_allowed(shop: Shop) -> None:
    answer = shop.post(ndjson({"index": "shop"}, RED) * 51, "/_msearch")
    assert answer.status_code == 400
    assert "at most 50" in answer.json["error"]["reason"]


def test_windows_line_ends(shop: Shop) -> None:
    data = ndjson({"index": "shop"}, RED).replace(b"\n", b"\r\n")
    reordered(msearch(shop, data)["responses"][0], shop.direct({**RED, "size": 50}), 6)


def test_get_with_a_body(shop: Shop) -> None:
    headers = {"X-Endcap-Shopper": "ann", "Content-Type": "application/json"}
    answer = shop.client.get("/_msearch", data=ndjson({"index": "shop"}, RED), headers=headers)
    reordered(answer.json["responses"][0], shop.direct({**RED, "size": 50}), 6)


def test_duplicate_names_cannot_hide_an_index(shop: Shop) -> None:
    answer = msearch(shop, b'{"index":"secret","index":"shop"}\n{"size":1}\n')
    assert {hit["_index"] for hit in answer["responses"][0]["hits"]["hits"]} == {"shop"}
    twice = shop.post(b'{"index":"shop","indices":"secret"}\n{}\n', "/_msearch")
    assert twice.status_code == 400
