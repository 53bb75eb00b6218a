"""Exports a sentence-transformers model to ONNX once, so that serving needs neither torch nor transformers."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from endcap.encoders.onnx_text import (
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportedConfig,
    OnnxTextEncoder,
)
from endcap.encoders.pipeline import CannotExport, read_pipeline
from endcap.encoders.ready_made import new_folder
from endcap.encoders.sentence_transformer import SentenceTransformerEncoder

#: Largest difference of any number in any vector between the export and the original that is accepted.
MAX_DIFFERENCE = 1e-4

#: Texts of very different lengths, alone and together: graphs with a length or a mask baked in fail on them.
_CHECKS = (
    "",
    "honey",
    "Stainless steel kettle 1.7 l, 2200 W",
    "ground coffee, dark roast. " * 8,
    "Küche & Bad: Spülmaschinentabs – 40 Stück; 綠茶 茶葉 100克",
    "a long description that goes on and on, past what the model reads " * 60,
)


def export_model(encoder: SentenceTransformerEncoder, source: str, encoders_dir: Path) -> Path:
    """Export ``encoder``'s model to a new folder in ``encoders_dir`` and return it.

    Pooling and normalisation become part of the graph; batch and sequence are its dynamic axes. The folder appears
    whole, by one rename, after its vectors were compared with the original's; another process that exports the same
    model at the same time does no harm.

    Raises:
        CannotExport: the model's architecture is not covered.
    """
    pooling = read_pipeline(encoder.folder).pooling
    with new_folder(encoders_dir, encoder.id.rsplit(":", 1)[-1]) as (scratch, target):
        _write(encoder, pooling, source, scratch)
        _compare(encoder, OnnxTextEncoder(scratch))
    return target


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

    class Pooled(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.network: Any = network

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
