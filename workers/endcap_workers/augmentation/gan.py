"""Conditional GAN from content to embedding, after GAR (Chen et al., SIGIR 2022): the recommender is the discriminator.

The generator sees a product's content and noise, and wants the recommender to take its embedding for one that behaviour
has taught. Three forces act on it:

- *ranking*: for every purchase, the recommender must rank the generated embedding of what was bought above other
  products, some of them real and some generated;
- *the adversary*: a critic, the recommender's own score and a perceptron on top, tells the real from the generated
  embedding of the same product for the same shopper; the loss is relativistic, with zero-centred gradient penalties on
  both sides (R3GAN, Huang et al. 2024), under which training is known to converge;
- *alignment*: the generated embedding of a warm product points where the learned one does.

It begins as the linear map that least squares finds (:mod:`endcap_workers.augmentation.ridge`), or as what the
recommender itself says of a product that it does not know (``own_words``), and learns what to change. What is kept is
the running mean of its weights, at its best moment on validation, the beginning included; what is served is the mean
over a few draws of noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, softplus

from endcap.errors import InvalidInput
from endcap_workers.augmentation.base import (
    ContentNetwork,
    Generator,
    GeneratorDiverged,
    Training,
    Validation,
    Warm,
    run,
)
from endcap_workers.augmentation.linear import LinearNetwork, forget_unseen
from endcap_workers.augmentation.mlp import Trunk
from endcap_workers.augmentation.ridge import RidgeGenerator


@dataclass(frozen=True, slots=True)
class GanSettings:
    """How it trains.

    Attributes:
        ranking, adversary, alignment: weights of the three forces; ``adversary`` 0 leaves the critic out (ablation).
        penalty: of the critic's slopes.
        real: share of real embeddings among the products that a purchase is ranked against.
        hide: share of codes taken for unknown in training, so that an unseen brand is nothing new.
        own_words: begin as the recommender's own words, where it reads content. redraw: draw the states anew for each
            epoch, with the recommender's dropout. Both were better on validation and worse on the test
            (docs/benchmarks.md): off.
        most: interactions in an epoch; of more, each epoch draws its own.
        average: share of the old value in the running mean of the weights, which is what is judged and kept.
        noise, draws: numbers of noise, and how many draws are averaged in the end.
    """

    epochs: int = 6
    patience: int = 2
    rate: float = 1.5e-3
    batch: int = 1_024
    negatives: int = 1_024
    ranking: float = 1.0
    adversary: float = 0.2
    alignment: float = 0.3
    penalty: float = 1.0
    real: float = 0.5
    hidden: int = 192
    dropout: float = 0.5
    hide: float = 0.3
    average: float = 0.99
    most: int = 100_000
    own_words: bool = False
    redraw: bool = False
    noise: int = 16
    draws: int = 8


class GanNetwork(ContentNetwork):
    """Content and noise -> embedding. In evaluation: the mean over the stored draws."""

    draws: Tensor

    def __init__(self, sizes: tuple[int, ...], content: int, width: int, norm: float, settings: GanSettings) -> None:
        super().__init__(width, norm)
        hidden = settings.hidden
        self.trunk = Trunk(sizes, content, hidden, settings.dropout)
        self.noise = nn.Linear(settings.noise, hidden, bias=False)
        self.head = nn.Sequential(
            nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(hidden, width)
        )
        self.hide = settings.hide
        self.linear = LinearNetwork(sizes, content, width, 0.0)
        final = self.head[-1]
        assert isinstance(final, nn.Linear)
        nn.init.zeros_(final.weight)
        nn.init.zeros_(final.bias)
        self.register_buffer("draws", torch.randn(settings.draws, settings.noise))

    def generate(self, codes: Tensor, vectors: Tensor) -> Tensor:
        hidden = self.trunk(codes, vectors)
        made = self.head(hidden.unsqueeze(-2) + self.noise(self.draws)).mean(dim=-2)
        return self.linear.generate(codes, vectors) + made

    def draw(self, codes: Tensor, vectors: Tensor) -> Tensor:
        """One embedding a product, with fresh noise: what training sees."""
        if self.hide:
            codes = codes.masked_fill(torch.rand(codes.shape) < self.hide, 0)
        hidden = self.trunk(codes, vectors)
        noise = torch.randn(len(hidden), self.draws.shape[1])
        return self.fitted(self.linear.generate(codes, vectors) + self.head(hidden + self.noise(noise)))


class Critic(nn.Module):
    """The recommender as discriminator: its score of (shopper, product), and what a perceptron sees beside it."""

    def __init__(self, width: int, sizes: tuple[int, ...], content: int, hidden: int = 64) -> None:
        super().__init__()
        self.trunk = Trunk(sizes, content, hidden, 0.0)
        self.head = nn.Sequential(
            nn.Linear(2 * width + hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )  # fmt: skip
        self.trust = nn.Parameter(torch.tensor(0.1))

    def forward(self, states: Tensor, embeddings: Tensor, codes: Tensor, vectors: Tensor) -> Tensor:
        """(n, d) states and embeddings, and the product's content -> (n,): higher is more real."""
        match = states * embeddings
        seen = self.head(torch.cat([embeddings, match, self.trunk(codes, vectors)], dim=-1)).squeeze(-1)
        return seen + self.trust * match.sum(dim=-1)


