"""Training the packaged network, over a few drawn pictures."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch

from endcap.images.lite import square
from endcap_workers.training.photos.export import TOLD, Served, discriminant, rooted, to_onnx, vectors_of
from endcap_workers.training.photos.network import Trainable, channels_last, open_network
from endcap_workers.training.photos.tuning import Tuned, Tuning, augmented, in_other_light
from tests.photo_support import drawn

KINDS = ("ball", "grid", "box")
SMALL = Tuning(side=96, judged=96, frozen=15, head_epochs=20, epochs=4, batch=6, rate=1e-3, head_rate=1e-2)


def test_folded_norms_say_what_the_packaged_network_says() -> None:
    network = open_network()
    pixels = channels_last(np.random.default_rng(0).normal(size=(2, 3, 96, 128)))
    trainable = Trainable(network, 3, 0, 0.0).eval()
    with torch.no_grad():
        wanted = network.extract_features(pixels).mean((2, 3))
        exact = trainable.rest(trainable.first(pixels)).mean((2, 3))
        torch.testing.assert_close(exact, wanted, rtol=1e-3, atol=1e-4)
        got = trainable.features(pixels)
    assert torch.nn.functional.cosine_similarity(got, wanted).min() > 0.99
    with torch.enable_grad():
        trained = trainable.rest(pixels).mean((2, 3))  # strides are taken another way where there are gradients
    torch.testing.assert_close(trained.detach(), wanted, rtol=1e-3, atol=1e-4)


def test_it_learns_kinds_and_leaves_the_first_layers_alone() -> None:
    tuned = Tuned(SMALL, len(KINDS), 0)
    before = {name: value.clone() for name, value in tuned.network.state_dict().items()}
    shown = [partial(drawn, kind, (60 + 4 * n, 80)) for n in range(6) for kind in KINDS]
    tuned.train(shown, np.arange(len(shown)) % len(KINDS))
    features, logits = tuned.look([partial(drawn, kind, (100, 90 + n)) for n in range(4) for kind in KINDS])
    assert features.shape == (12, 1280)
    assert logits.shape == (12, 3)
    assert (logits.argmax(axis=1) == np.arange(12) % 3).mean() > 0.9
    after = tuned.network.state_dict()
    same = {name for name in before if before[name].equal(after[name])}
    assert {name for name in before if name.startswith("first.") or name.endswith((".mean", ".spread"))} <= same
    assert same.isdisjoint(name for name, one in tuned.network.named_parameters() if one.requires_grad)


def test_the_same_seed_trains_the_same_network() -> None:
    few = Tuning(side=96, judged=96, frozen=22, head_epochs=1, epochs=1, batch=3)
    shown = [partial(drawn, kind) for kind in KINDS]
    said = []
    for seed in (0, 0, 1):
        tuned = Tuned(few, len(KINDS), seed)
        tuned.train(shown, np.arange(3))
        said.append(tuned.look(shown)[1])
    np.testing.assert_array_equal(said[0], said[1])
    assert not np.array_equal(said[0], said[2])
    np.testing.assert_array_equal(
        Tuned(few, len(KINDS), 2, tuned.network).look(shown)[1], said[2], "it goes on from there"
    )


def test_the_graph_gives_what_the_trained_network_holds() -> None:
    tuned = Tuned(Tuning(size=0, side=64, judged=64, frozen=17), len(KINDS), 0)
    shown = [partial(drawn, kind, (80 + 9 * n, 70)) for n in range(3) for kind in KINDS]
    features = rooted(tuned.look(shown)[0])
    centre, projection = discriminant(features, np.arange(9) % 3)
    assert projection.shape == (1280, 2)
    wanted = vectors_of(features, centre, projection)
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1.0, atol=1e-5)
    told = wanted[:, :2] / TOLD**0.5
    alike = told @ told.T
    same = (np.arange(9) % 3)[:, None] == (np.arange(9) % 3)
    assert alike[same].min() > alike[~same].max() + 0.5
    graph = to_onnx(Served(tuned.network, centre, projection), 64)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    pixels = np.stack([square(one(), 64) for one in shown])
    vectors, logits = session.run(["vector", "logits"], {"image": pixels})
    assert logits.shape == (9, 3)
    assert np.sum(vectors * wanted, axis=1).min() > 0.95, "but for bfloat16 on the way"
    with torch.no_grad():
        exact = Served(tuned.network, centre, projection)(channels_last(pixels))[0].numpy()
    np.testing.assert_allclose(vectors, exact, atol=1e-4)


@pytest.mark.parametrize("size", [(300, 200), (64, 900), (9, 9)])
def test_any_picture_can_be_cut(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels = augmented(drawn("ball", size), 32, rng)
        assert pixels.shape == (3, 32, 32)
        assert pixels.dtype == np.float32
        assert np.abs(pixels).max() <= 1.0


def test_other_light_keeps_what_is_seen() -> None:
    picture = np.asarray(drawn("box", (64, 64)), dtype=np.float32)
    seen = in_other_light(picture, np.random.default_rng(3))
    plain = ((picture - 127.0) / 128.0).transpose(2, 0, 1)
    assert not np.allclose(seen, plain)
    assert np.corrcoef(seen.ravel(), plain.ravel())[0, 1] > 0.9
