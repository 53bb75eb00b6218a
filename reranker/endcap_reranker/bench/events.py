"""How fast what shoppers do is taken in, and how soon it shows: ingest into each database, and from a click to another
order of the next search.
"""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import orjson
import urllib3
from rich.console import Console

from endcap.events import Action, Event, to_ubi
from endcap.features import FEATURES
from endcap.profiles import MOST_BYTES
from endcap.results import Results
from endcap.settings import load_settings
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.profiles import LogProfiles, Restorer
from endcap.stores.rankings import Rankings, Served
from endcap_reranker.bench import hook
from endcap_reranker.demo.dataset import Journey, load_journey

BATCH = 500
#: Events in the log of the shopper who has a million.
MILLION = 1_000_000
_GIVE_UP_S = 2.0


def run(requests: int, database: str, redis: str, seed: int, fill: int = 300_000) -> Results:
    """All rows. PostgreSQL and Redis are measured where their URLs are given; the notes say what was not."""
    say = Console(stderr=True).print
    results = Results("events", "endcap bench events", seed)
    with tempfile.TemporaryDirectory(prefix="endcap-bench-") as folder:
        say("SQLite")
        opened = Database.in_folder(Path(folder))
        results.add("SQLite, by library", _ingest(opened, seed, fill))
        results.add("SQLite, a shopper with a million events", _million(opened, seed))
        opened.close()
    if database:
        say("PostgreSQL")
        opened = Database(database)
        results.add("PostgreSQL, by library", _ingest(opened, seed, fill))
        opened.close()
    say("Reading the data set")
    journey = load_journey()
    ways = [("in process, 1 server process", {"server_workers": "1"})]
    ways.append(("in process, 2 server processes", {"server_workers": "2"}))
    if redis:
        ways.append(("Redis, 2 server processes", {"server_workers": "2", "redis_url": redis}))
    with tempfile.TemporaryDirectory(prefix="endcap-bench-") as folder:
        say(f"indexing {len(journey.products):,} products")
        settings = load_settings(
            data_dir=Path(folder), index=hook.INDEX, engine_url="", text_encoder="none", database_url="", redis_url=""
        )
        hook.index_journey(settings, journey)
        for name, changes in ways:
            say(f"from a click to another order: {name}")
            with hook.running_server({"data_dir": folder, "engine_url": "", **changes}) as address:
                results.add(f"click to changed order, {name}", _click_to_order(journey, address, requests, seed))
    results.notes += [
        f"Ingest: batches of {BATCH} new events, half of them with a query_id, after {fill:,} others are there; "
        "rankings of 20 products, every tenth with features. events/CPU s: per second that this process computes, "
        "which says more on a busy machine; SQLite computes in it, PostgreSQL does not.",
        "Milliseconds from sending a shopper's first click (on the tenth product) until the first answer in another "
        "order, both by HTTP, searching again until it comes.",
    ]
    for name, given in (("PostgreSQL", database), ("Redis", redis)):
        if not given:
            results.notes.append(f"{name} was not measured: give its URL.")
    return results


