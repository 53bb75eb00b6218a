"""Every endpoint that ranks logs what went out; what fails behind it fails no search, and is seen and heals."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from endcap.runtime import Runtime
from endcap.stores.outcomes import Outcomes
from endcap.stores.rankings import Served
from endcap_reranker.app import create_app
from tests.reranker.demo_support import open_shop, set_up_shop
from tests.serving import eventually

HEADERS = {"X-Endcap-Shopper": "ann", "X-Endcap-Session": "visit-1"}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    settings = set_up_shop(tmp_path_factory.mktemp("shop"), text_encoder="none", log_features=1.0, open_metrics=True)
    with open_shop(settings) as opened:
        assert eventually(lambda: opened.discovery.caught_up and opened.discovery.shelves)
        yield opened


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> FlaskClient:
    return create_app(runtime).test_client(use_cookies=False)


def logged(runtime: Runtime, id: str) -> Served:
    runtime.serving_log.queue.turn()
    found = runtime.rankings.by_id(id)
    assert found is not None
    return found


def hook(client: FlaskClient, start: int = 0, size: int = 5) -> Any:
    body = {"query": {"match_all": {}}, "from": start, "size": size}
    return client.post("/products/_search", json=body, headers=HEADERS)


def test_the_hook_logs_the_page_that_went_out(client: FlaskClient, runtime: Runtime) -> None:
    answer = hook(client, start=10)
    one = logged(runtime, answer.headers["X-Endcap-Ranking"])
    assert list(one.products) == [hit["_id"] for hit in answer.get_json()["hits"]["hits"]]
    assert (one.shopper, one.session, one.endpoint, one.index) == ("ann", "visit-1", "hook", "products")
    assert (one.start, list(one.positions), one.candidates) == (10, [11, 12, 13, 14, 15], 100)
    assert all(place > 0 for place in one.engine_positions)
    assert one.scorer
    assert one.features is not None
    assert one.features.shape == (5, len(one.feature_names))
    assert one.scores is not None
    assert (one.scores[:-1] >= one.scores[1:]).all()


def test_a_page_over_the_edge_of_the_window(client: FlaskClient, runtime: Runtime) -> None:
    one = logged(runtime, hook(client, start=97, size=6).headers["X-Endcap-Ranking"])
    assert one.engine_positions[3:] == (101, 102, 103)
    assert len(one.products) == 6


def test_each_search_of_an_msearch_is_logged(client: FlaskClient, runtime: Runtime) -> None:
    lines = b'{"index": "products"}\n{"query": {"match_all": {}}, "size": 3}\n' * 2
    answer = client.post("/_msearch", data=lines, headers={**HEADERS, "Content-Type": "application/x-ndjson"})
    for id, part in zip(answer.headers["X-Endcap-Ranking"].split(","), answer.get_json()["responses"], strict=True):
        assert list(logged(runtime, id).products) == [hit["_id"] for hit in part["hits"]["hits"]]


def test_search_rerank_and_recommendations_log_too(client: FlaskClient, runtime: Runtime) -> None:
    search = client.get("/v1/search?q=milk&size=4&page=2", headers=HEADERS).get_json()
    one = logged(runtime, search["ranking"]["id"])
    assert list(one.products) == [hit["id"] for hit in search["hits"]]
    assert list(one.engine_positions) == [hit["engine_position"] for hit in search["hits"]]
    assert (one.endpoint, one.query, one.start) == ("search", "milk", 4)

    ids = [hit["id"] for hit in search["hits"]]
    ranked = client.post("/v1/rerank", json={"query": "milk", "documents": [*ids, "no product"]}, headers=HEADERS)
    order = [ids[item["index"]] for item in ranked.get_json()["results"] if item["index"] < len(ids)]
    one = logged(runtime, ranked.headers["X-Endcap-Ranking"])
    assert (list(one.products), one.endpoint) == (order, "rerank")

    for path in ("recommend", "trending", f"similar/{ids[0]}"):
        shown = client.get(f"/v1/{path}", headers=HEADERS).get_json()
        one = logged(runtime, shown["ranking"]["id"])
        assert list(one.products) == [item["id"] for item in shown["items"]]
        assert one.endpoint == shown["placement"]


def test_a_search_without_a_result_is_logged_and_counted_once(client: FlaskClient, runtime: Runtime) -> None:
    def without_results() -> list[Served]:
        runtime.serving_log.queue.turn()
        return [one for one in runtime.rankings.of_shopper("bob") if not one.products]

    def counted() -> float:
        runtime.traffic.turn()
        return float(runtime.traffic.sums(600)[1].get("searches without results", np.zeros(1)).sum())

    before, who = counted(), {"X-Endcap-Shopper": "bob"}
    nothing = {"query": {"match": {"title": "xyzzyplugh"}}}
    hits = client.post("/products/_search", json=nothing, headers=who).get_json()["hits"]["hits"]
    assert not hits
    client.post("/products/_search", json={**nothing, "from": 10}, headers=who)  # its second page
    client.post("/products/_search", json={**nothing, "size": 0}, headers=who)  # aggregations alone
    assert [(one.endpoint, one.query) for one in without_results()] == [("hook", "xyzzyplugh")]
    for more in ("", "&page=2", "&size=0"):
        answer = client.get(f"/v1/search?q=xyzzyplugh&brand=none{more}", headers=who)
        assert answer.get_json()["hits"] == []
    assert sorted(one.endpoint for one in without_results()) == ["hook", "search"]
    assert counted() - before == 2
    client.get("/v1/search?q=milk", headers=who)
    assert counted() - before == 2


def test_a_click_joins_the_ranking_that_it_came_from(client: FlaskClient, runtime: Runtime) -> None:
    id = hook(client).headers["X-Endcap-Ranking"]
    one = logged(runtime, id)
    click = {
        "action_name": "click",
        "client_id": "ann",
        "query_id": id,
        "event_attributes": {"object": {"object_id": one.products[2]}},
    }
    assert client.post("/v1/events", json=click).get_json()["accepted"] == 1
    (outcome,) = Outcomes(runtime.database).of([one])
    assert [(reaction.position, reaction.named) for reaction in outcome.reactions] == [(3, True)]


def test_a_search_does_not_wait_for_a_log_that_is_locked(client: FlaskClient, runtime: Runtime) -> None:
    hook(client)  # the profile is known
    before = runtime.rankings.count()
    other = sqlite3.connect(runtime.settings.data_dir / "endcap.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        answers = [hook(client) for _ in range(5)]
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert [answer.status_code for answer in answers] == [200] * 5
    assert not any("X-Endcap-Degraded" in answer.headers for answer in answers)
    logged(runtime, answers[-1].headers["X-Endcap-Ranking"])
    assert runtime.rankings.count() >= before + 5


def test_a_log_that_is_away_is_seen_and_heals(client: FlaskClient, runtime: Runtime) -> None:
    file = runtime.settings.data_dir / "endcap.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("ALTER TABLE rankings RENAME TO gone")
    try:
        id = hook(client).headers["X-Endcap-Ranking"]
        assert eventually(lambda: "rankings" in runtime.upkeep.problems)
        assert "rankings" in client.get("/readyz").get_json()["problems"]
    finally:
        with sqlite3.connect(file) as database:
            database.execute("ALTER TABLE gone RENAME TO rankings")
    assert logged(runtime, id).shopper == "ann"
    assert eventually(lambda: "rankings" not in runtime.upkeep.problems)


def test_events_for_products_that_nobody_knows_are_taken_and_do_no_harm(client: FlaskClient, runtime: Runtime) -> None:
    strange = [
        {"action_name": "purchase", "client_id": "odd", "event_attributes": {"object": {"object_id": f"未知 {n}"}}}
        for n in range(20)
    ]
    assert client.post("/v1/events", json=strange).get_json()["accepted"] == 20
    answer = client.post("/products/_search", json={"size": 3}, headers={"X-Endcap-Shopper": "odd"})
    assert answer.status_code == 200
    assert "X-Endcap-Degraded" not in answer.headers
    assert len(answer.get_json()["hits"]["hits"]) == 3
