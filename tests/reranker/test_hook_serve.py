"""``endcap serve`` as people run it: gunicorn, its processes, its end, its metrics; and the application it serves."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from endcap.catalog import Product
from endcap.events import Action, Event
from endcap.runtime import open_runtime
from endcap.settings import Settings
from endcap_reranker.app import create_app
from tests.reranker.hook_support import engine_call, fresh_call, hanging_engine, ids
from tests.serving import eventually

INDEX = "endcap-serve"
COMMAND = [sys.executable, "-c", "from endcap.cli import main; main()", "serve"]


class Served:
    """A running ``endcap serve``."""

    def __init__(self, folder: Path, *arguments: str, **settings: Any) -> None:
        values = {"data_dir": folder / "data", "index": "shop", "text_encoder": "none", **settings}
        self.log = folder / "serve.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                env={**os.environ, **{f"ENDCAP_{name.upper()}": str(value) for name, value in values.items()}},
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def url(self) -> str:
        """Where it listens, once it does."""

        def listens() -> str:
            found = re.search(r"Listening at: (http://[^\s,]+)", self.log.read_text())
            assert found or self.process.poll() is None, self.log.read_text()
            return found[1] if found else ""

        def answers() -> bool:
            try:
                return fresh_call("GET", f"{listens()}/healthz").status == 200
            except urllib3.exceptions.HTTPError:
                return False

        assert eventually(listens), self.log.read_text()
        assert eventually(answers), self.log.read_text()
        return listens()

    def one_by_one(self, count: int = 2) -> Iterator[int]:
        """Its worker processes, each as the only one that answers: the others stand still meanwhile. Who takes a
        connection is chance otherwise, and it may be the same one every time."""
        booted = re.compile(r"Booting worker with pid: (\d+)")
        assert eventually(lambda: len(booted.findall(self.log.read_text())) == count), self.log.read_text()
        pids = [int(one) for one in booted.findall(self.log.read_text())]
        for pid in pids:
            others = [one for one in pids if one != pid]
            for one in others:
                os.kill(one, signal.SIGSTOP)
            try:
                yield pid
            finally:
                for one in others:
                    os.kill(one, signal.SIGCONT)

    def wait(self) -> int:
        """Its exit status, once it ends."""
        return self.process.wait(timeout=120)


@contextmanager
def served(folder: Path, *arguments: str, **settings: Any) -> Iterator[Served]:
    server = Served(folder, *arguments, **settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
            server.wait()


@pytest.fixture
def shop_folder(tmp_path: Path, elasticsearch: str) -> Iterator[Path]:
    """A data folder with what ann bought, and the products in Elasticsearch."""
    settings = Settings(data_dir=tmp_path / "data", index=INDEX, engine_url=elasticsearch, text_encoder="none")
    runtime = open_runtime(settings, start=False)
    items = [Product(f"p{number}", "red shoe", brand="abcdefgh"[number % 8]) for number in range(60)]
    runtime.engine.ensure(None, "")
    runtime.engine.upsert((item, None, "") for item in items)
    runtime.engine.refresh()
    runtime.record([Event(f"e{n}", time.time() - 60 * n, "ann", Action.PURCHASE, "p40") for n in range(1, 4)])
    runtime.close()
    try:
        yield tmp_path
    finally:
        engine_call("DELETE", f"{elasticsearch}/_alias/{INDEX}")
        for name in engine_call("GET", f"{elasticsearch}/_cat/indices/{INDEX}*?h=index").data.decode().split():
            engine_call("DELETE", f"{elasticsearch}/{name}")


def test_two_processes_serve_and_count_together(shop_folder: Path, elasticsearch: str) -> None:
    # A busy machine is not the point.
    patient = {"engine_url": elasticsearch, "index": INDEX, "deadline_ms": 60_000, "open_metrics": True}
    with served(shop_folder, "--port", "0", "--workers", "2", **patient) as server:
        url = server.url()
        body = {"query": {"match": {"title": "red"}}, "size": 5}

        def search(shopper: str) -> Any:
            headers = {"X-Endcap-Shopper": shopper, "Connection": "close"}
            answer = engine_call("POST", f"{url}/{INDEX}/_search", json=body, headers=headers)
            assert answer.status == 200
            return answer

        for _ in server.one_by_one():
            assert eventually(lambda: fresh_call("GET", f"{url}/readyz").json()["personalizing"])
        for _ in range(12):
            answer = search("ann")
            assert answer.headers["X-Endcap-Personalized"] == "1"
            assert answer.headers["X-Endcap-Ranking"]
            assert ids(answer.json())[0] == "p40"
            assert search("nobody-yet").headers["X-Endcap-Personalized"] == "0"
        too_long = search("x" * 10_000)
        assert too_long.headers["X-Endcap-Degraded"] == "shopper_id"
        assert "p40" not in ids(too_long.json())

        for _ in range(4):
            metrics = engine_call("GET", f"{url}/metrics", headers={"Connection": "close"})
            assert metrics.headers["Content-Type"].startswith("text/plain")
            lines = metrics.data.decode().splitlines()
            counted = [line for line in lines if line.startswith("endcap_hook_requests_total{") and "_search" in line]
            assert sum(float(line.split()[-1]) for line in counted) == 25
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    log = server.log.read_text()
    assert len(set(re.findall(r"Booting worker with pid: (\d+)", log))) == 2
    assert "Traceback" not in log


def test_a_search_under_way_is_finished_before_the_end(tmp_path: Path) -> None:
    with hanging_engine() as engine, served(tmp_path, "--port", "0", engine_url=engine.url) as server:
        url = server.url()
        answers: list[Any] = []

        def search() -> None:
            answers.append(engine_call("POST", f"{url}/shop/_search", json={}))

        client = threading.Thread(target=search)
        client.start()
        assert engine.asked.wait(60), "it never came to the engine"
        server.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: "Handling signal: term" in server.log.read_text()), server.log.read_text()
        engine.answer.set()
        client.join(60)
        assert [answer.status for answer in answers] == [200]
        assert server.wait() == 0


def test_a_taken_port_is_said_plainly(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with served(tmp_path, "--port", str(port)) as server:
            assert server.wait() == 1
            said = server.log.read_text().strip()
    assert said == (
        f"endcap: cannot listen on 127.0.0.1:{port}: port {port} is taken: stop what listens there, or choose another "
        "(--port, ENDCAP_PORT)"
    )


def test_an_address_of_another_machine_is_said_plainly(tmp_path: Path) -> None:
    with served(tmp_path, "--host", "192.0.2.1") as server:
        assert server.wait() == 1
        assert "set an address of this machine" in server.log.read_text()


def test_what_cannot_be_set_up_is_said_without_a_trace(tmp_path: Path) -> None:
    with served(tmp_path, "--port", "0", text_encoder=tmp_path / "no-such-model") as server:
        assert server.wait() != 0
        log = server.log.read_text()
    assert re.search(r"^endcap: .*no-such-model", log, re.MULTILINE)
    assert "Traceback" not in log


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    """The whole application over an empty embedded engine."""
    settings = Settings(
        data_dir=tmp_path, text_encoder="none", index="shop", cors_origins=["https://shop.example"], open_metrics=True
    )
    runtime = open_runtime(settings, start=False)
    try:
        yield create_app(runtime)
    finally:
        runtime.close()


def test_the_application_refuses_what_it_does_not_know(app: Any) -> None:
    client = app.test_client()
    for method, path in [("GET", "/nothing/here"), ("POST", "/_bulk"), ("DELETE", "/shop"), ("POST", "//shop/_search")]:
        answer = client.open(path, method=method)
        assert answer.status_code in {403, 404}
        assert answer.json["status"] == answer.status_code
        assert answer.json["error"]["root_cause"][0]["reason"]
    wrong = client.post("/healthz")
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["Allow"]


def test_health_and_readiness(app: Any) -> None:
    client = app.test_client()
    assert client.get("/healthz").json == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert (ready.json["engine"], ready.json["products"], ready.json["personalizing"]) == ("embedded", 0, False)
    assert b"endcap_searches_total" in client.get("/metrics").data


def test_a_bug_is_told_without_its_trace(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("secret detail")

    answer = app.test_client().get("/boom")
    assert answer.status_code == 500
    assert answer.json["error"]["type"] == "internal_error"
    assert b"secret detail" not in answer.data
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("path", ["/shop/_search", "/_msearch"])
def test_pages_of_named_origins_may_search(app: Any, path: str) -> None:
    client = app.test_client()
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-endcap-shopper"}
    preflight = client.options(path, headers={"Origin": "https://shop.example", **asks})
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    for name in ("X-Endcap-Shopper", "X-Endcap-Session", "X-Endcap-Segment"):
        assert name in preflight.headers["Access-Control-Allow-Headers"]
    answer = client.post("/shop/_search", json={}, headers={"Origin": "https://shop.example"})
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    for name in ("X-Endcap-Ranking", "X-Endcap-Sponsored"):
        assert name in answer.headers["Access-Control-Expose-Headers"]
    other = client.post("/shop/_search", json={}, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers.getlist("Vary")
