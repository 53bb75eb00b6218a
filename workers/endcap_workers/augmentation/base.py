"""The interface of every generator: what a product is (brand, category, price, text) in, an embedding out.

The embedding is the one that a trained interest model would have learned for the product (:meth:`ProductEncoder
<endcap_workers.models.base.ProductEncoder>`), had anybody bought it. A generator learns from the *warm* products, whose
embeddings behaviour has taught, and speaks about *cold* ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from endcap.errors import EndcapError, InvalidInput

if TYPE_CHECKING:
    from endcap_workers.augmentation.linear import LinearNetwork

#: Fewer warm products than this teach nothing that would hold for others.
FEWEST_PRODUCTS = 30


class GeneratorDiverged(EndcapError):
    """Training went wrong (not finite, collapsed to one point): the generator must not be used, and this says why."""

    kind = "generator_diverged"


@dataclass(frozen=True, slots=True)
class Content:
    """What n products are, before anybody bought them.

    Attributes:
        codes: int64 (n, K), 0 where unknown. sizes: of each column's vocabulary, 0 included.
        vectors: float32 (n, D) text embedding; zeros where there is none, D may be 0.
        encoder: id of the encoder that made ``vectors``.
    """

    codes: np.ndarray
    vectors: np.ndarray
    sizes: tuple[int, ...]
    encoder: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidInput where codes and vectors do not belong to the same products."""
        if self.codes.ndim != 2 or self.vectors.ndim != 2 or len(self.codes) != len(self.vectors):
            raise InvalidInput(f"content: codes {self.codes.shape} and vectors {self.vectors.shape} do not go together")
        if self.codes.shape[1] != len(self.sizes):
            raise InvalidInput(f"content: {self.codes.shape[1]} code columns but {len(self.sizes)} sizes")

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, which: np.ndarray | slice) -> Content:
        """Some of the products, by index, mask or slice."""
        return Content(self.codes[which], self.vectors[which], self.sizes, self.encoder)

    @property
    def known(self) -> np.ndarray:
        """bool (n,): whether anything at all is known of a product."""
        return (self.codes != 0).any(axis=1) | (self.vectors != 0).any(axis=1)


