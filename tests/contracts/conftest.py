"""The implementations that the contract suites run against."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from endcap.engines import Engine
from endcap.engines.elasticsearch import ElasticsearchEngine
from endcap.engines.embedded import EmbeddedEngine
from endcap.settings import Settings
from tests.services import patient

#: Opens an index by name; called again with the same name it is a second user of the same index.
OpenEngine = Callable[[str], Engine]


def _embedded(request: pytest.FixtureRequest) -> OpenEngine:
    folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("embedded")
    return lambda index: EmbeddedEngine(folder, index)


def _elasticsearch(request: pytest.FixtureRequest) -> OpenEngine:
    url: str = request.getfixturevalue("elasticsearch")
    used: set[str] = set()

    def remove() -> None:
        for index in used:
            for name in patient.request("GET", f"{url}/{index}*").json():
                patient.request("DELETE", f"{url}/{name}")

    def open_index(index: str) -> Engine:
        used.add(index)
        return ElasticsearchEngine(Settings(engine_url=url, index=index))

    request.addfinalizer(remove)
    return open_index


#: Every implementation of ``Engine``: a function from the fixture request to an opener. It asks for the server it needs
#: by ``request.getfixturevalue``, carries the server's marker, and removes its indices with ``request.addfinalizer``.
ENGINES = [
    pytest.param(_embedded, id="embedded"),
    pytest.param(_elasticsearch, id="elasticsearch", marks=pytest.mark.elasticsearch),
]


@pytest.fixture(scope="module", params=ENGINES)
def open_engine(request: pytest.FixtureRequest) -> OpenEngine:
    """Opens indices of one implementation."""
    opener: OpenEngine = request.param(request)
    return opener


@pytest.fixture
def index_name() -> str:
    """A name that no other test uses."""
    return f"contract-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def engine(open_engine: OpenEngine, index_name: str) -> Iterator[Engine]:
    """An engine without an index yet."""
    made = open_engine(index_name)
    yield made
    made.close()
