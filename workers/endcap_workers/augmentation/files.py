"""A generator on disk, ``generator.safetensors`` (tensors) and ``generator.json`` (what it is); and as ONNX."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import load_file, save

from endcap.errors import InvalidInput
from endcap.files import write_through
from endcap_workers.augmentation.base import ContentNetwork, Generator

TENSORS, DESCRIPTION = "generator.safetensors", "generator.json"
FORMAT = 1
OPSET = 17


def version_of(generator: Generator) -> str:
    """16 hex digits that identify what a fitted generator says: its kind, its tensors, its seed."""
    return _digest(generator, save(_tensors(generator)))


def save_generator(generator: Generator, folder: Path) -> str:
    """Write the two files; returns the version.

    Raises:
        InvalidInput: it is not fitted.
        OSError: the disk refused.
    """
    content = save(_tensors(generator))
    version = _digest(generator, content)
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT,
        "name": generator.name,
        "version": version,
        "seed": generator.seed,
        "encoder": generator.encoder,
        "settings": generator.settings,
        "validation": {"best": _number(generator.training.best), "setting": generator.training.setting},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_through(folder / TENSORS, content)
    write_through(folder / DESCRIPTION, orjson.dumps(description, option=orjson.OPT_INDENT_2))
    return version


def load_generator(folder: Path) -> Generator:
    """A fitted generator, as it was saved.

    Raises:
        InvalidInput: the files are missing, changed since, or of another release.
    """
    from endcap_workers.augmentation import GENERATORS

    try:
        description: dict[str, Any] = orjson.loads((folder / DESCRIPTION).read_bytes())
        content = (folder / TENSORS).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder} holds no generator: {error}") from error
    if description.get("format") != FORMAT or description.get("name") not in GENERATORS:
        raise InvalidInput(f"{folder}: format {description.get('format')!r} of {description.get('name')!r} is unknown")
    if hashlib.sha256(content).hexdigest() != description.get("sha256"):
        raise InvalidInput(f"{folder / TENSORS} does not match its checksum: half written or changed since")
    generator = GENERATORS[description["name"]]()
    generator.shape = description["settings"]
    generator.seed, generator.encoder = description["seed"], description["encoder"]
    network = generator.blank(description["settings"])
    network.load_state_dict(load_file(folder / TENSORS))
    generator.network = network.eval()
    best = description["validation"]["best"]
    generator.training.best = float("nan") if best is None else best
    generator.training.setting = description["validation"]["setting"]
    return generator


def to_onnx(generator: Generator, path: Path) -> None:
    """Write the graph: ``codes`` int64 (n, K) and ``vectors`` float32 (n, D) in, ``embeddings`` float32 (n, d) out.

    Raises:
        InvalidInput: it is not fitted.
    """
    network = _network(generator)
    shape = generator.shape
    example = (torch.ones((2, len(shape["sizes"])), dtype=torch.long), torch.ones(2, shape["content"]))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            example,
            str(path),
            input_names=["codes", "vectors"],
            output_names=["embeddings"],
            dynamic_axes={name: {0: "products"} for name in ("codes", "vectors", "embeddings")},
            opset_version=OPSET,
            dynamo=False,
        )


def _network(generator: Generator) -> ContentNetwork:
    if generator.network is None:
        raise InvalidInput(f"the generator {generator.name} is not fitted")
    return generator.network


def _tensors(generator: Generator) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in _network(generator).state_dict().items()}


def _digest(generator: Generator, content: bytes) -> str:
    named = f"{generator.name}:{generator.seed}:{generator.encoder}:".encode()
    return hashlib.blake2b(named + content, digest_size=8).hexdigest()


def _number(value: float) -> float | None:
    return None if value != value else float(value)
