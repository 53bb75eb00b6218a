"""Virtual products: what a thin category could also sell, and who would plausibly choose it. For training only.

A virtual product has two real parents of one thin category: the brand of one, the category of both (or of the other),
a text vector between theirs, a price between theirs. Its interactions are real ones of its parents: those among them
that the recommender finds most plausible for the embedding that a generator gives the virtual product. Nothing here is
ever a product; see :mod:`endcap.stores.generated` for how rows are kept apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endcap_workers.augmentation.base import Content, Generator, Interactions, Warm

#: Categories with fewer warm products than this are thin.
THIN = 12
#: A parent's interactions looked at, and at most so many that a virtual product gets.
_LOOKED_AT, _KEPT = 60, 12


@dataclass(frozen=True, slots=True)
class VirtualProducts:
    """n virtual products: their content, the rows of their two parents in :class:`Warm` (n, 2), the embeddings that the
    generator gave them (n, d), and their interactions (``products`` counts from 0, in this object's rows)."""

    content: Content
    parents: np.ndarray
    vectors: np.ndarray
    interactions: Interactions
    sources: np.ndarray

    def __len__(self) -> int:
        return len(self.content)


def virtual_products(
    warm: Warm, generator: Generator, category: int, seed: int, most: int = 2_000, thin: int = THIN
) -> VirtualProducts:
    """Fill thin categories up with virtual products.

    Args:
        category: code column that holds the category. most: virtual products in all.
        thin: categories with 2 to ``thin`` - 1 warm products are filled up to ``thin``.

    ``sources`` of the result: row of each interaction in ``warm.interactions``, for who wants its sequence.
    """
    draw = np.random.default_rng([seed, 31])
    parents = _parents(warm.content.codes[:, category], draw, most, thin)
    content = _children(warm.content, parents, category, draw)
    vectors = generator.embed(content)
    made, sources = _interactions(warm, parents, vectors)
    return VirtualProducts(content, parents, vectors, made, sources)


def enriched(warm: Warm, virtual: VirtualProducts) -> Warm:
    """The warm products with the virtual ones behind them, as a generator's training set."""
    content, real = warm.content, warm.interactions
    assert real is not None
    redraw = real.redraw

    def states(seed: int) -> np.ndarray:
        assert redraw is not None
        drawn = redraw(seed)
        return np.concatenate([drawn, drawn[virtual.sources]])

    return Warm(
        Content(
            np.concatenate([content.codes, virtual.content.codes]),
            np.concatenate([content.vectors, virtual.content.vectors]),
            content.sizes,
            content.encoder,
        ),
        np.concatenate([warm.vectors, virtual.vectors]),
        Interactions(
            np.concatenate([real.states, virtual.interactions.states]),
            np.concatenate([real.products, virtual.interactions.products + len(content)]),
            states if redraw else None,
        ),
        warm.own_words,
    )


def sequences_of(
    virtual: VirtualProducts, origins: Sequence[tuple[int, int]], sequences: Sequence[np.ndarray], first: int
) -> list[np.ndarray]:
    """Plausible sequences: the real one of each interaction, with the virtual product in its parent's place.

    Args:
        origins: of each interaction of the warm products: the sequence that it is of, and its place there.
        sequences: real ones. first: number of the first virtual product.
    """
    made = []
    for source, product in zip(virtual.sources.tolist(), virtual.interactions.products.tolist(), strict=True):
        row, place = origins[source]
        sequence = sequences[row].copy()
        sequence[place] = first + product
        made.append(sequence)
    return made


def _parents(category: np.ndarray, draw: np.random.Generator, most: int, thin: int) -> np.ndarray:
    kinds, count = np.unique(category[category != 0], return_counts=True)
    pairs: list[np.ndarray] = []
    for kind in draw.permutation(kinds[(count >= 2) & (count < thin)]).tolist():
        members = np.flatnonzero(category == kind)
        pairs += [draw.choice(members, 2, replace=False) for _ in range(thin - len(members))]
    return np.array(pairs[:most], dtype=np.int64).reshape(-1, 2)


def _children(content: Content, parents: np.ndarray, category: int, draw: np.random.Generator) -> Content:
    first, second = content.rows(parents[:, 0]), content.rows(parents[:, 1])
    choose = draw.random(first.codes.shape) < 0.5
    codes = np.where(choose, first.codes, second.codes)
    codes[:, category] = first.codes[:, category]
    share = draw.beta(2.0, 2.0, (len(parents), 1)).astype(np.float32)
    vectors = share * first.vectors + (1.0 - share) * second.vectors
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    parents_length = np.linalg.norm(first.vectors, axis=1, keepdims=True)
    return Content(codes, vectors / np.maximum(length, 1e-9) * parents_length, content.sizes, content.encoder)


def _interactions(warm: Warm, parents: np.ndarray, vectors: np.ndarray) -> tuple[Interactions, np.ndarray]:
    real = warm.interactions
    if real is None or not len(parents):
        width = warm.vectors.shape[1]
        return Interactions(np.zeros((0, width), np.float32), np.zeros(0, np.int64)), np.zeros(0, np.int64)
    order = np.argsort(real.products, kind="stable")
    starts = np.searchsorted(real.products[order], np.arange(len(warm.content) + 1))
    sources, products = [], []
    for number, pair in enumerate(parents.tolist()):
        rows = np.concatenate([order[starts[one] : starts[one + 1]][-_LOOKED_AT:] for one in pair])
        if not len(rows):
            continue
        plausible = real.states[rows] @ vectors[number]
        kept = rows[np.argsort(-plausible, kind="stable")[: min(max(len(rows) // 2, 1), _KEPT)]]
        sources.append(kept)
        products.append(np.full(len(kept), number))
    if not sources:
        return Interactions(real.states[:0], real.products[:0]), np.zeros(0, np.int64)
    chosen = np.concatenate(sources)
    return Interactions(real.states[chosen], np.concatenate(products).astype(np.int64)), chosen
