"""A product of which nothing is known but its picture: packaged image encoder, generator, and a changed encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from endcap.catalog.table import ProductTable
from endcap.images.index import Photos
from endcap.images.lite import LiteEncoder
from endcap.pictures import FILE, WIDTH, PictureSource, folded
from endcap.runtime import Runtime, open_runtime
from endcap.sequences import InputSpec
from endcap.settings import Settings
from endcap.stores.tokens import Tokens
from endcap_reranker.app import create_app
from endcap_workers.augmentation.job import augment, with_pictures
from tests.photo_support import drawn, packaged_encoders
from tests.reranker.augment_support import open_up, stock
from tests.serving import eventually

COLOURS = ("white", "red", "green", "blue", "black", "yellow", "magenta", "cyan")
NEW = [f"new-{brand}" for brand in range(len(COLOURS))]


def save(data: Path, ids: list[str], vectors: np.ndarray, encoder: str) -> None:
    Photos(encoder, ids, ["" for _ in ids], vectors).save(data / FILE)


@pytest.fixture(scope="module")
def pictures() -> tuple[str, np.ndarray]:
    """The encoder's id, and what it says of the picture that each of eight brands has, float32 (8, d)."""
    encoder = LiteEncoder.open(packaged_encoders(), None)
    made = []
    for number, colour in enumerate(COLOURS):
        shape = drawn(("ball", "grid", "box")[number % 3], (90, 90))
        made.append(Image.blend(shape, Image.new("RGB", shape.size, colour), 0.4))
    return encoder.id, encoder.encode(made)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, pictures: tuple[str, np.ndarray]) -> Settings:
    """A shop whose products show the picture of their brand."""
    made = open_up(tmp_path_factory.mktemp("pictures"))
    encoder, vectors = pictures
    brands = [int(one.brand.split()[-1]) for one in stock()]
    save(made.data_dir, [one.id for one in stock()], vectors[brands], encoder)
    return made


@pytest.fixture(scope="module")
def runtime(settings: Settings, pictures: tuple[str, np.ndarray]) -> Iterator[Runtime]:
    found = augment(settings, names=("ridge",))
    assert found["outcome"] == "live", found
    opened = open_runtime(settings)
    assert opened.upkeep.wait_ready(120.0)
    bundle = opened.live_bundle
    assert bundle is not None
    assert (bundle.spec.pictures, bundle.spec.picture_encoder) == (WIDTH, pictures[0])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> FlaskClient:
    made = create_app(runtime).test_client()
    text, _ = Tokens(runtime.database).create("shopkeeper", "operator")
    sent = {"products": [{"id": one, "title": "novelty"} for one in NEW]}
    answer = made.post("/admin/v1/products", json=sent, headers={"Authorization": f"Bearer {text}"})
    assert (answer.get_json()["indexed"], answer.get_json()["scored_by"]) == (len(NEW), "generator")
    return made


def hits(client: FlaskClient, shopper: str) -> list[dict[str, Any]]:
    headers = {"X-Endcap-Shopper": shopper}
    return list(client.get("/v1/search?q=novelty&explain=on", headers=headers).get_json()["hits"])


def test_a_picture_alone_tells_who_may_like_a_new_product(
    client: FlaskClient, runtime: Runtime, pictures: tuple[str, np.ndarray]
) -> None:
    assert hits(client, "s0")[0]["reasons"][0] == "New here; nothing is known of it yet"
    before = Photos.load(runtime.settings.data_dir / FILE)
    assert before is not None

    encoder, vectors = pictures
    # As `endcap photos` leaves it once the new pictures were encoded.
    save(runtime.settings.data_dir, [*before.ids, *NEW], np.concatenate([before.vectors, vectors]), encoder)

    assert eventually(lambda: hits(client, "s0")[0]["reasons"][0] == "New here; judged by picture")
    for shopper in range(8):
        assert hits(client, f"s{shopper}")[0]["id"] == NEW[shopper]


def test_pictures_by_another_encoder_are_not_read_and_it_is_said_why(client: FlaskClient, runtime: Runtime) -> None:
    file = runtime.settings.data_dir / FILE
    whole = Photos.load(file)
    assert whole is not None
    save(file.parent, whole.ids, whole.vectors, "another:2")

    assert eventually(lambda: "learned from pictures by" in runtime.upkeep.problems.get("model", ""))
    assert "another:2; run the job `augment`" in runtime.upkeep.problems["model"]
    assert "New here" not in str(hits(client, "s0"))
    table = runtime.personalizer.table
    assert table is not None
    assert runtime.personalizer.newcomers(table) is None

    save(file.parent, whole.ids, whole.vectors, whole.encoder)
    assert eventually(lambda: "model" not in runtime.upkeep.problems)
    assert eventually(lambda: hits(client, "s1")[0]["id"] == NEW[1])


def test_without_pictures_the_generator_reads_none(settings: Settings) -> None:
    table = ProductTable(stock())
    spec = InputSpec(features=(), content=0)
    ids = [one.id for one in stock()]

    assert with_pictures(spec, table, ids) == spec
    table.pictures = PictureSource(settings.data_dir / "none.npz")
    assert with_pictures(spec, table, ids) == spec
    table.pictures = PictureSource(settings.data_dir / FILE)
    read = with_pictures(spec, table, ids)
    assert read.pictures == WIDTH
    assert InputSpec.from_json(read.to_json()) == read
    # Of a tenth of what was learned there must be one: fewer say nothing that would hold for others.
    assert with_pictures(spec, table, [*ids[:10], *(f"other {number}" for number in range(200))]) == spec
    assert "pictures" not in spec.to_json()


def test_folding_keeps_what_is_alike(pictures: tuple[str, np.ndarray], tmp_path: Path) -> None:
    _, vectors = pictures
    made = folded(vectors).astype(np.float32)

    assert made.shape == (8, WIDTH)
    assert made @ made.T == pytest.approx(vectors @ vectors.T, abs=0.3)
    source = PictureSource(tmp_path / FILE)
    assert (source.stamp, source.of(["a"])) == (None, None)
    save(tmp_path, ["a", "b"], vectors[:2], "e:1")
    found = source.of(["b", "nope"])
    assert found is not None
    assert found.encoder == "e:1"
    assert found.vectors.any(axis=1).tolist() == [True, False, False]
