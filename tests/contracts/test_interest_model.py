"""One suite that every interest model passes: what the server and the trainer rely on, whichever model is live."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from endcap_workers.models import INPUTS, MODELS, PADDING, PARTS, UNKNOWN, Interest, InterestModel, ModelSpec
from endcap_workers.training.export import to_onnx

SPEC = ModelSpec(products=50, codes=(7, 9), content=5, features=4, width=16, hidden=(12, 8), dropout=0.3, places=12)
#: A model and how it is made: each class, and Interest with each of its parts alone and in unit-vector form.
VARIANTS = {
    **{name: (name, SPEC) for name in MODELS},
    **{f"{name}, unit vectors": (name, replace(SPEC, scale=16.0)) for name in ("lstm", "transformer")},
    "transformer, relative places": ("transformer", replace(SPEC, relative=True)),
    **{f"interest, {part} alone": ("interest", replace(SPEC, parts=(part,))) for part in PARTS},
    "no content, no codes": ("interest", replace(SPEC, content=0, codes=())),
    "features that bend": ("interest", replace(SPEC, knots=3)),
    "features among the candidates": ("interest", replace(SPEC, among=True)),
    "features among the candidates that bend, alone": (
        "interest",
        replace(SPEC, among=True, knots=2, parts=("features",)),
    ),
    "dnn, features among the candidates": ("dnn", replace(SPEC, among=True)),
    "two layers": ("lstm", replace(SPEC, layers=2)),
}


@pytest.fixture(params=VARIANTS, scope="module")
def model(request: pytest.FixtureRequest) -> InterestModel:
    name, spec = VARIANTS[request.param]
    torch.manual_seed(3)
    made = MODELS[name](spec).eval()
    with torch.no_grad():  # the heads start at zero: give every part something to say
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for table in [made.encode.product, *made.encode.codes, made.event.action]:
            table.weight[PADDING] = 0.0
    return made


def tensors(
    spec: ModelSpec, shoppers: int = 3, history: int = 6, candidates: int = 8, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random inputs with full histories."""
    draw = torch.Generator().manual_seed(seed)

    def whole(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(2, high, shape, generator=draw)

    def real(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    sides = {}
    for side, length in (("history", history), ("candidate", candidates)):
        sides[f"{side}_products"] = whole(spec.products, shoppers, length)
        columns = [whole(size, shoppers, length).unsqueeze(-1) for size in spec.codes]
        sides[f"{side}_codes"] = torch.cat([*columns, torch.zeros(shoppers, length, 0, dtype=torch.long)], dim=-1)
        sides[f"{side}_content"] = real(shoppers, length, spec.content)
    sides["history_actions"] = whole(7, shoppers, history)
    sides["history_ages"] = real(shoppers, history).abs() * 20
    sides["candidate_features"] = real(shoppers, candidates, spec.features)
    return {name: sides[name] for name in INPUTS}


def reads_embeddings(model: InterestModel) -> bool:
    """Interest made of features alone is the only one that does not."""
    return not isinstance(model, Interest) or model.spec.parts != ("features",)


def score(model: InterestModel, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return model(**inputs).numpy()


def pad(inputs: dict[str, torch.Tensor], places: int) -> dict[str, torch.Tensor]:
    """The same histories with empty places behind."""
    longer = dict(inputs)
    for name in INPUTS[:5]:
        shape = list(inputs[name].shape)
        shape[1] = places
        longer[name] = torch.cat([inputs[name], torch.zeros(shape, dtype=inputs[name].dtype)], dim=1)
    return longer


def test_scores_are_finite_and_one_a_candidate(model: InterestModel) -> None:
    scores = score(model, tensors(model.spec))

    assert scores.shape == (3, 8)
    assert np.isfinite(scores).all()
    assert scores.std() > 0


def test_the_same_seed_makes_the_same_model(model: InterestModel) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(11)
        made.append(type(model)(model.spec).state_dict())

    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_padding_changes_nothing(model: InterestModel) -> None:
    inputs = tensors(model.spec)

    assert score(model, pad(inputs, 5)) == pytest.approx(score(model, inputs), abs=1e-5)


def test_a_shopper_is_scored_alike_alone_and_among_others(model: InterestModel) -> None:
    inputs = tensors(model.spec)
    alone = {name: tensor[1:2] for name, tensor in inputs.items()}

    assert score(model, alone)[0] == pytest.approx(score(model, inputs)[1], abs=1e-5)


def candidates_at(inputs: dict[str, torch.Tensor], places: list[int]) -> dict[str, torch.Tensor]:
    return {name: one[:, places] if name.startswith("candidate") else one for name, one in inputs.items()}


def test_the_order_of_the_candidates_says_nothing(model: InterestModel) -> None:
    inputs, order = tensors(model.spec), [5, 2, 7, 0, 1, 3, 6, 4]

    assert score(model, candidates_at(inputs, order)) == pytest.approx(score(model, inputs)[:, order], abs=1e-5)


def test_a_candidate_is_compared_with_the_others_only_where_the_model_says_so(model: InterestModel) -> None:
    inputs, some = tensors(model.spec), [5, 2, 7, 0]
    apart = np.abs(score(model, candidates_at(inputs, some)) - score(model, inputs)[:, some]).max()

    assert (apart > 1e-3) == model.spec.among


def test_what_fills_up_a_list_has_no_say_in_its_scores(model: InterestModel) -> None:
    inputs = tensors(model.spec)
    longer = candidates_at(inputs, [*range(8), 0, 0, 0])
    for name in INPUTS[5:]:
        longer[name][:, 8:] = float("nan") if name == "candidate_features" else 0

    scores = score(model, longer)

    assert np.isfinite(scores).all()
    assert scores[:, :8] == pytest.approx(score(model, inputs), abs=1e-5)


def test_an_empty_history_and_one_candidate_work(model: InterestModel) -> None:
    inputs = tensors(model.spec, candidates=1)
    for name in INPUTS[:5]:
        inputs[name] = torch.zeros_like(inputs[name])

    scores = score(model, inputs)

    assert scores.shape == (3, 1)
    assert np.isfinite(scores).all()


def test_a_history_of_one_product_works(model: InterestModel) -> None:
    assert np.isfinite(score(model, tensors(model.spec, history=1))).all()


def test_products_unseen_in_training_are_told_apart(model: InterestModel) -> None:
    inputs = tensors(model.spec)
    inputs["candidate_products"] = torch.full_like(inputs["candidate_products"], UNKNOWN)
    if reads_embeddings(model) and model.spec.content:
        inputs["candidate_features"] = torch.zeros_like(inputs["candidate_features"])  # by content alone

    assert (score(model, inputs).std(axis=1) > 1e-4).all()


def test_history_matters_where_the_model_reads_it(model: InterestModel) -> None:
    inputs = tensors(model.spec)
    other = {**inputs, **{name: tensors(model.spec, seed=1)[name] for name in INPUTS[:5]}}

    assert (np.abs(score(model, inputs) - score(model, other)).max() > 1e-4) == reads_embeddings(model)


def test_features_that_are_not_numbers_count_as_average(model: InterestModel) -> None:
    inputs = tensors(model.spec)
    inputs["candidate_features"][0, 0, 0] = float("nan")
    inputs["candidate_features"][1, 1, 1] = float("inf")

    assert np.isfinite(score(model, inputs)).all()


def test_the_onnx_graph_says_the_same_for_any_sizes(model: InterestModel, tmp_path: Path) -> None:
    to_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}

    assert wanted <= set(INPUTS)
    for shoppers, history, candidates in [(1, 1, 1), (2, 12, 30), (5, 3, 200)]:
        inputs = tensors(model.spec, shoppers, history, candidates, seed=history)
        if shoppers == 2:
            inputs["history_products"][0, 4:] = PADDING
            inputs["history_products"][1] = PADDING
        (scores,) = session.run(["scores"], {name: inputs[name].numpy() for name in wanted})

        assert scores == pytest.approx(score(model, inputs), abs=1e-4)


def test_the_specification_survives_json(model: InterestModel) -> None:
    assert ModelSpec.from_json(model.spec.to_json()) == model.spec


def test_training_takes_a_share_of_products_for_unknown(model: InterestModel) -> None:
    torch.manual_seed(0)
    blind = type(model)(replace(model.spec, id_dropout=1.0, dropout=0.0))
    blind.load_state_dict(model.state_dict())
    inputs = tensors(model.spec)
    renumbered = {**inputs}
    for name in ("history_products", "candidate_products"):
        renumbered[name] = torch.where(inputs[name] == PADDING, PADDING, 2 + (inputs[name] + 5) % 40)

    assert np.array_equal(score(blind.train(), inputs), score(blind.train(), renumbered))


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="parts must be some of features, sequence, attention"):
        MODELS["interest"](replace(SPEC, parts=("gossip",)))
