"""Session-wide fixtures that give tests a real server, started on first use.

``ENDCAP_TEST_ELASTICSEARCH_URL`` (and likewise for the others) names a server that already runs: handy while
developing, as the start is then saved. Such a server is never stopped, and tests keep to names of their own on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from endcap.stores.database import Database
from tests.services import elasticsearch as elasticsearch_service
from tests.services import opensearch as opensearch_service
from tests.services import postgres as postgres_service
from tests.services import redis as redis_service
from tests.services import triton as triton_service
from tests.services.process import Server, ServiceFailed, ServiceMissing


def on_ci() -> bool:
    """Whether a missing server is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(reason: str) -> None:
    """Skip with the reason, or fail where nothing may be missing."""
    if on_ci():
        pytest.fail(f"{reason} (with CI set, a missing server is a failure)", pytrace=False)
    pytest.skip(reason)


def _serve(name: str, start: Callable[[], tuple[Server, str]]) -> Iterator[str]:
    running = os.environ.get(f"ENDCAP_TEST_{name.upper()}_URL")
    if running:
        yield running
        return
    try:
        try:
            server, url = start()
        except ServiceFailed:  # another program took the port between looking and starting, say
            server, url = start()
    except ServiceMissing as reason:
        missing(f"{name}: {reason}")
        return
    try:
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[str]:
    """URL of a real Elasticsearch 8.19 without security. It lacks language analyzers, Painless and ``GET /``."""
    yield from _serve("elasticsearch", elasticsearch_service.start)


@pytest.fixture(scope="session")
def secured_elasticsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[elasticsearch_service.Secured]:
    """A second real Elasticsearch, with TLS and passwords."""
    try:
        server, secured = elasticsearch_service.start_secured(tmp_path_factory.mktemp("secured"))
    except ServiceMissing as reason:
        missing(f"elasticsearch: {reason}")
        return
    try:
        yield secured
    finally:
        server.stop()


@pytest.fixture(scope="session")
def opensearch() -> Iterator[str]:
    """URL of a real OpenSearch 3.8, with analyzers and Painless, without the kNN plugin."""
    yield from _serve("opensearch", opensearch_service.start)


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """URL of a real, empty Redis."""
    yield from _serve("redis", redis_service.start)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """SQLAlchemy URL of a real, empty PostgreSQL."""
    yield from _serve("postgres", postgres_service.start)


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton_service.Triton]:
    """A real Triton with the python backend, in explicit mode, over an empty repository."""
    try:
        server = triton_service.Triton(tmp_path_factory.mktemp("triton"))
    except ServiceMissing as reason:
        missing(f"triton: {reason}")
        return
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a real Chromium for Playwright's ``executable_path``; start it with ``--no-sandbox`` as root."""
    found = os.environ.get("ENDCAP_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        missing("browser: Chromium is not installed (`make services` does it)")
    return str(found)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference data: ``ENDCAP_SHARED``, else the folder ``shared`` beside the checkout. Never in the repository."""
    folder = Path(os.environ.get("ENDCAP_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    if not folder.is_dir():
        pytest.skip("shared: no folder `shared` beside the checkout (or ENDCAP_SHARED), so its data cannot be read")
    return folder


@contextmanager
def either_database(request: pytest.FixtureRequest, folder: Path, *tables: str) -> Iterator[Database]:
    """SQLite in the folder or PostgreSQL, as ``request.param`` says; there, nothing is left in these tables."""
    if request.param == "sqlite":
        made = Database.in_folder(folder)
    else:
        made = Database(request.getfixturevalue("postgres"))
        with made.transaction() as connection:
            for table in tables:
                connection.exec_driver_sql(f"DELETE FROM {table}")
    with closing(made):
        yield made
