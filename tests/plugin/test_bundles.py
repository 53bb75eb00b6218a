"""Bundles: whole or not there, and never live unless they are sound."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import orjson
import pytest

from endcap import publishing
from endcap.bundles import Bundle, inputs_of, live_bundle, load_bundle, make_live, write_bundle
from endcap.errors import BundleRefused
from endcap.features.affinity import TRAITS, Affinity
from endcap.interest import Calibration
from endcap.sequences import InputSpec, Vocabulary
from tests.serving import ENCODER, SPEC, VOCABULARY


@pytest.fixture
def folder(interest_bundle: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(interest_bundle, tmp_path / interest_bundle.name))


@pytest.fixture(scope="module")
def model(interest_bundle: Path) -> bytes:
    return (interest_bundle / "model.onnx").read_bytes()


def tiny(value: float = 0.0, inputs: tuple[str, ...] = ("candidate_features",), output: str = "scores") -> bytes:
    """A graph that adds up the features, plus a constant."""
    helper, kind = onnx.helper, onnx.TensorProto
    width = len(SPEC.features)
    nodes = [
        helper.make_node("ReduceSum", [inputs[0], "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "value"], [output]),
    ]
    constants = [
        helper.make_tensor("axis", kind.INT64, [1], [2]),
        helper.make_tensor("value", kind.FLOAT, [1], [value]),
    ]
    takes = [helper.make_tensor_value_info(one, kind.FLOAT, ["b", "n", width]) for one in inputs]
    gives = [helper.make_tensor_value_info(output, kind.FLOAT, ["b", "n"])]
    graph = helper.make_graph(nodes, "tiny", takes, gives, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


TINY = InputSpec(codes=(), content=0, inputs=("candidate_features",))


def test_what_is_written_is_read_again(tmp_path: Path, model: bytes) -> None:
    folder = write_bundle(
        tmp_path,
        model,
        SPEC,
        VOCABULARY,
        name="taste",
        version=7,
        metrics={"ndcg@10": 0.57, "broken": float("nan")},
        data_window={"until": "2026-11-01"},
        seed=3,
        extra={"dataset": "journey"},
    )
    bundle = load_bundle(folder, ENCODER)
    assert folder == tmp_path / "taste-7"
    assert (bundle.name, bundle.version, bundle.label) == ("taste", 7, "taste-7")
    assert bundle.spec == SPEC
    assert bundle.vocabulary == VOCABULARY
    about = bundle.description
    assert about["metrics"] == {"ndcg@10": 0.57, "broken": None}
    assert (about["seed"], about["data_window"], about["dataset"]) == (3, {"until": "2026-11-01"}, "journey")
    assert about["libraries"]["onnxruntime"] == onnxruntime.__version__
    assert sorted(one.name for one in folder.iterdir()) == ["bundle.json", "model.onnx", "vocabulary.json"]


def test_versions_come_from_the_clock_and_rise(tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(tmp_path, tiny(), TINY, Vocabulary()))
    assert 20_260_000_000_000 < bundle.version < 30_000_000_000_000


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    write_bundle(tmp_path, tiny(), TINY, Vocabulary(), version=1)
    with pytest.raises(BundleRefused, match="choose another version"):
        write_bundle(tmp_path, tiny(1.0), TINY, Vocabulary(), version=1)


def test_the_probe_is_the_same_in_every_process(interest_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from endcap.bundles import load_bundle\n"
        "print(load_bundle(Path(sys.argv[1])).probe_scores.tobytes().hex())"
    )
    command = [sys.executable, "-c", code, str(interest_bundle)]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    here = load_bundle(interest_bundle).probe_scores
    assert np.frombuffer(bytes.fromhex(there), dtype=np.float32) == pytest.approx(here[0], abs=1e-6)
    assert here.std() > 0


def _describe(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        about = orjson.loads((folder / "bundle.json").read_bytes())
        change(about)
        (folder / "bundle.json").write_bytes(orjson.dumps(about))

    return spoil


def _truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def _flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(shutil.rmtree, "bundle.json cannot be read", id="not there"),
        pytest.param(lambda f: (f / "model.onnx").unlink(), "model.onnx cannot be read", id="no model"),
        pytest.param(lambda f: (f / "vocabulary.json").unlink(), "vocabulary.json cannot be read", id="no vocabulary"),
        pytest.param(_truncate("model.onnx"), "model.onnx does not match its checksum", id="half a model"),
        pytest.param(_truncate("vocabulary.json"), "vocabulary.json does not match", id="half a vocabulary"),
        pytest.param(_truncate("bundle.json"), "bundle.json is not JSON", id="half a description"),
        pytest.param(_flip, "model.onnx does not match its checksum", id="one bit"),
        pytest.param(lambda f: (f / "bundle.json").write_bytes(b"[]"), "not a JSON object", id="a list"),
        pytest.param(_describe(lambda d: d.update(format=2)), "format 2; this version reads format 1", id="format"),
        pytest.param(_describe(lambda d: d.pop("files")), "names no files", id="no checksums"),
        *(
            pytest.param(
                _describe(lambda d, name=name: d["files"].update({name: "0"})),
                "no file of a bundle",
                id=f"file {name!r}",
            )
            for name in ("../live.json", "/etc/hostname", "..", "", "a\0", "bundle.json")
        ),
        pytest.param(_describe(lambda d: d.update(name="../x")), "no usable name", id="a name that leads out"),
        pytest.param(_describe(lambda d: d.update(version="1")), "no usable name", id="a version in words"),
        pytest.param(
            _describe(lambda d: d["specification"]["features"].append("mood")), "mood unknown here", id="features"
        ),
        pytest.param(_describe(lambda d: d["specification"].pop("codes")), "specification", id="half a specification"),
        pytest.param(
            _describe(lambda d: d["specification"].update(seasons=4)),
            "unknown keys seasons",
            id="a newer specification",
        ),
        pytest.param(
            _describe(lambda d: d["specification"].update(inputs=["candidate_features"])),
            "model.onnx takes candidate_codes",
            id="tensors",
        ),
        pytest.param(
            _describe(lambda d: d["specification"].update(content=9)), "cannot score a plausible search", id="widths"
        ),
    ],
)
def test_a_spoilt_bundle_is_refused_with_the_reason(folder: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(folder)
    with pytest.raises(BundleRefused, match=reason) as refusal:
        load_bundle(folder, ENCODER)
    assert folder.name in str(refusal.value)


def test_another_encoder_is_refused(folder: Path) -> None:
    with pytest.raises(BundleRefused, match="of tests/encoder; this server's encoder is another"):
        load_bundle(folder, "another")
    with pytest.raises(BundleRefused, match="encoder is none"):
        load_bundle(folder, "")


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        pytest.param(b"", "no graph that onnxruntime takes", id="nothing"),
        pytest.param(b"not an onnx file", "no graph that onnxruntime takes", id="something else"),
        pytest.param(tiny(float("nan")), "not finite", id="nan"),
        pytest.param(tiny(float("inf")), "not finite", id="infinite"),
        pytest.param(tiny(output="ranks"), "gives ranks where scores", id="output"),
    ],
)
def test_a_model_that_cannot_be_served_is_never_written(tmp_path: Path, graph: bytes, reason: str) -> None:
    with pytest.raises(BundleRefused, match=reason):
        write_bundle(tmp_path, graph, TINY, Vocabulary())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["products", "codes"])
def test_a_vocabulary_too_large_for_the_model_is_refused(tmp_path: Path, model: bytes, part: str) -> None:
    products, codes = [*VOCABULARY.products], dict(VOCABULARY.codes)
    if part == "products":
        products.append("one more")
    else:
        codes["brand"] = [*codes["brand"], "one more"]
    with pytest.raises(BundleRefused, match="cannot score a plausible search"):
        write_bundle(tmp_path, model, SPEC, Vocabulary(products, codes, VOCABULARY.price_bands))


def test_the_tensors_of_a_graph_are_read_from_it(model: bytes) -> None:
    assert inputs_of(model) == SPEC.inputs
    assert inputs_of(tiny()) == ("candidate_features",)
    with pytest.raises(BundleRefused, match="no graph"):
        inputs_of(b"nothing")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, model: bytes) -> None:
    """A limit on the size of files stands for the full disk: the kernel refuses the write half way."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from endcap.bundles import write_bundle\n"
        "from endcap.errors import BundleRefused\n"
        "from tests.serving import SPEC, VOCABULARY\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    write_bundle(Path(sys.argv[2]), Path(sys.argv[1]).read_bytes(), SPEC, VOCABULARY)\n"
        "except BundleRefused as refusal:\n"
        "    print(refusal)"
    )
    (tmp_path / "graph").write_bytes(model)
    models = tmp_path / "models"
    command = [sys.executable, "-c", code, str(tmp_path / "graph"), str(models)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "could not be written" in ran.stdout, ran.stderr
    assert list(models.iterdir()) == []


def test_a_kill_while_writing_leaves_no_bundle(tmp_path: Path, model: bytes) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from endcap import bundles\n"
        "from tests.serving import SPEC, VOCABULARY\n"
        "bundles.load_bundle = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "bundles.write_bundle(Path(sys.argv[2]), Path(sys.argv[1]).read_bytes(), SPEC, VOCABULARY, version=1)"
    )
    (tmp_path / "graph").write_bytes(model)
    models = tmp_path / "models"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "graph"), str(models)], cwd=Path(__file__).parents[2])
    assert not (models / "interest-1").exists()
    write_bundle(models, model, SPEC, VOCABULARY, version=1)
    assert load_bundle(models / "interest-1").version == 1


