"""Who gets in: tokens and roles of the admin API, rate limits, ports, proxies, and as what a server does not start."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Response
from flask.testing import FlaskClient

from endcap.errors import ConfigurationError
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.stores.audit import AuditLog
from endcap.stores.database import Database
from endcap.stores.tokens import Tokens
from endcap_reranker.admin.access import caller, needs
from endcap_reranker.admin.limits import RateLimit, TooManyRequests
from endcap_reranker.app import create_app
from endcap_reranker.exposure import check_doors, is_loopback
from endcap_reranker.proxies import TrustedProxies
from tests.reranker.hook_support import fresh_call
from tests.reranker.test_hook_serve import served
from tests.serving import eventually

JOBS = "/admin/v1/jobs"
RUNS = "/admin/v1/jobs/no-such-job/runs"
FIXED, SCRAPER = "f" * 40, "s" * 40


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[tuple[Runtime, FlaskClient]]:
    runtime = open_runtime(load_settings(data_dir=folder, text_encoder="none", **settings), start=False)
    try:
        yield runtime, create_app(runtime).test_client()
    finally:
        runtime.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Runtime, FlaskClient]]:
    with opened(tmp_path) as found:
        yield found


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def token(runtime: Runtime, role: str = "admin", **more: Any) -> str:
    return Tokens(runtime.database).create("ann", role, **more)[0]


def test_without_a_good_token_nothing_is_told(shop: tuple[Runtime, FlaskClient]) -> None:
    runtime, client = shop
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"Authorization": "Bearer  "}):
        answer = client.get(JOBS, headers=headers)
        assert answer.status_code == 401
        assert answer.mimetype == "application/problem+json"
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="endcap"'
        assert answer.json["type"] == "urn:endcap:error:token_missing"
    given = token(runtime)
    for wrong in ("x", given[:-1], given.upper(), "ü" * 20):
        answer = client.get(JOBS, headers=bearer(wrong.encode().decode("latin-1")))
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].endswith('error_description="token_unknown"')
    assert client.get(JOBS, headers=bearer(given)).status_code == 200
    Tokens(runtime.database).revoke(given.split("_")[1])
    answer = client.get(JOBS, headers=bearer(given))
    assert (answer.status_code, answer.json["type"]) == (401, "urn:endcap:error:token_revoked")


def test_a_role_may_do_what_it_may(shop: tuple[Runtime, FlaskClient]) -> None:
    runtime, client = shop
    reader, operator = token(runtime, "reader"), token(runtime, "operator")
    assert client.get(JOBS, headers=bearer(reader)).status_code == 200
    answer = client.post(RUNS, json={}, headers=bearer(reader))
    assert (answer.status_code, answer.json["type"]) == (403, "urn:endcap:error:role_too_low")
    assert 'error="insufficient_scope", scope="operator"' in answer.headers["WWW-Authenticate"]
    assert client.post(RUNS, json={}, headers=bearer(operator)).status_code == 404


def test_the_decorator_knows_its_role_and_its_caller(shop: tuple[Runtime, FlaskClient]) -> None:
    runtime, client = shop

    @needs("operator")
    def view(name: str) -> Response:
        return Response(f"{name} {caller().name} {caller().role}")

    assert view.endcap_role == "operator"  # type: ignore[attr-defined]
    with client.application.test_request_context("/", headers=bearer(token(runtime))):
        assert view("x").data == b"x ann admin"


def test_changes_are_written_down_and_looks_are_not(shop: tuple[Runtime, FlaskClient]) -> None:
    runtime, client = shop
    given = token(runtime)
    client.get(JOBS, headers=bearer(given))
    client.post(
        RUNS, json={"parameters": {"password": "s3cret", "days": 3}}, headers=bearer(given) | {"X-Request-Id": "r-7"}
    )
    client.post(RUNS, json={}, headers=bearer("wrong"))
    client.post(RUNS, json={}, headers=bearer(token(runtime, "reader")))
    low, nobody, done = AuditLog(runtime.database).latest()
    assert (done.who, done.role, done.outcome, done.status, done.request_id) == (
        "ann",
        "admin",
        "unknown_job",
        404,
        "r-7",
    )
    assert done.action == "POST /admin/v1/jobs/<job>/runs"
    assert done.parameters == {"job": "no-such-job", "parameters": {"password": "(hidden)", "days": 3}}
    assert (nobody.who, nobody.outcome) == ("", "token_unknown")
    assert (low.who, low.outcome) == ("ann", "role_too_low")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]
)
@pytest.mark.parametrize("path", [RUNS, "/admin/v1/nowhere", "/console/login"])
def test_a_strangers_body_is_not_taken_in(tmp_path: Path, path: str, kind: str) -> None:
    class Endless:
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += 65_536 if size >= 0 else 1_000_000
            assert self.given < 1_000_000, "read on and on"
            return b"a" * 65_536

        readline = read

    with opened(tmp_path, max_body_bytes=100_000) as (runtime, client):
        answer = client.post(
            path,
            environ_overrides={
                "wsgi.input": Endless(), "wsgi.input_terminated": True, "CONTENT_LENGTH": "", "CONTENT_TYPE": kind,
            },
        )  # fmt: skip
        assert answer.status_code in (303, 400, 401, 404, 413)
        (line,) = AuditLog(runtime.database).latest()
        assert (line.who, line.status) == ("", answer.status_code)
        # One who may come in is told that it is too much, and his call is written down all the same.
        known = bearer(token(runtime)) | {"Content-Type": "application/json"}
        assert client.post(RUNS, data=b"[" * 200_000, headers=known).status_code == 413
        assert AuditLog(runtime.database).latest(1)[0].parameters == {"job": "no-such-job", "unreadable": True}


def test_strangers_do_not_fill_the_audit_log(shop: tuple[Runtime, FlaskClient]) -> None:
    runtime, client = shop
    for _ in range(40):
        assert client.post(RUNS, json={}).status_code == 401
    assert len(AuditLog(runtime.database).latest()) == 30
    client.post(RUNS, json={}, headers=bearer(token(runtime)))
    assert AuditLog(runtime.database).latest(1)[0].who == "ann"


def test_guessing_is_stopped_by_address(tmp_path: Path) -> None:
    with opened(tmp_path, login_failures_per_minute=3, trusted_proxies=["127.0.0.1"]) as (runtime, client):
        given = token(runtime)
        here, there = {"X-Forwarded-For": "10.1.1.1"}, {"X-Forwarded-For": "10.1.1.2"}
        for _ in range(3):
            assert client.get(JOBS, headers=bearer("guess") | here).status_code == 401
        answer = client.get(JOBS, headers=bearer(given) | here)
        assert (answer.status_code, answer.json["type"]) == (429, "urn:endcap:error:too_many_requests")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert client.get(JOBS, headers=bearer(given) | there).status_code == 200


def test_calls_are_limited_by_token(tmp_path: Path) -> None:
    with opened(tmp_path, admin_calls_per_minute=5) as (runtime, client):
        eager, calm = token(runtime), token(runtime)
        statuses = [client.get(JOBS, headers=bearer(eager)).status_code for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert client.get(JOBS, headers=bearer(calm)).status_code == 200


def test_a_limit_holds_across_processes_through_redis(redis: str) -> None:
    one, other = (RateLimit("test", 3, redis) for _ in range(2))
    key = uuid.uuid4().hex
    for limit in (one, other, one):
        limit.hit(key)
    with pytest.raises(TooManyRequests):
        other.hit(key)


def test_a_limit_without_its_redis_still_holds_here() -> None:
    limit = RateLimit("test", 2, "redis://127.0.0.1:1/0")
    limit.hit("a")
    limit.hit("a")
    with pytest.raises(TooManyRequests):
        limit.hit("a")
    limit.hit("b")


def test_a_token_from_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="32 characters"):
        load_settings(admin_token="short")
    with opened(tmp_path, admin_token=FIXED) as (_, client):
        assert client.get(JOBS, headers=bearer(FIXED)).status_code == 200
        assert client.get(JOBS, headers=bearer(FIXED[:-1])).status_code == 401


def test_another_token_in_the_environment_ends_the_sessions(tmp_path: Path) -> None:
    with opened(tmp_path, admin_token=FIXED) as (_, client):
        form = re.search(r'name="csrf" value="(\w+)"', client.get("/console/login").text)
        assert form
        client.post("/console/login", data={"csrf": form[1], "token": FIXED})
        assert client.get("/console/tokens").status_code == 200
        cookie = client.get_cookie("endcap_console", path="/console")
        assert cookie is not None
    with opened(tmp_path, admin_token="g" * 40) as (_, client):
        client.set_cookie("endcap_console", cookie.value, path="/console")
        assert client.get("/console/tokens").status_code == 303


def test_the_admin_side_can_be_off(tmp_path: Path) -> None:
    with opened(tmp_path, admin="off") as (runtime, client):
        for path in (JOBS, "/console", "/console/login", "/console/overview", "/admin/v1/openapi.json"):
            answer = client.get(path, headers=bearer(token(runtime)))
            assert (answer.status_code, answer.json["type"]) == (404, "urn:endcap:error:admin_off"), path
        assert client.get("/healthz").status_code == 200


def test_open_to_the_world_it_is_off_until_there_is_a_token(tmp_path: Path) -> None:
    with opened(tmp_path, host="0.0.0.0") as (_, client):
        assert client.get("/console/login").json["type"] == "urn:endcap:error:admin_off"
    with opened(tmp_path, host="0.0.0.0") as (runtime, client):
        given = token(runtime)
        assert client.get("/console/login").status_code == 200
        assert client.get(JOBS, headers=bearer(given)).status_code == 200


def test_with_a_port_of_its_own_the_shop_sees_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, port=8080, admin_port=9090) as (runtime, client):
        given = bearer(token(runtime))
        shop_side, admin_side = "http://shop:8080", "http://ops:9090"
        for path in (JOBS, "/console/login", "/metrics"):
            assert client.get(path, base_url=shop_side, headers=given).status_code == 404, path
            assert client.get(path, base_url=admin_side, headers=given).status_code == 200, path
        for path in ("/v1/search?q=x", "/products/_search", "/"):
            assert client.get(path, base_url=admin_side).status_code == 404, path
        for side in (shop_side, admin_side):
            assert client.get("/readyz", base_url=side).status_code == 200
            assert "problems" not in client.get("/readyz", base_url=side).json
        assert "problems" in client.get("/readyz", base_url=admin_side, headers=given).json
        assert client.get("/metrics", base_url=admin_side).status_code == 401


@pytest.mark.parametrize(
    ("settings", "headers", "shown"),
    [
        ({}, {}, False),  # from this machine: it may be a proxy's that adds no header
        ({"open_metrics": True}, {}, True),
        ({"metrics_token": SCRAPER}, {}, False),
        ({"metrics_token": SCRAPER}, bearer(SCRAPER), True),
        ({"metrics_token": SCRAPER}, bearer(SCRAPER[:-1]), False),
        ({"metrics_token": SCRAPER}, {"Authorization": f"Basic {SCRAPER}"}, False),
        ({}, bearer(""), False),
        ({}, bearer("wrong"), False),
        ({"host": "0.0.0.0", "admin_token": FIXED}, bearer(FIXED), True),
    ],
)
def test_who_sees_the_metrics(tmp_path: Path, settings: Any, headers: dict[str, str], shown: bool) -> None:
    with opened(tmp_path, **settings) as (_, client):
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == (200 if shown else 401)
        assert ("endcap_" in answer.text) == shown
        ready = client.get("/readyz", headers=headers).json
        assert ("problems" in ready, "engine" in ready, "products" in ready) == (shown, shown, shown)
        assert ready["status"] == "ready"


def test_a_readers_token_opens_the_metrics_and_the_scrapers_does_without_the_database(tmp_path: Path) -> None:
    with opened(tmp_path, metrics_token=SCRAPER) as (runtime, client):
        reader = bearer(Tokens(runtime.database).create("prometheus", "reader")[0])
        assert client.get("/metrics", headers=reader).status_code == 200
        assert client.get(JOBS, headers=bearer(SCRAPER)).status_code == 401, "it opens nothing else"
        with sqlite3.connect(tmp_path / "endcap.sqlite") as database:
            database.execute("ALTER TABLE admin_tokens RENAME TO gone")
        assert client.get("/metrics", headers=reader).status_code == 503
        assert "endcap_build_info" in client.get("/metrics", headers=bearer(SCRAPER)).text
        assert "problems" in client.get("/readyz", headers=bearer(SCRAPER)).json


def test_a_metrics_token_is_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"metrics_token.*at least 32"):
        load_settings(data_dir=tmp_path, metrics_token="short")


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ([], "9.9.9.9", "127.0.0.1"),
        (["127.0.0.1"], "9.9.9.9", "9.9.9.9"),
        (["127.0.0.1"], "6.6.6.6, 9.9.9.9", "9.9.9.9"),
        (["127.0.0.0/8", "10.0.0.0/8"], "6.6.6.6, 9.9.9.9, 10.0.0.3", "9.9.9.9"),
        (["127.0.0.0/8", "10.0.0.0/8"], "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        (["127.0.0.1"], "nonsense", "127.0.0.1"),
        (["127.0.0.1"], "2001:db8::7", "2001:db8::7"),
        (["10.0.0.0/8"], "9.9.9.9", "127.0.0.1"),
    ],
)
def test_whom_a_request_is_from(trusted: list[str], forwarded: str, address: str) -> None:
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return []

    TrustedProxies(application, trusted)({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": forwarded}, None)
    assert seen["REMOTE_ADDR"] == address


def test_the_scheme_of_a_trusted_proxy_makes_the_cookie_secure(tmp_path: Path) -> None:
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "9.9.9.9"}
    with opened(tmp_path, trusted_proxies=["127.0.0.1"]) as (_, client):
        assert "; Secure" in client.get("/console/login", headers=https).headers["Set-Cookie"]
    with opened(tmp_path) as (_, client):
        assert "; Secure" not in client.get("/console/login", headers=https).headers["Set-Cookie"]


def _local(store: Tokens) -> None:
    store.create("demo", "admin", local=True)


def _expired(store: Tokens) -> None:
    store.revoke(store.create("demo", "admin", local=True)[1].id)
    store.create("ops", "admin")


def _none(store: Tokens) -> None:
    pass


@pytest.mark.parametrize(
    ("settings", "prepare", "complaint"),
    [
        ({"host": "0.0.0.0"}, _local, "made for this machine only"),
        ({"host": "::"}, _local, "made for this machine only"),
        ({"admin_host": "0.0.0.0", "admin_port": 9090}, _local, "made for this machine only"),
        ({"host": "0.0.0.0", "admin": "on"}, _none, "nobody has a token"),
        ({"admin_port": 8080}, _none, "the shop's own port"),
        ({"host": "0.0.0.0", "admin": "on", "admin_token": FIXED}, _none, ""),
        ({"host": "0.0.0.0", "admin": "off"}, _local, ""),
        ({"host": "0.0.0.0", "admin_port": 9090}, _local, ""),
        ({"host": "0.0.0.0"}, _expired, ""),
        ({"host": "0.0.0.0"}, _none, ""),
        ({}, _local, ""),
    ],
)
def test_a_server_does_not_start_open_to_the_world(
    tmp_path: Path, settings: Any, prepare: Callable[[Tokens], None], complaint: str
) -> None:
    database = Database.in_folder(tmp_path)
    prepare(Tokens(database))
    database.close()
    chosen = load_settings(data_dir=tmp_path, **settings)
    if not complaint:
        check_doors(chosen)
        return
    with pytest.raises(ConfigurationError, match=complaint):
        check_doors(chosen)


def test_what_is_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "no.such.host.invalid", "")))


@pytest.mark.parametrize(
    ("host", "secret", "warned"), [("0.0.0.0", "", True), ("0.0.0.0", "s" * 32, False), ("127.0.0.1", "", False)]
)
def test_unsigned_shoppers_on_an_open_address_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str, secret: str, warned: bool
) -> None:
    check_doors(load_settings(data_dir=tmp_path, text_encoder="none", host=host, shopper_secret=secret, admin="off"))
    assert ("ENDCAP_SHOPPER_SECRET" in caplog.text) is warned


def test_what_is_revoked_or_only_for_this_machine_opens_nothing_in_a_running_server(tmp_path: Path) -> None:
    """Two processes, open to the world, started before there was any token."""
    database = Database.in_folder(tmp_path / "data")
    tokens = Tokens(database)
    # Asking until both processes know must not meet the limits of how often one may ask.
    often = {"embedded_worker": False, "admin_calls_per_minute": 1_000_000, "login_failures_per_minute": 1_000_000}
    with served(tmp_path, "--host", "0.0.0.0", "--port", "0", "--workers", "2", **often) as server:
        place = server.url().replace("0.0.0.0", "127.0.0.1") + JOBS

        def answers(text: str) -> list[int]:
            """Of each process."""
            return [fresh_call("GET", place, headers=bearer(text)).status for _ in server.one_by_one()]

        assert answers("") == [404, 404], "there is no token: nothing is there"
        text, made = tokens.create("ann", "reader")
        local, _ = tokens.create("demo", "admin", local=True)
        assert eventually(lambda: answers(text) == [200, 200])
        assert eventually(lambda: answers(local) == [401, 401])
        tokens.revoke(made.id)
        assert 200 not in answers(text), "it is read anew for every call, in every process"
    database.close()
    assert "Traceback" not in server.log.read_text()


def test_a_session_of_a_token_for_this_machine_does_not_outlive_a_change_of_address(tmp_path: Path) -> None:
    with opened(tmp_path) as (runtime, client):
        text = token(runtime, local=True)
        assert client.get(JOBS, headers=bearer(text)).status_code == 200
    with opened(tmp_path, host="0.0.0.0") as (_, client):
        answer = client.get(JOBS, headers=bearer(text))
        assert (answer.status_code, answer.json["type"]) == (401, "urn:endcap:error:token_local")
