"""The protocols of the reference data: they are the ones that their published figures belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from endcap.errors import ConfigurationError
from endcap_workers.evaluation import beauty, diginetica, shared_data
from endcap_workers.models import LstmModel, ModelSpec
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Prefixes, evaluate, train_next


@pytest.fixture
def data_dir(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(shared_data.VARIABLE, str(shared_dir / "data"))
    return shared_dir / "data"


def test_beauty_is_the_published_split(data_dir: Path) -> None:
    data = beauty.load()

    assert len(data.train) == 22_363
    assert len(data.catalogue) == 12_101 + 2
    assert sum(len(history) + 1 for history in data.test.histories) == 198_502
    for train, valid, test in zip(data.train, data.valid.histories, data.test.histories, strict=True):
        assert len(train) == len(valid) == len(test) - 1
    assert (data.valid.targets == [history[-1] for history in data.test.histories]).all()
    # The data's README measured popularity at .0141/.0063.
    figures = beauty._figures(beauty.popularity_ranks(data))
    assert figures == pytest.approx({"HR@10": 0.0141, "NDCG@10": 0.0063}, abs=2e-4)


def test_beauty_tells_brands_from_categories() -> None:
    codes, sizes = beauty._codes({2: ["OPI", "Makeup", "Nails"], 3: ["Makeup", "Nails", "Polish"], 4: ["Unknown"]}, 5)

    assert codes[2].tolist() == [1, 1, 1, 0]
    assert codes[3].tolist() == [0, 1, 1, 1]  # no brand; its categories are those of the other product
    assert codes[4].tolist() == [2, 0, 0, 0]
    assert sizes == (3, 2, 2, 2)


def test_beauty_models_learn_on_a_part(data_dir: Path) -> None:
    data = beauty.load()
    some = Prefixes(data.valid.histories[:1_000], data.valid.targets[:1_000], hide_seen=True)
    torch.manual_seed(0)
    model = LstmModel(ModelSpec(products=len(data.catalogue), codes=data.code_sizes, width=16, scale=14.0))
    before = evaluate(model, data.catalogue, some, 100)["hit"]

    train_next(model, data.catalogue, data.train[:4_000], some, Schedule(epochs=4, rate=0.01), negatives=500, k=100)

    assert evaluate(model, data.catalogue, some, 100)["hit"] > 2 * before


def test_diginetica_is_the_published_split(data_dir: Path) -> None:
    data = diginetica.load()

    assert len(data.test.targets) == 60_858
    assert data.products == 43_097 + 2
    assert len(data.valid.targets) == diginetica.VALID_CASES
    assert len(data.train) == int(186_670 * 0.95)
    assert len(data.every) == 186_670


def test_diginetica_neighbours_are_as_good_as_the_readme_says(data_dir: Path) -> None:
    data = diginetica.load()
    figures = diginetica._figures(diginetica.baseline_ranks(data, data.test)["neighbours of the last product"])

    assert figures == pytest.approx({"P@20": 35.05, "MRR@20": 11.0}, abs=0.15)
    popular = diginetica._figures(diginetica.baseline_ranks(data, data.test)["popularity"])
    assert popular == pytest.approx({"P@20": 0.93, "MRR@20": 0.21}, abs=0.02)


def test_missing_data_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(shared_data.VARIABLE, str(tmp_path))

    with pytest.raises(ConfigurationError, match="ENDCAP_SHARED_DATA"):
        beauty.load()
