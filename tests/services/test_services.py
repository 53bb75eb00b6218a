"""The servers that tests rely on are real, and they go when the test run goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import urllib3

from tests.services.process import GUARD


def test_elasticsearch_is_real(elasticsearch: str) -> None:
    answer = urllib3.request("GET", f"{elasticsearch}/_cluster/health")
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert answer.json()["number_of_data_nodes"] == 1


def test_a_server_ends_when_the_test_run_is_killed(tmp_path: Path) -> None:
    started, folder = tmp_path / "pid", tmp_path / "data"
    folder.mkdir()
    # A server that ignores SIGTERM for its child: only ending the whole group takes both down.
    server = f"sleep 600 & echo $! > {started}; wait"
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            f"subprocess.Popen([sys.executable, {str(GUARD)!r}, '--log', {str(tmp_path / 'log')!r},\n"
            f"  '--remove', {str(folder)!r}, '--', 'sh', '-c', {server!r}], stdin=subprocess.PIPE,\n"
            "   start_new_session=True)\n"
            "time.sleep(600)",
        ]
    )
    _until(lambda: started.exists() and started.read_text().strip() != "")
    pid = int(started.read_text())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _until(lambda: not _alive(pid))
    _until(lambda: not folder.exists())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}").exists() else True


def _until(holds) -> None:  # type: ignore[no-untyped-def]
    for _ in range(400):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about within 20 s")
