"""The weights in a bundle: a safetensors file, and the model that it is of; no pickle."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load, save

from endcap.bundles import WEIGHTS, Bundle
from endcap.errors import BundleRefused
from endcap_workers.models import MODELS
from endcap_workers.models.base import InterestModel, ModelSpec


def weights_of(model: InterestModel) -> bytes:
    """For :func:`endcap.bundles.write_bundle`. A generator that was attached to the model is left out: it has files of
    its own."""
    return bytes(
        save(
            {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in model.state_dict().items()
                if not name.startswith("encode.newcomers.")
            }
        )
    )


def model_of(bundle: Bundle) -> InterestModel:
    """The model that was trained, in eval mode; by ``model`` in the bundle's description.

    Raises:
        BundleRefused: the bundle came without weights, or they are of another release.
    """
    try:
        about = bundle.description["model"]
        model = MODELS[about["name"]](ModelSpec.from_json(about["spec"]))
        model.load_state_dict(load((bundle.folder / WEIGHTS).read_bytes()))
    except (KeyError, TypeError, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise BundleRefused(
            f"{bundle.label} cannot be gone on from: {error!r}; train a new one (endcap train)"
        ) from error
    return model.eval()
