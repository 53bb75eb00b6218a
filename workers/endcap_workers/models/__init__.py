"""Models of a shopper's interest. One interface (:class:`~endcap_workers.models.base.InterestModel`), one file each."""

from endcap_workers.models.base import INPUTS, PADDING, UNKNOWN, InterestModel, ModelSpec, SequenceModel
from endcap_workers.models.dnn import DnnModel
from endcap_workers.models.interest import PARTS, Interest
from endcap_workers.models.lstm import LstmModel
from endcap_workers.models.transformer import TransformerModel

#: Name of a model in ``endcap train --model NAME`` and in a bundle -> its class.
MODELS: dict[str, type[InterestModel]] = {
    "dnn": DnnModel,
    "lstm": LstmModel,
    "transformer": TransformerModel,
    "interest": Interest,
}

__all__ = [
    "INPUTS",
    "MODELS",
    "PADDING",
    "PARTS",
    "UNKNOWN",
    "DnnModel",
    "Interest",
    "InterestModel",
    "LstmModel",
    "ModelSpec",
    "SequenceModel",
    "TransformerModel",
]
