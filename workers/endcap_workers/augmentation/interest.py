"""A generator for a trained interest model: what it learns from, which one is best, and its place in the graph.

A fifth of the products that the model has learned is hidden from the generators: on one half of them a generator is
chosen, on the other half it is judged, against the model as it is (an unknown product lives by its codes and content).
The model itself has seen these products; that is the one thing that flatters everybody alike here, and what
``endcap evaluate cold-products`` does without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from endcap.catalog.table import ProductTable
from endcap.errors import InvalidInput, TooLittle
from endcap.metrics import ndcg_at
from endcap.sequences import UNKNOWN, Alignment
from endcap_workers.augmentation import GENERATORS
from endcap_workers.augmentation.base import (
    FEWEST_PRODUCTS,
    Content,
    Generator,
    GeneratorDiverged,
    Interactions,
    Validation,
    Warm,
)
from endcap_workers.augmentation.linear import own_words
from endcap_workers.augmentation.ranking import Cases, ranks
from endcap_workers.augmentation.states import Choices
from endcap_workers.models import Interest, InterestModel, SequenceModel

#: Share of the learned products that is hidden; half of it to choose by, half to judge by.
HIDDEN = 0.2
K = 20
#: Cases that generators are judged by, at most.
MOST_CASES = 5_000
#: With so many events a product speaks for itself as much as a generator speaks for it. Small, since a model that reads
#: codes and text learns from few: with 5 the GAN cost Beauty's warm products .008 of .053 NDCG@20 (one seed).
EVIDENCE = 0.3
NOTHING = "no augmentation"


@dataclass(frozen=True, slots=True)
class Material:
    """What generators of one model learn from and are chosen and judged by. ``numbers``: of the warm products;
    ``befores`` (m, 20): what came before each of their interactions, padded with 0; ``content`` and ``counts`` have a
    row for each number of the model."""

    model: InterestModel
    content: Content
    counts: np.ndarray
    vectors: np.ndarray
    numbers: np.ndarray
    warm: Warm
    befores: np.ndarray
    chosen_by: tuple[np.ndarray, Cases]
    judged_by: tuple[np.ndarray, Cases]

    def validation(self) -> Validation:
        """NDCG of the products hidden to choose by, among one another."""
        numbers, cases = self.chosen_by
        return Validation(self.content.rows(numbers), lambda made: float(self._ndcg(made, numbers, cases).mean()))

    def judge(self, made: np.ndarray) -> np.ndarray:
        """NDCG of each case of the products hidden to judge by, for embeddings of theirs."""
        return self._ndcg(made, *self.judged_by)

    def unaided(self, numbers: np.ndarray) -> np.ndarray:
        """What the model says of products without a generator, (n, width)."""
        content = self.content.rows(numbers)
        return _encode(self.model, np.full(len(numbers), UNKNOWN), content)

    def _ndcg(self, made: np.ndarray, numbers: np.ndarray, cases: Cases) -> np.ndarray:
        vectors = self.vectors.copy()
        vectors[numbers] = made
        return ndcg_at(ranks(cases, vectors, numbers), K)


@dataclass(slots=True)
class Choice:
    """The generator chosen (None: none is better than the model by itself), the figure of each by which it was chosen,
    why others were kept out, and the judgement: NDCG without and with, and the lower end of the 95% interval of the
    difference."""

    generator: Generator | None = None
    validation: dict[str, float] = field(default_factory=dict)
    kept_out: dict[str, str] = field(default_factory=dict)
    without: float = float("nan")
    with_it: float = float("nan")
    lower: float = float("nan")

    def numbers(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "ndcg@20 without": self.without,
            "ndcg@20 with": self.with_it,
            "lower bound of the gain": self.lower,
            "validation": self.validation,
            "kept out": self.kept_out,
        }


def content_of(table: ProductTable, aligned: Alignment, products: Sequence[str], sizes: tuple[int, ...]) -> Content:
    """Content of each number of a model: two reserved rows, then ``products`` in the vocabulary's order."""
    rows = np.r_[-1, -1, table.rows(products)].astype(np.int64)
    codes = aligned.codes[rows].astype(np.int64)
    codes[rows < 0] = 0
    spec = aligned.spec
    encoder = "+".join(one for one in (spec.encoder, spec.picture_encoder) if one)
    return Content(codes, aligned.candidate_content(rows), sizes, encoder)


