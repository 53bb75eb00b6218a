"""Exports a sentence-transformers model to ONNX once, so that serving needs neither torch nor transformers."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from endcap.encoders.onnx_text import (
    CONFIG_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportedConfig,
    OnnxTextEncoder,
)
from endcap.encoders.sentence_transformer import SentenceTransformerEncoder
from endcap.errors import EndcapError

#: Largest difference of any number in any vector between the export and the original that is accepted.
MAX_DIFFERENCE = 1e-4

_POOLINGS = ("mean", "cls", "max")
#: Texts of very different lengths, alone and together: graphs with a length or a mask baked in fail on them.
_CHECKS = (
    "",
    "honey",
    "Stainless steel kettle 1.7 l, 2200 W",
    "ground coffee, dark roast. " * 8,
    "Küche & Bad: Spülmaschinentabs – 40 Stück; 綠茶 茶葉 100克",
    "a long description that goes on and on, past what the model reads " * 60,
)


class CannotExport(EndcapError):
    """The model has a part that the export does not know, or its export gives other vectors."""

    kind = "cannot_export"


def export_model(encoder: SentenceTransformerEncoder, source: str, encoders_dir: Path) -> Path:
    """Export ``encoder``'s model to a new folder in ``encoders_dir`` and return it.

    Pooling and normalisation become part of the graph; batch and sequence are its dynamic axes. The folder appears
    whole, by one rename, after its vectors were compared with the original's; another process that exports the same
    model at the same time does no harm.

    Raises:
        CannotExport: the model's architecture is not covered.
    """
    pooling = _pooling(encoder.folder)
    encoders_dir.mkdir(parents=True, exist_ok=True)
    target = encoders_dir / encoder.id.rsplit(":", 1)[-1]
    scratch = Path(tempfile.mkdtemp(prefix=".export-", dir=encoders_dir))
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private, but the server may run as another user
        _write(encoder, pooling, source, scratch)
        _compare(encoder, OnnxTextEncoder(scratch))
        if target.exists():
            shutil.rmtree(target)
        try:
            os.replace(scratch, target)
        except OSError:  # another process was quicker
            ExportedConfig.load(target)
        return target
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pooling(folder: Path) -> str:
    """How token vectors become one, from the model's own files; refuses modules other than pooling and normalising."""
    pooling = "mean"  # what sentence-transformers adds to a bare transformer
    modules_file = folder / "modules.json"
    if not modules_file.is_file():
        return pooling
    for module in orjson.loads(modules_file.read_bytes()):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind in ("Transformer", "Normalize"):
            continue
        if kind != "Pooling":
            raise CannotExport(f"its module {kind} is not one of Transformer, Pooling, Normalize")
        config = orjson.loads((folder / module["path"] / "config.json").read_bytes())
        modes = [
            key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on
        ]
        named = config.get("pooling_mode") or [mode.replace("_tokens", "").replace("_token", "") for mode in modes]
        chosen = [named] if isinstance(named, str) else list(named)
        if len(chosen) != 1 or chosen[0] not in _POOLINGS:
            raise CannotExport(f"its pooling {chosen} is not one of {', '.join(_POOLINGS)}")
        if not config.get("include_prompt", True):
            raise CannotExport("its pooling leaves the prompt out")
        pooling = chosen[0]
    return pooling


def _write(encoder: SentenceTransformerEncoder, pooling: str, source: str, folder: Path) -> None:
    import torch

    transformer = encoder.model[0]
    network = getattr(transformer, "auto_model", None)
    tokenizer = encoder.model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if network is None or backend is None:
        raise CannotExport("it has no transformer with a fast tokenizer")
    own_tokenizer = encoder.folder / TOKENIZER_FILE
    if own_tokenizer.is_file():
        shutil.copyfile(own_tokenizer, folder / TOKENIZER_FILE)
    else:
        backend.save(str(folder / TOKENIZER_FILE))
    inputs = tuple(
        name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names
    )
    if inputs[:2] != ("input_ids", "attention_mask"):
        raise CannotExport(f"its tokenizer gives {tokenizer.model_input_names}")

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *columns: Any) -> Any:
            tokens = self.network(**dict(zip(inputs, columns, strict=True))).last_hidden_state
            mask = columns[1].unsqueeze(-1).to(tokens.dtype)
            if pooling == "cls":
                vectors = tokens[:, 0]
            elif pooling == "max":
                vectors = (tokens + (mask - 1.0) * 1e9).max(dim=1).values
            else:
                vectors = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
            return torch.nn.functional.normalize(vectors, dim=1)

    ids = torch.ones((2, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    columns = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    axes = {name: {0: "batch", 1: "sequence"} for name in inputs}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Pooled().eval(),
                tuple(columns[name] for name in inputs),
                str(folder / MODEL_FILE),
                input_names=list(inputs),
                output_names=["vectors"],
                dynamic_axes={**axes, "vectors": {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
    except Exception as error:  # the exporter raises errors of every kind
        raise CannotExport(f"torch cannot export it: {str(error)[:300]}") from None
    ExportedConfig(
        id=encoder.id,
        source=source,
        dims=encoder.dims,
        max_length=int(encoder.model.max_seq_length or 512),
        inputs=inputs,
        pad_id=int(tokenizer.pad_token_id or 0),
        pad_token=str(tokenizer.pad_token or "[PAD]"),
        lower_case=bool(getattr(transformer, "do_lower_case", False)),
        query_prompt=encoder.query_prompt,
        document_prompt=encoder.document_prompt,
    ).save(folder)


def _compare(original: SentenceTransformerEncoder, export: OnnxTextEncoder) -> None:
    """Refuse an export whose vectors differ, alone or in a batch."""
    expected = original.encode(_CHECKS)
    alone = np.concatenate([export.encode([text]) for text in _CHECKS])
    worst = max(float(np.abs(expected - export.encode(_CHECKS)).max()), float(np.abs(expected - alone).max()))
    queries = float(np.abs(original.encode_query("green tea") - export.encode_query("green tea")).max())
    if not max(worst, queries) <= MAX_DIFFERENCE:
        raise CannotExport(f"its export differs from it by {max(worst, queries):.1g}")


def exported_folders(encoders_dir: Path) -> list[Path]:
    """Folders of finished exports."""
    return sorted(file.parent for file in encoders_dir.glob(f"[!.]*/{CONFIG_FILE}"))
