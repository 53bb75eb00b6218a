"""``/v1/search`` over both engines, with the real encoder and real purchases."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from endcap.runtime import Runtime, open_runtime
from endcap_reranker.app import create_app
from tests.reranker.demo_support import open_shop, set_up_shop, shop_settings

WINDOW = 20


@pytest.fixture(scope="module", params=["embedded", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    where = {"engine_url": request.getfixturevalue("elasticsearch")} if request.param == "elasticsearch" else {}
    folder = tmp_path_factory.mktemp("shop")
    with open_shop(
        set_up_shop(folder, window=WINDOW, index=f"api-{uuid.uuid4().hex[:8]}", open_metrics=True, **where)
    ) as opened:
        yield opened


def found(client: FlaskClient, shopper: str = "", **query: Any) -> dict[str, Any]:
    headers = {"X-Endcap-Shopper": shopper} if shopper else {}
    answer = client.get("/v1/search", query_string=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def refused(answer: Any, status: int, kind: str) -> str:
    """Checks the one error format; gives the detail."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    body = answer.get_json()
    assert body["status"] == status
    assert body["type"] == f"urn:endcap:error:{kind}"
    return str(body["detail"])


def test_an_answer_has_everything_a_storefront_needs(client: FlaskClient, regular: str) -> None:
    answer = found(client, regular, q="milk", size=5, facets="category:3,brand", highlight="on", explain="on")
    assert answer["query"] == "milk"
    assert answer["total"] >= len(answer["hits"]) == 5
    assert answer["ranking"]["personalized"] is True
    assert answer["ranking"]["scorer"] == "baseline"
    assert answer["ranking"]["degraded"] == ""
    assert len(answer["facets"]["category"]) == 3
    assert answer["facets"]["brand"][0]["count"] > 0
    assert any(hit["reasons"] for hit in answer["hits"])
    assert any("<em>" in part for hit in answer["hits"] for parts in hit["highlights"].values() for part in parts)
    for hit in answer["hits"]:
        assert hit["document"]["id"] == hit["id"]
        assert hit["engine_position"] >= 1


def test_highlights_and_reasons_only_where_wanted(client: FlaskClient, regular: str) -> None:
    for hit in found(client, regular, q="milk")["hits"]:
        assert hit["highlights"] == {}
        assert hit["reasons"] == []


@pytest.mark.parametrize("how", ["parameter", "header", "nobody"])
def test_personalisation_off_is_the_engines_order(client: FlaskClient, regular: str, how: str) -> None:
    headers = {"X-Endcap-Shopper": regular} if how != "nobody" else {}
    if how == "header":
        headers["X-Endcap-Personalize"] = "off"
    query = {"q": "milk", "personalize": "off"} if how == "parameter" else {"q": "milk"}
    answer = client.get("/v1/search", query_string=query, headers=headers).get_json()
    assert [hit["engine_position"] for hit in answer["hits"]] == list(range(1, len(answer["hits"]) + 1))
    assert answer["ranking"]["personalized"] is False


def test_a_purchase_moves_the_product_at_the_next_search(client: FlaskClient) -> None:
    shopper = "test-mover"
    before = [hit["id"] for hit in found(client, shopper, q="cheese", size=20)["hits"]]
    wanted = before[-1]
    event = {"action_name": "purchase", "client_id": shopper, "event_attributes": {"object": {"object_id": wanted}}}
    assert client.post("/v1/events", json=[event, event]).get_json()["accepted"] == 2
    answer = found(client, shopper, q="cheese", size=20, explain="on")
    after = [hit["id"] for hit in answer["hits"]]
    assert after.index(wanted) < before.index(wanted)
    assert answer["ranking"]["personalized"] is True
    assert answer["hits"][after.index(wanted)]["reasons"][0].startswith("You bought this")


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.sampled_from(["", "milk", "cheese", "frozen", "food for my puppy", "snack for children", "milk bread"]),
    size=st.integers(4, 30),
    personal=st.booleans(),
)
def test_pages_partition_the_result(client: FlaskClient, regular: str, query: str, size: int, personal: bool) -> None:
    seen: list[str] = []
    total, page, pages = 0, 1, 1
    while page <= pages:
        answer = found(client, regular if personal else "", q=query, size=size, page=page)
        total, pages = answer["total"], answer["pages"]
        seen.extend(hit["id"] for hit in answer["hits"])
        page += 1
    assert len(seen) == len(set(seen)), "shown twice"
    assert len(seen) == total


def test_behind_the_window_the_engines_order_goes_on(client: FlaskClient, regular: str) -> None:
    personal = found(client, regular, q="", size=100)
    engine = found(client, regular, q="", size=100, personalize="off")
    assert personal["total"] > 3 * WINDOW
    assert [hit["id"] for hit in personal["hits"][WINDOW:]] == [hit["id"] for hit in engine["hits"][WINDOW:]]
    assert {hit["id"] for hit in personal["hits"][:WINDOW]} == {hit["id"] for hit in engine["hits"][:WINDOW]}


def test_meaning_finds_what_the_words_do_not(client: FlaskClient) -> None:
    answer = found(client, q="fizzy cola beverage")
    assert any("Soda" in hit["document"]["title"] for hit in answer["hits"])


def test_nonsense_finds_nothing(client: FlaskClient) -> None:
    answer = found(client, q="qwxzv jjkpt", facets="brand")
    assert answer["total"] == 0
    assert answer["hits"] == []
    assert answer["pages"] == 0
    assert answer["facets"] == {"brand": []}


def test_a_misspelt_query_still_finds(client: FlaskClient) -> None:
    assert any("Yogurt" in hit["document"]["title"] for hit in found(client, q="yogrt")["hits"])


