"""From an event log to a bundle: end to end on a small shop, and what becomes of logs that teach nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from endcap.bundles import live_bundle, load_bundle, make_live, write_bundle
from endcap.catalog import Product, ProductTable
from endcap.errors import ConfigurationError, InvalidInput, TooLittle
from endcap.events import Action, Event
from endcap.features import FEATURES
from endcap.indexing import index_products
from endcap.jobs import load_jobs
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.registry import open_registry
from endcap.runtime import Runtime, open_database, open_runtime
from endcap.scoring.onnx import OnnxScorer
from endcap.settings import Settings
from endcap.stores.events import EventLog
from endcap.stores.flags import Suspicion
from endcap_workers.models import Interest, ModelSpec
from endcap_workers.training.cases import Cases, CaseWriter
from endcap_workers.training.export import to_onnx
from endcap_workers.training.gate import InterestGate
from endcap_workers.training.lists import Lists
from endcap_workers.training.plan import Plan, make_plan
from endcap_workers.training.promotion import promote_bundle, register
from endcap_workers.training.replay import Replay
from endcap_workers.training.train import Request, Trained, train
from tests.plugin.test_indexing import HashingEncoder
from tests.plugin.test_publishing import bundle_without_content
from tests.serving import DIMS, eventually, make_bundle, search
from tests.workers.train_support import DAY_S, START, events, products, shop

REQUEST = Request(lists=400, epochs=2)


def trained(settings: Settings, request: Request = REQUEST) -> Trained:
    made = train(settings, request, settings.data_dir / "training")
    assert made is not None
    return made


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Trained]:
    settings = shop(tmp_path_factory.mktemp("shop"), events(shoppers=40, days=80))
    return settings, trained(settings)


def test_a_run_leaves_a_bundle_that_serves(installation: tuple[Settings, Trained]) -> None:
    settings, made = installation
    bundle = load_bundle(made.folder)
    about = bundle.description
    assert about["seed"] == 0
    assert about["model"]["name"] == "interest"
    assert about["data_window"]["sequence"] == about["data_window"]["events"]
    assert bundle.affinity is not None
    assert bundle.calibration is not None
    assert not (settings.data_dir / "training").exists(), "cases and checkpoints are gone"
    assert made.metrics["held-out ndcg@10"] > 0.4, "own brands and repeats are there to be learned"
    runtime = open_runtime(settings)
    try:
        assert runtime.upkeep.wait_ready(120.0)
        make_live(made.folder)
        ids = [f"p{number}" for number in range(0, 80, 5)]
        nothing = np.zeros(len(ids), dtype=np.float32)
        wanted = f"onnx:{made.folder.name}"
        assert eventually(lambda: runtime.personalizer.rank("s1", "shelf0", ids, nothing).scorer == wanted), (
            "it replaces the baseline in the running process"
        )
    finally:
        runtime.close()


@dataclass
class Context:
    """What a job is given, without a run around it."""

    settings: Settings
    parameters: Mapping[str, Any]
    folder: Path
    run_id: str = "run-1"
    phases: list[str] = field(default_factory=list)

    def progress(self, done: float, total: float, phase: str = "") -> None:
        assert 0 <= done <= total * 1.01
        self.phases.append(phase)


def test_the_job_does_the_same_and_the_same_request_gives_the_same_model(
    installation: tuple[Settings, Trained], tmp_path: Path
) -> None:
    settings, made = installation
    time.sleep(1.1)  # versions are seconds
    context = Context(settings, {"lists": REQUEST.lists, "epochs": REQUEST.epochs}, tmp_path)
    result = load_jobs()["train"].run(context)
    assert result["metrics"] == made.metrics
    assert list(dict.fromkeys(context.phases)) == ["reading the log", "training", "judging"]
    one, two = (load_bundle(folder) for folder in (made.folder, settings.models_folder / result["bundle"]))
    np.testing.assert_allclose(one.probe_scores, two.probe_scores, atol=1e-5)
    database = open_database(settings)
    try:
        version = open_registry(settings, database).get("interest", result["version"])
        assert version.provenance["run"] == "run-1"
        assert version.metrics["held-out ndcg@10"] == made.metrics["held-out ndcg@10"]
    finally:
        database.close()
    with pytest.raises(ValueError, match="days"):
        load_jobs()["train"].run(Context(settings, {"days": "many"}, tmp_path))


@pytest.mark.parametrize("model", ["dnn", "lstm", "transformer"])
def test_every_model_can_be_trained_and_speaks_for_products_that_it_never_saw(
    installation: tuple[Settings, Trained], model: str
) -> None:
    settings, _ = installation
    loss = "pointwise" if model == "dnn" else "listwise"
    made = trained(settings, replace(REQUEST, model=model, epochs=1, lists=150, seed=len(model), loss=loss))
    bundle = load_bundle(made.folder)
    about = bundle.description["training"]
    # Of a list of so many candidates one is wanted: what knows nothing loses log(n), or log(2) of each candidate.
    assert about["loss"] == loss
    assert (about["losses"][0] < 0.8) == (loss == "pointwise")
    assert any(name.startswith("history") for name in bundle.spec.inputs)
    table = ProductTable([*products(), Product("brand-new", brand="Brand 1", categories=("Shop", "shelf0"))])
    scores = OnnxScorer(bundle).score(search(Profile(), ["p0", "brand-new", "nowhere"], table))
    assert np.isfinite(scores).all()


def test_the_gate_lets_a_better_model_pass_and_refuses_a_worse_one(
    installation: tuple[Settings, Trained], tmp_path: Path
) -> None:
    settings, made = installation
    # Of so small a log the segments are noise.
    eased = settings.model_copy(
        update={
            "gate_min_searches": 50,
            "gate_max_latency_ms": 1e3,
            "gate_max_drift": 1e9,
            "gate_max_segment_loss": 0.3,
            "gate_max_loss": 0.1,
        }
    )
    register(eased, made)
    promotion = promote_bundle(eased, made.folder)
    assert promotion.live, promotion.reasons
    assert live_bundle(settings.models_folder) == made.folder
    time.sleep(1.1)
    bundle = load_bundle(made.folder)
    noise = Interest(ModelSpec(products=2, features=len(FEATURES), width=4, parts=("features",)))
    with torch.no_grad():
        noise.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
    to_onnx(noise, tmp_path / "noise.onnx")
    graph = (tmp_path / "noise.onnx").read_bytes()
    worse = write_bundle(
        settings.models_folder, graph, bundle.spec, bundle.vocabulary,
        data_window=bundle.description["data_window"], affinity=bundle.affinity, calibration=bundle.calibration,
    )  # fmt: skip
    register(eased, replace(made, folder=worse))
    promotion = promote_bundle(eased, worse)
    assert not promotion.live
    assert "NDCG@10" in promotion.reasons[0]
    assert live_bundle(settings.models_folder) == made.folder, "what was live stays"


@pytest.mark.parametrize("dims", [DIMS, 32])
def test_a_live_model_that_products_encoded_anew_do_not_go_with_keeps_no_other_out(
    tmp_path: Path, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop(tmp_path, events(shoppers=8, days=40), [])
    settings = settings.model_copy(update={"gate_min_searches": 1})
    encoder = HashingEncoder(dims)
    runtime = open_runtime(settings, start=False)
    try:
        index_products(products(), runtime.engine, encoder, rebuild=True)
    finally:
        runtime.close()
    if dims == DIMS:  # else that the vectors are of another encoder shows by their width alone
        monkeypatch.setattr("endcap.runtime.text_encoder_at_hand", lambda settings: encoder)
    with closing(open_database(settings)) as database:
        registry = open_registry(settings, database)
        registry.add_candidate("interest", "1", make_bundle(settings.models_folder, 1))
        registry.add_candidate("interest", "2", bundle_without_content(settings.models_folder, 2))
        live, candidate = registry.get("interest", "1"), registry.get("interest", "2")
        assert InterestGate(settings).judge(candidate, live).numbers["against"] == "baseline"
        verdict = InterestGate(settings).judge(live, candidate)
        assert not verdict.passed
        assert "content vectors" in verdict.reasons[0]


def test_an_update_goes_on_from_the_live_bundle_and_leaves_a_pinned_one_in_force(
    installation: tuple[Settings, Trained], tmp_path: Path
) -> None:
    settings, made = installation
    register(settings, made)
    make_live(made.folder)
    # Of so small a log nothing is sure; what is asked here is whether a pin counts.
    eased = settings.model_copy(
        update={
            "gate_min_searches": 1, "gate_max_latency_ms": 1e3, "gate_max_drift": 1e9, "gate_max_segment_loss": 1.0,
            "gate_max_loss": 1.0, "gate_max_calibration_error": 1.0,
        }
    )  # fmt: skip
    database = open_database(settings)
    registry = open_registry(settings, database)
    version = str(load_bundle(made.folder).version)
    registry.pin("interest", version)
    update = load_jobs()["update"]
    assert update.takes is not None
    with pytest.raises(ValueError, match="epochs"):
        update.takes.model_validate({"epochs": -1})
    parameters = update.takes(promote=True, lists=400).model_dump()
    try:
        result = update.run(Context(eased, parameters, tmp_path))
        assert not result["promoted"]
        assert result["gate"][-1] == f"interest {version} is pinned: unpin it first"
        candidate = registry.get("interest", result["version"])
        assert (candidate.state, candidate.verdict["passed"]) == ("candidate", True)  # type: ignore[index]
        assert live_bundle(settings.models_folder) == made.folder
    finally:
        registry.unpin("interest")
        database.close()
    about = load_bundle(settings.models_folder / result["bundle"]).description
    assert result["base"] == about["training"]["base"] == made.folder.name
    # Going on with more days than the base was trained on must not judge by what has trained it.
    longer = Request(lists=100, epochs=1, days=80, base=str(settings.models_folder / result["bundle"]))
    again = trained(settings, longer).window["moments"]
    moments = about["data_window"]["moments"]
    assert moments["valid"] == pytest.approx(again["valid"], abs=1.0)
    with closing(open_database(settings)) as database, pytest.raises(TooLittle, match="nothing later"):
        make_plan(EventLog(database), seen=again["end"] + 1.0)
    assert about["model"] == load_bundle(made.folder).description["model"]
    assert result["metrics"]["held-out ndcg@10"] > 0.4


def test_the_nightly_job_keeps_the_parts_of_the_live_model(
    installation: tuple[Settings, Trained], tmp_path: Path
) -> None:
    # Without the part `sequence` new products would lose their embeddings in the night.
    settings, before = installation
    small = {"lists": 150, "epochs": 1}
    first = load_jobs()["train"].run(Context(settings, {**small, "parts": "features, sequence"}, tmp_path))
    make_live(settings.models_folder / first["bundle"])
    try:
        time.sleep(1.1)
        second = load_jobs()["train"].run(Context(settings, {**small, "seed": 1}, tmp_path))
    finally:
        make_live(before.folder)
    for result in (first, second):
        about = load_bundle(settings.models_folder / result["bundle"]).description["model"]
        assert about["spec"]["parts"] == ["features", "sequence"]
    with pytest.raises(InvalidInput, match="there are features, sequence, attention"):
        load_jobs()["train"].run(Context(settings, {"parts": "features,memory"}, tmp_path))


def test_flagged_shoppers_teach_nothing(tmp_path: Path) -> None:
    log = events(shoppers=20, days=60)
    farm = [Event(f"farm{n}", START + (40 + n % 20) * DAY_S + n, "farmer", Action.PURCHASE, "p3") for n in range(400)]
    clean = shop(tmp_path / "clean", log)
    settings = shop(tmp_path / "farmed", [*log, *farm])
    runtime = open_runtime(settings, start=False)
    try:
        runtime.flags.suspect([Suspicion("shopper", "farmer", 1.0, ["a farm"])], "test")
    finally:
        runtime.close()
    one, two = trained(clean), trained(settings)
    assert one.window["events"] == two.window["events"]


def test_no_feature_sees_what_comes_later(tmp_path: Path) -> None:
    """The same cases, whether the log ends after them or goes on."""
    log = events(shoppers=12, days=60)
    log.sort(key=lambda one: one.time)
    cut = START + 45 * DAY_S
    made: list[Cases] = []
    for name, part in (("short", [one for one in log if one.time < cut]), ("long", log)):
        settings = shop(tmp_path / name, part)
        runtime = open_runtime(settings, start=False)
        try:
            made.append(replayed(runtime, tmp_path / f"{name}-cases", cut))
        finally:
            runtime.close()
    short, long = made
    earlier = long.lists["moment"] < cut
    assert len(short.lists) == earlier.sum() > 20
    rows = np.repeat(earlier, long.lists["size"])
    np.testing.assert_array_equal(short.features, long.features[rows])
    np.testing.assert_array_equal(short.rows, long.rows[rows])


def replayed(runtime: Runtime, folder: Path, cut: float) -> Cases:
    table = ProductTable.collect(runtime.engine.scan())
    popularity = Popularity()
    plan = Plan(
        START + 20 * DAY_S, cut, cut, START + 100 * DAY_S, (START + 20 * DAY_S, START + 30 * DAY_S), (6,), 1_000
    )
    lists = Lists(table, popularity, runtime.engine)
    with CaseWriter(folder, 50) as writer:
        Replay(table, runtime.settings, plan, lists, popularity).run(runtime.log, writer.add)
    writer.finish({})
    return Cases(folder)


def test_searches_without_a_purchase_teach_the_outside_option(tmp_path: Path) -> None:
    made = trained(shop(tmp_path, events(shoppers=30, days=60, searches=True)))
    bundle = load_bundle(made.folder)
    assert bundle.description["training"]["lists_without_choice"] > 50
    assert bundle.calibration is not None
    assert bundle.calibration.outside > -5.0
    assert made.metrics["calibration error"] < 0.1


def test_an_unknown_model_or_loss_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there are dnn"):
        trained(shop(tmp_path, []), Request(model="oracle"))
    with pytest.raises(ConfigurationError, match="there are listwise, pointwise"):
        trained(shop(tmp_path, []), Request(loss="regret"))


CHILD = """
import sys, time
from pathlib import Path
from endcap.settings import load_settings
from endcap_workers.training.train import Request, train
settings = load_settings(data_dir=Path(sys.argv[1]), index="shop", text_encoder="none", window=100)
def report(line):
    print(line, flush=True)
    if "killed" in sys.argv and line.startswith("epoch 2:"):
        time.sleep(600)  # or it might be done before the kill comes
