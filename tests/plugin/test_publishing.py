"""`endcap publish`: what Triton gets, what goes live, and what is left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from endcap import live, publishing
from endcap.bundles import Bundle, live_bundle, load_bundle, make_live, write_bundle
from endcap.catalog import Product
from endcap.commands.models import publish
from endcap.commands.versions import who
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import BundleRefused, PublishingFailed
from endcap.interest import Calibration
from endcap.live import LiveModel
from endcap.registry import INTEREST, Registry, VersionConflict
from endcap.runtime import Runtime, open_runtime
from endcap.scoring.triton import SPECIFICATION, TritonScorer
from endcap.sequences import INPUTS, InputSpec
from endcap.settings import load_settings
from endcap.stores.database import Database
from tests.services.triton import Triton
from tests.serving import ENCODER, SPEC, TABLE, VOCABULARY, eventually, graph, make_bundle, searches


@pytest.fixture
def bundle(interest_bundle: Path) -> Bundle:
    return load_bundle(interest_bundle)


def parsed(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("device", publishing.DEVICES)
def test_the_configuration_is_one_that_triton_reads(bundle: Bundle, tmp_path: Path, device: str) -> None:
    target = publishing.write_version(bundle, tmp_path, device)
    config = parsed(target.parent / "config.pbtxt")
    kinds = model_config_pb2.ModelInstanceGroup
    assert target == tmp_path / bundle.served_name / "1"
    assert config.name == target.parent.name
    assert config.backend == ("python" if device == "python" else "onnxruntime")
    assert config.HasField("dynamic_batching")
    assert config.max_batch_size >= 8
    assert [group.kind for group in config.instance_group] == [kinds.KIND_GPU if device == "gpu" else kinds.KIND_CPU]
    assert config.parameters[SPECIFICATION].string_value == bundle.spec.digest
    assert config.version_policy.latest.num_versions >= 2, "servers switch one after another"
    assert [one.name for one in config.input] == list(INPUTS)
    for one in config.input:
        expected = "TYPE_INT64" if INPUTS[one.name] == "int64" else "TYPE_FP32"
        assert model_config_pb2.DataType.Name(one.data_type) == expected
        assert tuple(one.dims) == SPEC.shape(one.name)
    assert [(one.name, list(one.dims)) for one in config.output] == [("scores", [-1])]
    for warm in config.model_warmup:
        assert warm.batch_size <= config.max_batch_size
        assert {name: len(sample.dims) for name, sample in warm.inputs.items()} == {
            one.name: len(one.dims) for one in config.input
        }
        assert min(min(sample.dims) for sample in warm.inputs.values()) > 0


def test_the_configuration_agrees_with_the_graph(bundle: Bundle, tmp_path: Path) -> None:
    """Triton's ONNX Runtime backend compares them when it loads: fixed dimensions must be equal."""
    config = parsed(publishing.write_version(bundle, tmp_path).parent / "config.pbtxt")
    for one, tensor in zip(config.input, bundle.session.get_inputs(), strict=True):
        assert one.name == tensor.name
        fixed = [size if isinstance(size, int) else -1 for size in tensor.shape]
        assert [-1, *one.dims] == fixed


def test_a_version_carries_the_model_and_its_description(bundle: Bundle, tmp_path: Path) -> None:
    target = publishing.write_version(bundle, tmp_path, "python")
    assert (target / "model.onnx").read_bytes() == (bundle.folder / "model.onnx").read_bytes()
    assert sorted(one.name for one in target.iterdir()) == ["bundle.json", "model.onnx", "model.py"]
    assert sorted(one.name for one in target.parent.iterdir()) == ["1", "config.pbtxt"]


def test_publishing_twice_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    target = publishing.write_version(bundle, tmp_path)
    before = (target.stat().st_ino, (target.parent / "config.pbtxt").stat().st_ino)
    assert publishing.write_version(bundle, tmp_path) == target
    assert (target.stat().st_ino, (target.parent / "config.pbtxt").stat().st_ino) == before


def test_another_model_never_takes_a_published_version(bundle: Bundle, tmp_path: Path) -> None:
    publishing.write_version(bundle, tmp_path / "repository")
    other = load_bundle(make_bundle(tmp_path, version=1, seed=8))
    with pytest.raises(PublishingFailed, match="holds another model"):
        publishing.write_version(other, tmp_path / "repository")


