from __future__ import annotations

import numpy as np

from endcap_workers.evaluation.lambdarank import lambdarank_ranks
from endcap_workers.training.next_item import Prefixes

PRODUCTS = 120


def walks(count: int, seed: int) -> list[np.ndarray]:
    """Shoppers who walk along the shelf."""
    draw = np.random.default_rng(seed)
    starts, lengths = draw.integers(0, PRODUCTS, count), draw.integers(3, 9, count)
    return [2 + (start + np.arange(length)) % (PRODUCTS - 2) for start, length in zip(starts, lengths, strict=True)]


def cases(sequences: list[np.ndarray], hide_seen: bool) -> Prefixes:
    return Prefixes([one[:-1] for one in sequences], np.array([one[-1] for one in sequences]), hide_seen)


def test_it_learns_what_comes_next_and_knows_what_it_cannot_know() -> None:
    known, later = walks(2_000, 0), walks(300, 2)
    stranger = Prefixes([*cases(later, True).histories, np.array([1])], np.r_[cases(later, True).targets, 5], True)
    codes = np.zeros((PRODUCTS, 1), dtype=np.int64)

    ranks = lambdarank_ranks(known, cases(walks(2_000, 1), True), known, stranger, codes, 10, 0)

    assert (ranks[:-1] == 0).mean() > 0.9
    assert len(ranks) == 301
    assert ranks[-1] == 10, "nobody was seen with it"
