"""Run a command in front of a real Elasticsearch: ``python -m tests.services.run endcap bench hook``.

The server's URL is given to the command as ``ENDCAP_ENGINE_URL``. Where it cannot be started, the reason is printed
and the command runs without it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.services import elasticsearch
from tests.services.process import ServiceFailed, ServiceMissing


def main() -> int:
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: python -m tests.services.run COMMAND…")
    try:
        server, url = elasticsearch.start()
    except (ServiceMissing, ServiceFailed) as reason:
        print(f"without Elasticsearch: {reason}", file=sys.stderr)
        return subprocess.run(command).returncode
    try:
        return subprocess.run(command, env={**os.environ, "ENDCAP_ENGINE_URL": url}).returncode
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
