"""Experiments as they are run: defined, started, changed within what is allowed, assigned to searches, stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from itertools import groupby
from typing import Any

from endcap.errors import EndcapError, InvalidInput
from endcap.experiments.assignment import Layer, Plan, check_change, position
from endcap.experiments.definition import CONTROL, Definition, definition_of
from endcap.experiments.models import ArmModels, ArmScorer
from endcap.policy.arrange import Treatment
from endcap.policy.blend import Blend
from endcap.policy.context import Visit
from endcap.stores.database import Database
from endcap.stores.experiments import (
    DRAFT,
    RUNNING,
    STOPPED,
    ExperimentConflict,
    ExperimentStore,
    StoredExperiment,
)

log = logging.getLogger(__name__)


class Experiments:
    """What people do with experiments. Thread-safe; servers learn of it within two seconds."""

    def __init__(
        self,
        database: Database,
        control_share: float = 0.0,
        profiles: Collection[str] | None = None,
        models: Callable[[Collection[str]], None] | None = None,
    ) -> None:
        """``profiles``: names of the ranking profiles that arms may have; None: not checked. ``models``: raises
        InvalidInput where arms cannot be ranked by these models; None: not checked."""
        self.store = ExperimentStore(database)
        self.control_share = control_share
        self._profiles = profiles
        self._models = models

    def define(self, raw: Any, by: str = "") -> StoredExperiment:
        """Store a draft; nobody sees it yet.

        Raises:
            InvalidInput: what is wrong with it. ExperimentConflict: its name was used before.
        """
        found = definition_of(raw, self._profiles)
        if found.name == CONTROL:
            raise InvalidInput(f"{CONTROL} is what the log calls the permanent control group: take another name")
        self._check(found.models)
        return self.store.add(found.name, found.model_dump(mode="json"), by)

    def start(self, name: str) -> StoredExperiment:
        """Let it run.

        Raises:
            UnknownExperiment, ExperimentConflict: it is not a draft, or shares shoppers or a salt with one that runs.
            InvalidInput: a model of its arms is gone, or with those that run there are too many to load.
        """
        before = self.store.get(name)
        if before.state != DRAFT:
            raise ExperimentConflict(f"experiment {name} is {before.state}: only a draft can be started")
        own = definition_of(before.definition, self._profiles)
        beside = [definition_of(one.definition) for one in self.store.all(RUNNING)]
        if own.models:
            self._check(own.models.union(*(one.models for one in beside)))
        try:
            plan_of([*beside, own], self.control_share)
        except InvalidInput as error:
            raise ExperimentConflict(f"experiment {name} cannot run beside the others: {error}") from None
        return self.store.change(before, state=RUNNING, started=time.time())

    def change(self, name: str, raw: Any) -> StoredExperiment:
        """Change a draft in any way, or a running one in what does not move shoppers between arms: it may grow.

        Raises:
            InvalidInput: it is no experiment, or it would deal its shoppers anew (another salt, an arm more or less).
            UnknownExperiment, ExperimentConflict
        """
        before = self.store.get(name)
        changed = definition_of(raw, self._profiles)
        running = definition_of(before.definition)
        if changed.name != name:
            raise InvalidInput(f"experiment {name} cannot be renamed to {changed.name}: define a new one")
        if before.state == STOPPED:
            raise ExperimentConflict(f"experiment {name} is stopped: define a new one")
        if before.state == DRAFT:
            self._check(changed.models)
        if before.state == RUNNING:
            check_change(running.experiment(), changed.experiment())
            for label, was, will in (
                ("layer", running.layer, changed.layer),
                ("design", running.design, changed.design),
                ("metric", running.metric, changed.metric),
                ("arms' profiles", [one.profile for one in running.arms], [one.profile for one in changed.arms]),
                ("arms' models", [one.model for one in running.arms], [one.model for one in changed.arms]),
            ):
                if was != will:
                    raise InvalidInput(
                        f"experiment {name} runs: its {label} cannot change; stop it and start a new one"
                    )
            others = [definition_of(one.definition) for one in self.store.all(RUNNING) if one.name != name]
            try:
                plan_of([*others, changed], self.control_share)
            except InvalidInput as error:
                raise ExperimentConflict(f"experiment {name} cannot grow so: {error}") from None
        return self.store.change(before, definition=changed.model_dump(mode="json"))

    def stop(self, name: str) -> StoredExperiment:
        """End it; its shoppers see what all others see. Its numbers stay.

        Raises:
            UnknownExperiment, ExperimentConflict: it does not run.
        """
        before = self.store.get(name)
        if before.state != RUNNING:
            raise ExperimentConflict(f"experiment {name} is {before.state}: only a running one can be stopped")
        return self.store.change(before, state=STOPPED, stopped=time.time())

    def _check(self, models: Collection[str]) -> None:
        if self._models is not None and models:
            self._models(models)


def plan_of(definitions: Collection[Definition], control_share: float) -> Plan:
    """The assignment of all that run at once.

    Raises:
        InvalidInput: two share shoppers, or salts.
    """
    ordered = sorted(definitions, key=lambda one: one.layer)
    layers = tuple(
        Layer(name, f"layer {name}", tuple(one.experiment() for one in group))
        for name, group in groupby(ordered, key=lambda one: one.layer)
    )
    return Plan(layers, control_share)


class LiveExperiments:
    """The running experiments on the request path: an :class:`~endcap.policy.arrange.Assigner`."""

    def __init__(
        self,
        experiments: Experiments,
        profiles: Mapping[str, Blend],
        no_experiments: frozenset[str] = frozenset(),
        models: ArmModels | None = None,
    ) -> None:
        """``profiles``: by name. ``no_experiments``: segments that take part in none. ``models``: what scores arms that
        name a model; None: the live one does."""
        self._models = models
        self._experiments, self._profiles, self._left_out = experiments, profiles, no_experiments
        self._version: object = None
        self._plan = Plan()
        self._running: dict[str, Definition] = {}
        #: Why an experiment that runs is not applied in this process.
        self.problems: dict[str, str] = {}

    def look(self) -> None:
        """Take up what was started, changed or stopped; an experiment that makes no sense (its profile is gone) is left
        out, and says so, and the others go on.

        Raises:
            LogUnavailable: the database cannot be read; the experiments go on as they were.
        """
        version = self._experiments.store.version()
        if version == self._version:
            return
        usable: dict[str, Definition] = {}
        problems: dict[str, str] = {}
        for stored in reversed(self._experiments.store.all(RUNNING)):
            try:
                found = definition_of(stored.definition, self._profiles)
                plan_of([*usable.values(), found], self._experiments.control_share)
                usable[found.name] = found
            except EndcapError as error:
                problems[stored.name] = str(error)
                log.warning("experiment %s is not applied: %s", stored.name, error)
        self._running = usable
        if self._models is not None:
            self._models.want(frozenset().union(*(one.models for one in usable.values())))
        self._plan = plan_of(list(usable.values()), self._experiments.control_share)
        self.problems, self._version = problems, version
        log.info("experiments running: %s", ", ".join(usable) or "none")

    def treatment(self, shopper: str, visit: Visit) -> Treatment | None:
        """What the shopper's experiments ask for; where several name a profile or a model, the first layer's counts."""
        plan, running = self._plan, self._running
        if not running or visit.segment in self._left_out:
            return None
        if plan.in_control(shopper):
            return Treatment(noted={CONTROL: CONTROL})
        noted: dict[str, str] = {}
        arm: Blend | None = None
        versus: Blend | None = None
        model: ArmScorer | None = None
        rival: ArmScorer | None = None
        seed = 0
        for assigned in plan.assign(shopper):
            definition = running.get(assigned.experiment)
            if definition is None:
                continue
            noted[assigned.experiment] = assigned.arm
            if arm is not None or model is not None:
                continue
            if definition.design == "interleaving":
                noted[assigned.experiment] = "interleaved"
                first, second = (self._profiles.get(one.profile) for one in definition.arms)
                arm, versus = first or _standard(self._profiles), second or _standard(self._profiles)
                model, rival = (self._scorer(one.model) for one in definition.arms)
                seed = int(position(f"{shopper}\0{time.time_ns() // 3_600_000_000_000}", definition.name) * 2**53)
                continue
            wanted = next(one for one in definition.arms if one.name == assigned.arm)
            arm = self._profiles.get(wanted.profile) if wanted.profile else None
            model = self._scorer(wanted.model)
        return Treatment(arm, versus, noted, seed, model, rival) if noted else None

    def _scorer(self, model: str) -> ArmScorer | None:
        return self._models.scorer(model) if self._models is not None else None


def _standard(profiles: Mapping[str, Blend]) -> Blend:
    return next(iter(profiles.values()))
