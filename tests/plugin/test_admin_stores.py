"""Tokens, the audit log and the counts of the traffic: what each keeps and, above all, what it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from endcap.cli import endcap
from endcap.errors import InvalidInput
from endcap.stores.audit import MAX_PARAMETERS_BYTES, AuditLog, Entry
from endcap.stores.database import Database
from endcap.stores.tokens import RoleTooLow, TokenRefused, Tokens, UnknownToken, allows
from endcap.stores.traffic import BOUNDS_MS, KEEP_MINUTES, Traffic, bucket, quantile
from tests.services.fixtures import either_database


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def refused(tokens: Tokens, given: str) -> str:
    with pytest.raises(TokenRefused) as caught:
        tokens.check(given)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith('Bearer realm="endcap", error="invalid_token"')
    return caught.value.kind


def test_a_token_opens_until_it_is_revoked(database: Database) -> None:
    tokens = Tokens(database)
    given, made = tokens.create("ann", "operator")
    assert tokens.check(given) == made
    assert tokens.by_id(made.id).name == "ann"
    # Another store over the same database, as in another process.
    Tokens(database).revoke(made.id)
    assert refused(tokens, given) == "token_revoked"
    with pytest.raises(TokenRefused):
        tokens.by_id(made.id)
    assert tokens.usable() == []
    first = tokens.all()[0].revoked
    assert tokens.revoke(made.id).revoked == first
    with pytest.raises(UnknownToken):
        tokens.revoke("0" * 12)


def test_what_is_not_the_token_does_not_open(database: Database) -> None:
    tokens = Tokens(database)
    given, made = tokens.create("ann", "reader")
    other, _ = tokens.create("bob", "admin")
    wrong = [
        "", "x", given[:-1], given + "a", given.swapcase(), f"endcap_{made.id}_" + other.split("_", 2)[2],
        given.replace(made.id, "0" * 12), "endcap_" + "\x00" * 12 + "_", f" {given}", "é" * 60,
    ]  # fmt: skip
    for one in wrong:
        assert refused(tokens, one) == "token_unknown", one


def test_the_database_does_not_hold_the_secret(database: Database, tmp_path: Path) -> None:
    given, _ = Tokens(database).create("ann", "admin")
    secret = given.split("_", 2)[2].encode()  # which may hold underscores itself
    database.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b"ann" in kept
    assert secret not in kept


def test_a_token_expires_by_the_clock(database: Database) -> None:
    clock = Clock()
    tokens = Tokens(database, clock)
    given, made = tokens.create("ann", "admin", days=2)
    clock.now += 2 * 86_400 - 1
    assert tokens.check(given).id == made.id
    clock.now += 1
    assert refused(tokens, given) == "token_expired"


def test_its_use_is_noted_now_and_then(database: Database) -> None:
    clock = Clock()
    tokens = Tokens(database, clock)
    given, _ = tokens.create("ann", "reader")
    seen = []
    for _ in range(4):
        tokens.check(given)
        seen.append(tokens.all()[0].last_used)
        clock.now += 25
    start = 1_800_000_000.0
    assert seen == [start, start, start, start + 75]


@pytest.mark.parametrize(
    ("name", "role", "days"), [("", "reader", None), ("  ", "reader", None), ("x" * 81, "reader", None),
                               ("a", "root", None), ("a", "reader", 0), ("a", "reader", 1e9), ("a", "reader", -1)],
)  # fmt: skip
def test_a_bad_token_is_not_made(database: Database, name: str, role: str, days: float | None) -> None:
    with pytest.raises(InvalidInput):
        Tokens(database).create(name, role, days)
    assert Tokens(database).all() == []


def test_a_name_is_safe_to_print(database: Database) -> None:
    assert Tokens(database).create("\x1b[31mann\n", "reader")[1].name == "?[31mann"


def test_roles_are_ordered() -> None:
    assert allows("admin", "operator")
    assert allows("reader", "reader")
    assert not allows("reader", "operator")
    assert not allows("operator", "admin")
    assert 'scope="admin"' in RoleTooLow("reader", "admin").headers["WWW-Authenticate"]


def test_tokens_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("ENDCAP_DATABASE_URL", raising=False)

    def run(*arguments: str) -> tuple[str, str]:
        result = CliRunner().invoke(endcap, ["token", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout, result.stderr

    given, said = run("create", "--role", "operator", "--name", "ann", "--days", "30")
    assert given.strip() not in said
    database = Database.in_folder(tmp_path / "data")
    token = Tokens(database).check(given.strip())
    assert (token.name, token.role) == ("ann", "operator")
    assert token.expires is not None
    assert abs(token.expires - time.time() - 30 * 86_400) < 60
    listed, _ = run("list")
    assert token.id in listed
    assert given.strip() not in listed
    run("revoke", token.id)
    assert refused(Tokens(database), given.strip()) == "token_revoked"
    database.close()
    assert CliRunner().invoke(endcap, ["token", "create", "--role", "root"]).exit_code == 2


def test_the_audit_log_keeps_what_was_done_and_no_secret(database: Database) -> None:
    audit = AuditLog(database)
    audit.write(
        Entry(
            "POST /admin/v1/tokens", "/admin/v1/tokens", 201, "done", "abc", "ann", "admin", "10.0.0.1",
            {"name": "bob", "token": "s3cret", "deep": [{"engine_password": "s3cret", "url": "redis://u:s3cret@h/0"}]},
            "r1",
        )
    )  # fmt: skip
    audit.write(Entry("DELETE /x", who="bob", parameters={"long": "y" * 20_000}))
    newest, oldest = audit.latest()
    assert oldest.parameters == {
        "name": "bob",
        "token": "(hidden)",
        "deep": [{"engine_password": "(hidden)", "url": "redis://u:***@h/0"}],
    }
    assert (oldest.who, oldest.status, oldest.address, oldest.request_id) == ("ann", 201, "10.0.0.1", "r1")
    assert newest.parameters is not None
    assert newest.parameters["bytes"] > MAX_PARAMETERS_BYTES
    assert [one.who for one in audit.latest(who="ann")] == ["ann"]
    assert [one.who for one in audit.latest(who="abc")] == ["ann"]
    assert [one.who for one in audit.latest(action="DELETE")] == ["bob"]
    assert audit.latest(action="%") == []
    assert [one.who for one in audit.latest(before=newest.sequence)] == ["ann"]
    assert audit.forget_before(time.time() + 1) == 2


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Either kind."""
    with either_database(request, tmp_path, "traffic") as made:
        yield made


