"""Putting a bundle into force: a version in Triton's model repository, loaded and compared, then the live pointer.

The order matters. Triton serves the new version beside the old ones before any server asks for it, so that a switch
under load fails no search.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endcap.bundles import DESCRIPTION, MODEL, Bundle, load_bundle
from endcap.errors import BundleRefused, ConfigurationError, EndcapError, PublishingFailed
from endcap.files import replacing, sync_folder, write_through
from endcap.scoring.triton import SPECIFICATION, TritonScorer
from endcap.sequences import INPUTS, OUTPUT

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2

#: Where a model is to run -> its template in ``triton_models``.
DEVICES = {"gpu": "onnxruntime_gpu", "cpu": "onnxruntime_cpu", "python": "python_cpu"}
CONFIG = "config.pbtxt"
#: Versions of a model that Triton loads, as the templates say.
SERVED = 3

_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}
#: Candidates of the warm-up: the default window.
_WARM_CANDIDATES = 100
_WARM_BATCHES = (1, 8)
_VERSION = re.compile(r"[1-9]\d*")


def templates() -> Path:
    """The folder of the templates: inside the installed package, or in the checkout."""
    installed = Path(__file__).with_name("triton_models")
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "triton_models"


def model_config(bundle: Bundle, device: str) -> model_config_pb2.ModelConfig:
    """Triton's configuration of the bundle's model, the same for every version of one specification.

    Raises:
        ConfigurationError: tritonclient is not installed, or the template is not a model configuration.
    """
    protobuf, text_format = _protobuf()
    template = templates() / DEVICES[device] / CONFIG
    config = protobuf.ModelConfig()
    try:
        text_format.Parse(template.read_text(), config)
    except (OSError, text_format.ParseError) as error:
        raise ConfigurationError(f"the template {template} cannot be used: {error}") from error
    spec = bundle.spec
    config.name = bundle.served_name
    config.parameters[SPECIFICATION].string_value = spec.digest
    for name in spec.inputs:
        config.input.add(name=name, data_type=_TYPES[INPUTS[name]], dims=spec.shape(name))
    config.output.add(name=OUTPUT, data_type="TYPE_FP32", dims=[-1])
    for batch in _WARM_BATCHES:
        warm = config.model_warmup.add(name=f"{batch} searches", batch_size=batch)
        for name in spec.inputs:
            length = spec.places if name.startswith("history") else _WARM_CANDIDATES
            sample = warm.inputs[name]
            sample.data_type = protobuf.DataType.Value(_TYPES[INPUTS[name]])
            sample.dims.extend([length, *spec.shape(name)[1:]])
            sample.zero_data = True
    return config


def write_version(bundle: Bundle, repository: Path, device: str = "gpu", new_config: bool = False) -> Path:
    """Write ``repository/<served name>/<version>``, whole or not at all; a version that is there is left alone.

    An existing config.pbtxt stays as it is (it may have been tuned), unless ``new_config``.

    Raises:
        PublishingFailed: the disk refused, or the existing configuration is for something else.
        ConfigurationError: see :func:`model_config`.
    """
    config = model_config(bundle, device)
    folder = repository / bundle.served_name
    target = folder / str(bundle.version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if new_config or not (folder / CONFIG).exists():
            _write_config(folder, config)
        else:
            check_config(folder / CONFIG, bundle)
        if target.exists():
            if (target / MODEL).read_bytes() != (bundle.folder / MODEL).read_bytes():
                raise PublishingFailed(f"{target} is there already and holds another model: use a new version")
            return target
        scratch = Path(tempfile.mkdtemp(prefix=f".{bundle.version}.", dir=folder))
        try:
            extras = [one for one in (templates() / DEVICES[device]).iterdir() if one.is_file() and one.name != CONFIG]
            for source in (bundle.folder / MODEL, bundle.folder / DESCRIPTION, *extras):
                write_through(scratch / source.name, source.read_bytes())
            scratch.chmod(0o755)
            scratch.rename(target)
            sync_folder(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise PublishingFailed(f"{target} could not be written: {error}; nothing of it was left behind") from error
    return target


def check_config(path: Path, bundle: Bundle) -> None:
    """Raises PublishingFailed where a config.pbtxt is not for the bundle's model."""
    protobuf, text_format = _protobuf()
    config = protobuf.ModelConfig()
    try:
        text_format.Parse(path.read_text(), config)
    except text_format.ParseError as error:
        raise PublishingFailed(f"{path} is no model configuration: {error}; --new-config writes it anew") from error
    found = config.parameters[SPECIFICATION].string_value if SPECIFICATION in config.parameters else "none"
    if found != bundle.spec.digest or [one.name for one in config.input] != list(bundle.spec.inputs):
        raise PublishingFailed(
            f"{path} is for feature specification {found}, the bundle has {bundle.spec.digest}; --new-config writes it"
        )


