"""What a sentence-transformers model does around its network, read from the model's own files, without the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from endcap.errors import EndcapError

POOLINGS = ("mean", "cls", "max")


class CannotExport(EndcapError):
    """The model has a part that is not known here, or its export gives other vectors."""

    kind = "cannot_export"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """``pooling`` (mean, cls or max) makes one vector of the tokens'; ``max_length`` is in tokens, 0 if not said; the
    prompts go before each text. Normalising to length 1 is left out: Endcap's vectors always are."""

    pooling: str = "mean"
    max_length: int = 0
    lower_case: bool = False
    query_prompt: str = ""
    document_prompt: str = ""


def read_pipeline(folder: Path) -> Pipeline:
    """The pipeline of the model in ``folder``.

    Raises:
        CannotExport: it has modules other than transformer, pooling and normalising, or another pooling.
    """
    pooling = "mean"  # what sentence-transformers adds to a bare transformer
    for module in _read(folder / "modules.json", []):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling(_read(folder / module["path"] / "config.json", {}))
        elif kind not in ("Transformer", "Normalize"):
            raise CannotExport(f"its module {kind} is not one of Transformer, Pooling, Normalize")
    transformer = _read(folder / "sentence_bert_config.json", {})
    tokenizer = _read(folder / "tokenizer_config.json", {})
    prompts = _read(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    length = transformer.get("max_seq_length") or tokenizer.get("model_max_length") or 0
    return Pipeline(
        pooling=pooling,
        max_length=int(length) if length < 1_000_000 else 0,
        lower_case=bool(transformer.get("do_lower_case")),
        query_prompt=str(prompts.get("query") or ""),
        document_prompt=str(prompts.get("document") or prompts.get("passage") or ""),
    )


def _pooling(config: dict[str, Any]) -> str:
    flags = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    named = config.get("pooling_mode") or [flag.replace("_tokens", "").replace("_token", "") for flag in flags]
    chosen = [named] if isinstance(named, str) else list(named)
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise CannotExport(f"its pooling {chosen} is not one of {', '.join(POOLINGS)}")
    if not config.get("include_prompt", True):
        raise CannotExport("its pooling leaves the prompt out")
    return str(chosen[0])


def _read(file: Path, default: Any) -> Any:
    if not file.is_file():
        return default
    try:
        return orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise CannotExport(f"its file {file.name} is not JSON: {error}") from None
