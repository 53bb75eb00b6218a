"""Fetch what the real servers need: ``python -m tests.services.install``.

Maven brings Elasticsearch and OpenSearch, pip Triton, the system's package manager the rest, as far as this user may
use it. What stays missing is named, with the reason; the tests that need it are then skipped and named again (with CI
set: failed).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.services import elasticsearch, opensearch, postgres, triton
from tests.services.places import java_home, made_once, maven_repository
from tests.services.process import ServiceMissing

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>endcap.tests</groupId><artifactId>opensearch</artifactId><version>1</version>
<dependencies><dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
</dependency></dependencies></project>
"""

_refreshed = False


def main() -> int:
    steps: list[tuple[str, Callable[[], None]]] = [
        ("Java 17", lambda: _java(17)),
        ("Java 21", lambda: _java(21)),
        ("Maven", lambda: _program("maven", "mvn")),
        (f"Elasticsearch {elasticsearch.VERSION}", _elasticsearch),
        (f"OpenSearch {opensearch.VERSION}", _opensearch),
        ("Redis", lambda: _program("redis-server", "redis-server", "valkey-server")),
        ("PostgreSQL", _postgres),
        (f"Triton ({triton.REQUIREMENT})", triton.install),
        ("Chromium", lambda: _program("chromium", "chromium", "chromium-browser")),
    ]
    missing = False
    for name, step in steps:
        try:
            step()
            print(f"{name}: ready", flush=True)
        except (ServiceMissing, OSError, subprocess.SubprocessError) as reason:
            missing = True
            print(f"{name}: MISSING: {reason}", flush=True)
    return 1 if missing and os.environ.get("CI") else 0


def _program(package: str, *names: str) -> None:
    if not any(shutil.which(name) for name in names):
        _apt(package)
        if not any(shutil.which(name) for name in names):
            raise ServiceMissing(f"package {package} did not bring {names[0]}")


def _java(at_least: int) -> None:
    try:
        java_home(at_least)
        return
    except ServiceMissing:
        pass
    problem: ServiceMissing | None = None
    # The distribution's default first; then any that it has by name, oldest that is new enough first.
    for package in ("default-jdk-headless", *(f"openjdk-{number}-jdk-headless" for number in range(at_least, 28))):
        try:
            _apt(package)
            java_home(at_least)
            return
        except ServiceMissing as reason:
            problem = problem or reason
    raise problem or ServiceMissing(f"no package of Java {at_least} or newer")


def _postgres() -> None:
    try:
        postgres.programs()
    except ServiceMissing:
        _apt("postgresql")
        postgres.programs()


def _elasticsearch() -> None:
    try:
        elasticsearch.distribution()
    except ServiceMissing:
        _maven("dependency:get", f"-Dartifact={elasticsearch.ARTIFACT}", "-Dtransitive=false")
        elasticsearch.distribution()


def _opensearch() -> None:
    def fetch(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            pom = Path(scratch) / "pom.xml"
            pom.write_text(POM.format(group=opensearch.GROUP, artifact=opensearch.ARTIFACT, version=opensearch.VERSION))
            _maven("-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}")

    made_once(opensearch.libraries().name, fetch)


def _maven(*arguments: str) -> None:
    program = shutil.which("mvn")
    if not program:
        raise ServiceMissing("needs Maven (mvn)")
    ran = subprocess.run(
        [program, "-B", "-q", f"-Dmaven.repo.local={maven_repository()}", *arguments], capture_output=True, text=True
    )
    if ran.returncode:
        raise ServiceMissing(f"`mvn {' '.join(arguments)}` failed:\n{(ran.stdout + ran.stderr)[-1500:]}")


def _apt(package: str) -> None:
    global _refreshed
    by_hand = f"install the package {package} by hand"
    if not shutil.which("apt-get"):
        raise ServiceMissing(f"no apt-get here: {by_hand}")
    prefix = []
    if os.geteuid() != 0:
        if not shutil.which("sudo") or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode:
            raise ServiceMissing(f"neither root nor sudo without a password: `sudo apt-get install {package}`")
        prefix = ["sudo", "-n"]
    if not _refreshed:
        subprocess.run([*prefix, "apt-get", "update", "-qq"], capture_output=True)
        _refreshed = True
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    command = [*prefix, *environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ServiceMissing(f"`apt-get install {package}` failed ({last[0]}): {by_hand}")


if __name__ == "__main__":
    sys.exit(main())