def test_a_tuned_configuration_is_kept_unless_asked(bundle: Bundle, tmp_path: Path) -> None:
    config = publishing.write_version(bundle, tmp_path).parent / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 2", "count: 5"))
    second = load_bundle(make_bundle(tmp_path / "bundles", version=2))
    publishing.write_version(second, tmp_path, "cpu")
    assert parsed(config).instance_group[0].count == 5
    publishing.write_version(second, tmp_path, "cpu", new_config=True)
    assert parsed(config).instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: "input {", "no model configuration"),
        (lambda text: text.replace(SPEC.digest, "x"), "specification x"),
    ],
)
def test_a_configuration_of_something_else_is_not_published_into(
    bundle: Bundle, tmp_path: Path, spoil: object, reason: str
) -> None:
    config = publishing.write_version(bundle, tmp_path).parent / "config.pbtxt"
    assert callable(spoil)
    config.write_text(spoil(config.read_text()))
    second = load_bundle(make_bundle(tmp_path / "bundles", version=2))
    with pytest.raises(PublishingFailed, match=reason):
        publishing.write_version(second, tmp_path)
    assert not (tmp_path / bundle.served_name / "2").exists()


def test_a_repository_that_cannot_be_written_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishingFailed, match="could not be written"):
        publishing.write_version(bundle, tmp_path / "file")


def test_old_versions_leave_the_repository(tmp_path: Path) -> None:
    made = [load_bundle(make_bundle(tmp_path / "bundles", version=number)) for number in (1, 2, 3)]
    for one in made:
        publishing.write_version(one, tmp_path / "repository")
    publishing.prune_versions(made[2], tmp_path / "repository", keep=2)
    folder = tmp_path / "repository" / made[0].served_name
    assert sorted(one.name for one in folder.iterdir()) == ["2", "3", "config.pbtxt"]


# The command


def test_a_step_back_to_an_old_version_has_room_among_those_that_triton_loads(tmp_path: Path) -> None:
    bundles = [load_bundle(make_bundle(tmp_path / "models", number)) for number in range(1, 7)]
    for bundle in bundles:
        publishing.write_version(bundle, tmp_path / "repository", "cpu")
    removed = publishing.make_room(bundles[0], tmp_path / "repository", bundles[4])
    assert sorted(one.name for one in removed) == ["2", "3", "4"]
    folder = tmp_path / "repository" / bundles[0].served_name
    assert sorted(one.name for one in folder.iterdir() if one.is_dir()) == ["1", "5", "6"]
    assert publishing.make_room(bundles[0], tmp_path / "repository", None) == []


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder that the command's settings name."""
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(publish, arguments)
    if result.exception:
        raise result.exception
    return result.output


def test_the_command_puts_a_bundle_into_force(shop: Path, interest_bundle: Path) -> None:
    said = run(str(interest_bundle))
    assert "interest-1: live" in said
    assert live_bundle(shop / "models") == shop / "models" / "interest-1"
    assert load_bundle(shop / "models" / "interest-1").label == "interest-1"


def test_the_command_can_step_back(shop: Path) -> None:
    make_bundle(shop / "models", version=1)
    make_bundle(shop / "models", version=2)
    run("interest-2")
    assert "interest-1: live, after interest-2" in run("interest-1")
    assert live_bundle(shop / "models") == shop / "models" / "interest-1"


@pytest.fixture
def registry(shop: Path) -> Iterator[Registry]:
    shop.mkdir(parents=True, exist_ok=True)
    database = Database.in_folder(shop)
    yield Registry(database, shop / "models")
    database.close()


def test_the_command_says_in_the_registry_who_did_it(shop: Path, registry: Registry) -> None:
    for version in (1, 2):
        make_bundle(shop / "models", version=version)
        run(f"interest-{version}")
    run("interest-1")
    changes = registry.history(INTEREST)
    assert [(one.action, one.version, one.before) for one in changes] == [
        ("promote", "1", "2"), ("promote", "2", "1"), ("promote", "1", ""),
    ]  # fmt: skip
    assert {one.by for one in changes} == {who()}
    assert who().startswith("cli")
    assert {one.version: one.state for one in registry.versions(INTEREST)} == {"1": "live", "2": "retired"}
    assert registry.get(INTEREST, "1").provenance["version"] == 1
    assert registry.roll_back(INTEREST, "eve").version == "2"
    assert live_bundle(shop / "models") == shop / "models" / "interest-2"


def test_the_command_respects_a_pin(shop: Path, registry: Registry) -> None:
    for version in (1, 2):
        make_bundle(shop / "models", version=version)
    run("interest-1")
    registry.pin(INTEREST, "1", "eve")
    with pytest.raises(VersionConflict, match="interest 1 is pinned"):
        run("interest-2")
    assert live_bundle(shop / "models") == shop / "models" / "interest-1"
    run("interest-1")
    run("interest-2", "--no-live")
    assert registry.get(INTEREST, "2").state == "candidate"
    run("interest-2", "--force")
    assert live_bundle(shop / "models") == shop / "models" / "interest-2"