def load_into_triton(bundle: Bundle, url: str, timeout_s: float = 60.0) -> None:
    """Ask Triton to load what the repository holds, and wait until it serves this bundle's model.

    Raises:
        PublishingFailed: it does not within the time; the last reason is named.
    """
    import tritonclient.grpc as client

    scorer = TritonScorer(url, bundle)
    until = time.monotonic() + timeout_s
    try:
        with client.InferenceServerClient(url) as server:
            server.load_model(bundle.served_name, client_timeout=timeout_s)
        while True:
            try:
                scorer.check()
                return
            except BundleRefused:
                raise
            except EndcapError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)
    except client.InferenceServerException as error:
        raise PublishingFailed(f"Triton at {url} does not load {bundle.served_name}: {error.message()}") from error
    except EndcapError as error:
        raise PublishingFailed(f"Triton at {url} does not serve {bundle.label}: {error}") from error
    finally:
        scorer.close()


def adopt(folder: Path, models: Path) -> Path:
    """The bundle's folder among ``models``, copied there in one step where it lies elsewhere.

    Raises:
        BundleRefused: it is not sound, another one has its name already, or the disk refused.
    """
    bundle = load_bundle(folder)
    target = models / bundle.label
    if target.exists():
        try:
            same = (target / DESCRIPTION).read_bytes() == (folder / DESCRIPTION).read_bytes()
        except OSError as error:  # a removal that was cut short
            raise BundleRefused(f"{target} is there already, but is no whole bundle ({error}): remove it") from None
        if not same:
            raise BundleRefused(f"{target} is there already and is another bundle")
        return target
    try:
        models.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=models))
        try:
            for file in bundle.files:
                write_through(scratch / file, (folder / file).read_bytes())
            load_bundle(scratch)
            scratch.chmod(0o755)
            scratch.rename(target)
            sync_folder(models)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise BundleRefused(f"{target} could not be written: {error}; nothing was left behind") from error
    return target


def prune_versions(bundle: Bundle, repository: Path, keep: int) -> list[Path]:
    """Remove all but the ``keep`` latest versions from Triton's repository, never the bundle's own."""
    folder = repository / bundle.served_name
    found = {int(one.name): one for one in folder.iterdir() if one.is_dir() and _VERSION.fullmatch(one.name)}
    return _remove_old(found, keep, folder / str(bundle.version))


def make_room(bundle: Bundle, repository: Path, live: Bundle | None) -> list[Path]:
    """Remove versions from Triton's repository so that the bundle's own and the live one are among the latest
    ``SERVED``, which are those that Triton loads: a step back may be to one that is older than many.

    Returns what was removed.
    """
    folder = repository / bundle.served_name
    found = {int(one.name): one for one in folder.iterdir() if one.is_dir() and _VERSION.fullmatch(one.name)}
    spared = {bundle.version}
    if live is not None and live.served_name == bundle.served_name:
        spared.add(live.version)
    others = {number: one for number, one in found.items() if number not in spared}
    return _remove_old(others, SERVED - len(spared & found.keys()), None)


def _remove_old(found: dict[int, Path], keep: int, spared: Path | None) -> list[Path]:
    old = [found[number] for number in sorted(found)[: max(0, len(found) - keep)] if found[number] != spared]
    for folder in old:
        # First out of sight in one step: a server that looks meanwhile sees it whole or not at all.
        hidden = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return old


def _write_config(folder: Path, config: Any) -> None:
    _, text_format = _protobuf()
    with replacing(folder / CONFIG, durable=True) as scratch:
        scratch.write_bytes(text_format.MessageToString(config).encode())
        scratch.chmod(0o644)  # for Triton, whoever that runs as


def _protobuf() -> tuple[Any, Any]:
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise ConfigurationError(
            "Triton's model repository needs tritonclient: pip install 'endcap[triton]'"
        ) from error
    return model_config_pb2, text_format
