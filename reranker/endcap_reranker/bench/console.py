"""What the console's pages cost: each is asked for many times in process, over the installation of the settings."""

from __future__ import annotations

import importlib
import re
import time

import numpy as np
from flask.testing import FlaskClient

from endcap.errors import ConfigurationError
from endcap.results import Results
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app
from endcap_reranker.console.pages import PAGES


def run(requests: int, seed: int) -> Results:
    """A row per page: milliseconds of the server's work, and the page's size.

    Raises:
        ConfigurationError: the console is switched off.
    """
    settings = load_settings(admin_calls_per_minute=10_000_000)
    results = Results("console", "endcap bench console", seed)
    runtime = open_runtime(settings)
    tokens = Tokens(runtime.database)
    text, made = tokens.create("bench", "admin", days=0.1)
    try:
        runtime.upkeep.wait_ready(120)
        client = _entered(runtime, text)
        for name in PAGES:
            page = importlib.import_module(name).PAGE
            results.add(page.title, _measure(client, f"/console/{page.name}", requests))
        shoppers = runtime.log.since(0, 1).shoppers
        if shoppers:
            path = f"/console/shopper?id={shoppers[0]}&q=milk"
            results.add("Shopper, both orders of a search", _measure(client, path, requests))
        said = f"Milliseconds; CPU: of the process, in the mean. {requests} requests a page, one client."
        results.notes.append(f"{said} {runtime.log.count():,} events in the log.")
    finally:
        tokens.revoke(made.id)
        runtime.close()
    return results


def _entered(runtime: Runtime, token: str) -> FlaskClient:
    client = create_app(runtime).test_client()
    proof = re.search(r'name="csrf" value="(\w+)"', client.get("/console/login").text)
    if proof is None:
        raise ConfigurationError("the console is switched off (setting admin)")
    client.post("/console/login", data={"csrf": proof[1], "token": token})
    return client


def _measure(client: FlaskClient, path: str, requests: int) -> dict[str, float]:
    times = np.zeros(requests)
    size, worked = 0, 0.0
    for number in range(-3, requests):
        began = time.perf_counter()
        answer = client.get(path)
        took = (time.perf_counter() - began) * 1000.0
        if answer.status_code != 200:
            raise ConfigurationError(f"{path} answered {answer.status_code}")
        size = len(answer.data)
        if number >= 0:
            times[number] = took
        else:
            worked = time.process_time()
    p50, p99 = np.quantile(times, (0.5, 0.99))
    worked = (time.process_time() - worked) * 1000.0 / requests
    return {"p50 ms": float(p50), "p99 ms": float(p99), "CPU ms": worked, "kB": size / 1000.0}
