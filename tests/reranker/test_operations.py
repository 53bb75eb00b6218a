"""A server as its operators see it: request ids, log lines, metrics, traces, and a stop that nobody notices."""

from __future__ import annotations

import http.client
import json
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import Counter, Histogram

from endcap import tracing
from endcap.errors import ConfigurationError
from endcap.logs import REQUEST_ID, JsonLines, TextLines
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap_reranker import telemetry
from endcap_reranker.app import create_app
from tests.reranker.test_hook_serve import served
from tests.services.process import free_port
from tests.serving import eventually
from tests.workers.train_support import events, shop

DOCUMENT = Path(__file__).parents[2] / "docs" / "server.md"


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A small OTLP receiver: its address, and the spans that came."""
    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in part.scope_spans:
                    spans.extend((part.resource, span) for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()


class Shoppers:
    """Clients behind a load balancer: they send until it sees that the server is about to stop."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self.seen: list[dict[str, Any]] = []
        self._threads = [threading.Thread(target=self._shop, args=(number,)) for number in range(6)]
        self._threads.append(threading.Thread(target=self._watch))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)

    def _shop(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        # With a pause, or a fast machine makes more spans than their exporter keeps, and a slow one is never ready.
        while not self.stopping.wait(0.05):
            try:
                headers = {"X-Endcap-Shopper": f"s{number}", "X-Request-Id": f"visit-{number}"}
                if number % 2:  # one connection for each request
                    headers["Connection"] = "close"
                connection.request("GET", "/v1/search?q=shelf1&explain=true", headers=headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except Exception as error:
                self.failures.append(repr(error))
        connection.close()

    def _watch(self) -> None:
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection(self.host, timeout=60)
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            self.seen.append(json.loads(answer.read()))
            if answer.status == 503:
                self.stopping.set()
            connection.close()
            time.sleep(0.05)


def test_a_stop_under_traffic_fails_no_request_and_everything_is_told(tmp_path: Path) -> None:
    shop(tmp_path / "data", events(shoppers=6, days=6))
    admin = free_port()
    with collector() as (endpoint, spans):
        settings = {
            "access_log": True, "log_format": "json", "otlp_endpoint": endpoint, "drain_s": 4, "admin_port": admin,
            "deadline_ms": 60_000, "embedded_worker": False, "open_metrics": True,
        }  # fmt: skip
        with served(tmp_path, "--port", "0", "--workers", "2", **settings) as server:
            url = server.url()
            shoppers = Shoppers(url)
            shoppers.start()
            try:
                assert eventually(lambda: len(shoppers.statuses) > 20 or shoppers.failures)
                page = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
                page.request("GET", "/metrics")
                metrics = page.getresponse().read().decode()
                server.process.send_signal(signal.SIGTERM)
            finally:
                shoppers.join()
                shoppers.stopping.set()
            assert server.wait() == 0
    assert shoppers.failures == []
    assert len(shoppers.statuses) > 20
    assert set(shoppers.statuses) == {200}
    assert shoppers.seen[-1]["status"] == "stopping"

    counted = re.search(r'endcap_http_requests_total\{method="GET",route="/v1/search",status="200"\} (\d+)', metrics)
    assert counted
    assert int(counted[1]) > 0

    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    searches = [line for line in lines if line.get("route") == "/v1/search"]
    assert len(searches) == len(shoppers.statuses)
    for line in searches:
        assert line["logger"] == "endcap.access"
        assert line["status"] == 200
        assert line["ms"] > 0
        assert re.fullmatch(r"visit-\d", line["request_id"])
    assert any("Stopping in 4 s" in line["message"] for line in lines)

    # One trace per search: the server's span, the engine's and the scorer's below it.
    by_trace: dict[bytes, dict[str, Any]] = {}
    for resource, span in spans:
        assert any(one.value.string_value == "endcap" for one in resource.attributes if one.key == "service.name")
        by_trace.setdefault(span.trace_id, {})[span.name] = span
    traced = [one for one in by_trace.values() if "GET /v1/search" in one]
    assert len(traced) == len(shoppers.statuses)
    whole = [one for one in traced if {"engine", "score"} <= set(one)]
    assert len(whole) == len(traced)
    for one in whole:
        root = one["GET /v1/search"]
        for part in ("engine", "score"):
            assert one[part].parent_span_id == root.span_id
            assert root.start_time_unix_nano <= one[part].start_time_unix_nano
            assert one[part].end_time_unix_nano <= root.end_time_unix_nano
        told = {pair.key: pair.value for pair in root.attributes}
        assert told["endcap.request_id"].string_value.startswith("visit-")
        assert told["http.response.status_code"].int_value == 200


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    settings = shop(tmp_path_factory.mktemp("data"), [])
    opened = open_runtime(settings.model_copy(update={"access_log": True, "open_metrics": True}), start=False)
    yield opened
    opened.close()


def test_a_request_keeps_its_id(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    client = create_app(runtime).test_client()
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1.2:3"}).headers["X-Request-Id"] == "abc-1.2:3"
    made = set()
    for bad in ("", "a b", "x" * 129, "é", "<script>"):
        answer = client.get("/no/such", headers={"X-Request-Id": bad.encode().decode("latin-1")})
        made.add(answer.headers["X-Request-Id"])
    assert len(made) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)
    with caplog.at_level(logging.INFO, "endcap.access"):
        client.get("/v1/search?q=x", headers={"X-Endcap-Shopper": "x" * 5_000, "X-Request-Id": "degraded-one"})
    record = next(one for one in caplog.records if one.name == "endcap.access")
    assert (record.route, record.degraded) == ("/v1/search", "shopper_id")  # type: ignore[attr-defined]
    assert REQUEST_ID.get() == ""


def test_methods_that_a_client_makes_up_are_one_counter(runtime: Runtime) -> None:
    client = create_app(runtime).test_client()
    for method in ("FOOBAR", "BARFOO"):
        client.open("/v1/search", method=method)
    text = client.get("/metrics").text
    assert 'method="other"' in text
    assert "FOOBAR" not in text


def test_a_traceparent_makes_a_request_part_of_the_callers_trace(runtime: Runtime) -> None:
    with collector() as (endpoint, spans):
        tracing.set_up_traces(load_settings(otlp_endpoint=endpoint), "test")
        try:
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            create_app(runtime).test_client().get("/v1/search?q=x", headers={"traceparent": parent})
        finally:
            tracing.end_traces()
    root = next(span for _, span in spans if span.name == "GET /v1/search")
    assert root.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert root.parent_span_id.hex() == "b7ad6b7169203331"


def test_a_collector_that_is_away_costs_nothing_but_its_traces(runtime: Runtime) -> None:
    tracing.set_up_traces(load_settings(otlp_endpoint="http://127.0.0.1:1"), "test")
    try:
        assert create_app(runtime).test_client().get("/healthz").status_code == 200
    finally:
        tracing.end_traces()


def test_traces_without_the_library_are_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"endcap\[telemetry\]"):
        tracing.set_up_traces(load_settings(otlp_endpoint="http://127.0.0.1:4318"), "test")
    with tracing.span("nothing") as nothing:
        assert nothing is None


def test_log_lines() -> None:
    record = logging.makeLogRecord(
        {"name": "endcap.x", "levelname": "WARNING", "msg": "first\nsecond %s", "args": ("é",), "created": 0.5, "n": 3}
    )
    token = REQUEST_ID.set("r1")
    try:
        line = json.loads(JsonLines().format(record))
        assert line == {
            "time": "1970-01-01T00:00:00.500Z", "level": "warning", "logger": "endcap.x", "message": "first\nsecond é",
            "request_id": "r1", "n": 3,
        }  # fmt: skip
        said = TextLines().format(record)
        assert said == "1970-01-01T00:00:00.500Z warning endcap.x: first\\nsecond é n=3 request_id=r1"
    finally:
        REQUEST_ID.reset(token)
    try:
        raise ValueError("bad \ud800 text")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError" in json.loads(JsonLines().format(record))["trace"]


def test_every_metric_is_in_the_document(runtime: Runtime) -> None:
    """The table in docs/server.md names each metric, its labels and nothing else."""
    known: dict[str, str] = {}
    for value in vars(telemetry).values():
        if isinstance(value, (Counter, Histogram)):
            name = value._name + ("_total" if isinstance(value, Counter) else "")
            known[name] = ", ".join(value._labelnames)
    for family in telemetry.State(runtime).collect():
        known[family.name] = ", ".join(family._labelnames)
    rows = re.findall(r"^\| `(endcap_\w+)` \| (?:`([\w`, ]+)`)? *\|", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: labels.replace("`", "") for name, labels in rows} == known
