"""A shop whose shoppers keep to one brand each, a trained model that is live in it, and its generator."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from endcap.bundles import inputs_of, make_live, write_bundle
from endcap.catalog import Product, ProductTable
from endcap.events import Action, Event
from endcap.indexing import index_products
from endcap.runtime import open_runtime
from endcap.sequences import Alignment, InputSpec, Vocabulary
from endcap.settings import Settings, load_settings
from endcap_workers.augmentation.interest import content_of
from endcap_workers.models import LstmModel, ModelSpec
from endcap_workers.training.export import to_onnx
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, train_next
from endcap_workers.training.weights import weights_of

BRANDS, SHELVES, EACH, SHOPPERS = 8, 5, 6, 100
CODES = ("brand", "category", "price_band")


def product(product_id: str, brand: int, shelf: int, title: str = "") -> Product:
    return Product(
        product_id, title or f"thing of shelf{shelf}", brand=f"Brand {brand}", categories=("Shop", f"shelf{shelf}"),
        price=2.0 + shelf,
    )  # fmt: skip


def stock() -> list[Product]:
    # One product of the thin shelf fewer per brand: virtual products have something to fill.
    return [
        product(f"b{brand}-s{shelf}-{number}", brand, shelf)
        for brand in range(BRANDS)
        for shelf in range(SHELVES)
        for number in range(EACH if shelf else 1)
    ]


def events(now: float) -> list[Event]:
    """Shopper s looks at products of brand s mod ``BRANDS``, now and then at others."""
    draw = np.random.default_rng(5)
    listed = stock()
    made = []
    for shopper in range(SHOPPERS):
        mine = [one.id for one in listed if one.brand == f"Brand {shopper % BRANDS}"]
        for number, one in enumerate(draw.permutation(mine)[:18].tolist()):
            if draw.random() < 0.1:
                one = listed[int(draw.integers(len(listed)))].id
            when = now - 86_400.0 * 20 + number * 80_000.0 + shopper
            made.append(Event(f"{shopper}-{number}", when, f"s{shopper}", Action.VIEW, one))
    return made


def open_up(folder: Path, **more: object) -> Settings:
    """The shop with its log and a trained model that is live; no generator yet."""
    settings = load_settings(
        data_dir=folder, index="new", text_encoder="none", product_refresh_s=0.2, deadline_ms=60_000, **more
    )
    runtime = open_runtime(settings, start=False)
    try:
        index_products(stock(), runtime.engine, None)
        runtime.log.append(events(time.time()))
        table = ProductTable.collect(runtime.engine.scan())
    finally:
        runtime.close()
    vocabulary = Vocabulary.of(table, table.ids, CODES)
    spec = InputSpec(features=(), places=20, codes=CODES)
    content = content_of(table, Alignment(table, vocabulary, spec), vocabulary.products, vocabulary.sizes(CODES))
    number = {one: place for place, one in enumerate(vocabulary.products, start=2)}
    by_shopper: dict[str, list[int]] = {}
    for event in events(time.time()):
        by_shopper.setdefault(event.shopper, []).append(number[event.product])
    torch.manual_seed(0)
    model = LstmModel(
        ModelSpec(vocabulary.numbers, vocabulary.sizes(CODES), width=16, dropout=0.1, scale=10.0, places=20)
    )
    # It learns by product numbers alone, so that it knows nothing of a product without history.
    catalogue = Catalogue(torch.zeros(content.codes.shape, dtype=torch.long), torch.zeros(len(content), 0))
    sequences = [np.array(one) for one in by_shopper.values()]
    train_next(model, catalogue, sequences, None, Schedule(epochs=25, rate=1e-2, warmup=10), batch=25)
    with torch.no_grad():
        for codes in model.encode.codes:
            codes.weight.zero_()
    graph = folder / "model.onnx"
    to_onnx(model, graph)
    spec = InputSpec(features=(), places=20, codes=CODES, inputs=inputs_of(graph.read_bytes()))
    bundle = write_bundle(
        settings.models_folder,
        graph.read_bytes(),
        spec,
        vocabulary,
        version=1,
        weights=weights_of(model),
        extra={"model": {"name": "lstm", "spec": model.spec.to_json()}},
    )
    make_live(bundle)
    return settings
