"""Flags and reports as people meet them: by the admin API and in the console, over real behaviour."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from endcap.catalog import Product
from endcap.events import Action, Event
from endcap.indexing import index_products
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.stores.flags import Suspicion
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app
from endcap_workers.reports.making import make_report


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("flags"), text_encoder="none", admin_calls_per_minute=100_000
    )
    made = open_runtime(settings, start=False)
    index_products([Product(f"p{n}", f"Milk {n}", price=2.0, stock=3.0 * n) for n in range(6)], made.engine, None)
    made.upkeep.reload()
    now = time.time()
    made.record(
        [
            Event(f"e{n}", now - 40_000.0 * (1 + n % 100), f"ann{n % 9}", Action.PURCHASE, f"p{n % 6}", value=2.0)
            for n in range(600)
        ]
    )
    made.flags.suspect(
        [Suspicion("shopper", f"ann{n}", 0.9 - n / 100, [f"<b>odd {n}</b>"], {"actions": 66, "product": "p1"})
         for n in range(3)] + [Suspicion("product", "p1", 0.5, ["3 of 9"], {"shoppers": ["ann0", "ann1"]})],
        "fraud",
    )  # fmt: skip
    for kind in ("fraud", "inventory"):
        make_report(kind, made.database, settings, lambda done, total, phase: None, "daily")
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> Flask:
    return create_app(runtime)


@pytest.fixture
def call(app: Flask, runtime: Runtime) -> Any:
    client = app.test_client()
    tokens = {role: Tokens(runtime.database).create(role, role)[0] for role in ("reader", "operator")}

    def ask(method: str, path: str, body: Any = None, role: str = "operator") -> Any:
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        return client.open(f"/admin/v1{path}", method=method, json=body, headers=headers)

    return ask


@pytest.fixture
def browser(app: Flask, runtime: Runtime) -> FlaskClient:
    client = app.test_client()
    token = Tokens(runtime.database).create("eve", "operator")[0]
    client.post("/console/login", data={"csrf": proof(client, "/console/login"), "token": token})
    return client


def proof(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', client.get(path).text)
    assert found
    return found[1]


def test_the_queue_is_worked_through_by_the_api(call: Any, runtime: Runtime) -> None:
    queue = call("GET", "/flags?kind=shopper").json
    assert [one["subject"] for one in queue["flags"]] == ["ann0", "ann1", "ann2"]
    number = queue["flags"][0]["id"]
    for method, path in (("POST", f"{number}/decide"), ("GET", ""), ("GET", str(number))):
        body = {"state": "dismissed"} if method == "POST" else None
        assert call(method, f"/flags/{path}".rstrip("/"), body, role="reader").status_code == 403, "it names shoppers"
    assert "ann0" in runtime.flags.excluded_shoppers()
    decided = call("POST", f"/flags/{number}/decide", {"state": "dismissed", "note": "our courier"}).json
    assert (decided["state"], decided["history"][-1]["note"]) == ("dismissed", "our courier")
    assert "ann0" not in runtime.flags.excluded_shoppers()
    assert call("POST", f"/flags/{number}/decide", {"state": "dismissed"}).status_code == 409
    assert call("POST", f"/flags/{number}/undo").json["state"] == "suspected"
    assert call("POST", f"/flags/{number}/undo").status_code == 409
    assert call("GET", "/flags").json["version"] > queue["version"]


@pytest.mark.parametrize("number", ["9999", "0", "-1", "1e3", "abc", "٣", "9" * 30])
def test_a_label_for_an_unknown_flag_is_refused(call: Any, number: str) -> None:
    answer = call("POST", f"/flags/{number}/decide", {"state": "confirmed"})
    assert answer.status_code == 404
    assert answer.json["type"].endswith("unknown_flag")


def test_a_person_may_flag_somebody(call: Any) -> None:
    made = call("POST", "/flags", {"kind": "shopper", "subject": "mallory", "reason": "seen in the shop"})
    assert made.status_code == 201
    assert made.json["source"] == "person: operator"
    assert call("POST", "/flags", {"kind": "planet", "subject": "x", "reason": "y"}).status_code == 400
    assert call("POST", f"/flags/{made.json['id']}/decide", {"state": "guilty"}).status_code == 400
    call("POST", f"/flags/{made.json['id']}/decide", {"state": "dismissed"})


def test_reports_come_in_every_form(call: Any) -> None:
    listed = call("GET", "/reports?kind=inventory", role="reader").json["reports"]
    assert len(listed) == 1
    name = listed[0]["id"]
    assert call("GET", f"/reports/{name}/json", role="reader").json["kind"] == "inventory"
    page = call("GET", "/reports/inventory/html", role="reader")
    assert "<svg" in page.text
    assert "script" not in page.headers["Content-Security-Policy"]
    assert call("GET", f"/reports/{name}/xlsx", role="reader").data[:2] == b"PK"
    csv = call("GET", f"/reports/{name}/csv/demand", role="reader")
    assert csv.headers["Content-Disposition"].startswith("attachment")
    assert "Milk 5" in csv.text
    for wrong in ("/reports/none", "/reports/none/html", f"/reports/{name}/csv/nothing", f"/reports/{name}/csv/..%2fx"):
        assert call("GET", wrong, role="reader").status_code == 404, wrong
    for file in ("json", "html", "xlsx", "csv/shoppers"):
        refused = call("GET", f"/reports/fraud/{file}", role="reader")
        assert (refused.status_code, b"ann0" in refused.data) == (403, False), "it names shoppers"
        assert call("GET", f"/reports/fraud/{file}").status_code == 200
    assert call("GET", "/reports/fraud", role="reader").status_code == 200, "figures name nobody"


def test_the_console_shows_the_evidence_and_takes_decisions(browser: FlaskClient, runtime: Runtime) -> None:
    queue = browser.get("/console/flags").text
    assert "ann1" in queue
    assert "&lt;b&gt;odd" in queue
    flag = runtime.flags.find("shopper", "ann1")
    assert flag is not None
    page = browser.get(f"/console/flags/{flag.id}").text
    assert "Milk" in page, "what was bought, by title"
    assert "Actions an hour" in page
    data = {"csrf": proof(browser, "/console/flags"), "state": "confirmed", "note": "seen it"}
    here = {"Referer": "http://localhost/console/flags"}
    answer = browser.post(f"/console/flags/{flag.id}/decide", data=data, headers=here, follow_redirects=True)
    assert "ann1: confirmed" in answer.text
    assert "seen it" in browser.get(f"/console/flags/{flag.id}").text
    browser.post(f"/console/flags/{flag.id}/undo", data={"csrf": proof(browser, "/console/flags")})
    assert runtime.flags.get(flag.id).state == "suspected"
    product = runtime.flags.find("product", "p1")
    assert product is not None
    assert "ann0" in browser.get(f"/console/flags/{product.id}").text
    assert browser.get("/console/flags/99999").status_code == 404


def test_the_console_filters_and_sorts_a_reports_tables(browser: FlaskClient) -> None:
    assert "Demand and stock" in browser.get("/console/reports").text
    page = browser.get("/console/reports/inventory?table=demand&q=milk+3&sort=-stock").text
    assert "Milk 3" in page
    assert "Milk 4" not in page
    assert "1 rows" in page
    ordered = browser.get("/console/reports/inventory?table=demand&sort=-stock").text
    assert ordered.index("Milk 5") < ordered.index("Milk 1")
    page = browser.get("/console/reports/inventory/files/report.html")
    assert page.status_code == 200
    assert "style-src 'unsafe-inline'" in page.headers["Content-Security-Policy"], "its styles stand in it"
    assert "script" not in page.headers["Content-Security-Policy"]
    assert browser.get("/console/reports/inventory/files/..%2f..%2fendcap.sqlite").status_code == 404
    flagged = browser.get("/console/reports/fraud?table=shoppers").text
    assert re.search(r'href="/console/flags/\d+"', flagged), "from a report to the evidence"
    assert browser.get("/console/reports/none").status_code == 404


def test_readers_see_no_shopper_in_the_console(app: Flask, runtime: Runtime) -> None:
    client = app.test_client()
    token = Tokens(runtime.database).create("rea", "reader")[0]
    client.post("/console/login", data={"csrf": proof(client, "/console/login"), "token": token})
    flag = runtime.flags.find("shopper", "ann1")
    assert flag is not None
    for path in ("flags", f"flags/{flag.id}", "reports/fraud", "reports/fraud/files/report.json"):
        page = client.get(f"/console/{path}")
        assert (page.status_code, "ann" in page.text) == (403, False), path
    assert client.get("/console/reports/inventory").status_code == 200