@dataclass(frozen=True, slots=True)
class Interactions:
    """What was chosen: the recommender's state of the shopper just before, float32 (m, d), scaled so that
    ``states @ vector`` is a score; and the row of the chosen product in :class:`Warm`, int64 (m,).

    ``redraw``: seed -> the states as the recommender gives them in training, with its dropout. It has seen these
    choices, so that its plain states fit them better than they will ever fit those of another shopper.
    """

    states: np.ndarray
    products: np.ndarray
    redraw: Callable[[int], np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class Warm:
    """Products that behaviour has taught: their content, their learned embeddings float32 (n, d), who chose them.

    ``own_words``: what the recommender itself says of content, None where it reads none.
    """

    content: Content
    vectors: np.ndarray
    interactions: Interactions
    own_words: LinearNetwork | None = None


@dataclass(frozen=True, slots=True)
class Validation:
    """Products hidden from the recommender, to choose by. ``judge``: embeddings (n, d) -> figure, higher is better."""

    content: Content
    judge: Callable[[np.ndarray], float]


@dataclass(slots=True)
class Training:
    """What a fit did: ``best`` validation figure, by ``setting`` or epoch; the figures on the way; when it stopped."""

    best: float = float("nan")
    setting: str = ""
    values: list[float] = field(default_factory=list)


class ContentNetwork(nn.Module, ABC):
    """Content -> embedding, as a graph that can be served. A product of which nothing is known gets the mean of the
    warm ones: it competes, without a claim.

    ``norm``: length of every embedding, where the recommender's all have the same; 0 where lengths say something.
    """

    mean: Tensor

    def __init__(self, width: int, norm: float = 0.0) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("mean", torch.zeros(width))

    @abstractmethod
    def generate(self, codes: Tensor, vectors: Tensor) -> Tensor:
        """int64 (n, K), float32 (n, D) -> (n, d)."""

    def forward(self, codes: Tensor, vectors: Tensor) -> Tensor:
        """As :meth:`generate`, for products of which nothing is known, too."""
        known = (codes != 0).any(dim=-1, keepdim=True)
        if vectors.shape[-1]:
            known = known | (vectors != 0).any(dim=-1, keepdim=True)
        return torch.where(known, self.fitted(self.generate(codes, vectors)), self.mean)

    def fitted(self, raw: Tensor) -> Tensor:
        """Brought to ``norm``."""
        return normalize(raw, dim=-1) * self.norm if self.norm else raw


class Generator(ABC):
    """Fit on warm products, then speak about cold ones. Deterministic for a seed."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self.network: ContentNetwork | None = None
        self.training = Training()
        self.seed = 0
        self.encoder = ""
        self.shape: dict[str, Any] = {}

    def fit(
        self,
        warm: Warm,
        seed: int = 0,
        validation: Validation | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> Generator:
        """Learn. ``validation`` chooses settings and the moment to stop; without it the defaults are used.

        Raises:
            InvalidInput: fewer than ``FEWEST_PRODUCTS`` products with content to learn from.
            GeneratorDiverged: the result must not be used.
        """
        content = warm.content
        usable = int(content.known.sum())
        if usable < FEWEST_PRODUCTS:
            raise InvalidInput(
                f"{usable} products have content and were bought: at least {FEWEST_PRODUCTS} are needed to learn what "
                "content says about interest"
            )
        if not np.isfinite(warm.vectors).all():
            raise GeneratorDiverged("the recommender's own embeddings are not finite")
        self.seed, self.encoder = seed, content.encoder
        norms = np.linalg.norm(warm.vectors, axis=1)
        self.shape = {
            "sizes": list(content.sizes),
            "content": content.vectors.shape[1],
            "width": warm.vectors.shape[1],
            "norm": float(norms.mean()) if norms.std() < 1e-3 * norms.mean() else 0.0,
        }
        self.training = Training()
        self._fit(warm, seed, validation, report)
        assert self.network is not None
        self.network.mean.copy_(torch.from_numpy(warm.vectors.mean(axis=0)))
        self.network.eval()
        check(self.embed(content.rows(content.known)), warm.vectors[content.known])
        return self

    def embed(self, content: Content) -> np.ndarray:
        """Embeddings, float32 (n, d).

        Raises:
            InvalidInput: not fitted, or the content is of another encoder or other code columns.
        """
        if self.network is None:
            raise InvalidInput(f"the generator {self.name} is not fitted")
        if self.encoder and content.encoder != self.encoder:
            raise InvalidInput(
                f"the generator learned from vectors of {self.encoder}, these of {content.encoder or 'no encoder'}: "
                "train it again (job `augment`)"
            )
        if list(content.sizes) != self.shape["sizes"] or content.vectors.shape[1] != self.shape["content"]:
            raise InvalidInput("the generator learned from other code columns or another vocabulary: train it again")
        return run(self.network, content)

    @abstractmethod
    def _fit(self, warm: Warm, seed: int, validation: Validation | None, report: Callable[[str], None]) -> None:
        """Set ``network`` and ``training``."""

    @classmethod
    @abstractmethod
    def blank(cls, settings: dict[str, Any]) -> ContentNetwork:
        """A network of the shape that ``settings`` describe, to be filled with saved tensors."""

    @property
    def settings(self) -> dict[str, Any]:
        """Plain JSON from which :meth:`blank` makes a network of this shape."""
        return dict(self.shape)


def run(network: ContentNetwork, content: Content, batch: int = 256) -> np.ndarray:
    """What a network says about products, float32 (n, d); in bounded memory."""
    parts = [np.zeros((0, len(network.mean)), dtype=np.float32)]
    with torch.no_grad():
        for start in range(0, len(content), batch):
            some = content.rows(slice(start, start + batch))
            parts.append(network(torch.from_numpy(some.codes), torch.from_numpy(some.vectors)).numpy())
    return np.concatenate(parts)


def check(generated: np.ndarray, real: np.ndarray) -> None:
    """Raise GeneratorDiverged where generated embeddings (n, d) are no embeddings: not finite, or all the same."""
    if not np.isfinite(generated).all():
        raise GeneratorDiverged("it generates embeddings that are not finite")
    spread, wanted = float(generated.std(axis=0).mean()), float(real.std(axis=0).mean())
    if spread < 0.02 * wanted:
        raise GeneratorDiverged(
            f"it collapsed: what it generates varies by {spread:.2g}, real embeddings by {wanted:.2g}"
        )
