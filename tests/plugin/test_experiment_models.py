"""Arms that name a model: two real bundles beside the live one, and what happens where one of them goes away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endcap.catalog import ProductTable
from endcap.errors import InvalidInput, ScorerUnavailable
from endcap.experiments.definition import definition_of
from endcap.experiments.measuring import Measured, report_of
from endcap.experiments.models import ArmModels, check_models
from endcap.experiments.service import Experiments, LiveExperiments
from endcap.personalizer import Personalizer, Ranking
from endcap.policy import DEFAULT_BLENDS, Visit
from endcap.policy.arrange import Arranger
from endcap.policy.decisions import DecisionReader, Rewards
from endcap.profiles import Profile
from endcap.registry import INTEREST, Registry
from endcap.stores.database import Database
from endcap.stores.outcomes import Outcome
from endcap.stores.rankings import Served
from tests.serving import ENCODER, NOW, POPULARITY, TABLE, in_process, make_bundle, make_profile, make_table

VISIT = Visit()
IDS = list(TABLE.ids[:40])
ENGINE = np.linspace(3.0, 1.0, len(IDS), dtype=np.float32)
PROFILES = {one.name: one for one in DEFAULT_BLENDS}
PROFILE = make_profile(np.random.default_rng(3), 60)


class OneProfile:
    def get(self, shopper: str) -> Profile:
        return PROFILE


class Shop:
    """Version 1 is live; an experiment asks 2 against 1."""

    def __init__(self, folder: Path) -> None:
        self.database = Database.in_folder(folder)
        self.registry = Registry(self.database, folder / "models", keep=1)
        for version, seed in ((1, 5), (2, 6)):
            self.registry.add_candidate(INTEREST, str(version), make_bundle(folder / "models", version, seed))
        self.registry.promote(INTEREST, "1", force=True)
        live = in_process(self.registry.models / "interest-1")
        self.models = ArmModels(self.registry, ENCODER, live, 64.0, TABLE)
        self.experiments = Experiments(
            self.database, profiles=PROFILES, models=lambda names: check_models(self.registry, names, 64.0)
        )
        self.live = LiveExperiments(self.experiments, PROFILES, models=self.models)
        self.personalizer = Personalizer(
            live, OneProfile(), POPULARITY, TABLE, 20_000.0, clock=lambda: NOW, arranger=Arranger(assigner=self.live)  # type: ignore[arg-type]
        )  # fmt: skip

    def run(self, design: str = "ab", **arm: Any) -> None:
        arms = [{"name": "old", "weight": 0.5}, {"name": "new", "weight": 0.5, **(arm or {"model": "2"})}]
        self.experiments.define({"name": "model", "design": design, "arms": arms})
        self.experiments.start("model")
        self.live.look()

    def ranked(self, arm: str) -> Ranking:
        """A search of a shopper who was dealt this arm."""
        for number in range(100):
            treatment = self.live.treatment(f"s{number}", VISIT)
            if treatment is not None and treatment.noted["model"] == arm:
                return self.personalizer.rank(f"s{number}", "honey", IDS, ENGINE, VISIT)
        raise AssertionError(f"nobody is in {arm}")

    def scores(self, version: int) -> np.ndarray:
        inputs = self.personalizer._inputs("ann", "honey", IDS, ENGINE, TABLE)
        return in_process(self.registry.models / f"interest-{version}").score(inputs)

    def close(self) -> None:
        self.personalizer.close()
        self.database.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with closing(Shop(tmp_path)) as made:
        yield made


def test_each_arm_is_ranked_by_its_own_model(shop: Shop) -> None:
    shop.run()
    shop.models.turn()
    old, new = shop.ranked("old"), shop.ranked("new")
    assert (old.scorer, new.scorer) == ("onnx:interest-1", "onnx:interest-2")
    assert (old.fallback, new.fallback) == ("", "")
    assert np.allclose(old.scores, shop.scores(1), atol=1e-5)
    assert np.allclose(new.scores, shop.scores(2), atol=1e-5)
    assert old.order.tolist() != new.order.tolist()
    assert old.context is not None
    assert "model" not in old.context
    assert new.context is not None
    assert new.context["model"] == "2"
    assert new.context["experiments"] == {"model": "new"}
    plain = shop.personalizer.rank("s1", "honey", IDS, ENGINE)
    assert plain.scorer == "onnx:interest-1", "an endpoint that is no search takes part in no experiment"


def test_until_it_is_loaded_and_after_it_was_removed_the_live_model_ranks_and_says_so(shop: Shop) -> None:
    shop.run()
    assert shop.ranked("new").fallback == "experiment:loading"
    shop.models.turn()
    assert shop.ranked("new").fallback == ""
    folder = shop.registry.models / "interest-2"
    kept = folder.with_name("kept")
    folder.rename(kept)
    with pytest.raises(ScorerUnavailable, match="arms of the model 2 are ranked by the live one: the files"):
        shop.models.turn()
    lost = shop.ranked("new")
    assert (lost.scorer, lost.fallback, lost.degraded) == ("onnx:interest-1", "experiment:gone", "")
    assert np.allclose(lost.scores, shop.scores(1), atol=1e-5)
    assert lost.context is not None
    assert lost.context["model_missing"] == "gone"
    assert lost.context["experiments"] == {"model": "new"}, "he stays in his arm"
    shutil.copytree(kept, folder)
    shop.models.turn()
    assert shop.ranked("new").scorer == "onnx:interest-2"


def test_a_retired_version_goes_on_and_its_files_are_kept_while_the_experiment_runs(shop: Shop) -> None:
    shop.registry.promote(INTEREST, "2", force=True)
    shop.registry.add_candidate(INTEREST, "3", make_bundle(shop.registry.models, 3, 6))
    shop.registry.promote(INTEREST, "3", force=True)
    shop.registry.add_candidate(INTEREST, "4", make_bundle(shop.registry.models, 4, 6))
    shop.registry.promote(INTEREST, "4", force=True)
    shop.run(model="1")
    assert [one.version for one in shop.registry.prune(INTEREST)] == ["2"]
    shop.models.turn()
    assert shop.ranked("new").scorer == "onnx:interest-1"
    shop.experiments.stop("model")
    shop.live.look()
    shop.models.turn()
    assert not shop.models._loaded, "what nobody asks for takes no memory"
    assert [one.version for one in shop.registry.prune(INTEREST)] == ["1"]


def test_the_memory_is_bounded(shop: Shop) -> None:
    shop.run()
    small = ArmModels(shop.registry, ENCODER, shop.personalizer.scorer, 0.001, TABLE)
    small.want({"2"})
    with pytest.raises(ScorerUnavailable, match="experiment_models_mb"):
        small.turn()
    scorer = small.scorer("2")
    assert scorer is not None
    assert scorer.answer(shop.personalizer._inputs("ann", "", IDS, ENGINE, TABLE)).fallback == "experiment:no_room"
    with pytest.raises(InvalidInput, match="experiment_models_mb"):
        check_models(shop.registry, {"1", "2"}, 0.001)


def test_what_cannot_be_compared_is_refused(shop: Shop) -> None:
    arms = [{"name": "old", "weight": 0.5}, {"name": "new", "weight": 0.5, "model": "9"}]
    with pytest.raises(InvalidInput, match="model '9'"):
        shop.experiments.define({"name": "x", "arms": arms})
    with pytest.raises(InvalidInput, match="the same model"):
        definition_of({"name": "x", "arms": [arms[0], {**arms[1], "model": "live"}]})
    shop.run()
    with pytest.raises(InvalidInput, match="models cannot change"):
        shop.experiments.change("model", {"name": "model", "arms": [arms[0], {**arms[1], "model": "1"}]})


def test_the_baseline_is_a_model_too(shop: Shop) -> None:
    shop.run(model="baseline")
    assert shop.ranked("new").scorer == "baseline"
    assert shop.ranked("old").scorer == "onnx:interest-1"


def test_two_models_compete_within_one_list(shop: Shop) -> None:
    shop.run("interleaving")
    shop.models.turn()
    found = shop.ranked("interleaved")
    assert sorted(found.order.tolist()) == list(range(len(IDS)))
    best = {int(shop.scores(1).argmax()), int(shop.scores(2).argmax())}
    assert len(best) == 2
    assert set(found.order[:2].tolist()) == best
    shutil.rmtree(shop.registry.models / "interest-2")
    with pytest.raises(ScorerUnavailable):
        shop.models.turn()
    assert shop.ranked("interleaved").fallback == "experiment:gone"


def test_a_new_range_of_products_is_lined_up_before_searches_come(shop: Shop) -> None:
    shop.run()
    shop.models.turn()
    table: ProductTable = make_table(310)
    shop.models.prepare(table)
    scorer, _ = shop.models._loaded["2"]
    assert any(one.table is table for one in scorer._aligned._made)
    shop.personalizer.table = table
    assert shop.ranked("new").scorer == "onnx:interest-2"


def test_the_verdict_says_how_many_rankings_the_model_did_not_make() -> None:
    arms = [{"name": "old", "weight": 0.5}, {"name": "new", "weight": 0.5, "model": "2"}]
    measured = Measured(definition_of({"name": "model", "arms": arms}))
    noted: list[dict[str, Any]] = [
        {"experiments": {"model": "old"}},
        {"experiments": {"model": "new"}, "model": "2"},
        {"experiments": {"model": "new"}, "model": "2"},
        {"experiments": {"model": "new"}, "model": "2"},
        {"experiments": {"model": "new"}, "model": "2", "model_missing": "gone"},
    ]
    rankings = [Served(f"r{n}", NOW + n, f"s{n}", ("a",), arm="interest", context=one) for n, one in enumerate(noted)]
    measured.add([Outcome(one, ()) for one in rankings])
    report = report_of(measured, NOW, len(noted))
    assert report["models"] == {"new": {"version": "2", "rankings": 4, "missing": {"gone": 1}}}
    assert "25% of the rankings of new were made by the live model instead of 2 (1 gone)" in report["words"]


def test_another_models_rankings_teach_the_policy_nothing() -> None:
    reader = DecisionReader(["interest"], Rewards(), NOW * 2)
    served = Served("r", NOW, "ann", ("a",), arm="interest", propensity=0.9, context={"explored": True, "model": "2"})
    reader.add([Outcome(served, ())])
    assert reader.decisions().left_out == {"another model": 1}
