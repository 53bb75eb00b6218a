"""How much memory ``endcap train`` needs at most, and how long it takes, on a made-up event log of any length."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console

from endcap.catalog.product import Product
from endcap.events import Action, Event
from endcap.indexing import index_products
from endcap.results import Results
from endcap.runtime import open_runtime
from endcap.settings import load_settings
from endcap_reranker.bench import catalogue

#: Events of each shopper, on average: half of them come once and never again.
PER_SHOPPER = 8
DAYS = 400
_START = 1_700_000_000.0
#: Visits that are made at once.
_BLOCK = 20_000
_KINDS = np.array([Action.VIEW, Action.CLICK, Action.CART, Action.PURCHASE], dtype=np.uint8)
_OFTEN = (0.55, 0.25, 0.1, 0.1)
#: One visit in so many begins with a search.
_SEARCHES = 5


def run(seed: int, events: int, products: int = 50_000) -> Results:
    """Makes a shop and its log in a temporary folder, and trains on it in a process of its own.

    Raises:
        RuntimeError: training failed; with what it said.
    """
    say = Console(stderr=True).print
    results = Results("train-memory", f"endcap bench train-memory --events {events}", seed)
    with tempfile.TemporaryDirectory(prefix="endcap-bench-") as folder:
        settings = load_settings(data_dir=Path(folder), index="shop", engine_url="", text_encoder="none")
        runtime = open_runtime(settings, start=False)
        try:
            began = time.perf_counter()
            stock = list(catalogue.products(products, seed))
            index_products(stock, runtime.engine, None)
            say(f"{products:,} products: {time.perf_counter() - began:.0f} s")
            began = time.perf_counter()
            done = 0
            for new in runtime.log.append_many(islice(behaviour(events, stock, seed), events)):
                done += new
                if done % 1_000_000 < 20_000:
                    say(f"{done:,} events: {time.perf_counter() - began:.0f} s")
        finally:
            runtime.close()
        del stock
        size = sum(one.stat().st_size for one in Path(folder).rglob("*.sqlite*"))
        environment = {**os.environ, "ENDCAP_DATA_DIR": folder, "ENDCAP_INDEX": "shop", "ENDCAP_TEXT_ENCODER": "none"}
        environment |= {"ENDCAP_ENGINE_URL": "", "ENDCAP_DATABASE_URL": ""}
        began = time.perf_counter()
        output = Path(folder) / "output.txt"
        command = [str(Path(sys.executable).with_name("endcap")), "train", "--seed", str(seed)]
        with output.open("wb") as file:
            child = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603
            try:
                _, status, used = os.wait4(child.pid, 0)
            except BaseException:
                child.kill()
                raise
        child.returncode = os.waitstatus_to_exitcode(status)
        said = output.read_text(errors="replace")
        if child.returncode:
            raise RuntimeError(f"training ended with {child.returncode}: {said[-2_000:]}")
        results.add(
            f"{done:,} events of {done // PER_SHOPPER:,} shoppers",
            {
                "GiB at most": used.ru_maxrss / 2**20,
                "minutes": (time.perf_counter() - began) / 60.0,
                "CPU minutes": (used.ru_utime + used.ru_stime) / 60.0,
                "GB of log": size / 1e9,
            },
        )
    results.notes += [line for line in said.splitlines() if "lists" in line or "epoch" in line]
    results.notes.append(
        f"{products:,} products, {DAYS} days. The most memory of the training process (ru_maxrss), the pages of the "
        "mapped lists included, which the system takes back where it needs them."
    )
    return results


def behaviour(count: int, stock: list[Product], seed: int) -> Iterator[Event]:
    """At least ``count`` events in the order of time: visits of a few actions within one category or two."""
    draw = np.random.default_rng(seed)
    shoppers = max(count // PER_SHOPPER, 2)
    shelves: dict[str, list[str]] = {}
    for product in stock:
        shelves.setdefault(product.categories[-1], []).append(product.id)
    names = list(shelves)
    share = np.array([len(shelves[name]) for name in names], dtype=np.float64)
    share /= share.sum()
    made = visit = 0
    while made < count:
        size = _BLOCK
        # Half of the visits are of shoppers who come often, a tenth of all.
        often = draw.random(size) < 0.5
        who = np.where(often, draw.integers(0, max(shoppers // 10, 1), size), draw.integers(0, shoppers, size))
        shelf = draw.choice(len(names), size, p=share)
        lengths = np.minimum(draw.geometric(0.25, size), 30)
        kinds = draw.choice(_KINDS, int(lengths.sum()), p=_OFTEN)
        # Few products of a shelf are most of what is bought.
        place = draw.random(int(lengths.sum())) ** 3
        # The mean visit has some four events and a fifth of a search.
        moment = _START + DAYS * 86_400.0 * np.minimum((made + np.arange(size) * 4.2) / count, 1.0)
        at = 0
        for one in range(size):
            shopper, time_, members = f"shopper-{who[one]}", float(moment[one]), shelves[names[shelf[one]]]
            session = f"session-{visit}"
            if visit % _SEARCHES == 0:
                yield Event(f"{visit}s", time_, shopper, Action.SEARCH, session=session, query=names[shelf[one]])
                made += 1
            for number in range(int(lengths[one])):
                chosen = members[int(place[at] * len(members))]
                kind = Action(int(kinds[at]))
                yield Event(f"{visit}-{number}", time_ + 5.0 * (number + 1), shopper, kind, chosen, session)
                at += 1
            made += int(lengths[one])
            visit += 1
