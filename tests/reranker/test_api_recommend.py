"""Recommendations over the demo shop: real purchases, real vectors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from endcap.policy.rule import Rule
from endcap.policy.rules import RuleBook
from endcap.runtime import Runtime, open_runtime
from endcap_reranker.app import create_app
from tests.reranker.demo_support import open_shop, set_up_shop, shop_settings
from tests.serving import eventually

PATHS = ["recommend", "recommend?placement=basket", "recommend?placement=category&category=Dairy+%26+Eggs", "trending"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with open_shop(set_up_shop(tmp_path_factory.mktemp("shop"))) as opened:
        assert eventually(lambda: opened.discovery.caught_up and opened.discovery.shelves)
        opened.discovery.refresh()
        yield opened


@pytest.fixture(scope="module")
def milk(client: FlaskClient) -> dict[str, Any]:
    """A product that many buy."""
    return dict(client.get("/v1/search?q=milk").get_json()["hits"][0])


def given(client: FlaskClient, path: str, shopper: str = "") -> dict[str, Any]:
    answer = client.get(f"/v1/{path}", headers={"X-Endcap-Shopper": shopper} if shopper else {})
    assert answer.status_code == 200, answer.text
    said = dict(answer.get_json())
    ids = [item["id"] for item in said["items"]]
    assert len(ids) == len(set(ids))
    for item in said["items"]:
        assert item["sources"], "says where it comes from"
        assert item["document"]["id"] == item["id"]
    return said


def leaf(item: dict[str, Any]) -> str:
    return max(item["document"].get("category") or [""], key=len)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("who", ["", "nobody-yet", "regular"])
def test_there_is_always_something_to_show(client: FlaskClient, regular: str, path: str, who: str) -> None:
    said = given(client, path, regular if who == "regular" else who)
    assert len(said["items"]) == 12
    assert said["ranking"]["degraded"] == ""
    if who != "regular" and path == "recommend":
        assert {source for item in said["items"] for source in item["sources"]} <= {"trending", "popular"}
    for item in said["items"]:
        if item["sources"] == ["popular"] and "category" not in path:
            assert said["fallback"] == ["popular"]


def test_home_knows_the_shopper_and_is_not_all_of_one_kind(client: FlaskClient, regular: str) -> None:
    said = given(client, "recommend?explain=on", regular)
    assert said["ranking"]["personalized"] is True
    sources = {source for item in said["items"] for source in item["sources"]}
    assert len(sources) >= 3
    kinds = [leaf(item) for item in said["items"]]
    assert max(map(kinds.count, kinds)) <= 5
    assert any(item["reasons"] for item in said["items"])
    other = given(client, "recommend", "nobody-yet")
    assert [item["id"] for item in said["items"]] != [item["id"] for item in other["items"]]


def test_the_shopper_may_be_named_in_the_query(client: FlaskClient, regular: str) -> None:
    named = given(client, f"buy-again?shopper={regular}")
    assert [item["id"] for item in named["items"]] == [
        item["id"] for item in given(client, "buy-again", regular)["items"]
    ]


def test_buy_again_shows_what_was_bought_and_nothing_else(client: FlaskClient, runtime: Runtime, regular: str) -> None:
    with sqlite3.connect(runtime.settings.data_dir / "endcap.sqlite") as database:
        rows = database.execute("SELECT product, count(*) FROM events WHERE shopper = ? GROUP BY product", (regular,))
        bought = dict(rows.fetchall())
    said = given(client, "buy-again", regular)
    assert len(said["items"]) == 12
    counts = [bought.get(item["id"], 0) for item in said["items"]]
    assert min(counts) >= 1
    assert sum(counts) / 12 > 2 * sum(bought.values()) / len(bought)
    nobody = given(client, "buy-again", "nobody-yet")
    assert nobody["items"] == []
    assert nobody["fallback"] == []


def test_similar_products_are_of_the_same_kind(client: FlaskClient, milk: dict[str, Any]) -> None:
    said = given(client, f"similar/{milk['id']}?size=6")
    assert milk["id"] not in [item["id"] for item in said["items"]]
    near = [item for item in said["items"] if "ilk" in item["document"]["title"]]
    assert len(near) >= 4
    assert {source for item in said["items"] for source in item["sources"]} >= {"alike", "same_kind"}
    assert said["fallback"] == []


def test_cross_sell_is_bought_together_and_no_substitute(client: FlaskClient, milk: dict[str, Any]) -> None:
    said = given(client, f"cross-sell?ids={milk['id']}")
    own = max(milk["document"]["category"], key=len)
    assert len(said["items"]) == 12
    assert all(leaf(item) != own for item in said["items"])
    assert all(item["sources"] == ["bought_together"] for item in said["items"])
    cart = given(client, f"recommend?placement=cart&ids={milk['id']}")
    assert all(leaf(item) != own for item in cart["items"])


def test_a_product_that_nobody_bought_with_others_still_has_company(client: FlaskClient) -> None:
    said = given(client, "cross-sell?ids=no-such-product")
    assert len(said["items"]) == 12
    assert said["fallback"] == ["popular"]


def test_filters_and_exclusions_hold_everywhere(client: FlaskClient, regular: str, milk: dict[str, Any]) -> None:
    for path in (*PATHS, f"similar/{milk['id']}", f"cross-sell?ids={milk['id']}", "buy-again"):
        joint = "&" if "?" in path else "?"
        first = given(client, path, regular)["items"][0]["id"]
        said = given(client, f"{path}{joint}price_max=2.5&brand=Store+Brand&exclude={first}", regular)
        assert said["items"]
        for item in said["items"]:
            assert item["document"]["price"] <= 2.5
            assert item["document"]["brand"] == "Store Brand"
            assert item["id"] != first


def test_bought_just_now_rests(client: FlaskClient, runtime: Runtime) -> None:
    shopper = "test-rester"
    shown = [item["id"] for item in given(client, "recommend", shopper)["items"]]
    event = {
        "action_name": "purchase", "client_id": shopper, "session_id": "s",
        "event_attributes": {"object": {"object_id": shown[0]}},
    }  # fmt: skip
    client.post("/v1/events", json=event)
    runtime.discovery.turn()
    runtime.discovery.refresh()
    assert shown[0] not in [item["id"] for item in given(client, "recommend", shopper)["items"]]
    assert shown[0] in [item["id"] for item in given(client, "buy-again", shopper)["items"]]


def test_looked_at_comes_back(client: FlaskClient, milk: dict[str, Any]) -> None:
    event = {
        "action_name": "click", "client_id": "looker", "event_attributes": {"object": {"object_id": milk["id"]}},
    }  # fmt: skip
    client.post("/v1/events", json=event)
    items = {item["id"]: item for item in given(client, "recommend", "looker")["items"]}
    assert "recently_viewed" in items[milk["id"]]["sources"]


def test_personalisation_off_is_everybodys_list(client: FlaskClient, regular: str) -> None:
    headers = {"X-Endcap-Shopper": regular, "X-Endcap-Personalize": "off"}
    off = client.get("/v1/recommend", headers=headers).get_json()
    assert [item["id"] for item in off["items"]] == [item["id"] for item in given(client, "recommend")["items"]]


def hiding(runtime: Runtime, *rules: dict[str, Any]) -> None:
    runtime.personalizer.arranger.rules = RuleBook(
        {number: Rule.model_validate({"name": f"rule {number}", **one}) for number, one in enumerate(rules)}
    )


def test_business_rules_hold_and_are_said(client: FlaskClient, runtime: Runtime, regular: str) -> None:
    upkeep = runtime.personalizer.arranger
    before = upkeep.rules
    milk = client.get("/v1/search?q=milk&size=30").get_json()["hits"]
    ids = [hit["id"] for hit in milk]
    paths = [*PATHS, f"similar/{ids[9]}", f"cross-sell?ids={ids[9]}", "buy-again"]
    shown = {path: [item["id"] for item in given(client, path, regular)["items"]] for path in paths}
    typed = [one["id"] for one in client.get("/v1/suggest?q=milk").get_json()["products"]]
    gone = {one[0] for one in shown.values()} | {typed[0], *ids[:3]}
    try:
        hiding(runtime, {"kind": "hide", "target": {"products": sorted(gone)}})
        for path in paths:
            for who in ("", regular):
                said = given(client, path, who)
                assert not gone & {item["id"] for item in said["items"]}, path
        assert not gone & {one["id"] for one in client.get("/v1/suggest?q=milk").get_json()["products"]}
        # Also where the list is not the shopper's, or lies beyond the part that is ranked.
        for more in ("&sort=price:asc", "&personalize=off", ""):
            found = client.get(f"/v1/search?q=milk&size=30{more}", headers={"X-Endcap-Shopper": regular}).get_json()
            assert found["hits"]
            assert not gone & {hit["id"] for hit in found["hits"]}, more
        hiding(runtime, {"kind": "sponsor", "bid": 1.0, "floor": 0.0, "target": {"products": [shown["trending"][3]]}})
        items = given(client, "trending?explain=on")["items"]
        assert (
            [item["id"] for item in items if item["labels"] == ["sponsored"]]
            == [shown["trending"][3]]
            == [items[0]["id"]]
        )
        assert "Sponsored (“rule 0”)" in items[0]["reasons"]
        low = shown["trending"][0]
        hiding(runtime, {"kind": "bury", "amount": 10.0, "target": {"products": [low]}})
        items = given(client, "trending?size=50&explain=on")["items"]
        said = {item["id"]: item["reasons"] for item in items}
        assert items[0]["id"] != low
        assert all("Lowered by the rule “rule 0”" in reasons for one, reasons in said.items() if one == low)
    finally:
        upkeep.rules = before


@pytest.mark.parametrize(
    ("path", "status", "names"),
    [
        ("recommend?placement=cellar", 400, "placement"),
        ("recommend?placement=category", 400, "category"),
        ("recommend?size=0", 400, "size"),
        ("recommend?size=51", 400, "size"),
        ("recommend?sice=5", 400, "sice"),
        ("recommend?price_max=cheap", 400, "lte"),
        ("recommend?filters=x", 400, "filters"),
        ("recommend?ids=" + ",".join(map(str, range(201))), 400, "ids"),
        ("recommend?ids=" + "x" * 513, 400, "ids"),
        ("cross-sell", 400, "ids"),
        ("similar/no-such-product", 404, "no-such-product"),
    ],
)
def test_bad_input_is_named(client: FlaskClient, path: str, status: int, names: str) -> None:
    answer = client.get(f"/v1/{path}")
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert names in answer.get_json()["detail"]


def test_methods_are_checked(client: FlaskClient) -> None:
    for path in ("recommend", "similar/1", "cross-sell", "trending", "buy-again", "suggest"):
        answer = client.post(f"/v1/{path}")
        assert answer.status_code == 405
        assert "GET" in answer.headers["Allow"]


def test_before_the_products_are_loaded_the_engine_answers(tmp_path: Path) -> None:
    settings = set_up_shop(tmp_path, text_encoder="none")
    runtime = open_runtime(settings, start=False)
    said = given(create_app(runtime).test_client(), "recommend", "anybody")
    assert said["fallback"] == ["engine"]
    assert len(said["items"]) == 12
    assert said["ranking"]["degraded"] == "warming_up"
    gone = said["items"][0]["id"]
    hiding(runtime, {"kind": "hide", "target": {"products": [gone]}})
    said = given(create_app(runtime).test_client(), "recommend", "anybody")
    assert gone not in [item["id"] for item in said["items"]]
    assert len(said["items"]) == 12
    runtime.close()


def test_an_engine_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    runtime = open_runtime(shop_settings(tmp_path, text_encoder="none", engine_url="http://127.0.0.1:9"), start=False)
    answer = create_app(runtime).test_client().get("/v1/recommend")
    assert answer.status_code == 503
    runtime.close()