class GanGenerator(Generator):
    """See the module's text. Needs interactions."""

    name: ClassVar[str] = "gan"

    def __init__(self, gan: GanSettings | None = None) -> None:
        super().__init__()
        self.gan = gan or GanSettings()

    def _fit(self, warm: Warm, seed: int, validation: Validation | None, report: Callable[[str], None]) -> None:
        if warm.interactions is None or len(warm.interactions.products) < 2:
            raise InvalidInput("the GAN learns from who bought what: there are no interactions")
        torch.manual_seed(seed)
        self.shape |= {"gan": asdict(self.gan)}
        network = self.blank(self.shape)
        start = (warm.own_words if self.gan.own_words else None) or RidgeGenerator().fit(warm, seed, validation).network
        assert isinstance(start, LinearNetwork)
        network.linear.load_state_dict(start.state_dict())
        for tables in (network.trunk.codes, network.linear.codes):
            forget_unseen(tables, warm.content)
        trainer = _Trainer(network, warm, self.gan, seed)
        training, best = Training(), trainer.mean
        if validation is not None:
            training.best, training.setting = validation.judge(run(best, validation.content)), "epoch 0"
            training.values.append(training.best)
            best = deepcopy(best)
        for epoch in range(self.gan.epochs):
            losses = trainer.epoch(epoch)
            if not all(map(math.isfinite, losses.values())):
                raise GeneratorDiverged(f"losses of the GAN are {losses} in epoch {epoch + 1}")
            if validation is None:
                best = trainer.mean
                continue
            value = validation.judge(run(trainer.mean, validation.content))
            training.values.append(value)
            report(f"{self.name}, epoch {epoch + 1}: validation {value:.4f}, " + _listed(losses))
            if value > training.best:
                training.best, training.setting, best = value, f"epoch {epoch + 1}", deepcopy(trainer.mean)
            elif epoch + 1 - int(training.setting.split()[-1]) >= self.gan.patience:
                break
        self.network, self.training = best.eval(), training

    @classmethod
    def blank(cls, settings: dict[str, Any]) -> GanNetwork:
        return GanNetwork(
            tuple(settings["sizes"]), settings["content"], settings["width"], settings["norm"],
            GanSettings(**settings["gan"]),
        )  # fmt: skip


class RankedGenerator(GanGenerator):
    """The same without its adversary: ranking and alignment alone."""

    name: ClassVar[str] = "ranked"

    def __init__(self, gan: GanSettings | None = None) -> None:
        super().__init__(replace(gan or GanSettings(), adversary=0.0))


