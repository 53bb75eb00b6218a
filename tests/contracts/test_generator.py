"""One suite that every generator passes: fit on warm products, speak about cold ones, be saved, be served."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from endcap.errors import InvalidInput
from endcap_workers.augmentation import (
    GENERATORS,
    Content,
    GanGenerator,
    Generator,
    GeneratorDiverged,
    Interactions,
    MlpGenerator,
    RankedGenerator,
    Validation,
    Warm,
)
from endcap_workers.augmentation.base import check
from endcap_workers.augmentation.files import load_generator, save_generator, to_onnx, version_of
from endcap_workers.augmentation.gan import GanSettings

BRANDS, KINDS, WIDTH, TEXT = 8, 5, 12, 6
ENCODER = "texts:1"


def world(products: int, seed: int, unit: bool = True) -> tuple[Content, np.ndarray, Interactions]:
    """Products whose embedding is what brand and kind say, and noise; choices by shoppers who like one of them."""
    rule = np.random.default_rng(7)
    brand_says, kind_says = rule.normal(size=(BRANDS + 1, WIDTH)), rule.normal(size=(KINDS + 1, WIDTH))
    reading = rule.normal(size=(WIDTH, TEXT)) / 4
    draw = np.random.default_rng(seed)
    codes = np.stack([draw.integers(1, BRANDS + 1, products), draw.integers(1, KINDS + 1, products)], axis=1)
    truth = brand_says[codes[:, 0]] + kind_says[codes[:, 1]]
    vectors = truth + draw.normal(size=truth.shape) * 0.3
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    content = Content(codes, (truth @ reading).astype(np.float32), (BRANDS + 3, KINDS + 1), ENCODER)
    chosen = draw.integers(0, products, 3_000)
    states = vectors[chosen] * 8 + draw.normal(size=(3_000, WIDTH))
    return content, vectors.astype(np.float32), Interactions(states.astype(np.float32), chosen)


CONTENT, VECTORS, INTERACTIONS = world(300, 1)
WARM = Warm(CONTENT, VECTORS, INTERACTIONS)
COLD, TRUTH, _ = world(80, 2)


def nearness(made: np.ndarray) -> float:
    """Mean cosine to what behaviour would have taught."""
    return float((made * TRUTH).sum(axis=1).mean())


def made(name: str) -> Generator:
    if name in ("gan", "ranked"):
        settings = replace(GanSettings(), epochs=3, batch=256, negatives=64, hidden=32)
        return GanGenerator(settings) if name == "gan" else RankedGenerator(settings)
    return GENERATORS[name]()


@pytest.fixture(params=GENERATORS, scope="module")
def generator(request: pytest.FixtureRequest) -> Generator:
    return made(request.param).fit(WARM, 3, Validation(COLD, nearness))


def test_cold_products_get_embeddings_near_to_what_behaviour_would_teach(generator: Generator) -> None:
    embeddings = generator.embed(COLD)

    assert embeddings.shape == (80, WIDTH)
    assert embeddings.dtype == np.float32
    assert nearness(embeddings) > 0.6


def test_embeddings_are_as_long_as_real_ones(generator: Generator) -> None:
    assert np.linalg.norm(generator.embed(COLD), axis=1) == pytest.approx(1.0, abs=1e-3)


def test_lengths_are_left_alone_where_they_say_something() -> None:
    content, vectors, interactions = world(300, 1, unit=False)

    embeddings = made("ridge").fit(Warm(content, vectors, interactions)).embed(COLD)

    assert np.linalg.norm(embeddings, axis=1).std() > 0.1


def test_the_same_seed_says_the_same(generator: Generator) -> None:
    again = made(generator.name).fit(WARM, 3, Validation(COLD, nearness))

    assert np.array_equal(again.embed(COLD), generator.embed(COLD))
    assert version_of(again) == version_of(generator)


def test_works_without_validation(generator: Generator) -> None:
    assert np.isfinite(made(generator.name).fit(WARM, 3).embed(COLD)).all()


def test_a_product_says_the_same_alone_and_among_others(generator: Generator) -> None:
    alone = generator.embed(COLD.rows(np.array([5])))

    assert alone[0] == pytest.approx(generator.embed(COLD)[5], abs=1e-5)


def test_a_product_with_no_content_gets_the_mean(generator: Generator) -> None:
    nothing = Content(np.zeros((2, 2), np.int64), np.zeros((2, TEXT), np.float32), CONTENT.sizes, ENCODER)

    assert generator.embed(nothing) == pytest.approx(np.tile(VECTORS.mean(axis=0), (2, 1)), abs=1e-5)


def test_an_unseen_brand_lives_by_the_rest(generator: Generator) -> None:
    unseen = COLD.codes.copy()
    unseen[:, 0] = BRANDS + 2  # in the vocabulary, but no warm product has it

    embeddings = generator.embed(Content(unseen, COLD.vectors, COLD.sizes, ENCODER))

    assert np.isfinite(embeddings).all()
    assert nearness(embeddings) > 0.3


def test_nothing_to_say_of_nothing(generator: Generator) -> None:
    assert generator.embed(COLD.rows(np.zeros(0, np.int64))).shape == (0, WIDTH)


def test_survives_the_disk(generator: Generator, tmp_path: Path) -> None:
    version = save_generator(generator, tmp_path)
    loaded = load_generator(tmp_path)

    assert np.array_equal(loaded.embed(COLD), generator.embed(COLD))
    assert version_of(loaded) == version
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_a_changed_file_is_refused(generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path)
    file = tmp_path / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\1\2\3")

    with pytest.raises(InvalidInput, match="checksum"):
        load_generator(tmp_path)


def test_the_onnx_graph_says_the_same(generator: Generator, tmp_path: Path) -> None:
    to_onnx(generator, tmp_path / "generator.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "generator.onnx", providers=["CPUExecutionProvider"])

    for count in (1, 80):
        some = COLD.rows(np.arange(count))
        (embeddings,) = session.run(None, {"codes": some.codes, "vectors": some.vectors})
        assert embeddings == pytest.approx(generator.embed(some), abs=1e-4)


def test_another_encoder_is_refused(generator: Generator) -> None:
    with pytest.raises(InvalidInput, match=re.escape("learned from vectors of texts:1, these of texts:2")):
        generator.embed(replace(COLD, encoder="texts:2"))


def test_ten_products_are_too_few(generator: Generator) -> None:
    few = np.arange(10)
    kept = INTERACTIONS.products < 10
    warm = Warm(CONTENT.rows(few), VECTORS[few], Interactions(INTERACTIONS.states[kept], INTERACTIONS.products[kept]))

    with pytest.raises(InvalidInput, match="10 products have content and were bought: at least 30"):
        made(generator.name).fit(warm)


def test_an_unfitted_one_says_so(generator: Generator) -> None:
    with pytest.raises(InvalidInput, match="not fitted"):
        made(generator.name).embed(COLD)


def test_training_that_is_not_finite_is_kept_out() -> None:
    with pytest.raises(GeneratorDiverged, match=r"not finite|nan|inf"):
        MlpGenerator(rate=1e18, epochs=4).fit(WARM, 0, Validation(COLD, nearness))
    with pytest.raises(GeneratorDiverged):
        GanGenerator(replace(GanSettings(), rate=1e18, epochs=2, hidden=16)).fit(WARM, 0, Validation(COLD, nearness))


def test_a_collapsed_generator_is_kept_out() -> None:
    with pytest.raises(GeneratorDiverged, match="collapsed"):
        check(np.ones((50, WIDTH)) + np.random.default_rng(0).normal(size=(50, WIDTH)) * 1e-4, VECTORS)


def test_the_gan_needs_interactions() -> None:
    with pytest.raises(InvalidInput, match="there are no interactions"):
        made("gan").fit(Warm(CONTENT, VECTORS, None))
