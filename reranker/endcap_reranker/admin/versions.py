"""Versions of the models: which there are, how they compare, which one is live."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from endcap.registry import open_registry
from endcap.runtime import Runtime
from endcap.stores.versions import State, Version
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic


class VersionAnswer(Answer):
    """One version of one kind of model. Times are seconds since 1970 (UTC)."""

    kind: str
    version: str
    state: State
    pinned: bool
    usable: bool = Field(description="Its files are still there.")
    created: float
    changed: float
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    verdict: dict[str, Any] | None = Field(description="Of the gate; null where none has judged it.")
    shadow: dict[str, Any] | None = Field(description="What scoring it beside the live version has shown.")


class VersionList(Answer):
    """Versions, newest first."""

    versions: list[VersionAnswer]


class VersionsQuery(Strict):
    """Which versions."""

    kind: str = Field("", max_length=64, description="Only of this kind: `interest`, `policy`, `augmentation`.")
    state: State | Literal[""] = Field("", description="Only in this state.")
    limit: int = Field(50, ge=1, le=500, description="At most so many.")


class PromoteBody(Strict):
    """How to promote."""

    force: bool = Field(False, description="Even where the gate has not let it pass, or another version is pinned.")


class CompareQuery(Strict):
    """Which two."""

    a: str = Field(max_length=64, description="One version.")
    b: str = Field("", max_length=64, description="The other one; the live one where it is left out.")


class Compared(Answer):
    """Two versions beside each other."""

    a: VersionAnswer
    b: VersionAnswer
    metrics: dict[str, list[float | None]] = Field(description="Each number that either has: that of a, that of b.")
    provenance: dict[str, list[Any]] = Field(description="What differs in where they come from.")


class ChangeAnswer(Answer):
    """What happened to a kind of model."""

    time: float
    kind: str
    action: str
    version: str
    before: str = Field(description="What was live before.")
    by: str
    reason: str


class ChangeList(Answer):
    """Changes, newest first."""

    changes: list[ChangeAnswer]


class HistoryQuery(Strict):
    """Which changes."""

    kind: str = Field("", max_length=64, description="Only of this kind.")
    limit: int = Field(50, ge=1, le=500, description="At most so many.")


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("versions", "Models: versions, how they compare, which one is live.")
    registry = open_registry(runtime.settings, runtime.database)

    def shown(one: Version) -> VersionAnswer:
        usable = bool(one.folder) and (registry.models / one.folder).is_dir()
        values = {name: getattr(one, name) for name in VersionAnswer.model_fields if name != "usable"}
        return VersionAnswer(usable=usable, **values)

    @topic.operation(
        "GET", "/versions", role="reader", summary="The latest versions.", query=VersionsQuery, answer=VersionList
    )
    def list_versions(query: VersionsQuery) -> VersionList:
        return VersionList(versions=[shown(one) for one in registry.versions(query.kind, query.state, query.limit)])

    @topic.operation(
        "GET", "/versions/changes", role="reader", summary="Who made what live, and why.", query=HistoryQuery,
        answer=ChangeList,
    )  # fmt: skip
    def list_changes(query: HistoryQuery) -> ChangeList:
        return ChangeList(
            changes=[ChangeAnswer.model_validate(one) for one in registry.history(query.kind, query.limit)]
        )

    @topic.operation(
        "GET", "/versions/<kind>/<version>", role="reader", summary="One version.", answer=VersionAnswer, errors=(404,)
    )
    def get_version(kind: str, version: str) -> VersionAnswer:
        return shown(registry.get(kind, version))

    @topic.operation(
        "GET", "/versions/<kind>/compare", role="reader", summary="Two versions beside each other.",
        query=CompareQuery, answer=Compared, errors=(404,),
    )  # fmt: skip
    def compare_versions(kind: str, query: CompareQuery) -> Compared:
        a = registry.get(kind, query.a)
        live = None if query.b else registry.live(kind)
        b = live if live is not None else registry.get(kind, query.b)
        return compared(shown(a), shown(b))

    @topic.operation(
        "POST", "/versions/<kind>/<version>/promote", role="operator", summary="Put a version into force.",
        body=PromoteBody, answer=VersionAnswer, errors=(404, 409, 502),
    )  # fmt: skip
    def promote_version(kind: str, version: str, body: PromoteBody) -> VersionAnswer:
        """Every server switches within two seconds. The gate must have let it pass (the job `promote` asks it)."""
        return shown(registry.promote(kind, version, caller().name, body.force))

    @topic.operation(
        "POST", "/versions/<kind>/<version>/pin", role="operator", summary="Put a version into force and keep it.",
        answer=VersionAnswer, errors=(404, 409, 502),
    )  # fmt: skip
    def pin_version(kind: str, version: str) -> VersionAnswer:
        """Nothing replaces it by itself until it is unpinned."""
        return shown(registry.pin(kind, version, caller().name))

    @topic.operation(
        "POST", "/versions/<kind>/unpin", role="operator", summary="Let newer versions replace the live one again.",
        answer=VersionAnswer, errors=(404, 409),
    )  # fmt: skip
    def unpin_version(kind: str) -> VersionAnswer:
        return shown(registry.unpin(kind, caller().name))

    @topic.operation(
        "POST", "/versions/<kind>/roll-back", role="operator", summary="Go back to what was live before.",
        answer=VersionAnswer, errors=(404, 409, 502),
    )  # fmt: skip
    def roll_back_version(kind: str) -> VersionAnswer:
        """Said again, it goes one further back. Behind the first there is none: then no model is in force, and the
        answer is the version that was."""
        return shown(registry.roll_back(kind, caller().name))

    @topic.operation(
        "POST", "/versions/<kind>/<version>/shadow", role="operator",
        summary="Score a version beside the live one, without effect.", answer=VersionAnswer, errors=(404, 409),
    )  # fmt: skip
    def shadow_version(kind: str, version: str) -> VersionAnswer:
        """On a share of the real rankings (setting `shadow_sample`), in the background. One version at a time."""
        return shown(registry.shadow(kind, version, caller().name))

    return topic


def compared(a: VersionAnswer, b: VersionAnswer) -> Compared:
    """Two versions beside each other."""
    numbers = {name: [_number(a.metrics, name), _number(b.metrics, name)] for name in {**a.metrics, **b.metrics}}
    keys = {**a.provenance, **b.provenance}
    differing = {key: [a.provenance.get(key), b.provenance.get(key)] for key in keys}
    return Compared(
        a=a,
        b=b,
        metrics={name: pair for name, pair in numbers.items() if pair != [None, None]},
        provenance={key: pair for key, pair in differing.items() if pair[0] != pair[1]},
    )


def _number(metrics: dict[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