class _Trainer:
    """Generator and critic in turn."""

    def __init__(self, network: GanNetwork, warm: Warm, gan: GanSettings, seed: int) -> None:
        self.network, self.gan, self.seed = network, gan, seed
        content, made = warm.content, warm.interactions
        assert made is not None
        self.codes, self.vectors = torch.from_numpy(content.codes), torch.from_numpy(content.vectors)
        self.real = torch.from_numpy(warm.vectors)
        told = content.known[made.products]
        self.told, self.redraw = told, made.redraw if gan.redraw else None
        self.states = torch.from_numpy(made.states[told])
        self.products = torch.from_numpy(made.products[told])
        self.usable = torch.from_numpy(np.flatnonzero(content.known))
        sizes, width = content.sizes, warm.vectors.shape[1]
        self.critic = Critic(width, sizes, content.vectors.shape[1]) if gan.adversary else None
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=gan.rate, weight_decay=1e-4)
        self.mean = deepcopy(network).eval()
        self.steps = 0
        if self.critic:
            self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=gan.rate, betas=(0.5, 0.99))

    def epoch(self, number: int) -> dict[str, float]:
        """One pass over the interactions, at most ``most`` of them; mean losses."""
        draw = torch.Generator().manual_seed(self.seed * 1_000 + number)
        if self.redraw is not None:
            self.states = torch.from_numpy(self.redraw(self.seed * 1_000 + number)[self.told])
        order = torch.randperm(len(self.products), generator=draw)[: self.gan.most]
        parts = order.tensor_split(max(1, len(order) // self.gan.batch))
        self.network.train()
        totals: dict[str, float] = {}
        for part in parts:
            for name, value in self._step(part, draw).items():
                totals[name] = totals.get(name, 0.0) + value / len(parts)
        return totals

    def _step(self, part: Tensor, draw: torch.Generator) -> dict[str, float]:
        gan, states, bought = self.gan, self.states[part], self.products[part]
        others = self.usable[torch.randint(len(self.usable), (gan.negatives,), generator=draw)]
        used, place = torch.unique(torch.cat([bought, others]), return_inverse=True)
        made = self.network.draw(self.codes[used], self.vectors[used])
        mine, theirs = place[: len(bought)], place[len(bought) :]
        losses: dict[str, Tensor] = {}
        keep = torch.rand(len(others), 1, generator=draw) < gan.real
        rivals = torch.where(keep, self.real[others], made[theirs])
        logits = (states @ rivals.T).masked_fill(bought.unsqueeze(1) == others.unsqueeze(0), -1e9)
        logits = torch.cat([(states * made[mine]).sum(dim=1, keepdim=True), logits], dim=1)
        losses["ranking"] = cross_entropy(logits, torch.zeros(len(bought), dtype=torch.long))
        losses["alignment"] = (1.0 - cosine_similarity(made, self.real[used], dim=-1)).mean()
        total = gan.ranking * losses["ranking"] + gan.alignment * losses["alignment"]
        if self.critic:
            losses["critic"] = self._teach(states, bought, made[mine].detach())
            content = self.codes[bought], self.vectors[bought]
            fooled = self.critic(states, made[mine], *content) - self.critic(states, self.real[bought], *content)
            losses["adversary"] = softplus(-fooled).mean()
            total = total + gan.adversary * losses["adversary"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._follow()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _follow(self) -> None:
        self.steps += 1
        keep = min(self.gan.average, self.steps / (self.steps + 10.0))
        with torch.no_grad():
            for mine, theirs in zip(self.mean.parameters(), self.network.parameters(), strict=True):
                mine.lerp_(theirs, 1.0 - keep)

    def _teach(self, states: Tensor, bought: Tensor, made: Tensor) -> Tensor:
        """A step of the critic: real above generated, flat around both."""
        assert self.critic is not None
        content = self.codes[bought], self.vectors[bought]
        real, fake = self.real[bought].requires_grad_(), made.clone().requires_grad_()
        high, low = self.critic(states, real, *content), self.critic(states, fake, *content)
        slopes = torch.autograd.grad(high.sum() + low.sum(), (real, fake), create_graph=True)
        penalty = sum(slope.square().sum(dim=1).mean() for slope in slopes)
        loss = softplus(low - high).mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        (loss + 0.5 * self.gan.penalty * penalty).backward()
        self.critic_optimizer.step()
        return loss.detach()


def _listed(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
