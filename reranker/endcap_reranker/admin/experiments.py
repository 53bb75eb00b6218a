"""Experiments on shoppers: defined, started, looked at, stopped."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import Field

from endcap.experiments.definition import Definition, definition_of
from endcap.experiments.looking import look
from endcap.experiments.models import check_models
from endcap.experiments.power import detectable_effect, shoppers_needed
from endcap.experiments.service import Experiments
from endcap.policy.opening import profiles_of
from endcap.registry import open_registry
from endcap.runtime import Runtime
from endcap.stores.experiments import State, StoredExperiment
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic

#: No shop has the shoppers that show less.
_LEAST_EFFECT = 1e-9


class ExperimentAnswer(Answer):
    """An experiment. Times are seconds since 1970 (UTC), 0: not yet."""

    name: str
    state: State
    definition: dict[str, Any]
    created: float
    started: float
    stopped: float
    by: str
    report: dict[str, Any] | None = Field(description="What the last look said: the verdict in words, every metric.")


class ExperimentList(Answer):
    """Experiments, the newest first."""

    experiments: list[ExperimentAnswer]


class PowerQuery(Strict):
    """What is planned."""

    mean: float = Field(gt=0, lt=1, description="The metric's mean today, as a share: a conversion of .05.")
    shoppers: int = Field(10_000, ge=10, le=1_000_000_000, description="Shoppers of two arms together.")
    effect: float = Field(0.0, ge=0, lt=1, description="A difference to be seen; below 1e-9: none is asked for.")


class Power(Answer):
    """What can be seen."""

    detectable: float = Field(description="Least difference that these shoppers show with probability .8.")
    shoppers_needed: int | None = Field(description="Shoppers that show `effect`; null where none was asked for.")


def open_experiments(runtime: Runtime) -> Experiments:
    """The experiments, checked against the ranking profiles and the models that there are."""
    settings = runtime.settings
    names = [one.name for one in profiles_of(settings)]
    registry = open_registry(settings, runtime.database)

    def check(versions: Collection[str]) -> None:
        check_models(registry, versions, settings.experiment_models_mb)

    return Experiments(runtime.database, settings.control_share, names, check)


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("experiments", "A/B/n tests and interleaving between ranking profiles and models.")
    experiments = open_experiments(runtime)

    def shown(one: StoredExperiment) -> ExperimentAnswer:
        return ExperimentAnswer.model_validate(one)

    @topic.operation("GET", "/experiments", role="reader", summary="All experiments.", answer=ExperimentList)
    def list_experiments() -> ExperimentList:
        return ExperimentList(experiments=[shown(one) for one in experiments.store.all()])

    @topic.operation(
        "GET", "/experiments/power", role="reader", summary="Before the start: what can be seen, and with how many.",
        query=PowerQuery, answer=Power,
    )  # fmt: skip
    def experiment_power(query: PowerQuery) -> Power:
        variance = query.mean * (1 - query.mean)
        needed = shoppers_needed(query.effect, variance) if query.effect >= _LEAST_EFFECT else None
        return Power(detectable=detectable_effect(query.shoppers, variance), shoppers_needed=needed)

    @topic.operation(
        "POST", "/experiments", role="operator", summary="Define an experiment; it does not run yet.",
        body=Definition, answer=ExperimentAnswer, status=201, errors=(409,),
    )  # fmt: skip
    def define_experiment(body: Definition) -> ExperimentAnswer:
        return shown(experiments.define(body.model_dump(mode="json"), caller().name))

    @topic.operation(
        "GET", "/experiments/<name>", role="reader", summary="One experiment.", answer=ExperimentAnswer, errors=(404,)
    )
    def get_experiment(name: str) -> ExperimentAnswer:
        return shown(experiments.store.get(name))

    @topic.operation(
        "PUT", "/experiments/<name>", role="operator",
        summary="Change a draft, or let a running experiment grow.", body=Definition, answer=ExperimentAnswer,
        errors=(404, 409),
    )  # fmt: skip
    def change_experiment(name: str, body: Definition) -> ExperimentAnswer:
        return shown(experiments.change(name, definition_of(body.model_dump(mode="json")).model_dump(mode="json")))

    @topic.operation(
        "POST", "/experiments/<name>/start", role="operator", summary="Let it run.", answer=ExperimentAnswer,
        errors=(404, 409),
    )  # fmt: skip
    def start_experiment(name: str) -> ExperimentAnswer:
        return shown(experiments.start(name))

    @topic.operation(
        "POST", "/experiments/<name>/stop", role="operator", summary="End it; its numbers stay.",
        answer=ExperimentAnswer, errors=(404, 409),
    )  # fmt: skip
    def stop_experiment(name: str) -> ExperimentAnswer:
        return shown(experiments.stop(name))

    @topic.operation(
        "POST", "/experiments/<name>/look", role="operator", summary="Judge it now; looking often does no harm.",
        answer=ExperimentAnswer, errors=(404,),
    )  # fmt: skip
    def look_at_experiment(name: str) -> ExperimentAnswer:
        look(runtime.database, runtime.settings.reward_hours, name)
        return shown(experiments.store.get(name))

    return topic
