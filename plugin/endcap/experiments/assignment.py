"""Which shopper sees what: the same answer at every request, on every server, without storing anything.

A shopper's place in [0, 1) is the hash of his key with a salt. Three places, from three salts, are independent:
whether he belongs to the permanent control group, which experiment of a layer he is in, and which arm he sees.
Experiments of one layer never share a shopper; experiments of different layers cross at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

from endcap.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant. ``weight``: share of the experiment's shoppers, in (0, 1]."""

    name: str
    weight: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms on a part of a layer. The first arm is what the others are compared with.

    ``salt``: decides who sees which arm; changing it deals all shoppers anew. ``start``, ``end``: the part of the
    layer's shoppers, in [0, 1].
    """

    name: str
    salt: str
    arms: tuple[Arm, ...]
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or not self.salt:
            raise InvalidInput("an experiment needs a name and a salt")
        if len(self.arms) < 2:
            raise InvalidInput(f"experiment {self.name} needs at least two arms")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or not all(names):
            raise InvalidInput(f"experiment {self.name}: arms need names that differ, not {names}")
        if not all(math.isfinite(arm.weight) and arm.weight > 0 for arm in self.arms):
            raise InvalidInput(f"experiment {self.name}: every arm's weight must be above 0; leave out arms without")
        total = math.fsum(arm.weight for arm in self.arms)
        if abs(total - 1) > 1e-6:
            raise InvalidInput(f"experiment {self.name}: the arms' weights sum to {total:.6g}, not 1")
        if not 0 <= self.start < self.end <= 1:
            raise InvalidInput(f"experiment {self.name}: its part of the layer [{self.start}, {self.end}) is no range")

    def arm(self, shopper: str) -> Arm:
        """The shopper's arm, whether or not the layer lets him in."""
        place, reached = position(shopper, self.salt), 0.0
        for arm in self.arms:
            reached += arm.weight
            if place < reached:
                return arm
        return self.arms[-1]


@dataclass(frozen=True, slots=True)
class Layer:
    """Experiments that must not meet, e.g. all that change the order of results."""

    name: str
    salt: str
    experiments: tuple[Experiment, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not self.salt:
            raise InvalidInput("a layer needs a name and a salt")
        salts = [self.salt, *(experiment.salt for experiment in self.experiments)]
        if len(set(salts)) < len(salts):
            raise InvalidInput(f"layer {self.name}: the layer and its experiments need salts that all differ")
        ordered = sorted(self.experiments, key=lambda each: each.start)
        for before, after in pairwise(ordered):
            if after.start < before.end:
                raise InvalidInput(
                    f"layer {self.name}: {before.name} and {after.name} overlap from {after.start} to "
                    f"{min(before.end, after.end)}; give them parts of their own or another layer"
                )


@dataclass(frozen=True, slots=True)
class Assignment:
    """One shopper in one experiment."""

    layer: str
    experiment: str
    arm: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All layers. ``control_share`` of all shoppers see no experiment, ever: all others can be held against them."""

    layers: tuple[Layer, ...] = ()
    control_share: float = 0.0
    control_salt: str = "control"

    def __post_init__(self) -> None:
        if not 0 <= self.control_share < 1:
            raise InvalidInput(f"control_share must be in [0, 1), not {self.control_share}")
        if self.control_share and not self.control_salt:
            raise InvalidInput("the control group needs a salt")
        for kind, names in (
            ("layer", [layer.name for layer in self.layers]),
            ("experiment", [each.name for layer in self.layers for each in layer.experiments]),
        ):
            if len(set(names)) < len(names):
                raise InvalidInput(f"every {kind} needs a name of its own, not {names}")
        salts = [self.control_salt]
        for layer in self.layers:
            salts += [layer.salt, *(experiment.salt for experiment in layer.experiments)]
        if len(set(salts)) < len(salts):
            raise InvalidInput("layers, experiments and the control group need salts that all differ")

    def in_control(self, shopper: str) -> bool:
        """Is he of the permanent control group?"""
        return position(shopper, self.control_salt) < self.control_share

    def assign(self, shopper: str) -> list[Assignment]:
        """What the shopper takes part in: at most one experiment a layer, none in the control group."""
        if self.in_control(shopper):
            return []
        found: list[Assignment] = []
        for layer in self.layers:
            place = position(shopper, layer.salt)
            found += [
                Assignment(layer.name, experiment.name, experiment.arm(shopper).name)
                for experiment in layer.experiments
                if experiment.start <= place < experiment.end
            ]
        return found


def position(shopper: str, salt: str) -> float:
    """The shopper's place in [0, 1), from 53 bits of BLAKE2b of his key, keyed by the salt's hash.

    Raises:
        InvalidInput: there is no shopper's key: a request without one cannot be assigned.
    """
    if not shopper:
        raise InvalidInput("a shopper without a key cannot take part in an experiment")
    key = blake2b(salt.encode(), digest_size=16).digest()
    return (int.from_bytes(blake2b(shopper.encode(), digest_size=8, key=key).digest(), "big") >> 11) / 2.0**53


def check_change(running: Experiment, changed: Experiment) -> None:
    """May a running experiment be changed so? Only its part of the layer may grow.

    Anything else moves shoppers between arms, and what was measured before and after would be mixed.

    Raises:
        InvalidInput: the salt, an arm or a weight differs, or the part of the layer lost shoppers.
    """
    advice = "stop it and start a new one under another name and salt"
    if changed.name != running.name:
        raise InvalidInput(f"experiment {running.name} cannot be renamed to {changed.name}; {advice}")
    if changed.salt != running.salt:
        raise InvalidInput(f"experiment {running.name}: another salt deals all shoppers anew; {advice}")
    before, after = {arm.name: arm.weight for arm in running.arms}, {arm.name: arm.weight for arm in changed.arms}
    gone, fresh = _names(before, after), _names(after, before)
    if gone or fresh:
        what = f"arm {gone} was removed" if gone else f"arm {fresh} was added"
        raise InvalidInput(f"experiment {running.name}: {what} while it runs; {advice}")
    if running.arms != changed.arms:
        raise InvalidInput(f"experiment {running.name}: other weights or another order move shoppers; {advice}")
    if changed.start > running.start or changed.end < running.end:
        raise InvalidInput(f"experiment {running.name}: its part of the layer may grow, not shrink or move; {advice}")


def _names(some: dict[str, float], other: dict[str, float]) -> str:
    missing: Sequence[str] = [name for name in some if name not in other]
    return ", ".join(missing)
