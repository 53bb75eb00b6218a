"""Products that are hidden from training, and a recommender that has never seen them: what both data sets share.

A fifth of the *products* is hidden: every interaction with them is taken out before training. They are the test's cold
products. A further tenth is hidden, too, to choose by (validation). What is left is warm. The recommender is the
LSTM of :mod:`endcap_workers.models`: tied embeddings of product numbers alone, so that nothing but a generator can
speak for a product without history.

A case is one later choice of a shopper: *cold* of a hidden product among the hidden ones, *warm* of his last warm
product (kept from training) among the warm ones, *overall* either of them among all products. The state is the
one after the warm products that he had before that moment; products that he had are no candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from endcap_workers.augmentation.base import Content, Interactions, Validation, Warm
from endcap_workers.augmentation.linear import own_words
from endcap_workers.augmentation.ranking import Cases, figures, ranks
from endcap_workers.augmentation.states import in_training
from endcap_workers.augmentation.virtual import VirtualProducts, sequences_of
from endcap_workers.evaluation.embedding_cache import cache_dir
from endcap_workers.models import UNKNOWN, LstmModel, ModelSpec, SequenceModel
from endcap_workers.training.loop import Schedule
from endcap_workers.training.next_item import Catalogue, Prefixes, evaluate, padded, states_of, train_next

HIDDEN, CHOSEN_BY = 0.2, 0.1
K = 20
#: Cases of a kind, a seeded sample of more; and of them, those that are ranked among all products.
MOST_CASES, MOST_OVERALL = 10_000, 5_000


@dataclass(frozen=True, slots=True)
class Split:
    """Product numbers (int64, ≥ 2): warm, hidden to choose by, hidden for the test."""

    warm: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @classmethod
    def draw(cls, products: int, seed: int) -> Split:
        """Of the numbers 2 … products - 1."""
        order = np.random.default_rng([seed, 20]).permutation(np.arange(2, products))
        test, valid = int(HIDDEN * len(order)), int(CHOSEN_BY * len(order))
        return cls(np.sort(order[test + valid :]), np.sort(order[test : test + valid]), np.sort(order[:test]))


@dataclass(slots=True)
class World:
    """One seed's world. ``content`` has a row for each product number.

    ``sequences``: whole ones, hidden products included; ``train`` what was trained on; ``origins``: sequence and place
    of each interaction in it. ``vectors`` (V, d): what the recommender says of each number; hidden ones are ``UNKNOWN``
    to it. ``counts`` (V,): how often each was chosen in training. ``last_states`` (S, d): after what is
    known of each sequence.
    """

    split: Split
    content: Content
    sequences: Sequence[np.ndarray]
    model: SequenceModel
    catalogue: Catalogue
    vectors: np.ndarray
    interactions: Interactions
    origins: list[tuple[int, int]]
    train: list[np.ndarray]
    valid: Cases
    cold: Cases
    warm: Cases
    counts: np.ndarray
    last_states: np.ndarray

    def learned(self) -> Warm:
        """What a generator learns from."""
        warm = self.split.warm
        own = own_words(self.model.encode, self.content.vectors.shape[1])
        return Warm(self.content.rows(warm), self.vectors[warm], self.interactions, own)

    def validation(self) -> Validation:
        """NDCG of the products hidden to choose by, among one another."""
        numbers = self.split.valid

        def judge(made: np.ndarray) -> float:
            return figures(ranks(self.valid, self.filled(made, numbers), numbers), K)["ndcg"]

        return Validation(self.content.rows(numbers), judge)

    def filled(self, made: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The learned embeddings, with generated ones for some products."""
        vectors = self.vectors.copy()
        vectors[numbers] = made
        return vectors

    def judge(self, vectors: np.ndarray, bias: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Rank of each case's target for embeddings of all products: among the hidden ones (``cold``), among the warm
        ones (``warm``), and of some of both among all (``overall``)."""
        split = self.split
        everything = np.concatenate([split.warm, split.test])
        both = [ranks(cases, vectors, everything, bias) for cases in self.some()]
        return {
            "cold": ranks(self.cold, vectors, split.test, bias),
            "warm": ranks(self.warm, vectors, split.warm, bias),
            "overall": np.concatenate(both),
        }

    def some(self) -> tuple[Cases, Cases]:
        """The cases that are ranked among all products: of hidden and of warm ones."""
        return self.cold.rows(slice(0, MOST_OVERALL)), self.warm.rows(slice(0, MOST_OVERALL))

    def targets(self) -> dict[str, np.ndarray]:
        """Product number that each rank of :meth:`judge` is of."""
        both = np.concatenate([cases.targets for cases in self.some()])
        return {"cold": self.cold.targets, "warm": self.warm.targets, "overall": both}


def build(
    sequences: Sequence[np.ndarray],
    content: Content,
    seed: int,
    cache: str,
    schedule: Schedule,
    spec: ModelSpec,
    negatives: int,
    report: Callable[[str], None],
    reads_content: bool = False,
    batch: int = 256,
) -> World:
    """Hide products, train the recommender (or read it from the cache), and collect the cases.

    Args:
        sequences: int64 product numbers of each shopper, oldest first.
        cache: names the trained weights in the cache folder.
        reads_content: the recommender sees codes and text beside the number, as Endcap's own models do.
        batch: sequences a step.
    """
    split = Split.draw(len(content), seed)
    part = _parts(split, len(content))
    warm_of = [sequence[part[sequence] == 0] for sequence in sequences]
    # The last warm product is for the test, the one before it for early stopping.
    train = [one[:-2] for one in warm_of]
    catalogue = Catalogue.bare(len(content))
    spec = replace(spec, products=len(content))
    if reads_content:
        catalogue = Catalogue(torch.from_numpy(content.codes), torch.from_numpy(content.vectors))
        spec = replace(spec, codes=content.sizes, content=content.vectors.shape[1], id_dropout=0.3)
        cache += "-content"
    torch.manual_seed(seed)
    model = LstmModel(spec)
    stop = _stop(warm_of, train)
    # Weights of another recipe would give figures that nobody could explain.
    recipe = hashlib.blake2b(repr((spec, schedule, negatives, batch)).encode(), digest_size=6).hexdigest()
    file = cache_dir() / "cold" / f"{cache}-{seed}-{recipe}.safetensors"
    _trained(
        model,
        catalogue,
        file,
        [one for one in train if len(one) > 1],
        stop,
        replace(schedule, seed=seed),
        negatives,
        batch,
        report,
    )
    return _world(split, content, sequences, model, catalogue, warm_of, seed)


def retrained(
    world: World, virtual: VirtualProducts, schedule: Schedule, negatives: int, report: Callable[[str], None]
) -> World:
    """The world after the recommender has gone on training with virtual products among the real ones. Their rows of its
    embedding are dropped afterwards. Where its own validation got worse, what it learned is dropped, too."""
    content = world.content
    part = _parts(world.split, len(content))
    warm_of = [sequence[part[sequence] == 0] for sequence in world.sequences]
    stop = _stop(warm_of, world.train)
    reads_content = bool(world.model.spec.codes)
    more = Catalogue.bare(len(content) + len(virtual))
    if reads_content:
        more = Catalogue(
            torch.from_numpy(np.concatenate([content.codes, virtual.content.codes])),
            torch.from_numpy(np.concatenate([content.vectors, virtual.content.vectors])),
        )
    torch.manual_seed(schedule.seed)
    larger = LstmModel(replace(world.model.spec, products=len(more)))
    state = {name: tensor.clone() for name, tensor in world.model.state_dict().items()}
    rows = torch.zeros(len(virtual), larger.spec.width) if reads_content else torch.from_numpy(virtual.vectors)
    state["encode.product.weight"] = torch.cat([state["encode.product.weight"], rows])
    larger.load_state_dict(state)
    made = sequences_of(virtual, world.origins, world.train, len(content))
    places = larger.spec.places + 1
    before = evaluate(world.model, world.catalogue, stop, 10)["ndcg"]
    real = [one[-places:] for one in world.train if len(one) > 1]
    after = train_next(larger, more, real + made, stop, schedule, negatives=negatives, report=report).best
    report(f"validation of the recommender: {before:.4f} before, {after:.4f} with {len(virtual):,} virtual products")
    if after <= before:
        return world
    model = LstmModel(world.model.spec)
    state = dict(larger.state_dict())
    state["encode.product.weight"] = state["encode.product.weight"][: len(content)]
    model.load_state_dict(state)
    return _world(world.split, content, world.sequences, model.eval(), world.catalogue, warm_of, schedule.seed)


def _world(
    split: Split,
    content: Content,
    sequences: Sequence[np.ndarray],
    model: SequenceModel,
    catalogue: Catalogue,
    warm_of: list[np.ndarray],
    seed: int,
) -> World:
    train = [one[:-2] for one in warm_of]
    # At the test the shopper has had the product that stopped the training, too.
    states = _states(model, catalogue, [one[:-1] for one in warm_of])
    part = _parts(split, len(content))
    interactions, origins = _interactions(model, catalogue, train, states, split)
    return World(
        split=split,
        content=content,
        sequences=sequences,
        model=model,
        catalogue=catalogue,
        vectors=_vectors(model, catalogue, split),
        interactions=interactions,
        origins=origins,
        train=train,
        valid=_cases(sequences, part, 1, states, seed),
        cold=_cases(sequences, part, 2, states, seed),
        warm=_last(warm_of, sequences, states, part, seed),
        counts=np.bincount(np.concatenate(train), minlength=len(content)),
        last_states=np.stack([one[-1] if len(one) else np.zeros(model.spec.width, np.float32) for one in states]),
    )


def _parts(split: Split, products: int) -> np.ndarray:
    part = np.zeros(products, dtype=np.int64)
    part[split.valid], part[split.test] = 1, 2
    return part


def _stop(warm_of: Sequence[np.ndarray], train: Sequence[np.ndarray]) -> Prefixes:
    told = [number for number, one in enumerate(warm_of) if len(one) > 2]
    return Prefixes([train[n] for n in told], np.array([warm_of[n][-2] for n in told]), hide_seen=True)


def _trained(
    model: SequenceModel,
    catalogue: Catalogue,
    file: Path,
    train: list[np.ndarray],
    stop: Prefixes,
    schedule: Schedule,
    negatives: int,
    batch: int,
    report: Callable[[str], None],
) -> None:
    from safetensors.torch import load_file, save_file

    if file.exists():
        model.load_state_dict(load_file(file))
    else:
        train_next(model, catalogue, train, stop, schedule, batch, negatives, report=report)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    model.eval()


def _vectors(model: SequenceModel, catalogue: Catalogue, split: Split) -> np.ndarray:
    numbers = torch.arange(len(catalogue))
    numbers[torch.from_numpy(np.concatenate([split.valid, split.test]))] = UNKNOWN
    with torch.no_grad():
        return model.encode(numbers, catalogue.codes, catalogue.content).numpy()


def _states(model: SequenceModel, catalogue: Catalogue, train: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The state after each product of each sequence, float32 (length, d); of the latest ``places`` only, earlier
    places hold zeros."""
    found: list[np.ndarray] = [np.zeros((0, model.spec.width), dtype=np.float32)] * len(train)
    order = np.argsort([len(one) for one in train], kind="stable")
    order = order[[len(train[row]) > 0 for row in order.tolist()]]
    places = model.spec.places
    with torch.no_grad():
        for start in range(0, len(order), 512):
            rows = order[start : start + 512].tolist()
            made = states_of(model, catalogue, padded([train[row][-places:] for row in rows])).numpy()
            for row, states in zip(rows, made, strict=True):
                length = len(train[row])
                found[row] = np.zeros((length, model.spec.width), dtype=np.float32)
                found[row][-places:] = states[: min(length, places)]
    return found


def _interactions(
    model: SequenceModel, catalogue: Catalogue, train: list[np.ndarray], states: Sequence[np.ndarray], split: Split
) -> tuple[Interactions, list[tuple[int, int]]]:
    number = np.full(int(max(split.warm.max(), split.test.max(), split.valid.max())) + 1, -1, dtype=np.int64)
    number[split.warm] = np.arange(len(split.warm))
    told = [row for row, one in enumerate(train) if len(one) > 1]

    def before_each(states: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([states[row][: len(train[row]) - 1] for row in told])

    before = before_each(states)
    chosen = number[np.concatenate([train[row][1:] for row in told])]
    origins = [(row, place) for row in told for place in range(1, len(train[row]))]
    there = np.flatnonzero(np.abs(before).sum(axis=1) > 0)

    def redraw(seed: int) -> np.ndarray:
        with in_training(model, seed):
            return before_each(_states(model, catalogue, train))[there]

    return Interactions(before[there], chosen[there], redraw), [origins[place] for place in there.tolist()]


def _cases(
    sequences: Sequence[np.ndarray], part: np.ndarray, which: int, states: Sequence[np.ndarray], seed: int
) -> Cases:
    """Choices of hidden products by shoppers of whom a warm product is known before."""
    rows = []
    for row, (sequence, known) in enumerate(zip(sequences, states, strict=True)):
        kinds = part[sequence]
        before = np.minimum(np.cumsum(kinds == 0), len(known))
        places = np.flatnonzero((kinds == which) & (before > 0))
        rows += [(row, place, int(before[place]) - 1) for place in places.tolist()]
    return _collected(rows, sequences, states, seed)


def _last(
    warm_of: Sequence[np.ndarray], sequences: Sequence[np.ndarray], states: Sequence[np.ndarray], part: np.ndarray,
    seed: int,
) -> Cases:  # fmt: skip
    rows = []
    for row, (one, sequence, known) in enumerate(zip(warm_of, sequences, states, strict=True)):
        if len(one) > 2:
            rows.append((row, int(np.flatnonzero(part[sequence] == 0)[-1]), len(known) - 1))
    return _collected(rows, sequences, states, seed)


def _collected(
    rows: list[tuple[int, int, int]], sequences: Sequence[np.ndarray], states: Sequence[np.ndarray], seed: int
) -> Cases:
    if len(rows) > MOST_CASES:
        kept = np.random.default_rng([seed, 21]).permutation(len(rows))[:MOST_CASES]
        rows = [rows[number] for number in kept.tolist()]
    return Cases(
        np.stack([states[row][state] for row, _, state in rows]),
        np.array([sequences[row][place] for row, place, _ in rows]),
        padded([np.setdiff1d(sequences[row][:place], sequences[row][place]) for row, place, _ in rows]).numpy(),
    )
