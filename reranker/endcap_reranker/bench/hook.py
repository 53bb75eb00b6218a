"""What the hook costs: over a direct call of the same window, and over the request that the storefront used to send.

A catalogue of real products (Complete Journey) is indexed, its purchases are replayed, the server is started as a
process of its own, and the same searches are sent to it and around it in turns. In front of Elasticsearch, *direct*
is Elasticsearch itself; over the embedded engine it is the same server with personalisation off.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console

from endcap.errors import ConfigurationError
from endcap.events import Action, Event, to_ubi
from endcap.indexing import index_products
from endcap.results import Results
from endcap.runtime import open_database, open_engine
from endcap.settings import Settings, load_settings
from endcap.stores.aliases import Aliases
from endcap.stores.events import EventLog
from endcap.stores.profiles import LogProfiles, Restorer
from endcap_reranker.bench.load import Kind, measure
from endcap_reranker.commands import SERVE
from endcap_reranker.demo.dataset import Journey, load_journey

INDEX = "endcap-bench"
#: (candidates, hits on the page) of the searches.
SHAPES = ((20, 10), (100, 20))
CLIENTS = (1, 8)
WARM_UP = 40
FACETS = {"brand": {"terms": {"field": "brand", "size": 10}}}


def run(requests: int, elasticsearch: str, seed: int) -> Results:
    """All rows. Without ``elasticsearch`` only the embedded engine is measured, and the notes say so."""
    say = Console(stderr=True).print
    say("Reading the data set")
    journey = load_journey()
    results = Results("hook", "endcap bench hook", seed)
    with tempfile.TemporaryDirectory(prefix="endcap-bench-") as folder:
        data = Path(folder)
        events = _replay(data, journey, say)
        engines = {"embedded": ""} | ({"Elasticsearch": elasticsearch} if elasticsearch else {})
        for name, url in engines.items():
            settings = load_settings(
                data_dir=data,
                index=INDEX,
                engine_url=url,
                text_encoder="none",
                window=100,
                database_url="",
                redis_url="",
            )
            say(f"{name}: indexing {len(journey.products):,} products")
            index_journey(settings, journey)
            for candidates, page in SHAPES:
                with running_server({"window": str(candidates), "engine_url": url, "data_dir": folder}) as address:
                    for clients in CLIENTS:
                        say(f"{name}: {candidates} candidates, {clients} clients")
                        row = f"{name}, {candidates} candidates, {clients} client{'s' * (clients > 1)}"
                        direct = f"{url or address}/{INDEX}/_search"
                        results.add(row, _overhead(journey, address, direct, candidates, page, clients, requests, seed))
                    if (candidates, page) == SHAPES[-1] and not url:
                        results.add("events, batches of 500 by HTTP", {"events/s": _ingest(address, seed)})
        results.add("profiles in memory", _memory(data, journey))
    results.notes += [
        f"Milliseconds; {requests} searches a row, in turns, from Python clients on the same machine. "
        f"{events:,} purchases were replayed.",
        "'own': the hook less a direct call of the same window, as median and 99th percentile of the differences of "
        "pairs. 'felt': the hook less the storefront's original request.",
    ]
    if not elasticsearch:
        results.notes.append("Elasticsearch was not measured: give --elasticsearch URL (make bench starts one).")
    return results


def _overhead(
    journey: Journey, address: str, direct: str, candidates: int, page: int, clients: int, requests: int, seed: int
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    titles = np.unique([product.categories[-1] for product in journey.products if product.categories])
    queries = rng.choice(titles, requests + WARM_UP).tolist()
    shoppers = rng.choice(journey.purchases["household"].to_numpy(), 512).tolist()

    def body(size: int) -> list[bytes]:
        return [
            orjson.dumps(
                {
                    "query": {"multi_match": {"query": text, "fields": ["title^3", "brand"]}},
                    "size": size,
                    "aggs": FACETS,
                }
            )
            for text in queries
        ]

    windows, pages = body(candidates), body(page)
    plain = {"Content-Type": "application/json"}
    off = {**plain, "X-Endcap-Personalize": "off"}
    hook = [{**plain, "X-Endcap-Shopper": shopper} for shopper in shoppers]
    url = f"{address}/{INDEX}/_search"
    around = plain if direct != url else off
    kinds = [
        Kind(url, hook[0], pages.__getitem__),
        Kind(direct, around, windows.__getitem__),
        Kind(direct, around, pages.__getitem__),
    ]
    # Every profile is restored once before: the cost of the first search of a shopper is another story.
    for headers in hook[:8]:
        measure([Kind(url, headers, pages.__getitem__)], WARM_UP // 8, 1)
    measure(kinds, WARM_UP, clients)
    through, window, original = measure(kinds, requests, clients)
    own, felt = through - window, through - original
    return {
        "direct p50": float(np.median(window)),
        "hook p50": float(np.median(through)),
        "hook p99": float(np.quantile(through, 0.99)),
        "own p50": float(np.median(own)),
        "own p99": float(np.quantile(own, 0.99)),
        "felt p50": float(np.median(felt)),
        "felt p99": float(np.quantile(felt, 0.99)),
    }


def _replay(data: Path, journey: Journey, say: object) -> int:
    with _log(data) as log:
        return sum(sum(log.append(batch)) for batch in journey.events(journey.shift_to_yesterday()))


@contextmanager
def _log(data: Path) -> Iterator:
    log = EventLog(open_database(load_settings(data_dir=data, database_url="")))
    try:
        yield log
    finally:
        log.close()


def index_journey(settings: Settings, journey: Journey) -> None:
    engine = open_engine(settings)
    try:
        index_products(journey.products, engine, None, rebuild=bool(engine.count()))
    finally:
        engine.close()


@contextmanager
def running_server(changes: Mapping[str, str]) -> Iterator[str]:
    from tempfile import TemporaryFile

    port = _free_port()
    environment = {**os.environ, "ENDCAP_PORT": str(port), "ENDCAP_INDEX": INDEX, "ENDCAP_TEXT_ENCODER": "none"}
    environment |= {"ENDCAP_MAX_EVENTS": "1000", "ENDCAP_DATABASE_URL": "", "ENDCAP_REDIS_URL": ""}
    environment |= {f"ENDCAP_{name.upper()}": value for name, value in changes.items()}
    with TemporaryFile() as output:
        process = subprocess.Popen(SERVE, env=environment, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        address = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 120
            while not _ready(address):
                if process.poll() is not None or time.monotonic() > until:
                    output.seek(0)
                    raise ConfigurationError(
                        f"the server did not start:\n{output.read().decode(errors='replace')[-3000:]}"
                    )
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=2) as answer:  # noqa: S310 - our own address
            state = orjson.loads(answer.read())
            return bool(state.get("personalizing") and state.get("recommending"))
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ingest(address: str, seed: int, batches: int = 100, size: int = 500) -> float:
    bodies = []
    for batch in range(batches + 4):
        events = [
            Event(f"bench-{seed}-{batch}-{n}", time.time(), f"bench-{n}", Action.CLICK, f"{n}") for n in range(size)
        ]
        bodies.append(orjson.dumps([to_ubi(event) for event in events]))
    kind = Kind(f"{address}/v1/events", {"Content-Type": "application/json"}, bodies.__getitem__)
    measure([Kind(kind.url, kind.headers, lambda n: bodies[batches + n])], 4, 1)
    started = time.perf_counter()
    measure([kind], batches, 1)
    return batches * size / (time.perf_counter() - started)


def _memory(data: Path, journey: Journey) -> dict[str, float]:
    """Bytes that Python holds per shopper who is kept, those at hand and bookkeeping included."""
    settings = load_settings(data_dir=data)
    shoppers = journey.purchases["household"].unique().tolist()[:1_000]
    with _log(data) as log:
        aliases = Aliases(log.database, log)
        shape = (settings.profile_bytes, settings.profile_recent, settings.half_life_days)
        profiles = LogProfiles(Restorer(log, aliases, *shape), 6.0)  # room for all of them, at hand for few
        tracemalloc.start()
        largest = max(profiles.get(shopper).nbytes for shopper in shoppers)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {"bytes/shopper": held / len(profiles), "kept": float(len(profiles)), "largest profile": float(largest)}
