"""A real Triton Inference Server on the CPU: the binary of nvidia-pytriton, which carries the python backend only.

The wheel is kept apart from the project's environment: it declares numpy < 2, and only its server is wanted.
"""

from __future__ import annotations

import os
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import uuid
from pathlib import Path

from tests.services.places import cache_folder, made_once
from tests.services.process import Server, ServiceMissing, answers, free_port

VERSION = "0.7.0"
REQUIREMENT = f"nvidia-pytriton=={VERSION}"


def folder() -> Path:
    """Where the wheel is unpacked, whether it is there or not."""
    return cache_folder() / f"pytriton-{VERSION}"


def install() -> None:
    """Fetch it.

    Raises:
        ServiceMissing: pip cannot.
    """

    def fetch(target: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), REQUIREMENT]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            raise ServiceMissing(f"`pip install {REQUIREMENT}` failed:\n{ran.stderr[-1500:]}")

    made_once(folder().name, fetch)


class Triton:
    """A server over a model repository, in explicit control mode, empty at first. It can be killed and started again
    on the same ports."""

    def __init__(self, repository: Path) -> None:
        """Start it. Raises ServiceMissing, ServiceFailed."""
        self.repository = repository
        self._ports = [free_port() for _ in range(3)]
        self._shared_memory = f"endcap{uuid.uuid4().hex[:12]}"
        self._server: Server | None = None
        self.start()

    @property
    def url(self) -> str:
        """gRPC address, host:port."""
        return f"127.0.0.1:{self._ports[1]}"

    def start(self, *models: str) -> None:
        """Start it, with these models loaded."""
        wheel = folder()
        tritonserver = wheel / "pytriton" / "tritonserver"
        if not tritonserver.is_dir():
            raise ServiceMissing(f"{REQUIREMENT} is not unpacked in {cache_folder()} (`make services` does it)")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = tritonserver / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise ServiceMissing(f"nvidia-pytriton {VERSION} has no stub for Python {version}")
        server = Server("triton")
        backends = server.folder / "backends"
        shutil.copytree(tritonserver / "backends" / "python", backends / "python")
        shutil.copy2(stub, backends / "python" / stub.name)
        (backends / "python" / stub.name).chmod(0o755)
        http, grpc, metrics = self._ports
        command = [
            str(tritonserver / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}",
            *("--http-address=127.0.0.1", f"--http-port={http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
            f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
            "--model-control-mode=explicit",
            "--exit-on-error=false",
            *(f"--load-model={model}" for model in models),
        ]
        libraries = [str(sysconfig.get_config_var("LIBDIR")), str(wheel / "nvidia_pytriton.libs")]
        environment = {
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "ENDCAP_TRITON_SITE_PACKAGES": os.pathsep.join(site.getsitepackages()),
        }
        try:
            server.start(command, lambda: answers(f"http://127.0.0.1:{http}/v2/health/ready"), 300, environment)
        except BaseException:
            server.stop()
            raise
        self._server = server

    def kill(self) -> None:
        """SIGKILL to the server and all that it started."""
        assert self._server is not None
        for child in self._server.children():
            os.killpg(child, signal.SIGKILL)
        self._server.stop()
        self._server = None

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        for left in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            left.unlink(missing_ok=True)