def test_filters_hold_for_word_and_meaning_alike(client: FlaskClient) -> None:
    for query in ("milk", "something sweet", ""):
        for hit in found(client, q=query, brand="Store Brand", price_max="2", size=50)["hits"]:
            assert hit["document"]["brand"] == "Store Brand"
            assert hit["document"]["price"] <= 2


def test_one_filter_takes_several_values_and_facets_count_what_they_give(client: FlaskClient) -> None:
    facet = found(client, q="", facets="brand:5")["facets"]["brand"]
    brands = [bucket["value"] for bucket in facet[:2]]
    answer = found(client, q="", brand=brands)
    assert answer["total"] == sum(bucket["count"] for bucket in facet[:2])


def test_get_and_post_say_the_same(client: FlaskClient) -> None:
    got = found(
        client, q="cheese", category="Dairy & Eggs", price_min="1", facets="attributes.label:2", sort="price:desc"
    )
    filters = [{"field": "category", "values": ["Dairy & Eggs"]}, {"field": "price", "gte": 1}]
    body = {"q": "cheese", "filters": filters, "facets": {"attributes.label": 2}, "sort": "price:desc"}
    posted = client.post("/v1/search", json=body).get_json()
    for one in (got, posted):
        del one["took_ms"], one["ranking"]
    assert got == posted
    assert got["total"] > 1


@pytest.mark.parametrize("sort", ["price:asc", "price:desc", "title:asc"])
def test_a_wanted_order_is_kept(client: FlaskClient, regular: str, sort: str) -> None:
    answer = found(client, regular, q="", sort=sort, size=50)
    field = sort.partition(":")[0]
    values = [hit["document"][field] for hit in answer["hits"]]
    assert values == sorted(values, reverse=sort == "price:desc")
    assert answer["ranking"]["personalized"] is False


@pytest.mark.parametrize(
    "query", ["牛奶", "<script>alert(1)</script>", 'a" OR *:* (', "\x00milk\ud800", "é" * 1000, "  "]
)
def test_any_text_is_only_text(client: FlaskClient, query: str) -> None:
    answer = client.post("/v1/search", data=b'{"q": %s}' % _ascii_json(query), content_type="application/json")
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        assert "\ud800" in query, answer.text


def _ascii_json(text: str) -> bytes:
    return json.dumps(text).encode()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"size": "101"}, "size"),
        ({"size": "many"}, "size"),
        ({"page": "0"}, "page"),
        ({"page": "1001", "size": "10"}, "first 10000"),
        ({"price_min": "cheap"}, "gte"),
        ({"price_max": "nan"}, "lte"),
        ({"sort": "margin:desc"}, "sort"),
        ({"facets": "secret"}, "secret"),
        ({"facets": "brand:100000"}, "buckets"),
        ({"qeury": "milk"}, "qeury"),
        ({"personalize": "maybe"}, "personalize"),
        ({"q": "x" * 1001}, "q:"),
    ],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, query: dict[str, str], names: str) -> None:
    assert names in refused(client.get("/v1/search", query_string=query), 400, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"milk"',
        b'{"filters": [{"field": "brand"}]}',
        b'{"filters": [{"field": "password", "values": ["x"]}]}',
        b'{"filters": [{"field": "brand", "values": [{}]}]}',
        b'{"filters": {}}',
        b'{"q": 7}',
        b'{"page": 1e99}',
        b"\xff\xfe",
    ],
)
def test_a_wrong_body_is_refused(client: FlaskClient, body: bytes) -> None:
    refused(client.post("/v1/search", data=body, content_type="application/json"), 400, "invalid_input")


def test_other_refusals(client: FlaskClient) -> None:
    big = b'{"q": "' + b"x" * 1_000_001 + b'"}'
    refused(client.post("/v1/search", data=big, content_type="application/json"), 413, "too_large")
    answer = client.post("/v1/search", data=b"<q/>", content_type="application/xml")
    refused(answer, 415, "unsupported_media_type")
    refused(client.get("/v1/serach"), 404, "not_found")
    answer = client.delete("/v1/search")
    refused(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_a_shopper_id_that_is_no_id_makes_an_anonymous_search(client: FlaskClient) -> None:
    answer = found(client, "x" * 10_000, q="milk")
    assert answer["hits"]
    assert answer["ranking"]["degraded"] == "shopper_id"


def test_an_engine_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    runtime = open_runtime(shop_settings(tmp_path, text_encoder="none", engine_url="http://127.0.0.1:9"), start=False)
    answer = create_app(runtime).test_client().get("/v1/search?q=milk")
    assert "Retry-After" in answer.headers
    refused(answer, 503, "engine_unavailable")
    runtime.close()


def test_before_anything_is_indexed(tmp_path: Path) -> None:
    runtime = open_runtime(shop_settings(tmp_path, text_encoder="none"), start=False)
    refused(create_app(runtime).test_client().get("/v1/search?q=milk"), 404, "index_not_found")
    runtime.close()


class _Broken:
    id, dims = "broken", 384

    def encode(self, texts: object) -> None:
        raise RuntimeError("out of order")

    encode_query = encode


def test_without_vectors_the_words_still_answer(runtime: Runtime, regular: str) -> None:
    encoder, runtime.encoder = runtime.encoder, _Broken()  # type: ignore[assignment]
    try:
        answer = found(create_app(runtime).test_client(), regular, q="milk")
    finally:
        runtime.encoder = encoder
    assert answer["ranking"]["degraded"] == "no_vectors"
    assert answer["ranking"]["personalized"] is True
    assert answer["hits"]
    assert 'endcap_degraded_total{reason="no_vectors"}' in create_app(runtime).test_client().get("/metrics").text
