"""Embeddings for products that nobody has bought yet. One protocol, one file per algorithm."""

from endcap_workers.augmentation.base import (
    Content,
    Generator,
    GeneratorDiverged,
    Interactions,
    Validation,
    Warm,
)
from endcap_workers.augmentation.gan import GanGenerator, RankedGenerator
from endcap_workers.augmentation.mlp import MlpGenerator
from endcap_workers.augmentation.nearest import NearestGenerator
from endcap_workers.augmentation.ridge import RidgeGenerator

#: Name in settings, bundles and on the command line -> its class.
GENERATORS: dict[str, type[Generator]] = {
    "nearest": NearestGenerator,
    "ridge": RidgeGenerator,
    "mlp": MlpGenerator,
    "ranked": RankedGenerator,
    "gan": GanGenerator,
}

__all__ = [
    "GENERATORS",
    "Content",
    "GanGenerator",
    "Generator",
    "GeneratorDiverged",
    "Interactions",
    "MlpGenerator",
    "NearestGenerator",
    "RankedGenerator",
    "RidgeGenerator",
    "Validation",
    "Warm",
]
