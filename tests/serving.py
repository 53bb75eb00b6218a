"""A small shop, searches in it, and a small interest model made for it: what the tests of scorers share."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from endcap.bundles import load_bundle, write_bundle
from endcap.catalog import Product, ProductTable
from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.features import FEATURES, RankingInputs, ranking_inputs
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.scoring.onnx import OnnxScorer
from endcap.sequences import CODES, INPUTS, InputSpec, Vocabulary

if TYPE_CHECKING:
    from endcap_workers.models import Interest

NOW = 1_760_000_000.0
DIMS = 8
ENCODER = "tests/encoder"
SPEC = InputSpec(places=30, codes=CODES, content=DIMS, encoder=ENCODER)


def products(count: int = 300) -> list[Product]:
    """In 6 leaf categories of 2 departments, 20 brands; some without brand, category or price."""
    return [
        Product(
            id=f"p{n}",
            title=f"Product {n}",
            brand=f"brand {n % 20}" if n % 11 else "",
            categories=(f"department {n % 2}", f"aisle {n % 6}") if n % 13 else (),
            price=float(1 + n % 17) if n % 7 else None,
        )
        for n in range(count)
    ]


def make_table(count: int = 300) -> ProductTable:
    """The products with content vectors; every ninth has none."""
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(count, DIMS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[::9] = 0.0
    return ProductTable(products(count), vectors.astype(np.float16))


TABLE = make_table()
#: Trained on the first 200 products, and on one that the shop no longer has.
VOCABULARY = Vocabulary.of(TABLE, [*TABLE.ids[:200], "gone"])


def make_popularity() -> Popularity:
    draw = np.random.default_rng(2)
    popularity = Popularity()
    bought = draw.integers(0, len(TABLE), 3_000)
    popularity.add(TABLE.keys[bought], NOW - draw.random(3_000) * 8e6, np.full(3_000, Action.PURCHASE, np.uint8))
    return popularity


POPULARITY = make_popularity()


def make_profile(draw: np.random.Generator, actions: int) -> Profile:
    """A shopper who did so many things with products of the shop, and with some that it no longer has."""
    profile = Profile()
    if actions:
        bought = draw.integers(0, len(TABLE), actions)
        keys = TABLE.keys[bought].copy()
        keys[draw.random(actions) < 0.05] = product_keys(["gone"])[0]
        keys[draw.random(actions) < 0.05] = product_keys(["never seen"])[0]
        kinds = draw.choice([Action.VIEW, Action.CLICK, Action.CART, Action.PURCHASE], actions).astype(np.uint8)
        profile.add(keys, NOW - draw.random(actions) * 2e7, kinds)
    return profile


def search(profile: Profile, ids: list[str], table: ProductTable = TABLE) -> RankingInputs:
    scores = np.linspace(3.0, 1.0, len(ids), dtype=np.float32)
    return ranking_inputs(profile, "honey", ids, scores, table, POPULARITY, NOW)


def searches(count: int, seed: int = 0) -> list[RankingInputs]:
    """Searches of shoppers with 0 to 120 actions, for 1 to 120 candidates, some unknown to model or shop."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        places = draw.permutation(len(TABLE))[: draw.integers(1, 121)]
        ids = [TABLE.ids[place] for place in places.tolist()]
        if draw.random() < 0.3:
            ids[int(draw.integers(len(ids)))] = "not in the shop"
        made.append(search(make_profile(draw, int(draw.integers(0, 121))), ids))
    return made


def make_model(seed: int = 5, spec: InputSpec = SPEC) -> Interest:
    """Random weights in every part, as the heads of a fresh model say nothing."""
    import torch  # here, because this module is imported by every test run

    from endcap_workers.models import PADDING, Interest, ModelSpec

    torch.manual_seed(seed)
    model = Interest(
        ModelSpec(
            products=VOCABULARY.numbers,
            codes=VOCABULARY.sizes(spec.codes),
            content=spec.content,
            features=len(FEATURES),
            width=16,
            hidden=(16, 8),
            places=spec.places,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for table in [model.encode.product, *model.encode.codes, model.event.action]:
            table.weight[PADDING] = 0.0
    return model


@lru_cache(maxsize=32)
def graph(seed: int = 5, spec: InputSpec = SPEC) -> bytes:
    """The model of a seed, as an ONNX graph."""
    from endcap_workers.training.export import to_onnx

    with tempfile.TemporaryDirectory() as folder:
        to_onnx(make_model(seed, spec), Path(folder) / "graph.onnx")
        return (Path(folder) / "graph.onnx").read_bytes()


def torch_scores(model: Interest, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """What the model itself says. On one thread: more of them only wait for each other over so little."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return model(*(torch.from_numpy(tensors[name]) for name in INPUTS))[0].numpy()
    finally:
        torch.set_num_threads(before)


def make_bundle(parent: Path, version: int = 1, seed: int = 5) -> Path:
    """A bundle of a model of its own."""
    return write_bundle(parent, graph(seed), SPEC, VOCABULARY, version=version, seed=seed)


@pytest.fixture(scope="session")
def interest_model() -> Interest:
    """The model that ``interest_bundle`` holds."""
    return make_model()


@pytest.fixture(scope="session")
def interest_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder, not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("bundles"))


def in_process(folder: Path) -> OnnxScorer:
    return OnnxScorer(load_bundle(folder, ENCODER))


def eventually(true: Callable[[], object], within_s: float = 90.0) -> bool:
    """Whether it comes about. Ask for what stays true once it is: what is passed through may be missed."""
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