def test_the_live_pointer(tmp_path: Path, folder: Path) -> None:
    assert live_bundle(tmp_path / "nowhere") is None
    assert live_bundle(folder.parent) is None
    make_live(folder)
    assert live_bundle(folder.parent) == folder
    make_live(folder.with_name("interest-2"))
    assert live_bundle(folder.parent) == folder.with_name("interest-2")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b'{"bundle": "../elsewhere"}', b'{"bundle": ""}', b'{"bundle": 1}']
)
def test_a_pointer_that_leads_nowhere_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "live.json").write_bytes(content)
    with pytest.raises(BundleRefused, match=r"live\.json"):
        live_bundle(tmp_path)


def test_models_of_one_specification_share_a_name_in_triton(tmp_path: Path) -> None:
    def bundle(spec: InputSpec, version: int) -> Bundle:
        return load_bundle(write_bundle(tmp_path, tiny(float(version)), spec, Vocabulary(), version=version))

    other = InputSpec(codes=(), content=0, inputs=("candidate_features",), places=9)
    assert bundle(TINY, 1).served_name == bundle(TINY, 2).served_name != bundle(other, 3).served_name


def affinity_of(count: int = 3) -> Affinity:
    half = np.zeros((count, 4), dtype=np.float16)
    nobody = np.full((count, 4), count, dtype=np.int32)
    keys, ones = np.arange(count, dtype=np.uint64), np.ones(count, dtype=np.float32)
    traits = np.zeros((count, len(TRAITS)), dtype=np.float16)
    return Affinity(keys, half, ones, *(nobody, half) * 3, traits)


