"""``/v1/suggest`` over the demo shop: real titles, real purchases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from endcap.runtime import Runtime, open_runtime
from endcap_reranker.app import create_app
from tests.reranker.demo_support import open_shop, set_up_shop, shop_settings
from tests.serving import eventually


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_shop(set_up_shop(tmp_path_factory.mktemp("shop"), text_encoder="none")) as opened:
        assert eventually(lambda: opened.discovery.suggester is not None)
        yield opened


def suggested(client: FlaskClient, q: str, shopper: str = "", **more: Any) -> dict[str, Any]:
    headers = {"X-Endcap-Shopper": shopper} if shopper else {}
    answer = client.get("/v1/suggest", query_string={"q": q, **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json"
    return dict(answer.get_json())


def search_events(query: str, shoppers: list[str]) -> list[dict[str, Any]]:
    return [{"action_name": "search", "client_id": one, "user_query": query} for one in shoppers]


def test_products_and_categories_by_what_their_words_begin_with(client: FlaskClient) -> None:
    answer = suggested(client, "yog")
    assert answer["products"]
    assert all("yog" in one["title"].lower() for one in answer["products"])
    assert len({one["title"] for one in answer["products"]}) == len(answer["products"])
    assert answer["categories"]
    for one in answer["categories"]:
        assert one["path"].endswith(one["name"])
        assert one["products"] > 0
    assert answer["degraded"] == ""


@pytest.mark.parametrize("typed", ["yogrt", "yougrt", "ygourt", "YOGÚRT"])
def test_typing_errors_are_forgiven(client: FlaskClient, typed: str) -> None:
    assert any("yogurt" in one["title"].lower() for one in suggested(client, typed)["products"])


def test_queries_of_three_shoppers_are_suggested_to_others(client: FlaskClient, runtime: Runtime) -> None:
    events = search_events("Zesty  Pickles", ["a", "b", "c"]) + search_events("zesty secret", ["a"] * 5)
    events += search_events("zesty <img src=x onerror=alert(1)>", ["a", "b", "c"])
    events += search_events("zesty 4111111111111111", ["a", "b", "c"])
    assert client.post("/v1/events", json=events).get_json()["rejected"] == 0
    runtime.discovery.turn()
    runtime.discovery.refresh()
    assert suggested(client, "zes")["queries"] == [{"text": "zesty pickles"}]
    assert suggested(client, "zesty pickles")["queries"] == []
    assert suggested(client, "zessty pick")["queries"] == [{"text": "zesty pickles"}]


def test_the_shoppers_own_product_comes_first(client: FlaskClient) -> None:
    before = suggested(client, "mil", products=5)["products"]
    wanted = before[-1]["id"]
    event = {"action_name": "purchase", "client_id": "sue", "event_attributes": {"object": {"object_id": wanted}}}
    client.post("/v1/events", json=[event] * 3)
    answer = suggested(client, "mil", shopper="sue", products=5)
    assert answer["personalized"] is True
    assert answer["products"][0]["id"] == wanted
    assert suggested(client, "mil", products=5)["products"] == before


def test_markup_is_only_text(client: FlaskClient) -> None:
    answer = client.get("/v1/suggest", query_string={"q": "<script>alert(1)</script>"})
    assert answer.content_type == "application/json"
    assert answer.get_json()["q"] == "<script>alert(1)</script>"


@pytest.mark.parametrize("q", ["", " ", "!!", "\x00\ud800".encode("utf-8", "replace").decode(), "牛奶", "x" * 200])
def test_nothing_to_suggest_is_no_error(client: FlaskClient, q: str) -> None:
    answer = suggested(client, q)
    assert answer["products"] == answer["queries"] == answer["categories"] == []


@pytest.mark.parametrize(
    ("query", "names"),
    [({}, "q"), ({"q": "x" * 201}, "q"), ({"q": "m", "products": "21"}, "products"), ({"q": "m", "sise": "1"}, "sise")],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, query: dict[str, str], names: str) -> None:
    answer = client.get("/v1/suggest", query_string=query)
    assert answer.status_code == 400
    assert names in answer.get_json()["detail"]


def test_before_the_products_are_loaded_it_says_so(tmp_path: Path) -> None:
    runtime = open_runtime(shop_settings(tmp_path, text_encoder="none"), start=False)
    answer = suggested(create_app(runtime).test_client(), "milk")
    assert answer["products"] == answer["queries"] == answer["categories"] == []
    assert answer["degraded"] == "warming_up"
    runtime.close()
