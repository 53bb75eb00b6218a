"""What the augmentation job refuses, and how: nothing of a live model changes where it cannot help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from endcap.bundles import live_bundle, make_live
from endcap.errors import BundleRefused, InvalidInput, TooLittle
from endcap.registry import INTEREST, open_registry
from endcap.runtime import open_database
from endcap.settings import load_settings
from endcap.stores.versions import Version
from endcap_workers.augmentation import Content, Generator, GeneratorDiverged, NearestGenerator, RidgeGenerator
from endcap_workers.augmentation.gan import GanGenerator, GanSettings
from endcap_workers.augmentation.gate import AugmentationGate, helps
from endcap_workers.augmentation.interest import NOTHING, attach, blend, choose, material
from endcap_workers.augmentation.job import augment, augment_after
from endcap_workers.augmentation.linear import own_words
from endcap_workers.augmentation.states import Choices
from endcap_workers.models import Interest, InterestModel, LstmModel, ModelSpec
from tests.serving import make_bundle


def content(products: int, kinds: int = 4) -> Content:
    codes = np.zeros((products, 1), dtype=np.int64)
    codes[2:, 0] = np.arange(products - 2) % kinds + 1
    return Content(codes, np.zeros((products, 0), np.float32), (kinds + 1,))


def model(products: int, kinds: int = 4) -> InterestModel:
    """Products of one kind have nearly one embedding; a shopper's state is what he saw last."""
    torch.manual_seed(0)
    made = LstmModel(ModelSpec(products, (kinds + 1,), width=8, scale=8.0, dropout=0.0)).eval()
    with torch.no_grad():
        made.encode.codes[0].weight.zero_()
        directions = torch.randn(kinds, 8)
        number = torch.arange(products - 2)
        made.encode.product.weight[2:] = directions[number % kinds] + 0.1 * torch.randn(products - 2, 8)
        made.reader.out.weight.zero_()
        made.reader.out.weight[:, 8:] = torch.eye(8)
    return made


def sequences(products: int, kinds: int = 4, shoppers: int = 80) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    found = []
    for shopper in range(shoppers):
        mine = np.arange(2 + shopper % kinds, products, kinds)
        numbers = draw.permutation(mine)[:10]
        found.append(np.stack([numbers, np.full(len(numbers), 2)], axis=1))
    return found


def test_without_a_live_model_it_says_what_to_do(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, text_encoder="none")

    with pytest.raises(TooLittle, match="train one first"):
        augment(settings)
    assert augment_after(settings)["outcome"] == "none"


def test_an_encoder_that_changed_since_is_refused(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, text_encoder="none")
    bundle = make_bundle(settings.models_folder)
    make_live(bundle)

    with pytest.raises(InvalidInput, match=r"the text encoder is now none: index the products and train"):
        augment(settings)
    assert live_bundle(settings.models_folder) == bundle


def test_a_pinned_model_is_left_alone(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, text_encoder="none")
    make_live(make_bundle(settings.models_folder))
    database = open_database(settings)
    try:
        registry = open_registry(settings, database)
        live = registry.live(INTEREST)
        assert live is not None
        registry.pin(INTEREST, live.version)
        found = augment(settings)
        assert (found["outcome"], live.version in found["reason"]) == ("pinned", True)
        assert len(registry.versions(INTEREST)) == 1
    finally:
        database.close()


def test_a_bundle_without_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from endcap.bundles import load_bundle
    from endcap_workers.training.weights import model_of

    with pytest.raises(BundleRefused, match="train a new one"):
        model_of(load_bundle(make_bundle(tmp_path)))


def test_a_model_of_features_alone_has_nothing_to_generate() -> None:
    alone = Interest(ModelSpec(60, (5,), features=3, parts=("features",)))

    with pytest.raises(TooLittle, match="by explicit features alone"):
        material(alone, content(60), sequences(60))


def test_a_catalogue_of_ten_products_is_too_small() -> None:
    with pytest.raises(TooLittle, match="10 products have content and were bought"):
        material(model(12), content(12), sequences(12))


