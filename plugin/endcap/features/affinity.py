"""Who goes with what: factors of products, products alike, and how products keep their shoppers.

An affinity is learned from the log in one go (``endcap_workers.training.affinity``) and travels with the model that was
trained with it, so that both mean the same. What changes by the minute (purchases, popularity) is not in it.
"""

from __future__ import annotations

import io
import threading
import zipfile
from dataclasses import dataclass, fields

import numpy as np

from endcap.catalog.table import ProductTable, lookup
from endcap.errors import BundleRefused
from endcap.features import RankingInputs
from endcap.features.memory import memory_of
from endcap.features.names import AFFINITY, INDEX

#: Columns of :attr:`Affinity.traits`, the last of ``AFFINITY``.
TRAITS = tuple(name for name in AFFINITY if name.startswith("crowd_"))
_FIRST_TRAIT = INDEX[TRAITS[0]]


@dataclass(frozen=True, slots=True, eq=False)
class Affinity:
    """What is known about P products.

    Attributes:
        keys: uint64 (P,), sorted. factors: float16 (P, D), right singular vectors of who bought what. rarity: float32
            (P,), weight of a product in a shopper's memory; 0 for those that hardly anybody bought.
        alike, basket: int32 (P, K), places in ``keys`` of the products of the same leaf category that are most alike by
            who buys them, and by what lies in baskets together; P where there are fewer. alike_by, basket_by: float16
            (P, K), how much.
        ridge, ridge_by: the same of the products in the category above that say most about whether this one is
            bought, for or against: weights of a linear model of each product by all others.
        traits: float16 (P, len(TRAITS)).
    """

    keys: np.ndarray
    factors: np.ndarray
    rarity: np.ndarray
    alike: np.ndarray
    alike_by: np.ndarray
    basket: np.ndarray
    basket_by: np.ndarray
    ridge: np.ndarray
    ridge_by: np.ndarray
    traits: np.ndarray

    def __post_init__(self) -> None:
        """Raises ValueError where the arrays do not go together."""
        count = len(self.keys)
        pairs = ("int32", "float16") * 3
        kinds = ("uint64", "float16", "float32", *pairs, "float16")
        for one, kind in zip(fields(self), kinds, strict=True):
            values = getattr(self, one.name)
            if (
                values.dtype != kind
                or len(values) != count
                or values.ndim != (1 if kind in ("uint64", "float32") else 2)
            ):
                raise ValueError(f"{one.name}: {values.dtype} {values.shape} does not go with {count} products")
            if kind.startswith("float") and not np.isfinite(values).all():
                raise ValueError(f"{one.name} is not finite")
            if kind == "int32" and count and (values.min(initial=0) < 0 or values.max(initial=0) > count):
                raise ValueError(f"{one.name} names products that are not there")
        if self.traits.shape[1] != len(TRAITS):
            raise ValueError(f"traits: {self.traits.shape[1]} columns, not {len(TRAITS)}")
        for name in ("alike", "basket", "ridge"):
            if getattr(self, name).shape != getattr(self, f"{name}_by").shape:
                raise ValueError(f"{name}: {getattr(self, name).shape[1]} products do not go with their weights")
        if (np.diff(self.keys.astype(np.float64)) < 0).any():
            raise ValueError("keys are not sorted")

    def __len__(self) -> int:
        return len(self.keys)

    def to_bytes(self) -> bytes:
        """As an ``.npz`` file; nothing in it is executable."""
        file = io.BytesIO()
        np.savez(file, **{one.name: getattr(self, one.name) for one in fields(self)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Affinity:
        """Raises BundleRefused for what :meth:`to_bytes` did not write."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as saved:
                return cls(**{one.name: saved[one.name] for one in fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise BundleRefused(f"the affinity cannot be read: {error}") from error


class AlignedAffinity:
    """An affinity in the terms of a product table. Made once per table, off the request's path. Thread-safe."""

    def __init__(self, affinity: Affinity, table: ProductTable) -> None:
        count = len(affinity)
        found = lookup(affinity.keys, np.arange(count), table.keys)
        found[-1] = -1
        #: int32 (n + 1,): place of each row's product, ``count`` where the affinity does not know it.
        self.place = np.where(found >= 0, found, count).astype(np.int32)
        self.table = table
        self.count = count
        self._rarity = affinity.rarity
        # Unpacked once: converting them at every search would cost more than the multiplications.
        self._factors, self._traits = _one_more(affinity.factors).astype(np.float32), _one_more(affinity.traits)
        norm = np.linalg.norm(self._factors, axis=1)
        self._norm = (norm + 1e-3).astype(np.float32)
        self._alike, self._basket = _one_more(affinity.alike, count), _one_more(affinity.basket, count)
        self._ridge = _one_more(affinity.ridge, count)
        self._alike_by = _one_more(affinity.alike_by).astype(np.float32)
        self._basket_by = _one_more(affinity.basket_by).astype(np.float32)
        self._ridge_by = _one_more(affinity.ridge_by).astype(np.float32)
        self._own = threading.local()

    def fill(self, inputs: RankingInputs) -> np.ndarray:
        """The features with the columns of ``AFFINITY``: those of ``inputs`` themselves, so that what is logged is what
        was served, unless another affinity has filled them already (a shadow's comes second): then a copy's."""
        if inputs.affinity is self or not len(inputs.rows):
            return inputs.features
        if inputs.affinity is None:
            inputs.affinity = self
            self._fill(inputs, inputs.features)
            return inputs.features
        features = inputs.features.copy()
        features[:, INDEX[AFFINITY[0]] :] = 0.0
        self._fill(inputs, features)
        return features

    def _fill(self, inputs: RankingInputs, features: np.ndarray) -> None:
        at = self.place[inputs.rows]
        features[:, _FIRST_TRAIT : _FIRST_TRAIT + len(TRAITS)] = self._traits[at]
        if not inputs.profile:
            return
        shopper, places, ever, lately = self._shopper(inputs)
        if not len(places):
            return
        match = self._factors[at] @ shopper
        features[:, INDEX["like_latent"]] = 6.0 * np.sign(match) * np.sqrt(np.abs(match))
        features[:, INDEX["like_latent_cosine"]] = 3.0 * match / self._norm[at]
        # A table of all products, of which few places are not 0, and those again at the end.
        weights = self._scratch()
        alike, alike_by = self._alike[at], self._alike_by[at]
        ridge, ridge_by = self._ridge[at], self._ridge_by[at]
        try:
            weights[places] = ever
            features[:, INDEX["like_bought"]] = _strength(weights[alike], alike_by)
            features[:, INDEX["like_ridge"]] = _signed(weights[ridge], ridge_by)
            weights[places] = lately
            features[:, INDEX["like_ridge_lately"]] = _signed(weights[ridge], ridge_by)
            features[:, INDEX["like_bought_lately"]] = _strength(weights[alike], alike_by)
            features[:, INDEX["like_basket"]] = _strength(weights[self._basket[at]], self._basket_by[at])
        finally:
            weights[places] = 0.0

    def _shopper(self, inputs: RankingInputs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The shopper's factors, the places of what he bought, whether ever, and how much lately."""
        memory = memory_of(inputs.profile, inputs.table, inputs.now)
        cached = inputs.profile.cache.get("affinity")
        if isinstance(cached, tuple) and cached[0] is self and cached[1] is memory:
            return cached[2]
        place = self.place[memory.rows]
        bought = np.flatnonzero((place < self.count) & (memory.buys > 0))
        place = place[bought]
        rare = np.log1p(memory.buys[bought]) * self._rarity[place]
        rare /= (np.sqrt(rare @ rare) + 1e-6) ** 0.7
        answer = (
            rare @ self._factors[place],
            place,
            np.ones(len(place), dtype=np.float32),
            np.log1p(memory.decayed[bought]),
        )
        inputs.profile.cache["affinity"] = (self, memory, answer)
        return answer

    def _scratch(self) -> np.ndarray:
        found = getattr(self._own, "weights", None)
        if found is None:
            found = self._own.weights = np.zeros(self.count + 1, dtype=np.float32)
        return found


def _strength(weights: np.ndarray, by: np.ndarray) -> np.ndarray:
    return 3.0 * np.log1p(np.einsum("nk,nk->n", weights, by))


def _signed(weights: np.ndarray, by: np.ndarray) -> np.ndarray:
    total = np.einsum("nk,nk->n", weights, by)
    return np.sign(total) * np.log1p(20.0 * np.abs(total))


def _one_more(values: np.ndarray, last: int = 0) -> np.ndarray:
    """With a row more, for products that are not known."""
    return np.concatenate([values, np.full((1, *values.shape[1:]), last, dtype=values.dtype)])