def _ingest(database: Database, seed: int, fill: int) -> dict[str, float]:
    draw, log, rankings = random.Random(seed), EventLog(database), Rankings(database)  # noqa: S311
    now = time.time()
    for batch in _batches(draw, now - 86_400.0, fill // 20_000, 20_000):
        log.append(batch)
    batches = list(_batches(draw, now, 120, BATCH))
    started, busy = time.perf_counter(), time.process_time()
    for batch in batches:
        log.append(batch)
    events = len(batches) * BATCH / (time.perf_counter() - started)
    per_cpu = len(batches) * BATCH / (time.process_time() - busy)
    served = [[_served(draw, now) for _ in range(BATCH)] for _ in range(20)]
    started = time.perf_counter()
    for page in served:
        rankings.append(page)
    rate = len(served) * BATCH / (time.perf_counter() - started)
    return {"events/s": events, "events/CPU s": per_cpu, "rankings/s": rate}


def _batches(draw: random.Random, now: float, count: int, size: int) -> Iterator[list[Event]]:
    for batch in range(count):
        yield [
            Event(
                uuid.uuid4().hex,
                now + batch + n / size,
                f"shopper-{draw.randrange(50_000)}",
                Action.CLICK,
                f"{draw.randrange(50_000)}",
                session=f"session-{draw.randrange(90_000)}",
                query_id=uuid.uuid4().hex if n % 2 else "",
                position=1 + n % 20,
            )
            for n in range(size)
        ]


def _served(draw: random.Random, now: float) -> Served:
    features = np.zeros((20, len(FEATURES)), dtype=np.float16) if draw.random() < 0.1 else None
    return Served(
        uuid.uuid4().hex,
        now,
        f"shopper-{draw.randrange(50_000)}",
        tuple(f"{draw.randrange(50_000)}" for _ in range(20)),
        query="organic milk",
        endpoint="hook",
        engine_positions=tuple(range(1, 21)),
        candidates=100,
        scores=np.zeros(20, dtype=np.float32),
        features=features,
        feature_names=FEATURES if features is not None else (),
    )


def _million(database: Database, seed: int) -> dict[str, float]:
    log, draw = EventLog(database), random.Random(seed)  # noqa: S311
    source = (Event(f"m{n}", 1.7e9 + n, "million", Action.CLICK, f"{draw.randrange(50_000)}") for n in range(MILLION))
    sum(log.append_many(source))
    restorer = Restorer(log, Aliases(database, log), MOST_BYTES, 50, 30.0)
    started = time.perf_counter()
    profile = LogProfiles(restorer, 64.0).get("million")
    return {"profile from the log ms": (time.perf_counter() - started) * 1000.0, "bytes": float(profile.nbytes)}


def _click_to_order(journey: Journey, address: str, requests: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    titles = np.unique([product.categories[-1] for product in journey.products if product.categories])
    host = urlsplit(address)
    pool = urllib3.HTTPConnectionPool(str(host.hostname), host.port, maxsize=1)
    times: list[float] = []
    tries: list[int] = []
    unmoved = 0
    for text in rng.choice(titles, requests).tolist():
        shopper = f"bench-{uuid.uuid4().hex}"
        body = orjson.dumps({"query": {"multi_match": {"query": text, "fields": ["title^3", "brand"]}}, "size": 20})
        before = _order(pool, shopper, body)
        if len(before) < 10:
            continue
        click = Event(uuid.uuid4().hex, time.time(), shopper, Action.CLICK, before[9])
        started = time.perf_counter()
        sent = pool.request("POST", "/v1/events", body=orjson.dumps(to_ubi(click)), headers=_JSON)
        if sent.status != 200:
            raise RuntimeError(f"the click was answered {sent.status}: {sent.data[:300]!r}")
        number = 0
        while time.perf_counter() - started < _GIVE_UP_S:
            number += 1
            if _order(pool, shopper, body) != before:
                break
        else:
            unmoved += 1  # what stands above it is liked by far more people
            continue
        times.append((time.perf_counter() - started) * 1000.0)
        tries.append(number)
    return {
        "clicks": float(len(times) + unmoved),
        "without effect": float(unmoved),
        "p50": float(np.median(times)),
        "p95": float(np.quantile(times, 0.95)),
        "max": float(np.max(times)),
        "in the very next search %": 100.0 * float(np.mean(np.array(tries) == 1)),
    }


_JSON = {"Content-Type": "application/json"}


def _order(pool: urllib3.HTTPConnectionPool, shopper: str, body: bytes) -> list[str]:
    headers = {**_JSON, "X-Endcap-Shopper": shopper, "Connection": "close"}  # so that both processes take their turns
    answer = pool.request("POST", f"/{hook.INDEX}/_search", body=body, headers=headers)
    return [hit["_id"] for hit in orjson.loads(answer.data)["hits"]["hits"]]