made = train(settings, Request(lists=400, epochs=40), settings.data_dir / "training", report=report)
print("done", made.metrics["validation ndcg@10"], flush=True)
"""


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = shop(tmp_path, events(shoppers=20, days=60))
    command = [sys.executable, "-c", CHILD, str(settings.data_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([*command, "killed"], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    seen = _until(child, lambda line: line.startswith("epoch 2:"))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not any("done" in line for line in seen)
    rest = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True, timeout=240).stdout
    assert "goes on with the cases" in rest
    assert "goes on after epoch" in rest
    assert "epoch 1:" not in rest
    assert "done" in rest


class Cut(Exception):
    """What cuts a run off."""


def cut_off(line: str) -> None:
    if line.startswith("epoch 2:"):
        raise Cut


def test_a_run_goes_on_with_its_own_products_and_codes_where_the_catalogue_has_changed(tmp_path: Path) -> None:
    apart = Product("apart", brand="Brand 0", categories=("Shop", "elsewhere"))
    settings = shop(tmp_path, events(shoppers=10, days=40), [apart, *products()])
    request = Request("dnn", lists=100, epochs=2)
    whole = train(settings, request, tmp_path / "whole")
    assert whole is not None
    with pytest.raises(Cut):
        train(settings, request, tmp_path / "cut", report=cut_off)
    runtime = open_runtime(settings, start=False)
    try:  # what was written last the engine lists last; a brand more makes tables larger
        index_products([replace(apart, brand="a new brand")], runtime.engine, None)
    finally:
        runtime.close()
    said: list[str] = []
    made = train(settings, request, tmp_path / "cut", report=said.append)
    assert made is not None
    assert said[1] == "goes on after epoch 1"
    assert made.metrics == whole.metrics


def _until(child: subprocess.Popen[str], found: Callable[[str], bool]) -> list[str]:
    lines: list[str] = []
    assert child.stdout is not None
    for line in child.stdout:
        lines.append(line)
        if found(line):
            return lines
    raise AssertionError("".join(lines))
