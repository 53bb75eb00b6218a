"""The admin API: what operators do with it. That every answer is as documented, test_admin_fuzz.py sees to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from endcap.catalog import Product
from endcap.events import Action, Event
from endcap.gates import Verdict
from endcap.indexing import index_products
from endcap.registry import Registry
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.stores.runs import Runs
from endcap.stores.tokens import Tokens
from endcap.stores.workers import Workers
from endcap_reranker.admin.command import as_markdown, described

Call = Callable[..., TestResponse]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("admin")
    settings = load_settings(
        data_dir=folder, text_encoder="none", admin_calls_per_minute=100_000, engine_password="secret of ours",
        database_url=f"sqlite:///{folder}/endcap.sqlite", deadline_ms=60_000,
    )  # fmt: skip
    made = open_runtime(settings, start=False)
    index_products([Product(id=f"p{n}", title=f"milk {n}", brand="abc"[n % 3]) for n in range(9)], made.engine, None)
    made.upkeep.reload()
    now = time.time()
    made.record([Event(f"e{n}", now - n, "ann/b", Action.PURCHASE, "p7") for n in range(3)])
    yield made
    made.close()


@pytest.fixture(scope="module")
def tokens(runtime: Runtime) -> dict[str, str]:
    made = Tokens(runtime.database)
    return {role: made.create(role, role)[0] for role in ("reader", "operator", "admin")}


@pytest.fixture(scope="module")
def call(client: FlaskClient, tokens: dict[str, str]) -> Call:
    def ask(method: str, path: str, body: Any = None, role: str = "admin") -> TestResponse:
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        return client.open(f"/admin/v1{path}", method=method, json=body, headers=headers)

    return ask


def test_a_job_is_started_watched_cancelled_and_tried_again(call: Call, runtime: Runtime) -> None:
    before = time.time()
    jobs = {one["name"]: one for one in call("GET", "/jobs", role="reader").json["jobs"]}
    assert "kind" in jobs["promote"]["parameters"]["properties"]
    assert jobs["promote"]["next"] > before
    begun = call("POST", "/jobs/promote/runs", {"parameters": {"kind": "interest"}}, role="operator")
    assert begun.status_code == 202
    run = begun.json
    assert (run["state"], run["by"], run["waiting"].split(":")[0]) == ("queued", "operator", "a worker")
    Workers(runtime.database).seen("w", "embedded", ["light", "heavy"], [])
    runs = Runs(runtime.database)
    claimed = runs.claim("w", run_id=run["id"])
    assert claimed is not None
    runs.beat(run["id"], "w", phase="judging", done=1.0, total=4.0, log="a line")
    second = call("POST", "/jobs/promote/runs", {}).json
    assert second["waiting"] == "another run of this job"
    seen = call("GET", f"/runs/{run['id']}", role="reader").json
    assert (seen["state"], seen["phase"], seen["done"], seen["total"], seen["log"]) == (
        "running", "judging", 1.0, 4.0, "a line",
    )  # fmt: skip
    assert call("POST", f"/runs/{run['id']}/cancel").json["cancelling"]
    runs.cancelled(run["id"], "w")
    assert call("POST", f"/runs/{second['id']}/cancel").json["state"] == "cancelled"
    again = call("POST", f"/runs/{run['id']}/retry")
    assert (again.status_code, again.json["state"], again.json["by"]) == (202, "queued", "admin")
    assert call("POST", f"/runs/{run['id']}/retry").status_code == 409
    listed = call("GET", "/runs?job=promote&limit=1").json
    assert [one["id"] for one in listed["runs"]] == [second["id"]]
    assert listed["counts"] == {"queued": 1, "running": 0, "done": 0, "skipped": 0, "failed": 0, "cancelled": 1}
    assert call("GET", "/workers").json["workers"][0]["queues"] == ["light", "heavy"]


@pytest.mark.parametrize(
    ("path", "body", "status", "what"),
    [
        ("/jobs/nothing/runs", {}, 404, "there is no job 'nothing'"),
        ("/jobs/promote/runs", {"parameters": {"kid": "interest"}}, 400, "kid"),
        ("/jobs/promote/runs", {"parameter": {}}, 400, "parameter"),
        ("/runs/nothing/cancel", None, 404, "no run"),
        ("/versions/interest/9/promote", {}, 404, "no version '9'"),
        ("/versions/interest/roll-back", None, 409, "no earlier version"),
        ("/versions/interest/unpin", None, 409, "pinned"),
    ],
)
def test_what_cannot_be_done_says_why(call: Call, path: str, body: Any, status: int, what: str) -> None:
    answer = call("POST", path, body)
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert what in answer.json["detail"]


def test_versions_are_compared_promoted_and_rolled_back(call: Call, runtime: Runtime, tmp_path: Path) -> None:
    registry = Registry(runtime.database, runtime.settings.models_folder)
    for number, ndcg in ((1, 0.30), (2, 0.33)):
        (tmp_path / f"v{number}").mkdir()
        registry.add_candidate("policy", str(number), tmp_path / f"v{number}", {"ndcg": ndcg}, {"seed": number, "a": 1})
    assert call("POST", "/versions/policy/1/promote", {}).status_code == 409
    registry.judged("policy", "1", Verdict(True, ("better",)))
    assert call("POST", "/versions/policy/1/promote", {}, role="operator").json["state"] == "live"
    beside = call("GET", "/versions/policy/compare?a=2").json
    assert beside["metrics"] == {"ndcg": [0.33, 0.30]}
    assert beside["provenance"] == {"seed": [2, 1]}
    assert call("POST", "/versions/policy/2/shadow").json["state"] == "shadow"
    assert call("POST", "/versions/policy/2/promote", {"force": True}).json["state"] == "live"
    assert call("POST", "/versions/policy/roll-back").json["version"] == "1"
    changes = call("GET", "/versions/changes?kind=policy").json["changes"]
    assert [one["action"] for one in changes] == ["roll-back", "promote", "shadow", "promote"]
    assert changes[-1]["by"] == "operator"
    (tmp_path / "v2").rmdir()
    assert not call("GET", "/versions/policy/2").json["usable"]


def test_a_shopper_why_export_and_erasure(call: Call, client: FlaskClient) -> None:
    found = call("GET", "/shoppers/ann%2Fb?events=2").json
    assert (found["shopper"], found["products"], found["purchases"], len(found["events"])) == ("ann/b", 1, 3, 2)
    why = call("GET", "/shoppers/ann%2Fb/why?q=milk&size=3").json
    assert why["personalized"]
    assert why["candidates"] == 9
    first = why["products"][0]
    assert (first["id"], first["place"]) == ("p7", 1)
    assert first["engine_place"] > 1
    assert first["reasons"], "nothing says why"
    lines = [orjson.loads(line) for line in call("GET", "/shoppers/ann%2Fb/export").data.splitlines()]
    assert [one["kind"] for one in lines] == ["shopper", "profile", "event", "event", "event"]
    assert found["also_known_as"] == found["parted"] == []
    stolen = {"id": "visitor/7"}
    assert call("POST", "/shoppers/ann%2Fb/join", stolen).json["also_known_as"] == ["visitor/7"]
    parted = call("POST", "/shoppers/ann%2Fb/part", stolen).json
    assert (parted["also_known_as"], parted["parted"]) == ([], ["visitor/7"])
    assert call("POST", "/shoppers/ann%2Fb/part", stolen).status_code == 404
    claim = client.post("/v1/identify", json={"from": "visitor/7", "to": "ann/b"})
    assert (claim.status_code, claim.json["type"]) == (409, "urn:endcap:error:alias_refused")
    noted = call("GET", "/audit?action=part").json["entries"][-1]
    assert (noted["path"], noted["parameters"]["id"]) == ("/admin/v1/shoppers/ann/b/part", "visitor/7")
    assert call("DELETE", "/shoppers/ann%2Fb").json["rows"]["events"] == 3
    assert call("GET", "/shoppers/ann%2Fb").json["events"] == []
    assert call("DELETE", "/shoppers/ann%2Fb").status_code == 200


def test_roles(call: Call) -> None:
    for method, path, least in (
        ("GET", "/runs", "reader"), ("GET", "/settings", "operator"), ("POST", "/jobs/promote/runs", "operator"),
        ("GET", "/shoppers/x/export", "admin"), ("DELETE", "/shoppers/x", "admin"),
        ("POST", "/shoppers/x/part", "admin"), ("POST", "/shoppers/x/join", "admin"),
    ):  # fmt: skip
        order = ["reader", "operator", "admin"]
        for role in order:
            body = {} if method == "POST" else None
            allowed = call(method, path, body, role=role).status_code != 403
            assert allowed == (order.index(role) >= order.index(least)), (method, path, role)


def test_settings_without_their_secrets(call: Call) -> None:
    answer = call("GET", "/settings")
    settings = {one["name"]: one for one in answer.json["settings"]}
    assert settings["engine_password"]["value"] == "(set)"
    assert b"secret of ours" not in answer.data
    assert settings["window"]["default"] == 100


def test_the_catalogue_and_indexing_it_anew(call: Call) -> None:
    found = call("GET", "/catalogue").json
    assert (found["products"], found["loaded"], found["problem"]) == (9, 9, "")
    run = call("POST", "/catalogue/reindex", {"rebuild": True}, role="operator")
    assert (run.status_code, run.json["job"]) == (202, "reindex")
    assert run.json["parameters"] == {"rebuild": True, "delete_missing": False}


def test_a_product_is_refused_for_a_while_when_the_index_is_being_rebuilt(call: Call, runtime: Runtime) -> None:
    with pytest.raises(ZeroDivisionError), runtime.engine.rebuild(None, ""):  # noqa: PT012
        answer = call("POST", "/products", {"products": [{"id": "p1", "title": "milk 1"}]})
        assert (answer.status_code, answer.headers["Retry-After"]) == (409, "10")
        assert answer.json["type"] == "urn:endcap:error:index_busy"
        raise ZeroDivisionError
    assert call("POST", "/products", {"products": [{"id": "p1", "title": "milk 1"}]}).status_code == 200


def test_rejected_events_and_logged_rankings(call: Call, client: FlaskClient, runtime: Runtime) -> None:
    client.post("/v1/events", json=[{"action_name": "buy"}])
    runtime.rejected.turn()
    found = call("GET", "/rejects").json
    assert len(found["rejects"]) == 1
    assert sum(found["counts"].values()) == 1
    assert '"buy"' in found["rejects"][0]["event"]
    assert call("GET", "/rejects", role="operator").json == found
    reader = call("GET", "/rejects", role="reader").json
    assert reader["counts"] == found["counts"]
    assert [one | {"event": found["rejects"][0]["event"]} for one in reader["rejects"]] == found["rejects"]
    assert reader["rejects"][0]["event"] is None, "what was sent names shoppers"
    asked = client.get("/v1/search?q=milk", headers={"X-Endcap-Shopper": "bob"}).json
    runtime.serving_log.queue.turn()
    ranking = call("GET", "/rankings?shopper=bob").json["rankings"][0]
    assert ranking["products"] == [hit["id"] for hit in asked["hits"]]
    assert call("GET", f"/rankings/{ranking['id']}").json == ranking
    assert call("GET", "/rankings/nothing").status_code == 404


def test_the_reference_is_the_api() -> None:
    text = (Path(__file__).parents[2] / "docs" / "admin-api.md").read_text()
    assert as_markdown(described()) == text, "run: endcap openapi --markdown > docs/admin-api.md"
