"""``/v1/events``: what is accepted, what is refused and why, and that nothing is acknowledged that is not stored."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from itsdangerous import Signer

from endcap.recommend.behaviour import shopper_key
from endcap.runtime import Runtime, open_runtime
from endcap.stores import rejects
from endcap.stores.rejects import Rejects
from endcap_reranker.app import create_app
from tests.reranker.demo_support import shop_settings
from tests.serving import eventually

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def runtime(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    chosen = {"max_events": 5, "max_body_bytes": 20_000, **getattr(request, "param", {})}
    opened = open_runtime(shop_settings(tmp_path, text_encoder="none", **chosen))
    yield opened
    opened.close()


@pytest.fixture
def client(runtime: Runtime) -> FlaskClient:
    return create_app(runtime).test_client()


def event(action: str = "click", product: str = "p1", **more: Any) -> dict[str, Any]:
    return {"action_name": action, "client_id": "ann", "event_attributes": {"object": {"object_id": product}}, **more}


def test_the_first_event_that_the_readme_shows_is_taken(client: FlaskClient) -> None:
    line = re.search(r"^curl --json '(.*)' localhost:8080(/v1/events)$", README.read_text(), re.MULTILINE)
    assert line
    answer = client.post(line[2], data=line[1], content_type="application/json")  # as --json sends it
    assert answer.get_json()["accepted"] == 1


def stored(runtime: Runtime, shopper: str = "ann") -> list[tuple[str, str]]:
    return [(one.action.name, one.product) for one in runtime.log.history(shopper)]


@pytest.mark.parametrize("mimetype", ["application/json", "text/plain;charset=UTF-8", "application/x-ndjson", None])
@pytest.mark.parametrize("shape", ["one", "array", "lines"])
def test_every_shape_and_type_is_read(client: FlaskClient, runtime: Runtime, shape: str, mimetype: str | None) -> None:
    events = [event("click", "p1"), event("purchase", "p2")][: 1 if shape == "one" else 2]
    lines = "\n".join(json.dumps(one) for one in events)
    body = json.dumps(events) if shape == "array" else lines
    answer = client.post("/v1/events", data=body.encode(), content_type=mimetype)
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["accepted"] == len(events)
    assert sorted(stored(runtime)) == sorted([("CLICK", "p1"), ("PURCHASE", "p2")][: len(events)])


def test_each_event_gets_its_own_verdict(client: FlaskClient, runtime: Runtime) -> None:
    good = event(event_id="e1", timestamp="2025-05-01T10:00:00Z")
    body = [good, event("dance", event_id="e2"), good, "text", event(client_id="x" * 10_000)]
    answer = client.post("/v1/events", json=body).get_json()
    assert [item["status"] for item in answer["items"]] == ["accepted", "rejected", "duplicate", "rejected", "rejected"]
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (1, 1, 3)
    assert [item["id"] for item in answer["items"][:3]] == ["e1", "e2", "e1"]
    assert "dance" in answer["items"][1]["reason"]
    assert "512" in answer["items"][4]["reason"]
    assert stored(runtime) == [("CLICK", "p1")]


def test_sending_twice_counts_once(client: FlaskClient, runtime: Runtime) -> None:
    body = event(timestamp="2025-05-01T10:00:00Z")
    assert client.post("/v1/events", json=body).get_json()["accepted"] == 1
    assert client.post("/v1/events", json=body).get_json()["duplicates"] == 1
    assert len(stored(runtime)) == 1


def test_a_broken_line_leaves_the_lines_around_it(client: FlaskClient) -> None:
    body = "\n".join([json.dumps(event()), '{"action_name": ', json.dumps(event())])
    answer = client.post("/v1/events", data=body, content_type="application/x-ndjson").get_json()
    assert [item["status"] for item in answer["items"]] == ["accepted", "rejected", "accepted"]


@pytest.mark.parametrize("where", ["header", "cookie"])
def test_the_request_says_whose_event_it_is(client: FlaskClient, runtime: Runtime, where: str) -> None:
    anonymous = {**event(), "client_id": ""}
    if where == "cookie":
        client.set_cookie("endcap_shopper", "bob")
    headers = {"X-Endcap-Shopper": "bob"} if where == "header" else {}
    assert client.post("/v1/events", json=anonymous, headers=headers).get_json()["accepted"] == 1
    assert stored(runtime, "bob") == [("CLICK", "p1")]
    # What the event itself says is stronger.
    client.post("/v1/events", json=event(), headers=headers)
    assert stored(runtime, "ann") == [("CLICK", "p1")]


def test_nobodys_event_is_refused(client: FlaskClient) -> None:
    """As a bad request: no sender looks into the answers that say all is well."""
    nobodys = {**event(), "client_id": None}
    sent = client.post("/v1/events", json=nobodys)
    assert (sent.status_code, sent.mimetype) == (400, "application/problem+json")
    answer = sent.get_json()
    assert (answer["type"], answer["detail"]) == ("urn:endcap:error:events_rejected", "client_id is missing")
    assert answer["items"] == [{"status": "rejected", "id": None, "reason": "client_id is missing"}]
    several = client.post("/v1/events", json=[nobodys, nobodys]).get_json()
    assert (several["detail"], several["rejected"]) == ("client_id is missing (and 1 more)", 2)
    assert client.post("/v1/events", json=[nobodys, event()]).status_code == 200


@pytest.mark.parametrize("runtime", [{"shopper_secret": "s3cret"}], indirect=True)
def test_where_ids_are_signed_only_signed_ones_count(client: FlaskClient, runtime: Runtime) -> None:
    signed = Signer("s3cret").sign("ann").decode()
    answer = client.post("/v1/events", json=[event(), event(client_id=signed)]).get_json()
    assert [item["status"] for item in answer["items"]] == ["rejected", "accepted"]
    assert "signed" in answer["items"][0]["reason"]
    assert len(stored(runtime, "ann")) == 1
    forged = client.post("/v1/events", json={**event(), "client_id": ""}, headers={"X-Endcap-Shopper": "ann"})
    assert forged.get_json()["rejected"] == 1


@pytest.mark.parametrize(
    ("body", "mimetype", "status"),
    [
        (b"", "application/json", 400),
        (b"   \n ", "application/x-ndjson", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"[" + b",".join([b"{}"] * 6) + b"]", "application/json", 413),
        (b'{"a": "' + b"x" * 20_000 + b'"}', "application/json", 413),
    ],
)
def test_a_body_that_is_unusable_as_a_whole(client: FlaskClient, body: bytes, mimetype: str, status: int) -> None:
    answer = client.post("/v1/events", data=body, content_type=mimetype)
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["detail"]


def test_nothing_is_acknowledged_that_is_not_stored(client: FlaskClient, runtime: Runtime) -> None:
    file = runtime.settings.data_dir / "endcap.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("ALTER TABLE events RENAME TO lost")
    answer = client.post("/v1/events", json=event(event_id="e1"))
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert "items" not in answer.get_json()
    with sqlite3.connect(file) as database:
        database.execute("ALTER TABLE lost RENAME TO events")
    # The same event sent again is new: nothing of it had stayed. And the log is well again by itself.
    assert client.post("/v1/events", json=event(event_id="e1")).get_json()["accepted"] == 1


@pytest.mark.parametrize("runtime", [{"cors_origins": ["https://shop.example"]}], indirect=True)
def test_only_named_origins_may_call(client: FlaskClient) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/events", headers=asked)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]
    answer = client.post("/v1/events", json=event(), headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_what_was_rejected_is_kept_with_its_reason(client: FlaskClient, runtime: Runtime) -> None:
    client.post("/v1/events", json=[event("dance", event_id="e2"), event(product=""), event("dance")])
    body = "\n".join([json.dumps(event()), '{"action_name": '])
    client.post("/v1/events", data=body, content_type="application/x-ndjson")
    runtime.rejected.turn()
    kept = Rejects(runtime.database)
    assert kept.counts() == {"action": 2, "not_json": 1, "product": 1}
    (one,) = kept.latest(code="product")
    assert "which product" in one.reason
    assert json.loads(one.event)["client_id"] == "ann"
    assert [one.code for one in kept.latest(2)] == ["not_json", "action"]


def test_the_ring_of_rejects_is_bounded(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejects, "KEPT", 5)
    kept = Rejects(runtime.database)
    for number in range(4):
        kept.append([rejects.reject(number, "action", f"r{number}{n}", {"x": "y" * 9_000}) for n in range(3)])
    assert [one.reason for one in kept.latest()] == ["r32", "r31", "r30", "r22", "r21"]
    assert max(len(one.event) for one in kept.latest()) <= rejects.LONGEST


def test_a_clock_that_is_ahead_does_not_reach_into_the_future(client: FlaskClient, runtime: Runtime) -> None:
    ahead = (datetime.now(timezone.utc) + timedelta(hours=3)).isoformat()
    far = (datetime.now(timezone.utc) + timedelta(days=3)).isoformat()
    answer = client.post("/v1/events", json=[event(timestamp=ahead), event(timestamp=far)]).get_json()
    assert [item["status"] for item in answer["items"]] == ["accepted", "rejected"]
    assert "clock" in answer["items"][1]["reason"]
    assert runtime.log.history("ann")[0].time <= time.time()


def test_a_login_joins_what_the_visitor_did(client: FlaskClient, runtime: Runtime) -> None:
    client.post("/v1/events", json=event(client_id="visitor"))
    assert not runtime.profiles.get("ann")
    said = {"from": "visitor", "to": "ann"}
    assert client.post("/v1/identify", json=said).get_json() == {"shopper": "ann", "joined": True}
    assert client.post("/v1/identify", json=said).get_json()["joined"] is False
    assert len(runtime.profiles.get("ann").counters) == 1
    client.post("/v1/events", json=event("click", "p2", client_id="visitor"))
    assert len(runtime.profiles.get("ann").counters) == 2
    refused = client.post("/v1/identify", json={"from": "visitor", "to": "thief"})
    assert (refused.status_code, refused.content_type) == (409, "application/problem+json")


def test_a_login_may_come_as_an_event(client: FlaskClient, runtime: Runtime) -> None:
    client.post("/v1/events", json=event(client_id="visitor"))
    login = {"action_name": "login", "client_id": "ann", "event_attributes": {"anonymous_id": "visitor"}}
    thief = {**login, "client_id": "thief"}
    nobody = {"action_name": "login", "client_id": "ann"}
    answer = client.post("/v1/events", json=[login, login, thief, nobody]).get_json()
    assert [item["status"] for item in answer["items"]] == ["accepted", "duplicate", "rejected", "rejected"]
    assert len(runtime.profiles.get("ann").counters) == 1


@pytest.mark.parametrize("body", [{"from": "a"}, {"from": "a", "to": ""}, {"from": ["a"], "to": "b"}, ["a"], None])
def test_an_identify_that_says_nothing(client: FlaskClient, body: Any) -> None:
    assert client.post("/v1/identify", json=body).status_code == 400


@pytest.mark.parametrize("runtime", [{"shopper_secret": "s3cret"}], indirect=True)
def test_where_ids_are_signed_both_ids_of_a_login_must_be(client: FlaskClient, runtime: Runtime) -> None:
    sign = lambda one: Signer("s3cret").sign(one).decode()  # noqa: E731
    for said in ({"from": "visitor", "to": sign("ann")}, {"from": sign("visitor"), "to": "ann"}):
        assert client.post("/v1/identify", json=said).status_code == 400
        login = {"action_name": "login", "client_id": said["to"], "event_attributes": {"anonymous_id": said["from"]}}
        assert client.post("/v1/events", json=login).get_json()["rejected"] == 1
    assert runtime.aliases.mapping() == {}
    said = {"from": sign("visitor"), "to": sign("ann")}
    assert client.post("/v1/identify", json=said).get_json() == {"shopper": "ann", "joined": True}
    assert runtime.aliases.mapping() == {"visitor": "ann"}


def test_what_is_recommended_follows_the_shopper_over_the_login(client: FlaskClient, runtime: Runtime) -> None:
    client.post("/v1/identify", json={"from": "visitor", "to": "ann"})
    client.post("/v1/events", json=[event("purchase", "p1", client_id="visitor"), event("purchase", "p2")])
    assert eventually(lambda: runtime.discovery.behaviour.sequence >= runtime.log.last_sequence())
    runtime.discovery.behaviour.merge()
    assert len(runtime.discovery.behaviour.repeats.of(shopper_key("ann")).keys) == 2