def test_the_best_is_chosen_and_what_diverges_is_kept_out() -> None:
    class Diverging(RidgeGenerator):
        def fit(self, *args: object, **more: object) -> Generator:
            raise GeneratorDiverged("it generates embeddings that are not finite")

    made = material(model(202), content(202), sequences(202))
    choice = choose(made, ("nearest", "broken"), 0, makers={"nearest": NearestGenerator, "broken": Diverging})

    assert choice.generator is not None
    assert choice.generator.name == "nearest"
    assert choice.kept_out == {"broken": "it generates embeddings that are not finite"}
    assert choice.validation["nearest"] > choice.validation[NOTHING]
    assert choice.with_it > choice.without
    assert choice.lower > 0


def test_the_gan_begins_as_what_the_model_itself_says() -> None:
    one, about = model(202), content(202)
    with torch.no_grad():
        one.encode.codes[0].weight.normal_()
    made = material(one, about, sequences(202))
    numbers, validation = made.chosen_by[0], made.validation()

    assert made.warm.own_words is not None
    said = made.warm.own_words.fitted(
        made.warm.own_words.generate(torch.from_numpy(about.codes[numbers]), torch.zeros(len(numbers), 0))
    )
    unit = torch.nn.functional.normalize(said, dim=1).detach().numpy()
    assert unit == pytest.approx(made.unaided(numbers), abs=1e-5)
    generator = GanGenerator(
        replace(GanSettings(), epochs=2, batch=64, negatives=32, hidden=16, own_words=True, redraw=True)
    )
    generator.fit(made.warm, 0, validation)
    assert generator.training.values[0] == pytest.approx(validation.judge(made.unaided(numbers)))
    assert generator.training.best >= generator.training.values[0]
    # A wider content, with a picture's numbers behind: of those the model says nothing.
    wider = own_words(one.encode, 3)
    assert wider is not None
    assert wider.content is not None
    assert not wider.content.weight.any()


def test_states_are_drawn_anew_with_the_models_dropout_and_nobody_elses_chance() -> None:
    one, about = model(202), content(202)
    one.encode.id_dropout = 0.5
    choices = Choices.of(one, about, sequences(202), np.random.default_rng(0))
    plain = choices.states()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    first, again, other = choices.redrawn(1), choices.redrawn(1), choices.redrawn(2)

    assert torch.equal(torch.rand(3), expected)
    assert plain.shape == first.shape == (len(choices.targets), 8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(choices.states(), plain)  # out of training again
    assert (choices.seen != choices.targets[:, None]).all()


def test_nothing_is_chosen_where_nothing_helps() -> None:
    class Nonsense(RidgeGenerator):
        def embed(self, content: Content) -> np.ndarray:
            return -super().embed(content)

    made = material(model(202), content(202), sequences(202))

    assert choose(made, ("ridge",), 0, makers={"ridge": Nonsense}).generator is None


def test_evidence_makes_the_generator_fade() -> None:
    one, about = model(202), content(202)
    made = material(one, about, sequences(202))
    generator = RidgeGenerator().fit(made.warm)
    counts = np.zeros(202)
    counts[50:] = 1_000
    before = made.vectors.copy()
    blend(one, generator, about, counts)
    with torch.no_grad():
        numbers = torch.arange(202)
        after = one.encode(numbers, torch.from_numpy(about.codes), torch.zeros(202, 0)).numpy()

    assert after[50:] == pytest.approx(before[50:], abs=1e-2)
    assert after[10:50] == pytest.approx(generator.embed(about)[10:50], abs=1e-4)


def test_a_generator_of_another_model_is_not_attached() -> None:
    generator = RidgeGenerator().fit(material(model(202), content(202), sequences(202)).warm)

    with pytest.raises(InvalidInput, match="another model"):
        attach(LstmModel(ModelSpec(50, (9,), width=8)), generator)


@pytest.mark.parametrize(("lower", "passed"), [(0.01, True), (0.0, False), (-0.1, False), (float("nan"), False)])
def test_the_gate_wants_a_gain_that_is_sure(lower: float, passed: bool) -> None:
    verdict = helps(lower)

    assert verdict.passed is passed
    assert verdict.reasons


def test_the_gate_reads_the_figures_of_the_job() -> None:
    values = dict.fromkeys(Version.__slots__, "")
    candidate = Version(**{**values, "metrics": {"lower bound of the gain": 0.02}})  # type: ignore[arg-type]
    gate = AugmentationGate(load_settings(text_encoder="none"))

    assert gate.judge(candidate, None).passed
    assert not gate.judge(Version(**{**values, "metrics": {}}), None).passed  # type: ignore[arg-type]
