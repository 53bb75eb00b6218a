"""Takes over the ONNX file that many models on the hub bring along: no torch is needed then, not even once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from onnxruntime import InferenceSession
from tokenizers import Tokenizer

from endcap.encoders.onnx_text import (
    CONFIG_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    ExportedConfig,
    OnnxTextEncoder,
    session_options,
)
from endcap.encoders.pipeline import CannotExport, read_pipeline
from endcap.errors import ConfigurationError

ONNX_FILE = Path("onnx") / "model.onnx"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def has_ready_made(folder: Path) -> bool:
    """Whether the model in ``folder`` brings its ONNX file and a fast tokenizer."""
    return (folder / ONNX_FILE).is_file() and (folder / TOKENIZER_FILE).is_file()


def adopt_model(folder: Path, source: str, encoders_dir: Path) -> Path:
    """Make an encoder folder in ``encoders_dir`` of a model with a ready-made ONNX file, and return it; it
    may be there already.

    There is no original to compare with here, so the id differs from that of an export made by torch.

    Raises:
        CannotExport: the graph or the pipeline around it is of another kind.
    """
    pipeline = read_pipeline(folder)
    digest = hashlib.blake2b(repr(pipeline).encode(), digest_size=8)
    for file in (folder / ONNX_FILE, folder / TOKENIZER_FILE):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    name = f"onnx-{digest.hexdigest()}"
    if (encoders_dir / name / CONFIG_FILE).is_file():
        return encoders_dir / name
    try:
        session = InferenceSession(str(folder / ONNX_FILE), session_options(1), providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # both libraries raise bare Exceptions of their own
        raise CannotExport(f"its ONNX file or tokenizer cannot be loaded: {error}") from None
    inputs = tuple(one.name for one in session.get_inputs())
    if not set(inputs) <= set(_INPUTS) or not {"input_ids", "attention_mask"} <= set(inputs):
        raise CannotExport(f"its graph takes {', '.join(inputs)}")
    outputs = {one.name: len(one.shape) for one in session.get_outputs()}
    pooled = next((name for name, rank in outputs.items() if name == "sentence_embedding" and rank == 2), "")
    tokens = next((name for name, rank in outputs.items() if rank == 3), "")
    if not pooled and not tokens:
        raise CannotExport(f"its graph gives {', '.join(outputs)}")
    padding = tokenizer.padding or {}
    known = [one for one in ("[PAD]", "<pad>") if tokenizer.token_to_id(one) is not None]
    pad_token = padding.get("pad_token") or (known[0] if known else "")
    with new_folder(encoders_dir, name) as (scratch, target):
        shutil.copyfile(folder / ONNX_FILE, scratch / MODEL_FILE)
        shutil.copyfile(folder / TOKENIZER_FILE, scratch / TOKENIZER_FILE)
        config = ExportedConfig(
            id=f"onnx:{digest.hexdigest()}",
            source=source,
            dims=0,
            max_length=pipeline.max_length or 512,
            inputs=inputs,
            pooling="" if pooled else pipeline.pooling,
            output=pooled or tokens,
            pad_id=int(padding.get("pad_id", tokenizer.token_to_id(pad_token) or 0)),
            pad_token=pad_token,
            lower_case=pipeline.lower_case,
            query_prompt=pipeline.query_prompt,
            document_prompt=pipeline.document_prompt,
        )
        config.save(scratch)
        dims = OnnxTextEncoder(scratch).probe()
        config.with_dims(dims).save(scratch)
    return target


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """A scratch folder that becomes ``parent/name`` whole, by one rename, if the block ends without an error.

    Another process that makes the same folder at the same time does no harm.
    """
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / name
    scratch = Path(mkdtemp(prefix=".new-", dir=parent))
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private, but the server may run as another user
        yield scratch, target
        try:
            ExportedConfig.load(target)  # another process was quicker, and may have loaded it already
        except ConfigurationError:
            shutil.rmtree(target, ignore_errors=True)  # none, or one of another format
            os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