def test_what_a_model_brings_along_comes_back_and_is_checked(tmp_path: Path) -> None:
    folder = write_bundle(
        tmp_path, tiny(), TINY, Vocabulary(), version=1, affinity=affinity_of(), calibration=Calibration(0.7, -1.0),
        weights=b"what training goes on from",
    )  # fmt: skip
    bundle = load_bundle(folder)
    assert bundle.affinity is not None
    assert len(bundle.affinity) == 3
    assert bundle.calibration == Calibration(0.7, -1.0)
    adopted = load_bundle(publishing.adopt(folder, tmp_path / "models"))
    assert sorted(adopted.files) == sorted(one.name for one in adopted.folder.iterdir()) == sorted(bundle.files)
    assert publishing.adopt(folder, tmp_path / "models") == adopted.folder
    (adopted.folder / "bundle.json").unlink()
    with pytest.raises(BundleRefused, match="no whole bundle"):
        publishing.adopt(folder, tmp_path / "models")
    (folder / "affinity.npz").write_bytes((folder / "affinity.npz").read_bytes()[:-100])
    with pytest.raises(BundleRefused, match=r"affinity.npz does not match"):
        load_bundle(folder)


@pytest.mark.parametrize("values", [{"slope": 1.0}, {"slope": -1.0, "outside": 0.0}, {"slope": "x", "outside": 0}, [1]])
def test_a_calibration_that_says_nothing_is_refused(tmp_path: Path, values: object) -> None:
    folder = write_bundle(tmp_path, tiny(), TINY, Vocabulary(), version=1)
    _describe(lambda about: about.update(calibration=values))(folder)
    with pytest.raises(BundleRefused, match="calibration"):
        load_bundle(folder)
