"""A PostgreSQL in which somebody holds a lock: shoppers are served, nothing hangs, and it heals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from endcap.catalog import Product
from endcap.indexing import index_products
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.stores.database import Database, LogUnavailable
from endcap_reranker.app import create_app
from tests.services.postgres import empty
from tests.serving import eventually

CLICK = {"action_name": "click", "client_id": "ann", "event_attributes": {"object": {"object_id": "p3"}}}


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Nobody else reads or writes the table meanwhile."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


@pytest.fixture
def runtime(postgres: str, tmp_path: Path) -> Iterator[Runtime]:
    empty(postgres)
    settings = load_settings(
        data_dir=tmp_path, text_encoder="none", database_url=postgres, database_lock_timeout_s=0.3, deadline_ms=150.0,
        profile_cache_mb=0.0001,
    )  # fmt: skip
    made = open_runtime(settings)
    index_products([Product(id=f"p{n}", title=f"milk {n}") for n in range(9)], made.engine, None)
    made.upkeep.reload()
    assert eventually(lambda: made.upkeep.ready)
    yield made
    made.close()
    empty(postgres)


def search(shop: FlaskClient, shopper: str) -> Any:
    answer = shop.get("/v1/search?q=milk", headers={"X-Endcap-Shopper": shopper})
    assert answer.status_code == 200
    return answer.json


def test_a_lock_that_somebody_holds_degrades_and_heals(runtime: Runtime, postgres: str) -> None:
    shop = create_app(runtime).test_client()
    shop.post("/v1/events", json=CLICK)
    # The deadline is short here, and a busy machine misses it now and then.
    assert eventually(lambda: search(shop, "ann")["ranking"]["personalized"])
    with locked(postgres, "events"):
        answers = [search(shop, f"bob{n}") for n in range(12)]
        assert all(len(one["hits"]) == 9 for one in answers)
        assert all(one["ranking"]["degraded"] for one in answers)  # the deadline; then nobody is free to score
        refused = shop.post("/v1/events", json=CLICK | {"client_id": "bob1"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "lock timeout" in refused.json["detail"]
        assert eventually(lambda: bool(runtime.upkeep.problems)), "nobody is told"
    # Had a thread hung with its connection, the pool would be used up by now.
    assert shop.post("/v1/events", json=CLICK | {"client_id": "bob1"}).json["accepted"] == 1
    assert eventually(lambda: search(shop, "bob1")["ranking"]["personalized"])
    assert eventually(lambda: search(shop, "bob1")["hits"][0]["id"] == "p3")
    assert eventually(lambda: not runtime.upkeep.problems), runtime.upkeep.problems


def test_a_statement_that_does_not_end_is_given_up_but_a_migration_is_not(postgres: str) -> None:
    empty(postgres)
    lock = 0x656E6473  # under which the schema changes
    with psycopg.connect(postgres.replace("postgresql+psycopg", "postgresql")) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (lock,))
        opened: list[Database] = []
        thread = threading.Thread(target=lambda: opened.append(Database(postgres, True, 0.2, 0.2)))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive(), "whoever brings the schema up to date waits for the one who does already"
        holder.execute("SELECT pg_advisory_unlock(%s)", (lock,))
        holder.commit()
        thread.join(60)
    (database,) = opened
    for turn in range(2):  # the limits outlive a transaction that failed
        with pytest.raises(LogUnavailable, match="statement timeout"), database.transaction() as connection:
            connection.exec_driver_sql(f"SELECT pg_sleep(30), {turn}")
    with database.transaction() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "200ms"
    unlimited = Database(postgres)
    with unlimited.transaction() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(0.4)")
    unlimited.close()
    database.close()
