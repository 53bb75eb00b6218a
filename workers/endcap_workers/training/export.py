"""A trained model as one ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from endcap_workers.models.base import INPUTS, InterestModel

OPSET = 17
#: Dimensions that may differ from call to call: shoppers, places of history, candidates.
_DYNAMIC = {
    **{name: {0: "shoppers", 1: "places"} for name in INPUTS if name.startswith("history")},
    **{name: {0: "shoppers", 1: "candidates"} for name in INPUTS if name.startswith("candidate")},
    "scores": {0: "shoppers", 1: "candidates"},
}


def to_onnx(model: InterestModel, path: Path) -> None:
    """Write the graph: inputs by the names of ``INPUTS`` (those that the model reads), output ``scores`` (B, N)."""
    spec = model.spec
    example = []
    for name in INPUTS:
        places = 3 if name.startswith("history") else 4
        if name.endswith(("_products", "_actions")):
            example.append(torch.full((2, places), 1, dtype=torch.long))
        elif name.endswith("_codes"):
            example.append(torch.zeros((2, places, len(spec.codes)), dtype=torch.long))
        elif name.endswith("_ages"):
            example.append(torch.ones(2, places))
        else:
            # A generator may read more of a candidate than the model does.
            content = model.encode.newcomers_content if name == "candidate_content" else spec.content
            example.append(torch.zeros(2, places, content if name.endswith("_content") else spec.features))
    was_training = model.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracing exporter is on its way out, but the only one that keeps an LSTM of any batch size whole.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model.eval(),
                tuple(example),
                str(path),
                input_names=list(INPUTS),
                output_names=["scores"],
                dynamic_axes=_DYNAMIC,
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        model.train(was_training)
