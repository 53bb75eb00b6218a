"""``endcap bench scoring`` with a freshly trained interest model and a real Triton.

Called as ``python -m tests.services.scoring``. Where Triton cannot be had, the reason is printed and the rest is
measured without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from endcap import publishing
from endcap.bundles import load_bundle
from endcap_workers.training.train import Request, train
from tests.services import triton
from tests.services.process import ServiceFailed, ServiceMissing
from tests.workers.train_support import events, shop


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="endcap-bench-") as name:
        folder = Path(name)
        settings = shop(folder / "shop", events())
        made = train(settings, Request(lists=500, epochs=1), folder / "training")
        assert made is not None
        environment = {**os.environ, "ENDCAP_DATA_DIR": str(settings.data_dir)}
        endcap = Path(sys.executable).with_name("endcap")
        command = [str(endcap), "bench", "scoring", "--bundle", str(made.folder), *sys.argv[1:]]
        server: triton.Triton | None = None
        try:
            triton.install()
            (folder / "repository").mkdir()
            server = triton.Triton(folder / "repository")
            bundle = load_bundle(made.folder)
            publishing.write_version(bundle, server.repository, "python")
            publishing.load_into_triton(bundle, server.url)
            environment["ENDCAP_TRITON_URL"] = server.url
        except (ServiceMissing, ServiceFailed) as reason:
            print(f"without Triton: {reason}", file=sys.stderr)
        try:
            return subprocess.run(command, env=environment).returncode
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    sys.exit(main())
