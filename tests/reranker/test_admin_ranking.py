"""Rules and experiments by the admin API and the console, and what they do to searches; one page in Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import expect, sync_playwright

from endcap.catalog import Product
from endcap.engines.embedded import EmbeddedEngine
from endcap.policy import NO_VISIT
from endcap.runtime import Runtime
from endcap.settings import load_settings
from endcap.stores.rankings import Rankings, Served
from endcap.stores.tokens import Tokens
from tests.plugin.test_experiment_service import fill
from tests.reranker.demo_support import open_shop, serving
from tests.serving import eventually

ARMS = [{"name": "old", "weight": 0.5}, {"name": "new", "weight": 0.5, "profile": "engine"}]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("shop")
    settings = load_settings(
        data_dir=folder, text_encoder="none", admin_calls_per_minute=10_000, deadline_ms=60_000, product_refresh_s=0.2
    )
    engine = EmbeddedEngine(folder, "products")
    engine.ensure(None, "none")
    honeys = [Product(f"p{n}", "honey " * (9 - n), categories=("Grocery", "Honey"), brand=f"b{n}") for n in range(8)]
    engine.upsert((one, None, "") for one in honeys)
    engine.refresh()
    engine.close()
    with open_shop(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def call(client: FlaskClient, runtime: Runtime) -> Any:
    tokens = {role: Tokens(runtime.database).create(role, role)[0] for role in ("reader", "operator")}

    def called(method: str, path: str, json: Any = None, role: str = "operator") -> Any:
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        return client.open(f"/admin/v1{path}", method=method, json=json, headers=headers)

    return called


def found(client: FlaskClient, **headers: str) -> dict[str, Any]:
    answer = client.get("/v1/search?q=honey&size=20&explain=on", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def hooked(client: FlaskClient, **more: Any) -> Any:
    return client.post("/products/_search", json={"query": {"match": {"title": "honey"}}, "size": 20, **more})


def test_a_rule_changes_every_search_and_says_so(client: FlaskClient, call: Any) -> None:
    before = found(client)
    ids = [hit["id"] for hit in before["hits"]]
    assert len(ids) > 3, "the shop sells honey"
    plain = hooked(client)
    made = call("POST", "/rules", {"name": "not this one", "kind": "hide", "target": {"products": [ids[0]]}})
    assert made.status_code == 201, made.text
    number = made.get_json()["id"]
    pinned = call("POST", "/rules", {"name": "top", "kind": "pin", "target": {"products": [ids[3]]}, "position": 1})
    sold = {"name": "Acme's offer", "kind": "sponsor", "target": {"products": [ids[2]]}, "bid": 2, "floor": 0}
    sponsored = call("POST", "/rules", sold)
    assert eventually(lambda: ids[0] not in [hit["id"] for hit in found(client)["hits"]])
    assert eventually(lambda: any(hit["labels"] for hit in found(client)["hits"]))
    for headers in ({}, {"X-Endcap-Shopper": "ann"}):
        hits = found(client, **headers)["hits"]
        assert [hit["id"] for hit in hits][:2] == [ids[2], ids[3]]
        assert hits[0]["labels"] == ["sponsored"]
        assert "Sponsored (“Acme's offer”)" in hits[0]["reasons"]
        assert "Pinned to place 1 by the rule “top”" in hits[1]["reasons"]
        assert len(hits) == len(ids) - 1
    answer = hooked(client)
    hits = answer.get_json()["hits"]["hits"]
    assert [hit["_id"] for hit in hits][:2] == [ids[2], ids[3]]
    assert answer.headers["X-Endcap-Sponsored"] == "1"
    original = {hit["_id"]: hit["_source"] for hit in plain.get_json()["hits"]["hits"]}
    assert all(hit["_source"] == original[hit["_id"]] and "fields" not in hit for hit in hits), "as the engine wrote it"
    asked = hooked(client, ext={"endcap": {"labels": True}}).get_json()["hits"]["hits"]
    assert asked[0]["fields"]["endcap.labels"] == ["sponsored"]
    off = client.post(
        "/products/_search", json={"query": {"match": {"title": "honey"}}, "size": 20},
        headers={"X-Endcap-Personalize": "off"},
    )  # fmt: skip
    assert [hit["_id"] for hit in off.get_json()["hits"]["hits"]] == [
        hit["_id"] for hit in plain.get_json()["hits"]["hits"] if hit["_id"] != ids[0]
    ], "the engine's order, but for what is hidden"
    assert len(call("GET", "/rules", role="reader").get_json()["rules"]) == 3
    for one in (number, pinned.get_json()["id"], sponsored.get_json()["id"]):
        assert call("DELETE", f"/rules/{one}").status_code == 200
    assert eventually(lambda: [hit["id"] for hit in found(client)["hits"]] == ids)


def test_bad_rules_and_experiments_are_refused_with_the_reason(call: Any) -> None:
    for body, says in (
        ({"name": "x", "kind": "pin", "target": {"products": ["a"]}}, "position"),
        ({"name": "x", "kind": "hide"}, "target"),
        ({"name": "x", "kind": "sing"}, "kind"),
        ([1], "object"),
    ):
        answer = call("POST", "/rules", body)
        assert answer.status_code == 400
        assert says in answer.get_json()["detail"]
    rule = {"name": "x", "kind": "out_of_stock_last"}
    assert call("PUT", "/rules/99", rule).status_code == 404
    assert call("DELETE", "/rules/first").status_code == 404
    assert call("POST", "/rules", rule, role="reader").status_code == 403
    heavy = [ARMS[0], {**ARMS[1], "weight": 0.4}]
    answer = call("POST", "/experiments", {"name": "x", "arms": heavy})
    assert answer.status_code == 400
    assert "sum to 0.9" in answer.get_json()["detail"]
    magic = [ARMS[0], {**ARMS[1], "profile": "magic"}]
    assert "no ranking profile magic" in call("POST", "/experiments", {"name": "x", "arms": magic}).get_json()["detail"]
    unknown = [ARMS[0], {"name": "new", "weight": 0.5, "model": "77"}]
    assert "the model '77'" in call("POST", "/experiments", {"name": "x", "arms": unknown}).get_json()["detail"]
    assert call("GET", "/experiments/none").status_code == 404
    assert call("GET", "/experiments/power?mean=2").status_code == 400


def test_an_experiment_from_the_plan_to_the_verdict(
    call: Any, client: FlaskClient, runtime: Runtime, chromium: str, tmp_path: Path
) -> None:
    power = call("GET", "/experiments/power?mean=0.1&shoppers=4000&effect=0.05").get_json()
    assert 0.02 < power["detectable"] < 0.06
    assert power["shoppers_needed"] > 1_000
    assert call("POST", "/experiments", {"name": "order", "arms": ARMS}).status_code == 201
    clash = call("POST", "/experiments", {"name": "clash", "arms": ARMS})
    assert clash.status_code == 201
    assert call("POST", "/experiments/order/start").get_json()["state"] == "running"
    assert call("POST", "/experiments/clash/start").status_code == 409
    assert (
        "salt" in call("PUT", "/experiments/order", {"name": "order", "arms": ARMS, "salt": "b"}).get_json()["detail"]
    )
    assert eventually(lambda: runtime.personalizer.arranger.assigner.treatment("ann", NO_VISIT) is not None)
    fill(runtime.database, 4_000, {"old": 0.1, "new": 0.2})
    token = Tokens(runtime.database).create("Ann", "operator")[0]
    with serving(runtime) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}console")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.click("nav >> text=Experiments")
        page.click("text=order >> nth=0")
        page.click("text=Look now")
        expect(page.locator("#verdict")).to_contain_text("new is better than old: conversion")
        page.click("text=Look now")
        expect(page.locator("figure.chart svg")).to_be_visible()
        expect(page.locator("figure.bars .interval.above").first).to_be_visible()
        page.screenshot(path=tmp_path / "experiment.png", full_page=True)
        page.goto(f"{url}console/experiments")
        page.fill("#name", "models")
        page.select_option("#profile2", "")
        page.select_option("#model2", "baseline")
        page.click("text=Make a draft")
        expect(page.locator("tbody")).to_contain_text("baseline")
        assert call("POST", "/experiments/order/stop").get_json()["state"] == "stopped"
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_text("models runs.")).to_be_visible()  # or what follows might be dated before the start
        now = time.time() + 1
        arms = [("control", ""), ("treatment", ""), ("treatment", ""), ("treatment", "gone")]
        noted = [{"experiments": {"models": arm}, "model_missing": why} for arm, why in arms]
        Rankings(runtime.database).append(
            [Served(f"m{n}", now, f"m{n}", ("a",), context=one) for n, one in enumerate(noted)]
        )
        page.goto(f"{url}console/experiments/models")
        page.click("text=Look now")
        expect(page.locator("#verdict")).to_contain_text("made by the live model instead of baseline (1 gone)")
        expect(page.locator("tr", has_text="baseline")).to_contain_text("1 of 3")
        page.screenshot(path=tmp_path / "models.png", full_page=True)
        page.click("nav >> text=Rules")
        page.fill("#name", "no honey")
        page.select_option("#kind", "hide")
        page.click("text=Put it into force")
        expect(page.locator(".note.bad")).to_contain_text("needs a target")
        page.fill("#name", "no honey")
        page.select_option("#kind", "hide")
        page.fill("#categories", "Grocery > Honey")
        page.click("text=Put it into force")
        expect(page.locator("tbody")).to_contain_text("no honey")
        page.screenshot(path=tmp_path / "rules.png", full_page=True)
        for width, name in ((1280, "experiments"), (390, "rules")):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(f"{url}console/{name}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert complaints == []
    running = call("GET", "/experiments/models").get_json()
    assert (running["state"], running["definition"]["arms"][1]["model"]) == ("running", "baseline")
    models = dict.fromkeys(("control", "treatment"), "")
    assigner = runtime.personalizer.arranger.assigner
    assert eventually(lambda: "models" in getattr(assigner.treatment("ann", NO_VISIT), "noted", {}))
    for number in range(20):
        treatment = assigner.treatment(f"s{number}", NO_VISIT)
        models[treatment.noted["models"]] = treatment.model.version if treatment.model else "live"
    assert models == {"control": "live", "treatment": "baseline"}
    assert call("POST", "/experiments/models/stop").status_code == 200
