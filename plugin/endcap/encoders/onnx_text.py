"""A sentence-transformers model that was exported once: onnxruntime and tokenizers alone run it, without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from tokenizers import Tokenizer

from endcap.encoders.base import Progress, cached_query, encodable, length_sorted_batches, unit
from endcap.errors import ConfigurationError

CONFIG_FILE = "endcap_encoder.json"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
#: Counted up when exported models of an older format can no longer be read.
FORMAT = 1

#: A product has some 30 tokens: sixteen of them keep what the layers hand on within the cores' caches. Batches of
#: 32 and 64 encode 8 and 15 % fewer texts in a second of processor time.
_BATCH = 16


@dataclass(frozen=True, slots=True)
class ExportedConfig:
    """What lies beside ``model.onnx``. ``source`` is the setting that it was made from, ``inputs`` the graph's inputs
    in the tokenizer's terms, ``output`` the one that is read (empty: the first), ``pooling`` what makes one vector of
    the tokens' (empty: the graph does), ``max_length`` in tokens; the prompts are put before each text."""

    id: str
    source: str
    dims: int
    max_length: int
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    output: str = ""
    pooling: str = ""
    pad_id: int = 0
    pad_token: str = "[PAD]"  # noqa: S105 - no password
    lower_case: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        (folder / CONFIG_FILE).write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    def with_dims(self, dims: int) -> ExportedConfig:
        """The same with the vectors' size."""
        return replace(self, dims=dims)

    @classmethod
    def load(cls, folder: Path) -> ExportedConfig:
        """Read a folder's configuration.

        Raises:
            ConfigurationError: it is missing, damaged or of another format.
        """
        try:
            values = orjson.loads((folder / CONFIG_FILE).read_bytes())
            config = cls(**{**values, "inputs": tuple(values["inputs"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{folder} holds no exported text encoder: {error}") from None
        if config.format != FORMAT:
            raise ConfigurationError(f"{folder} was exported by another version of Endcap: delete it and export again")
        return config


def session_options(threads: int) -> SessionOptions:
    """Options for a session on ``threads`` cores whose threads sleep, not spin, between calls.

    Spinning would take the cores from the server's other threads for milliseconds after each query.
    """
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxTextEncoder:
    """An exported model in ``folder``. Implements :class:`~endcap.encoders.base.TextEncoder`."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """Load the model.

        Args:
            folder: made by :func:`endcap.encoders.export.export_model`.
            threads: cores for one call; by default up to 4.

        Raises:
            ConfigurationError: the folder is incomplete or damaged.
        """
        self.folder = folder
        self.config = ExportedConfig.load(folder)
        self.id = self.config.id
        self.dims = self.config.dims
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            self._session = InferenceSession(
                str(folder / MODEL_FILE),
                session_options(threads or min(4, available_cores())),
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # both libraries raise bare Exceptions of their own
            raise ConfigurationError(f"the text encoder in {folder} cannot be loaded ({error}): delete it") from None
        self._tokenizer.enable_truncation(self.config.max_length)
        self._tokenizer.enable_padding(pad_id=self.config.pad_id, pad_token=self.config.pad_token)
        self.encode_query = cached_query(lambda text: self._run([self.config.query_prompt + text])[0])

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Unit vectors, float32, shape (len(texts), dims)."""
        vectors = np.empty((len(texts), self.dims), dtype=np.float32)
        for batch in length_sorted_batches(texts, _BATCH):
            vectors[batch] = self._run([self.config.document_prompt + encodable(texts[n]) for n in batch])
            if progress:
                progress(len(batch))
        return vectors

    def _run(self, texts: list[str]) -> np.ndarray:
        if self.config.lower_case:
            texts = [text.lower() for text in texts]
        tokens = self._tokenizer.encode_batch(texts)
        columns = {
            "input_ids": [one.ids for one in tokens],
            "attention_mask": [one.attention_mask for one in tokens],
            "token_type_ids": [one.type_ids for one in tokens],
        }
        feeds = {name: np.array(columns[name], dtype=np.int64) for name in self.config.inputs}
        (vectors,) = self._session.run([self.config.output] if self.config.output else None, feeds)
        return unit(_pool(vectors, feeds["attention_mask"], self.config.pooling) if self.config.pooling else vectors)

    def probe(self) -> int:
        """The size of the vectors that the graph gives."""
        return int(self._run([""]).shape[1])


def _pool(tokens: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """One vector (n, d) of the tokens' (n, length, d), without the padding."""
    if pooling == "cls":
        return tokens[:, 0]
    weights = mask[:, :, None].astype(np.float32)
    if pooling == "max":
        return np.where(weights > 0, tokens, -np.inf).max(axis=1)
    return (tokens * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)


def exported_folders(encoders_dir: Path) -> list[Path]:
    """Folders of finished exports."""
    return sorted(file.parent for file in encoders_dir.glob(f"[!.]*/{CONFIG_FILE}"))