def material(model: InterestModel, content: Content, sequences: Sequence[np.ndarray], seed: int = 0) -> Material:
    """Split, states, cases.

    Args:
        content: a row for each number of the model. sequences: int64 (n, 2) of each shopper, oldest first: product
            numbers and actions.

    Raises:
        TooLittle: the model has no product embeddings that its scores hang on, or the catalogue is too small.
    """
    if not reads_embeddings(model):
        raise TooLittle(
            "the live model scores by explicit features alone: there is no embedding to generate. Train one with the "
            "part `sequence` (endcap train)"
        )
    if not content.sizes and not content.vectors.shape[1]:
        raise TooLittle("the live model reads neither codes nor content: nothing tells a new product from another")
    done = np.concatenate([*sequences, np.zeros((0, 2), np.int64)])[:, 0]
    counts = np.bincount(done, minlength=len(content))[: len(content)]
    usable = np.flatnonzero((counts > 0) & content.known)
    usable = usable[usable > UNKNOWN]
    draw = np.random.default_rng([seed, 41])
    hidden = draw.permutation(usable)[: int(HIDDEN * len(usable))]
    if len(usable) - len(hidden) < FEWEST_PRODUCTS:
        raise TooLittle(
            f"{len(usable)} products have content and were bought: at least {int(FEWEST_PRODUCTS / (1 - HIDDEN)) + 1} "
            "are needed to learn what content says about interest"
        )
    choosing, judging = np.sort(hidden[::2]), np.sort(hidden[1::2])
    part = np.full(len(content), -1, dtype=np.int64)
    warm = np.setdiff1d(usable, hidden)
    part[warm], part[choosing], part[judging] = np.arange(len(warm)), -2, -3
    vectors = _encode(model, np.arange(len(content)), content)
    choices = Choices.of(model, content, sequences, draw)
    states, targets, seen = choices.states(), choices.targets, choices.seen
    told = part[targets] >= 0
    interactions = Interactions(states[told], part[targets[told]], lambda seed: choices.redrawn(seed)[told])
    learned = Warm(content.rows(warm), vectors[warm], interactions, own_words(model.encode, content.vectors.shape[1]))
    return Material(
        model, content, counts, vectors, warm, learned, seen[told],
        (choosing, _cases(states, targets, seen, part[targets] == -2)),
        (judging, _cases(states, targets, seen, part[targets] == -3)),
    )  # fmt: skip


def choose(
    made: Material,
    names: Sequence[str] = tuple(GENERATORS),
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
    makers: Mapping[str, Callable[[], Generator]] = GENERATORS,
) -> Choice:
    """Fit each generator, choose on the first hidden products, judge on the second. One that diverges is kept out."""
    choice = Choice()
    validation = made.validation()
    best = choice.validation[NOTHING] = validation.judge(made.unaided(made.chosen_by[0]))
    for name in names:
        try:
            generator = makers[name]().fit(made.warm, seed, validation, report)
            value = validation.judge(generator.embed(validation.content))
        except (GeneratorDiverged, InvalidInput) as error:
            choice.kept_out[name] = str(error)
            report(f"{name} is kept out: {error}")
            continue
        choice.validation[name] = value
        report(f"{name}: validation {value:.4f}")
        if value > best:
            best, choice.generator = value, generator
    numbers = made.judged_by[0]
    without = made.judge(made.unaided(numbers))
    choice.without = float(without.mean())
    if choice.generator is not None:
        gain = made.judge(choice.generator.embed(made.content.rows(numbers))) - without
        choice.with_it = choice.without + float(gain.mean())
        draw = np.random.default_rng([seed, 42])
        means = [gain[draw.integers(0, len(gain), len(gain))].mean() for _ in range(500)]
        choice.lower = float(np.quantile(means, 0.025))
    return choice


def attach(model: InterestModel, generator: Generator) -> None:
    """Give the generator its place in the model's graph: the number ``spec.products`` stands for what it speaks for.

    Raises:
        InvalidInput: it was made for another model.
    """
    shape, spec = generator.shape, model.spec
    fits = (tuple(shape["sizes"]), shape["width"]) == (spec.codes, spec.width) and shape["content"] >= spec.content
    if generator.network is None or not fits:
        raise InvalidInput("the generator was made for another model, or is not fitted: train it again")
    model.encode.newcomers, model.encode.newcomers_content = generator.network.eval(), shape["content"]


def blend(model: InterestModel, generator: Generator, content: Content, counts: np.ndarray) -> int:
    """Products of few events get n / (n + ``EVIDENCE``) of what behaviour taught and the rest of what the generator
    says, in place; returns how many changed by more than a tenth. With evidence the generator fades out by itself."""
    rows = np.flatnonzero((np.arange(len(content)) > UNKNOWN) & content.known)
    share = (counts[rows] / (counts[rows] + EVIDENCE)).astype(np.float32)[:, None]
    wanted = share * _encode(model, rows, content.rows(rows)) + (1.0 - share) * generator.embed(content.rows(rows))
    encode = model.encode
    with torch.no_grad():
        codes, vectors = torch.from_numpy(content.codes[rows]), torch.from_numpy(content.vectors[rows])
        rest = torch.zeros(len(rows), model.spec.width)
        for column, table in enumerate(encode.codes):
            rest = rest + table(codes[:, column])
        if encode.content is not None:
            rest = rest + encode.content(vectors[:, : encode.content.in_features])
        encode.product.weight[torch.from_numpy(rows)] = torch.from_numpy(wanted) - rest
    return int((share < 0.9).sum())


def reads_embeddings(model: InterestModel) -> bool:
    """Whether there is a state of the shopper that a product's embedding is compared with."""
    return isinstance(model, SequenceModel) or (isinstance(model, Interest) and "sequence" in model.spec.parts)


def _encode(model: InterestModel, numbers: np.ndarray, content: Content) -> np.ndarray:
    with torch.no_grad():
        return (
            model.eval()
            .encode(torch.from_numpy(numbers), torch.from_numpy(content.codes), torch.from_numpy(content.vectors))
            .numpy()
        )


def _cases(states: np.ndarray, targets: np.ndarray, seen: np.ndarray, which: np.ndarray) -> Cases:
    rows = np.flatnonzero(which)
    if not len(rows):
        raise TooLittle("nobody chose the products that were hidden to choose by: the log is too small")
    if len(rows) > MOST_CASES:
        rows = np.sort(np.random.default_rng(43).permutation(rows)[:MOST_CASES])
    return Cases(states[rows], targets[rows], seen[rows])
