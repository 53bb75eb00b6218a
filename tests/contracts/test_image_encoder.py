"""One suite for every image encoder: the packaged network as it is, and a shop's own and CLIP's code over small models
made here.

No package carries CLIP's weights. Its random ones say nothing of what is alike, which is therefore asked of the
packaged network alone.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from endcap.encoders import open_text_encoder
from endcap.errors import ConfigurationError
from endcap.images.clip import ClipEncoder
from endcap.images.encoder import ImageEncoder, image_encoder_at_hand, open_image_encoder
from endcap.images.lite import LiteEncoder, class_names, square
from endcap.images.tuned import TunedEncoder, write_encoder
from endcap.settings import Settings
from tests.photo_support import drawn, packaged_encoders, small_clip, small_graph


@pytest.fixture(scope="module", params=["lite", "lite without words", "tuned", "clip"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    if request.param == "clip":
        return ClipEncoder(str(small_clip(tmp_path_factory.mktemp("clip"))))
    text = None
    if request.param in ("lite", "tuned"):
        text = open_text_encoder(Settings(data_dir=tmp_path_factory.mktemp("data"), text_encoder="use-multilingual"))
    if request.param == "tuned":
        folder = tmp_path_factory.mktemp("tuned")
        write_encoder(folder, small_graph(2), {"side": 32, "words": ["a ball", "a grid"]})
        return TunedEncoder.open(folder, text)
    return LiteEncoder.open(packaged_encoders(), text)


PICTURES = [drawn("ball"), drawn("grid", (64, 900)), drawn("box", (900, 64)), drawn("ball", (9, 9)), drawn("grid")]


class TestContract:
    def test_gives_unit_vectors_in_the_order_asked(self, encoder: ImageEncoder) -> None:
        vectors = encoder.encode(PICTURES)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(PICTURES), encoder.dims)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        backwards = encoder.encode(PICTURES[::-1])[::-1]
        assert np.min(np.sum(vectors * backwards, axis=1)) > 0.999
        alone = np.concatenate([encoder.encode([one]) for one in PICTURES])
        assert np.min(np.sum(vectors * alone, axis=1)) > 0.999

    def test_nothing_gives_nothing(self, encoder: ImageEncoder) -> None:
        assert encoder.encode([]).shape == (0, encoder.dims)

    def test_any_string_can_be_said_of_a_picture(self, encoder: ImageEncoder) -> None:
        for text in ("a red apple", "", "\0", "\ud800 half a pair", "word " * 2_000, "綠茶"):
            vector = encoder.encode_text(text)
            assert vector.shape == (encoder.dims,)
            assert vector.dtype == np.float32
            length = float(np.linalg.norm(vector))
            assert abs(length - 1.0) < 1e-4 or (length == 0.0 and encoder.id == "efficientnet-lite0:1")

    def test_threads_do_not_disturb_each_other(self, encoder: ImageEncoder) -> None:
        expected = encoder.encode(PICTURES[:2])
        with ThreadPoolExecutor(3) as pool:
            for got in pool.map(lambda _: encoder.encode(PICTURES[:2]), range(6)):
                assert np.min(np.sum(expected * got, axis=1)) > 0.999


class TestPackaged:
    def test_like_pictures_are_near(self) -> None:
        encoder = LiteEncoder.open(packaged_encoders(), None)
        ball, smaller, grid = encoder.encode([drawn("ball"), drawn("ball", (200, 200)), drawn("grid")])
        assert float(ball @ smaller) > float(ball @ grid) + 0.2

    def test_knows_a_thousand_classes_and_reads_a_square(self) -> None:
        assert len(class_names()) == 1_000
        assert all(class_names())
        for one in PICTURES:
            assert square(one).shape == (3, 224, 224)


class TestClip:
    def test_words_and_pictures_are_the_networks_own_projections(self, tmp_path: Path) -> None:
        """One space, of the projection's size, in whatever batches: as transformers itself computes it."""
        import torch
        from transformers import CLIPModel, CLIPProcessor

        encoder = ClipEncoder(str(small_clip(tmp_path)))
        network, processor = (
            CLIPModel.from_pretrained(tmp_path / "raw"),
            CLIPProcessor.from_pretrained(tmp_path / "raw"),
        )
        pictures = [*PICTURES, *(drawn("ball", (40 + n, 60)) for n in range(16))]  # more than one batch
        said = ["a ball", "grid 7", ""]
        with torch.no_grad():
            wanted = network(**processor(text=said, images=pictures, return_tensors="pt", padding=True))
        assert encoder.dims == 16
        np.testing.assert_allclose(encoder.encode(pictures), wanted.image_embeds.numpy(), atol=1e-5)
        words = np.stack([encoder.encode_text(one) for one in said])
        np.testing.assert_allclose(words, wanted.text_embeds.numpy(), atol=1e-5)
        likeness = encoder.encode(pictures) @ words.T * network.logit_scale.exp().item()
        np.testing.assert_allclose(likeness, wanted.logits_per_image.numpy(), atol=1e-3)


class TestOpening:
    def test_none_and_a_model_that_cannot_be_had(self, tmp_path: Path) -> None:
        assert open_image_encoder(Settings(data_dir=tmp_path, image_encoder="none"), None) is None
        chosen = Settings(data_dir=tmp_path, image_encoder=str(tmp_path / "no-model"))
        with pytest.raises(ConfigurationError, match="no-model"):
            image_encoder_at_hand(chosen, None)

    def test_a_server_starts_without_pillow_and_torch(self, tmp_path: Path) -> None:
        code = f"""
import sys
sys.modules.update(PIL=None, torch=None, sentence_transformers=None)
from endcap.runtime import open_runtime
from endcap.settings import load_settings
from endcap_reranker.app import create_app
runtime = open_runtime(load_settings(data_dir={str(tmp_path)!r}, text_encoder="none"), start=False)
answer = create_app(runtime).test_client().post("/v1/search", json={{"image": "aGFsbG8="}})
print(answer.status_code, answer.text)
runtime.close()
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert ran.stdout.startswith("409"), ran.stderr
        assert "endcap[images]" in ran.stdout
