"""A product that nobody has bought: added by the API, ranked for the right shoppers at once, and said to be new."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from endcap import publishing
from endcap.augmentation import is_switched_on
from endcap.registry import open_registry
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app
from endcap_workers.augmentation.job import augment
from tests.reranker.augment_support import open_up
from tests.services.triton import Triton
from tests.serving import eventually


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return open_up(tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="module")
def trained(settings: Settings) -> dict[str, Any]:
    """What the job says."""
    return dict(augment(settings, names=("nearest", "ridge")))


@pytest.fixture(scope="module")
def runtime(settings: Settings, trained: dict[str, Any]) -> Iterator[Runtime]:
    opened = open_runtime(settings)
    assert opened.upkeep.wait_ready(120.0)
    yield opened
    opened.close()


def body(product_id: str, brand: str, shelf: int = 1, title: str = "novelty lamp") -> dict[str, Any]:
    return {"id": product_id, "title": title, "brand": brand, "categories": ["Shop", f"shelf{shelf}"], "price": 3.0}


def hits(client: FlaskClient, shopper: str, query: str = "novelty", scorer: str = "onnx:") -> list[dict[str, Any]]:
    answer = client.get(
        "/v1/search", query_string={"q": query, "explain": "on"}, headers={"X-Endcap-Shopper": shopper}
    ).get_json()
    assert answer["ranking"]["scorer"].startswith(scorer), answer["ranking"]
    return list(answer["hits"])


def test_the_job_puts_a_generator_into_force_that_helps(trained: dict[str, Any], runtime: Runtime) -> None:
    assert trained["outcome"] == "live"
    assert trained["ndcg@20 with"] > trained["ndcg@20 without"]
    assert trained["lower bound of the gain"] > 0
    bundle = runtime.live_bundle
    assert bundle is not None
    assert bundle.augmentation["version"] == trained["version"]
    assert bundle.augmentation["seed"] == 0
    assert bundle.augmentation["virtual products"] >= 0
    live = open_registry(runtime.settings, runtime.database).live("augmentation")
    assert live is not None
    assert live.version == trained["version"]


def test_a_product_added_live_is_ranked_for_the_right_shoppers(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime
) -> None:
    added = client.post(
        "/admin/v1/products", json={"products": [body(f"new-{n}", f"Brand {n}") for n in range(4)]}, headers=operator
    )

    assert added.status_code == 200, added.text
    assert added.get_json()["indexed"] == 4
    assert added.get_json()["scored_by"] == "generator"
    # The very next search: nothing was waited for.
    for brand in range(4):
        for shopper in (f"s{brand}", f"s{brand + 8}", f"s{brand + 16}"):
            first = hits(client, shopper)[0]
            assert first["id"] == f"new-{brand}"
            assert first["reasons"][0] == "New here; judged by brand and category"


def test_an_added_product_is_read_alone_and_a_removed_one_is_noticed(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(vectors: bool = True) -> Iterator[Any]:
        raise AssertionError("the whole index was read for one product")

    with monkeypatch.context() as patched:
        patched.setattr(runtime.engine, "scan", scan)
        client.post(
            "/admin/v1/products", headers=operator, json={"products": [body("alone", "Brand 3", title="copper pan")]}
        )
        assert hits(client, "s3", "copper")[0]["reasons"][0] == "New here; judged by brand and category"
    table = runtime.personalizer.table
    assert table is not None
    assert table.rows(["alone", "b0-s1-0"]).min() >= 0

    runtime.engine.delete(["alone"])
    runtime.engine.refresh()
    runtime.upkeep.reload()
    table = runtime.personalizer.table
    assert table is not None
    assert table.rows(["alone"]).tolist() == [-1]


@pytest.mark.triton
def test_triton_scores_a_product_added_after_training_as_this_process_does(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime, triton: Triton
) -> None:
    client.post(
        "/admin/v1/products", headers=operator,
        json={"products": [body(f"vase-{n}", f"Brand {n}", title="granite vase") for n in range(8)]},
    )  # fmt: skip
    bundle = runtime.live_bundle
    assert bundle is not None
    publishing.write_version(bundle, triton.repository, "python")
    publishing.load_into_triton(bundle, triton.url)
    other = open_runtime(runtime.settings.model_copy(update={"triton_url": triton.url}))
    try:
        assert other.upkeep.wait_ready(120.0)
        over_triton = create_app(other).test_client()
        for number in range(8):
            here = hits(client, f"s{number}", "granite")
            there = hits(over_triton, f"s{number}", "granite", "triton:")
            assert here[0]["id"] == f"vase-{number}"
            assert [hit["id"] for hit in there] == [hit["id"] for hit in here]
            assert [hit["score"] for hit in there] == pytest.approx([hit["score"] for hit in here], abs=1e-3)
            assert there[0]["reasons"] == here[0]["reasons"]
    finally:
        other.close()


def test_first_buyers_are_evidence(client: FlaskClient, operator: dict[str, str]) -> None:
    client.post(
        "/admin/v1/products", json={"products": [body("seen", "Brand 5", title="brass kettle")]}, headers=operator
    )
    events = [
        {"action_name": "purchase", "client_id": f"s{n}", "event_attributes": {"object": {"object_id": "seen"}}}
        for n in (5, 13)
    ]
    assert client.post("/v1/events", json=events).get_json()["accepted"] == 2

    def says() -> str:
        return str(hits(client, "s21", "kettle")[0]["reasons"][0])

    assert eventually(lambda: says() == "New here; judged by brand and category, and by its first buyers")


def test_switched_off_a_new_product_is_nothing_special(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime
) -> None:
    client.post(
        "/admin/v1/products", headers=operator,
        json={"products": [body(f"off-{n}", f"Brand {n}", title="velvet curtain") for n in range(2)]},
    )  # fmt: skip

    def order(shopper: str) -> list[str]:
        return [hit["id"] for hit in hits(client, shopper, "curtain")]

    assert order("s0") != order("s1")
    answer = client.put("/admin/v1/augmentation", json={"on": False}, headers=operator).get_json()
    assert answer["on"] is False
    assert answer["live"]["name"] in ("nearest", "ridge")
    assert eventually(lambda: order("s0") == order("s1"))
    assert not any("New here" in reason for hit in hits(client, "s0", "curtain") for reason in hit["reasons"])
    assert augment(runtime.settings) == {"outcome": "switched off"}
    client.put("/admin/v1/augmentation", json={"on": True}, headers=operator)
    assert eventually(lambda: order("s0") != order("s1"))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"id": "bare"}, "New here; nothing is known of it yet"),
        ({"id": "odd", "brand": "Never Heard", "categories": ["Shop", "shelf2"]}, "New here; judged by category"),
    ],
)
def test_a_product_of_which_little_is_known_is_ranked_all_the_same(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime, sent: dict[str, Any], said: str
) -> None:
    answer = client.post("/admin/v1/products", json={"products": [sent]}, headers=operator)
    assert answer.get_json()["indexed"] == 1, answer.text

    assert runtime.personalizer.reasons("s0", "", [sent["id"]])[0][0] == said
    ranked = client.post(
        "/v1/rerank", json={"shopper": "s0", "candidates": [{"id": sent["id"]}, {"id": "b0-s1-0"}]}
    ).get_json()
    assert ranked["degraded"] == "" if "degraded" in ranked else ranked


def test_the_console_shows_what_a_new_product_is_taken_for(
    client: FlaskClient, operator: dict[str, str], runtime: Runtime
) -> None:
    client.post(
        "/admin/v1/products", json={"products": [body("console", "Brand 2", title="marble bust")]}, headers=operator
    )
    browser = create_app(runtime).test_client()

    def proof(path: str) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', browser.get(path).text)
        assert found
        return found[1]

    text, _ = Tokens(runtime.database).create("console", "operator")
    browser.post("/console/login", data={"csrf": proof("/console/login"), "token": text})
    page = browser.get("/console/newcomers").text
    row = page[page.index("marble bust") :].split("</tr>")[0]
    assert "Brand 2" in row
    assert "brand, category" in row
    assert row.count("thing of shelf") == 3  # the nearest products that are known
    assert "Quality by category" in page
    answer = browser.post(
        "/console/newcomers/switch", data={"csrf": proof("/console/newcomers"), "on": "no"}, follow_redirects=True
    )
    assert "scored without a generator" in answer.text
    assert not is_switched_on(runtime.settings.models_folder)
    browser.post("/console/newcomers/switch", data={"csrf": proof("/console/newcomers"), "on": "yes"})
    assert is_switched_on(runtime.settings.models_folder)
    assert eventually(lambda: runtime.personalizer.newcomers(runtime.personalizer.table) is not None)  # type: ignore[arg-type]


def test_readers_add_nothing(client: FlaskClient, runtime: Runtime) -> None:
    text, _ = Tokens(runtime.database).create("guest", "reader")
    headers = {"Authorization": f"Bearer {text}"}

    assert client.post("/admin/v1/products", json={"products": [body("x", "y")]}, headers=headers).status_code == 403
    assert client.put("/admin/v1/augmentation", json={"on": False}, headers=headers).status_code == 403
    assert client.get("/admin/v1/augmentation", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "bad", [{"products": []}, {"products": [{"title": "no id"}]}, {"products": [{"id": "a", "x": 1}]}]
)
def test_a_malformed_product_is_refused(client: FlaskClient, operator: dict[str, str], bad: dict[str, Any]) -> None:
    assert client.post("/admin/v1/products", json=bad, headers=operator).status_code == 400
