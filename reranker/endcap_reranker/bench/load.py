"""Sends requests from threads that keep their connections, and keeps the times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import urllib3


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to ask: a base URL, headers, and the body made of a query's number."""

    url: str
    headers: Mapping[str, str]
    body: Callable[[int], bytes]


class RequestFailed(Exception):
    """A benchmark of failures would measure nothing."""


def measure(kinds: Sequence[Kind], requests: int, clients: int) -> list[np.ndarray]:
    """Milliseconds of every request, per kind; float64 (requests,).

    The kinds take turns request by request, so that what slows the machine down slows all of them down.

    Raises:
        RequestFailed: an answer was not 200.
    """
    times = [np.zeros(requests) for _ in kinds]
    failures: list[str] = []
    counter = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        pools = [_pool(kind.url) for kind in kinds]
        while not failures:
            with lock:
                number = next(counter, None)
            if number is None:
                return
            for place in range(len(kinds)):
                which = (place + number) % len(kinds)
                kind = kinds[which]
                body = kind.body(number)
                started = time.perf_counter()
                answer = pools[which].urlopen("POST", urlsplit(kind.url).path, body=body, headers=dict(kind.headers))
                times[which][number] = (time.perf_counter() - started) * 1000.0
                if answer.status != 200:
                    failures.append(f"{kind.url} answered {answer.status}: {answer.data[:300]!r}")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RequestFailed(failures[0])
    return times


def _pool(url: str) -> urllib3.HTTPConnectionPool:
    parts = urlsplit(url)
    return urllib3.HTTPConnectionPool(str(parts.hostname), parts.port, maxsize=1, retries=False)
