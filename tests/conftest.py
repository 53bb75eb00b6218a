"""Real servers as fixtures, and a report of every test that was not run."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from endcap.stores.database import Database
from tests.services.fixtures import (
    chromium,
    elasticsearch,
    opensearch,
    postgres,
    redis,
    secured_elasticsearch,
    shared_dir,
    triton,
)
from tests.serving import interest_bundle, interest_model

__all__ = [
    "chromium",
    "elasticsearch",
    "interest_bundle",
    "interest_model",
    "opensearch",
    "postgres",
    "redis",
    "secured_elasticsearch",
    "shared_dir",
    "triton",
]

#: Fixture -> marker that a test gets for using it, so that `-m "not elasticsearch"` needs no care in the tests.
MARKERS = {
    "elasticsearch": "elasticsearch",
    "secured_elasticsearch": "elasticsearch",
    "opensearch": "opensearch",
    "redis": "redis",
    "postgres": "postgres",
    "triton": "triton",
    "chromium": "browser",
    "shared_dir": "shared",
}

# A server that a test starts is alone, unless the test is about the worker beside it.
os.environ.setdefault("ENDCAP_EMBEDDED_WORKER", "false")
# A busy machine is not the point either: tests of deadlines set their own.
os.environ.setdefault("ENDCAP_DEADLINE_MS", "60000")
os.environ.setdefault("ENDCAP_ENGINE_TIMEOUT_S", "60")
hypothesis_settings.register_profile(
    "patient", hypothesis_settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("patient")

_deselected: list[str] = []


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty one, in the test's folder."""
    with closing(Database.in_folder(tmp_path)) as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in getattr(item, "fixturenames", ()):
            if name in MARKERS:
                item.add_marker(MARKERS[name])


def pytest_deselected(items: list[pytest.Item]) -> None:
    _deselected.extend(item.nodeid for item in items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what did not run, and why, and what needed a second try: silence must never look like success."""
    again = terminalreporter.stats.get("rerun", [])
    if again:
        terminalreporter.section("needed a second try")
        for name in sorted({report.nodeid for report in again}):
            terminalreporter.write_line(f"  {name}")
    reasons: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[why.removeprefix("Skipped: ")].append(report.nodeid)
    for report in terminalreporter.stats.get("xfailed", []):
        reasons[f"expected to fail: {report.wasxfail}"].append(report.nodeid)
    if len(_deselected) > 20:
        reasons["deselected on the command line"].append(f"{len(_deselected)} tests")
    elif _deselected:
        reasons["deselected on the command line"].extend(_deselected)
    if not reasons:
        terminalreporter.write_line("every collected test ran")
        return
    terminalreporter.section("not run")
    for why, names in sorted(reasons.items()):
        terminalreporter.write_line(f"{why}:")
        for name in sorted(names):
            terminalreporter.write_line(f"  {name}")
