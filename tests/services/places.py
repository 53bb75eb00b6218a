"""Where the tests find what they did not bring: the cache of unpacked servers, Java, Maven's repository."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.process import ServiceMissing


def cache_folder() -> Path:
    """Outside the checkout, kept between runs, readable for the unprivileged user that servers run as under root."""
    chosen = os.environ.get("ENDCAP_TEST_CACHE")
    if chosen:
        folder = Path(chosen)
    elif os.geteuid() == 0:
        folder = Path("/var/cache/endcap-tests")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "endcap-tests"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time, across test runs."""
    with open(cache_folder() / f".{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder ``name``; ``make`` fills it the first time. Never half made: it is renamed into place."""
    folder = cache_folder() / name
    with locked(name):
        if not folder.exists():
            scratch = Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=cache_folder()))
            try:
                make(scratch)
                for one in (scratch, *scratch.rglob("*")):
                    one.chmod(one.stat().st_mode | (0o555 if one.is_dir() or one.stat().st_mode & 0o100 else 0o444))
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def maven_repository() -> Path:
    """Maven's local repository."""
    return Path(os.environ.get("MAVEN_REPO_LOCAL") or Path.home() / ".m2" / "repository")


def java_home(at_least: int) -> Path:
    """The oldest Java that is new enough: servers are tried by their makers on those, rarely on the newest.

    Raises:
        ServiceMissing: there is none.
    """
    candidates = [os.environ.get("ES_JAVA_HOME"), os.environ.get("JAVA_HOME")]
    for parent in (Path("/usr/lib/jvm"), Path("/opt/java"), Path("/opt")):
        if parent.is_dir():
            candidates += [str(one) for one in sorted(parent.iterdir())]
    on_path = shutil.which("java")
    if on_path:
        candidates.append(str(Path(on_path).resolve().parents[1]))
    found: dict[Path, int] = {}
    for candidate in candidates:
        if candidate and (Path(candidate) / "bin" / "java").is_file():
            home = Path(candidate).resolve()
            if home not in found:
                found[home] = _java_version(home)
    fit = sorted((version, str(home)) for home, version in found.items() if version >= at_least)
    if not fit:
        have = ", ".join(str(version) for version in sorted(found.values())) or "none"
        raise ServiceMissing(f"needs Java {at_least} or newer; found {have} (`make services` installs it)")
    return Path(fit[0][1])


def _java_version(home: Path) -> int:
    ran = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True)
    match = re.search(r'version "(?:1\.)?(\d+)', ran.stderr + ran.stdout)
    return int(match.group(1)) if match else 0