def test_old_bundles_go_but_what_is_live_or_was_before_stays(shop: Path, tmp_path: Path) -> None:
    (shop / "models" / "interest-notes").mkdir(parents=True)
    folders = [make_bundle(tmp_path, version=number) for number in (1, 2, 3, 4, 5)]
    for folder in folders[:3]:
        run(str(folder), "--keep", "2")
    run("interest-2", "--keep", "2")
    for folder in folders[3:]:
        run(str(folder), "--keep", "2", "--no-live")
    left = sorted(one.name for one in (shop / "models").iterdir() if one.is_dir() and not one.name.startswith("."))
    assert left == ["interest-2", "interest-3", "interest-4", "interest-5", "interest-notes"]
    assert "interest-1: live" in run(str(folders[0]), "--keep", "2"), "what was removed may come back"


def test_without_a_name_the_newest_bundle_is_meant(shop: Path) -> None:
    make_bundle(shop / "models", version=1)
    make_bundle(shop / "models", version=2)
    assert "interest-2: live" in run()


def test_not_live_is_not_live(shop: Path, interest_bundle: Path) -> None:
    run(str(interest_bundle), "--no-live")
    assert live_bundle(shop / "models") is None


def test_a_spoilt_bundle_does_not_go_live(shop: Path, interest_bundle: Path, tmp_path: Path) -> None:
    run(str(interest_bundle))
    spoilt = Path(shutil.copytree(interest_bundle, tmp_path / "spoilt"))
    (spoilt / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleRefused, match=r"model\.onnx does not match its checksum"):
        run(str(spoilt))
    assert live_bundle(shop / "models") == shop / "models" / "interest-1"


@pytest.mark.parametrize(("name", "reason"), [((), "there is no bundle"), (("nowhere",), "neither a bundle's folder")])
def test_a_bundle_that_is_not_there_is_named(shop: Path, name: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BundleRefused, match=reason):
        run(*name)


