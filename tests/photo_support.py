"""Pictures for tests, and an image encoder whose space can be seen: the mean colour."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from endcap.images.lite import LiteEncoder
from tests.services.places import made_once


def picture(
    colour: str | tuple[int, ...], format_: str = "PNG", size: tuple[int, int] = (64, 64), mode: str = "RGB"
) -> bytes:
    """A file of one colour."""
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, format_)
    return stream.getvalue()


class Colours:
    """Knows colours and their English names, and nothing else."""

    dims = 3

    def __init__(self, version: str = "1") -> None:
        self.id = f"colours:{version}"

    def encode(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Unit vectors of the mean colours."""
        means = np.stack([np.asarray(one, dtype=np.float32).mean((0, 1)) + 1.0 for one in pictures])
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)

    def encode_text(self, text: str) -> np.ndarray:
        """The colour of that name; zeros for other words."""
        try:
            colour = np.array(ImageColor.getrgb(text), dtype=np.float32) + 1.0
        except ValueError:
            return np.zeros(3, dtype=np.float32)
        return np.asarray(colour / np.linalg.norm(colour), dtype=np.float32)


def packaged_encoders() -> Path:
    """The folder ``encoders`` with the packaged image network, exported once for all runs on this machine."""
    return (
        made_once("efficientnet-lite0", lambda place: LiteEncoder.open(place / "encoders", None) and None) / "encoders"
    )


def drawn(kind: str, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A shape on white."""
    made = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(made)
    width, height = size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    if kind == "ball":
        draw.ellipse(box, fill="orange", outline="brown", width=4)
    elif kind == "grid":
        for x in range(0, width, 16):
            draw.line((x, 0, x, height), fill="black", width=3)
    else:
        draw.rectangle(box, fill="darkblue")
    return made


def small_clip(folder: Path) -> Path:
    """A CLIP with two small layers and random weights, as sentence-transformers saves one, in a folder of ``folder``;
    the bare network lies in ``folder / "raw"``."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import CLIPModel
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPProcessor,
        CLIPTextConfig,
        CLIPTokenizer,
        CLIPVisionConfig,
    )
    from transformers import CLIPModel as Network

    torch.manual_seed(1)
    raw = folder / "raw"
    raw.mkdir()
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (raw / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (raw / "merges.txt").write_text("#version: 0.2\n")
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = CLIPTextConfig(vocab_size=len(words), max_position_embeddings=77, **small, **ends)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **small)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    Network(config).save_pretrained(raw)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(
        pictures, CLIPTokenizer(str(raw / "vocab.json"), str(raw / "merges.txt"), model_max_length=77)
    ).save_pretrained(raw)
    SentenceTransformer(modules=[CLIPModel(str(raw))]).save(str(folder / "clip"))
    return folder / "clip"


def small_graph(labels: int, seed: int = 0, side: int = 32) -> bytes:
    """A graph as ``endcap train-photos`` writes one, which sees the mean colour alone."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(seed).normal(size=(3, labels)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "two"], ["above"]),  # never nothing
        helper.make_node("LpNormalization", ["above"], ["vector"], axis=1, p=2),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, side, side])
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("vector", 3), ("logits", labels))
    ]
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.full(3, 2.0, dtype=np.float32), "two"),
    ]
    graph = helper.make_graph(nodes, "small", [taken], given, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())
