"""Rows of the next-product tables: mean and spread over seeds, devices, the library beside them, the command."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from endcap.errors import ConfigurationError
from endcap.results import Results
from endcap_workers.commands import evaluate as command
from endcap_workers.evaluation.library_baselines import implicit_ranks
from endcap_workers.evaluation.recipes import Recipe, add_rows, cook, torch_device
from endcap_workers.models import LstmModel, ModelSpec
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, Prefixes, evaluate

PRODUCTS = 22
WALKS = [2 + (start + np.arange(6)) % (PRODUCTS - 2) for start in range(20)] * 6
CASES = Prefixes([walk[:-1] for walk in WALKS[:20]], np.array([walk[-1] for walk in WALKS[:20]]))
RECIPE = Recipe(
    LstmModel,
    ModelSpec(products=0, width=8, dropout=0.1, scale=12.0, places=8),
    Schedule(epochs=4, rate=0.02, warmup=5),
    {"batch": 20, "half": True, "k": 3},
)


def test_several_seeds_give_a_mean_a_spread_and_a_vote() -> None:
    catalogue, results = Catalogue.bare(PRODUCTS), Results("test", "test", 5)
    made = add_rows(
        results,
        "walk",
        (5, 6),
        lambda seed: cook(RECIPE, catalogue, (), WALKS, CASES, seed, torch.device("cpu"), lambda line: None),
        lambda models: {"HR@3": evaluate(models, catalogue, CASES, 3)["hit"]},
    )

    single = [evaluate(one.model, catalogue, CASES, 3)["hit"] for one in made]
    assert set(results.rows) == {"walk, mean of 2 seeds", "walk, vote of 2 seeds"}
    assert results.rows["walk, mean of 2 seeds"]["HR@3"] == pytest.approx(np.mean(single))
    assert f"HR@3 {np.std(single, ddof=1):.4f}" in results.notes[0]
    assert "seeds 5, 6" in results.notes[0]
    assert not torch.equal(*(one.model.encode.product.weight for one in made))


def test_a_device_that_is_not_there_is_said() -> None:
    assert torch_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ConfigurationError, match="there is no device"):
            torch_device(name)


@pytest.mark.parametrize("hide_seen", [False, True])
def test_implicit_finds_who_goes_together(hide_seen: bool) -> None:
    pytest.importorskip("implicit")
    pairs = [np.array([2 * number, 2 * number + 1]) for number in range(1, 10)] * 5
    cases = Prefixes([pair[:1] for pair in pairs[:9]], np.array([pair[1] for pair in pairs[:9]]), hide_seen=hide_seen)

    found = implicit_ranks(pairs, cases, 20, k=3, seed=0)

    assert set(found) == {"item-KNN (implicit)", "ALS (implicit)"}
    for rank in found.values():
        assert (rank <= (0 if hide_seen else 1)).all()


def test_the_command_names_options_that_a_table_does_not_have() -> None:
    answer = CliRunner().invoke(command, ["open-bandit", "--ablation"])

    assert answer.exit_code == 2
    assert "open-bandit has no --ablation" in answer.output