def test_the_command_gives_the_model_to_a_real_triton(
    shop: Path, triton: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_TRITON_URL", triton.url)
    monkeypatch.setenv("ENDCAP_TRITON_REPOSITORY", str(triton.repository))
    folder = make_bundle(tmp_path, version=41, seed=41)
    said = run(str(folder), "--device", "python")
    assert f"served by Triton at {triton.url}" in said
    scorer = TritonScorer(triton.url, load_bundle(folder))
    scorer.check()
    scorer.close()


def test_what_triton_cannot_load_does_not_go_live(
    shop: Path, triton: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the tests has no ONNX Runtime backend, as the production template wants it."""
    monkeypatch.setenv("ENDCAP_TRITON_URL", triton.url)
    spec = InputSpec(places=7, content=SPEC.content, encoder=ENCODER)
    folder = write_bundle(tmp_path, graph(3, spec), spec, VOCABULARY, version=1)
    with pytest.raises(PublishingFailed, match="does not load"):
        run(str(folder), "--repository", str(triton.repository), "--device", "gpu")
    assert live_bundle(shop / "models") is None


def test_a_missing_client_is_named(interest_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "sys.modules['tritonclient'] = None\n"
        "from endcap import publishing; from endcap.bundles import load_bundle\n"
        "from endcap.errors import ConfigurationError\n"
        "try:\n"
        "    publishing.write_version(load_bundle(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "except ConfigurationError as error:\n"
        "    print(error)"
    )
    command = [sys.executable, "-c", code, str(interest_bundle), str(tmp_path / "repository")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "pip install 'endcap[triton]'" in ran.stdout, ran.stderr
    assert not (tmp_path / "repository").exists()


# Going live in a running process


def test_the_live_model_follows_the_pointer_forth_and_back(tmp_path: Path) -> None:
    first, second = (make_bundle(tmp_path, version=number, seed=number) for number in (1, 2))
    model = LiveModel(tmp_path, ENCODER)
    model.prepare(TABLE)
    one = searches(1)[0]
    seen = []
    for folder in (None, first, second, first):
        if folder is not None:
            make_live(folder)
        model.look()
        seen.append(model.scorer.answer(one).scorer)
    (tmp_path / "live.json").unlink()
    model.look()
    seen.append(model.scorer.answer(one).scorer)
    assert seen == ["baseline", "onnx:interest-1", "onnx:interest-2", "onnx:interest-1", "baseline"]


def test_what_cannot_go_live_leaves_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (make_bundle(tmp_path, version=number) for number in (1, 2))
    model = LiveModel(tmp_path, ENCODER)
    make_live(first)
    model.look()
    sound = (second / "model.onnx").read_bytes()
    (second / "model.onnx").write_bytes(sound[:-100])
    make_live(second)
    for _ in range(2):
        with pytest.raises(BundleRefused, match=r"interest-2: model\.onnx does not match its checksum"):
            model.look()
    assert model.scorer.answer(searches(1)[0]).scorer == "onnx:interest-1"
    make_live(first)
    model.look()
    make_live(second)
    with pytest.raises(BundleRefused):
        model.look()
    (second / "model.onnx").write_bytes(sound)  # the copy to this machine had not been through
    monkeypatch.setattr(live, "RETRY_S", 0.0)
    model.look()
    assert model.scorer.answer(searches(1)[0]).scorer == "onnx:interest-2"


def test_a_bundle_of_another_encoder_does_not_go_live(tmp_path: Path) -> None:
    make_live(make_bundle(tmp_path, version=1))
    with pytest.raises(BundleRefused, match="this server's encoder is another"):
        LiveModel(tmp_path, "another").look()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings = load_settings(data_dir=tmp_path, text_encoder="none", deadline_ms=60_000)
    engine = EmbeddedEngine(settings.data_dir, settings.index)
    engine.ensure(None, "none")
    engine.upsert([(Product(f"p{number}", "Honey", price=1.0), None, "") for number in range(5)])
    engine.refresh()
    engine.close()
    opened = open_runtime(settings)
    assert opened.upkeep.wait_ready(120.0)
    yield opened
    opened.close()


def bundle_without_content(models: Path, version: int) -> Path:
    spec = InputSpec(
        places=10,
        codes=("brand", "category"),
        content=0,
        inputs=tuple(name for name in INPUTS if "content" not in name),
    )
    return write_bundle(models, graph(version, spec), spec, VOCABULARY, version=version)


def test_a_running_process_switches_without_a_restart(runtime: Runtime) -> None:
    ids, scores = [f"p{number}" for number in range(5)], np.ones(5, dtype=np.float32)

    def scorer() -> str:
        ranking = runtime.personalizer.rank("ann", "honey", ids, scores)
        assert (ranking.degraded, ranking.fallback) == ("", "")
        return ranking.scorer

    models = runtime.settings.models_folder
    assert scorer() == "baseline"
    make_live(bundle_without_content(models, 1))
    assert eventually(lambda: scorer() == "onnx:interest-1")
    second = bundle_without_content(models, 2)
    (second / "vocabulary.json").write_bytes(b"{}")
    make_live(second)
    assert eventually(lambda: "vocabulary.json" in runtime.upkeep.problems.get("model", ""))
    assert scorer() == "onnx:interest-1"
    make_live(bundle_without_content(models, 3))
    assert eventually(lambda: scorer() == "onnx:interest-3")
    assert eventually(lambda: "model" not in runtime.upkeep.problems)


def test_the_ranking_says_who_fell_back(runtime: Runtime) -> None:
    make_live(bundle_without_content(runtime.settings.models_folder, 1))
    ids = [f"p{number}" for number in range(5)]
    model = runtime.upkeep._model
    assert eventually(lambda: model.bundle is not None)
    bundle = model.bundle
    assert bundle is not None
    # A server that is not there stands first in line, as after a loss of Triton.
    gone = TritonScorer("127.0.0.1:1", bundle)
    model.scorer.replace([gone, *model.scorer.steps])
    ranking = runtime.personalizer.rank("ann", "honey", ids, np.ones(5, dtype=np.float32))
    assert (ranking.scorer, ranking.fallback, ranking.degraded) == ("onnx:interest-1", "triton:circuit_open", "")
    gone.close()


def test_a_calibrated_model_says_how_probable_each_product_is(runtime: Runtime) -> None:
    ids, scores = [f"p{number}" for number in range(5)], np.ones(5, dtype=np.float32)
    assert runtime.personalizer.rank("ann", "honey", ids, scores).interest is None, "the baseline makes no such claim"
    spec = InputSpec(
        places=10, codes=("brand", "category"), inputs=tuple(name for name in INPUTS if "content" not in name)
    )
    calibration = Calibration(slope=0.5, outside=1.0)
    models = runtime.settings.models_folder
    make_live(write_bundle(models, graph(1, spec), spec, VOCABULARY, version=1, calibration=calibration))
    assert eventually(lambda: runtime.personalizer.rank("ann", "honey", ids, scores).scorer == "onnx:interest-1")
    interest = runtime.personalizer.rank("ann", "honey", ids, scores).interest
    assert interest is not None
    assert (interest > 0).all()
    assert 0.0 < interest.sum() < 1.0, "the rest is the wish for none of them"
