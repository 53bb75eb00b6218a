"""The console without a browser: sessions, forged forms, roles, what each page shows, how long it takes."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from endcap.gates import Verdict
from endcap.registry import open_registry
from endcap.runtime import Runtime
from endcap.stores.audit import AuditLog
from endcap.stores.runs import Runs
from endcap.stores.tokens import ROLES as TOKEN_ROLES
from endcap.stores.tokens import Tokens, allows
from endcap_reranker.app import create_app
from endcap_reranker.console.pages import PAGES
from endcap_reranker.console.sessions import KEY_FILE, key_of
from tests.reranker.demo_support import open_shop, set_up_shop
from tests.serving import eventually, make_bundle

ROLES = {page.name: page.role for page in (importlib.import_module(name).PAGE for name in PAGES)}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("shop")
    settings = set_up_shop(folder, text_encoder="none", admin_calls_per_minute=10_000, login_failures_per_minute=1_000)
    with open_shop(settings) as opened:
        registry = open_registry(settings, opened.database)
        for version in (1, 2):
            made = make_bundle(settings.models_folder, version=version, seed=version)
            registry.add_candidate("interest", str(version), made, {"ndcg@10": 0.5 + version / 100}, {"seed": version})
            registry.judged("interest", str(version), Verdict(True, ("better",)))
        yield opened


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> Flask:
    return create_app(runtime)


@pytest.fixture
def enter(app: Flask, runtime: Runtime) -> Callable[[str], FlaskClient]:
    """A browser that is logged in with a token of the role."""

    def entered(role: str) -> FlaskClient:
        client = app.test_client()
        text, made = Tokens(runtime.database).create(f"{role}'s", role)
        answer = client.post("/console/login", data={"csrf": proof(client, "/console/login"), "token": text})
        assert answer.headers["Location"] == "/console/", answer.text
        client.token, client.text = made, text  # type: ignore[attr-defined]
        return client

    return entered


def proof(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', client.get(path).text)
    assert found
    return found[1]


def send(client: FlaskClient, path: str, page: str = "/console/overview", **fields: Any) -> str:
    """Send a form of the page as a browser does; gives what the next page says."""
    data = {"csrf": proof(client, page), **fields}
    answer = client.post(path, data=data, headers={"Referer": f"http://localhost{page}"}, follow_redirects=True)
    said = re.search(r'<p class="note \w+" role="status">(.*?)</p>', answer.text, re.DOTALL)
    return said[1] if said else answer.text


def test_nobody_sees_a_page_without_a_session(app: Flask) -> None:
    client = app.test_client()
    for name in ROLES:
        answer = client.get(f"/console/{name}")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/login"), name
    assert client.get("/console/overview/part", headers={"X-Endcap-Part": "1"}).status_code == 401
    # Not even with a bearer token: the admin API and the console do not share their ways in.
    assert client.get("/console/overview", headers={"Authorization": "Bearer x"}).status_code == 303


def test_the_cookie_is_the_servers_own_affair(app: Flask, enter: Callable[[str], FlaskClient]) -> None:
    client = app.test_client()
    cookie = SimpleCookie(client.get("/console/login").headers["Set-Cookie"])["endcap_console"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/console")
    assert cookie["secure"] == ""
    secure = SimpleCookie(app.test_client().get("/console/login", base_url="https://localhost").headers["Set-Cookie"])
    assert secure["endcap_console"]["secure"] is True
    # Logging in begins another session: a number that was foisted on a visitor before is worth nothing.
    inside = enter("reader")
    kept = inside.get_cookie("endcap_console", path="/console")
    assert kept is not None
    assert kept.value != cookie.value
    for forged in (kept.value[:-2] + "xx", "x.y.z", "", kept.value.split(".")[0]):
        client.set_cookie("endcap_console", forged, path="/console")
        assert client.get("/console/overview").status_code == 303


def test_a_session_ends_with_its_token_and_with_the_hours(
    enter: Callable[[str], FlaskClient], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = enter("admin")
    assert client.get("/console/overview").status_code == 200
    Tokens(runtime.database).revoke(client.token.id)  # type: ignore[attr-defined]
    answer = client.get("/console/overview", follow_redirects=True)
    assert "was revoked" in answer.text
    assert client.get("/console/overview").status_code == 303
    other = enter("admin")
    later = time.time() + 13 * 3_600
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert other.get("/console/overview").status_code == 303


def test_logging_out(enter: Callable[[str], FlaskClient]) -> None:
    client = enter("reader")
    kept = client.get_cookie("endcap_console", path="/console")
    client.post("/console/logout", data={"csrf": proof(client, "/console/overview")})
    assert client.get_cookie("endcap_console", path="/console") is None
    assert kept is not None
    assert client.get("/console/overview").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, None],
)
def test_forms_from_elsewhere_are_refused(
    enter: Callable[[str], FlaskClient], runtime: Runtime, headers: dict[str, str] | None
) -> None:
    client = enter("admin")
    before = len(Tokens(runtime.database).all())
    fields = {"name": "evil", "role": "admin"}
    good = proof(client, "/console/tokens")
    if headers is None:  # no proof, a wrong one, that of another session
        for one in ({}, {"csrf": "x" * 64}, {"csrf": proof(enter("admin"), "/console/tokens")}):
            client.post("/console/tokens", data=fields | one)
        before += 1
    else:
        client.post("/console/tokens", data=fields | {"csrf": good}, headers=headers)
    assert len(Tokens(runtime.database).all()) == before
    assert {one.outcome for one in AuditLog(runtime.database).latest(1, action="/tokens")} == {"forged_form"}
    assert (
        client.post("/console/tokens", data=fields | {"csrf": good}, headers={"Origin": "http://localhost"}).status_code
        == 200
    )


def test_each_role_sees_its_pages(enter: Callable[[str], FlaskClient]) -> None:
    assert ROLES["overview"] == "reader"
    assert (ROLES["shopper"], ROLES["audit"]) == ("operator", "admin")
    for role in TOKEN_ROLES:
        client = enter(role)
        menu = re.findall(r'href="/console/(\w+)"', client.get("/console/overview").text)
        for name, wanted in ROLES.items():
            assert (client.get(f"/console/{name}").status_code == 200) == allows(role, wanted), (role, name)
            assert (name in menu) == allows(role, wanted), (role, name)


def test_a_reader_changes_nothing(enter: Callable[[str], FlaskClient], runtime: Runtime) -> None:
    client = enter("reader")
    page = client.get("/console/models").text
    assert "Promote" not in page
    assert "Train now" not in page
    said = send(client, "/console/models/interest/1/promote")
    assert "needs the role operator" in said
    assert open_registry(runtime.settings, runtime.database).get("interest", "1").state == "candidate"


def test_every_page_is_safe_to_show(enter: Callable[[str], FlaskClient]) -> None:
    client = enter("admin")
    for name in (*ROLES, "no-such-page", "jobs/runs/no-such-run", "models/interest/no-such"):
        answer = client.get(f"/console/{name}")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        # What the policy forbids is not there to begin with.
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|(src|href|action)=\"?https?://", answer.text), (
            name
        )
        assert answer.status_code == (404 if "no-such" in name else 200), name


def test_what_a_client_sent_stays_text(enter: Callable[[str], FlaskClient], app: Flask) -> None:
    evil = "<script>alert(1)</script>"
    app.test_client().post("/v1/events", json=[{"action_name": evil, "client_id": evil}])
    client = enter("admin")
    for path in ("events", f"shopper?id={evil}&q={evil}", f"audit?who={evil}", f"catalogue?id={evil}"):
        assert eventually(lambda path=path: "&lt;script&gt;" in client.get(f"/console/{path}").text), path
        assert evil not in client.get(f"/console/{path}").text, path


def test_what_was_rejected_names_shoppers_which_a_reader_does_not_see(
    enter: Callable[[str], FlaskClient], app: Flask
) -> None:
    app.test_client().post("/v1/events", json=[{"action_name": "stroll", "client_id": "jane.doe@example.org"}])
    operator, reader = enter("operator"), enter("reader")
    for path in ("/console/events", "/console/events/part"):
        assert eventually(lambda path=path: "jane.doe@example.org" in operator.get(path).text), path
        seen = reader.get(path).text
        assert "stroll" in seen, path  # the reason
        assert "jane.doe" not in seen, path
        assert "the role operator sees it" in seen, path


@pytest.mark.parametrize(("field", "given"), [("planned", "nan"), ("planned", "inf"), ("share", "nan"), ("share", "x")])
def test_a_number_that_is_none_is_refused_in_words(enter: Callable[[str], FlaskClient], field: str, given: str) -> None:
    arms = {"name": "odd", "arm1": "old", "arm2": "new", "profile2": "engine"}
    said = send(enter("operator"), "/console/experiments", "/console/experiments", **{**arms, field: given})
    assert f"a number, not &#39;{given}&#39;" in said


def test_promote_and_roll_back(enter: Callable[[str], FlaskClient], runtime: Runtime) -> None:
    client, registry = enter("operator"), open_registry(runtime.settings, runtime.database)
    page = "/console/models"
    assert "1 is live" in send(client, f"{page}/interest/1/promote", page)
    assert "2 is live" in send(client, f"{page}/interest/2/promote", page)
    assert "+0.01" in client.get(f"{page}/interest/2?with=1").text
    assert "Rolled back: interest 1 is live" in send(client, f"{page}/interest/roll-back", page)
    live = registry.live("interest")
    assert live is not None
    assert live.version == "1"
    assert "1 was the first of interest" in send(client, f"{page}/interest/roll-back", page)
    assert registry.live("interest") is None
    assert "1 is live" in send(client, f"{page}/interest/1/promote", page)
    assert "there is no version" in send(client, f"{page}/interest/99/promote", page)
    assert "pinned" in send(client, f"{page}/interest/1/pin", page)
    assert "is pinned: unpin it first" in send(client, f"{page}/interest/2/promote", page)
    assert "again" in send(client, f"{page}/interest/unpin", page)
    entry = AuditLog(runtime.database).latest(1, action="/unpin")[0]
    assert (entry.who, entry.outcome, entry.address) == ("operator's", "done", "127.0.0.1")
    refused = AuditLog(runtime.database).latest(2, action="promote")
    assert [one.outcome for one in refused] == ["version_conflict", "unknown_version"]


def test_a_skipped_run_is_grey_and_says_why(enter: Callable[[str], FlaskClient], runtime: Runtime, app: Flask) -> None:
    client, runs = enter("operator"), Runs(runtime.database)
    assert "asked for" in send(client, "/console/models/start/train", "/console/models")
    waiting = client.get("/console/overview").text
    assert re.search(r"<dt>Jobs running</dt><dd><b>0</b><span>1 waiting</span>", waiting)
    run = runs.claim("w", ["heavy"])
    assert run is not None
    runs.skip(run.id, "w", "the log holds 3 clicks")
    for page in ("jobs", f"jobs/runs/{run.id}", "models"):
        text = client.get(f"/console/{page}").text
        assert "the log holds 3 clicks" in text, page
        assert "note bad" not in text, page
    assert '<span class="pill ">skipped</span>' in client.get("/console/jobs").text
    assert "Try again" in client.get(f"/console/jobs/runs/{run.id}").text
    assert (
        'endcap_runs{state="skipped"} 1.0'
        in app.test_client().get("/metrics", headers={"Authorization": f"Bearer {client.text}"}).text
    )
    assert "Asked for again" in send(client, f"/console/jobs/runs/{run.id}/retry", f"/console/jobs/runs/{run.id}")
    runs.cancel(run.id)


def test_a_shopper_from_inside(enter: Callable[[str], FlaskClient], runtime: Runtime) -> None:
    client = enter("admin")
    shopper = runtime.log.since(0, 1).shoppers[0]
    before = runtime.rankings.count()
    page = client.get(f"/console/shopper?id={shopper}&q=milk").text
    assert "You bought this" in page
    assert re.search(r'class="move (up|down)"', page)
    assert runtime.rankings.count() == before  # nobody was shown anything
    export = client.post("/console/shopper/export", data={"csrf": proof(client, "/console/shopper"), "id": shopper})
    assert export.mimetype == "application/x-ndjson"
    assert export.text.count('"kind":"event"') == len(runtime.log.of_shopper(shopper, limit=100_000))
    place = f"/console/shopper?id={shopper}"
    runtime.identify("a stranger", shopper)
    assert "<b>1 id</b>" in client.get(place).text
    said = send(client, "/console/shopper/part", place, id=shopper, alias="a stranger")
    assert f"a stranger no longer counts for {shopper}" in said
    assert "parted by hand" in client.get(place).text
    assert "Part this id" not in enter("operator").get(place).text
    assert "not joined" in send(client, "/console/shopper/part", place, id=shopper, alias="nobody")
    assert "counts for" in send(client, "/console/shopper/join", place, id=shopper, alias="a stranger")
    assert AuditLog(runtime.database).latest(1, action="join")[0].parameters["alias"] == "a stranger"
    assert "write the shopper&#39;s id" in send(client, "/console/shopper/erase", place, id=shopper, confirm="no")
    assert f"Everything about {shopper} is erased" in send(
        client, "/console/shopper/erase", place, id=shopper, confirm=shopper
    )
    assert "Nothing is known" in client.get(place).text


def test_a_token_is_shown_once(enter: Callable[[str], FlaskClient], runtime: Runtime) -> None:
    client = enter("admin")
    fields = {"csrf": proof(client, "/console/tokens"), "name": "bob", "role": "reader", "days": "7"}
    text = re.search(r'id="fresh-token">([^<]+)<', client.post("/console/tokens", data=fields).text)
    assert text
    made = Tokens(runtime.database).check(text[1])
    assert (made.name, made.role) == ("bob", "reader")
    assert text[1] not in client.get("/console/tokens").text
    assert "is revoked" in send(client, f"/console/tokens/{made.id}/revoke", "/console/tokens")
    assert "a number" in send(client, "/console/tokens", "/console/tokens", name="x", role="reader", days="soon")


def test_the_overview_counts_what_happened(enter: Callable[[str], FlaskClient], app: Flask, runtime: Runtime) -> None:
    shop = app.test_client()
    runtime.traffic.turn()
    before = runtime.traffic.sums(600)[1]
    for _ in range(3):
        shop.get("/v1/search?q=milk", headers={"X-Endcap-Shopper": "eve"})
    shop.get("/v1/search?q=milk", headers={"X-Endcap-Shopper": "x" * 5_000})
    shop.get("/healthz")
    shop.post("/v1/events", json=[{"action_name": "click", "client_id": "eve"}])
    runtime.traffic.turn()
    after = runtime.traffic.sums(600)[1]

    def grown(name: str) -> float:
        return float(after[name].sum() - before.get(name, after[name] * 0).sum())

    assert grown("requests") == 5
    assert grown("searches:ranked") == 3
    assert grown("degraded:shopper_id") == 1
    assert grown("events:rejected") == 1
    page = enter("reader").get("/console/overview").text
    assert "shopper_id" in page
    assert "Requests a minute" in page


def test_the_key_is_the_owners_only(tmp_path: Path) -> None:
    key = key_of(tmp_path)
    assert key_of(tmp_path) == key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [KEY_FILE]


def test_pages_are_not_slower_than_searches_by_far(enter: Callable[[str], FlaskClient], app: Flask) -> None:
    """The target is 50 ms (docs/benchmarks.md has the figures); here only that no page is of another order."""
    client = enter("admin")

    def best(path: str, clock: Callable[[], float]) -> float:
        """Seconds of computing, however busy the machine is."""
        times = []
        for _ in range(5):
            began = clock()
            assert client.get(path).status_code == 200
            times.append(clock() - began)
        return min(times)

    # A search has its part done by other threads; of a page, what they do meanwhile is not its own.
    search = best("/v1/search?q=milk&explain=true", time.process_time)
    for name in ROLES:
        assert best(f"/console/{name}", time.thread_time) < 20 * search + 0.02, name
