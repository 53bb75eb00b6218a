"""A model's weights as a safetensors file that says which model it is; no pickle."""

from __future__ import annotations

import orjson
from safetensors import SafetensorError
from safetensors.torch import load, save

from endcap.errors import InvalidInput
from endcap_workers.models import MODELS
from endcap_workers.models.base import InterestModel, ModelSpec

_MODEL = "endcap_model"


def weights_of(model: InterestModel) -> bytes:
    """For :func:`endcap.bundles.write_bundle`: kind, specification and tensors. A generator that was attached to the
    model is left out: it has files of its own."""
    kind = next(name for name, known in MODELS.items() if type(model) is known)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("encode.newcomers.")
    }
    described = {"kind": kind, "spec": model.spec.to_json()}
    return save(tensors, metadata={_MODEL: orjson.dumps(described).decode()})


def model_of(content: bytes) -> InterestModel:
    """The model that :func:`weights_of` wrote, in eval mode.

    Raises:
        InvalidInput: it is no such file, or of another release.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        described = orjson.loads(orjson.loads(content[8 : 8 + length])["__metadata__"][_MODEL])
        model = MODELS[described["kind"]](ModelSpec.from_json(described["spec"]))
        model.load_state_dict(load(content))
    except (KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(f"these are no weights of a model of this release: {error}") from error
    return model.eval()