def test_the_traffic_of_all_servers_adds_up(shared_database: Database) -> None:
    clock = Clock(1_800_000_000.0)  # the beginning of a minute
    one, other = Traffic(shared_database, clock), Traffic(shared_database, clock)
    one.add({"requests": 2, "degraded:deadline": 1})
    one.turn()
    one.add({"requests": 3})
    other.add({"requests": 5})
    clock.now += 60
    other.add({"requests": 7})
    one.turn()
    other.turn()
    starts, counts = one.sums(3)
    assert starts.tolist() == [1_799_999_940, 1_800_000_000, 1_800_000_060]
    assert counts["requests"].tolist() == [0, 10, 7]
    assert counts["degraded:deadline"].tolist() == [0, 1, 0]
    starts, counts = one.sums(60, 30)
    assert starts.tolist() == [1_799_998_200, 1_800_000_000]
    assert counts["requests"].tolist() == [0, 17]
    clock.now += 60 * (KEEP_MINUTES + 1)
    one.add({"requests": 1})
    one.turn()
    assert one.sums(2 * KEEP_MINUTES, 60)[1]["requests"].sum() == 1


def test_counts_wait_while_the_database_is_away(tmp_path: Path) -> None:
    database = Database.in_folder(tmp_path)
    traffic = Traffic(database)
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE traffic RENAME TO away"))
    traffic.add({"requests": 4})
    with pytest.raises(Exception, match="traffic"):
        traffic.turn()
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO traffic"))
    traffic.add({"requests": 1})
    traffic.turn()
    assert traffic.sums(5)[1]["requests"].sum() == 5
    database.close()


def test_times_are_told_from_buckets() -> None:
    draw = np.random.default_rng(3)
    times = np.exp(draw.normal(1.5, 0.7, 20_000))
    buckets = np.bincount([bucket(one) for one in times.tolist()], minlength=len(BOUNDS_MS) + 1)
    for share in (0.1, 0.5, 0.95, 0.99):
        assert quantile(buckets, share) == pytest.approx(np.quantile(times, share), rel=0.06)
    assert quantile(np.zeros(len(BOUNDS_MS) + 1), 0.5) is None
    late = np.zeros(len(BOUNDS_MS) + 1)
    late[bucket(1e9)] = 1
    assert quantile(late, 0.5) == BOUNDS_MS[-1]
