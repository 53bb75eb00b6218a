"""Augmentation: the generator for products without history, its switch, and the rows that it made up for training."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from endcap.augmentation import is_switched_on, switch
from endcap.registry import open_registry
from endcap.runtime import Runtime
from endcap.stores.generated import GeneratedProducts
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic


class AugmentationAnswer(Answer):
    """How products without history are scored."""

    allowed: bool = Field(description="The setting `augmentation`.")
    on: bool = Field(description="Nobody has switched it off.")
    live: dict[str, Any] | None = Field(description="The generator in the live model; null where it has none.")
    versions: list[dict[str, Any]] = Field(description="Generators, newest first: version, state, verdict.")


class SwitchBody(Strict):
    """On or off."""

    on: bool


class GenerationAnswer(Answer):
    """The rows of one generator version."""

    generator: str
    seed: int
    rows: int
    created: float


class GenerationList(Answer):
    """Generated rows, newest first."""

    generations: list[GenerationAnswer]


class DeleteQuery(Strict):
    """Which rows."""

    generator: str = Field("", max_length=64, description="Of this generator version; all where it is left out.")


class Deleted(Answer):
    """How many rows are gone."""

    deleted: int


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("augmentation", "Products that nobody has bought: their generator, and what it made up.")
    registry = open_registry(runtime.settings, runtime.database)
    store, models = GeneratedProducts(runtime.database), runtime.settings.models_folder

    def state() -> AugmentationAnswer:
        bundle = runtime.live_bundle
        return AugmentationAnswer(
            allowed=runtime.settings.augmentation,
            on=is_switched_on(models),
            live=dict(bundle.augmentation) if bundle is not None and bundle.augmentation else None,
            versions=[
                {"version": one.version, "state": one.state, "verdict": one.verdict, "provenance": one.provenance}
                for one in registry.versions("augmentation", limit=20)
            ],
        )

    @topic.operation(
        "GET", "/augmentation", role="reader", summary="How new products are scored.", answer=AugmentationAnswer
    )
    def get_augmentation() -> AugmentationAnswer:
        return state()

    @topic.operation(
        "PUT", "/augmentation", role="operator", summary="Switch it on or off.", body=SwitchBody,
        answer=AugmentationAnswer,
    )  # fmt: skip
    def switch_augmentation(body: SwitchBody) -> AugmentationAnswer:
        """Every server follows within two seconds. Switched off, new products are scored by what the model itself reads
        of them, and the job `augment` does nothing."""
        switch(models, body.on, caller().name)
        return state()

    @topic.operation(
        "GET", "/augmentation/generated", role="reader", summary="Rows made up for training.", answer=GenerationList
    )
    def list_generated() -> GenerationList:
        return GenerationList(generations=[GenerationAnswer.model_validate(one) for one in store.generations()])

    @topic.operation(
        "DELETE", "/augmentation/generated", role="operator", summary="Delete rows made up for training.",
        query=DeleteQuery, answer=Deleted, errors=(404,),
    )  # fmt: skip
    def delete_generated(query: DeleteQuery) -> Deleted:
        """They are in no index, report or count; what a model has learned from them stays in it until the next one."""
        return Deleted(deleted=store.delete(query.generator))

    return topic
