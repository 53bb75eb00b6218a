"""The servers that tests rely on are real, and they go when the test run goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from redis import Redis
from tritonclient.grpc import InferenceServerClient

from tests.services import patient
from tests.services.process import GUARD
from tests.services.triton import Triton
from tests.serving import eventually


def test_elasticsearch_is_real(elasticsearch: str) -> None:
    answer = patient.request("GET", f"{elasticsearch}/_cluster/health")
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert answer.json()["number_of_data_nodes"] == 1


def test_opensearch_is_real(opensearch: str) -> None:
    assert patient.request("GET", opensearch).json()["version"]["distribution"] == "opensearch"


def test_redis_is_real(redis: str) -> None:
    client = Redis.from_url(redis)
    client.set("endcap", "1")
    assert client.getdel("endcap") == b"1"


def test_postgres_is_real(postgres: str) -> None:
    engine = sqlalchemy.create_engine(postgres)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("show server_version_num")).isdigit()
    engine.dispose()


def test_triton_is_real(triton: Triton) -> None:
    with InferenceServerClient(triton.url) as client:
        assert client.get_server_metadata().name == "triton"
        # Not "ready": that waits for every model, and other tests leave some that were made not to load.
        assert client.is_server_live()


def test_chromium_is_real(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p id=p></p><script>document.getElementById('p').textContent = 6 * 7</script>")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert '<p id="p">42</p>' in shown.stdout


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


def _until(holds: Callable[[], bool]) -> None:
    assert eventually(holds), "it did not come about"


@pytest.mark.parametrize("ci", [False, True])
def test_a_missing_server_is_named_and_fails_on_ci(ci: bool, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "ENDCAP_TEST_REDIS_URL"}}
    environment |= {"PATH": str(tmp_path), **({"CI": "true"} if ci else {})}
    name = "tests/services/test_services.py::test_redis_is_real"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert "redis: redis-server is not installed" in ran.stdout
    if ci:
        assert ran.returncode == 1
    else:
        assert ran.returncode == 0
        assert name in ran.stdout.split(" not run ")[1]
