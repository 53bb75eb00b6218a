"""An experiment as a person defines it, checked in full before it is stored."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from endcap.errors import InvalidInput
from endcap.experiments.assignment import Arm, Experiment

#: What an experiment may be about. Each is one number a shopper; the last two are better when lower.
METRICS = ("conversion", "ctr", "revenue", "ndcg", "zero_results", "latency_ms")
#: Under this name the rankings log notes the shoppers who take part in no experiment, ever.
CONTROL = "control"
LOWER_IS_BETTER = frozenset({"zero_results", "latency_ms"})
Metric = Literal["conversion", "ctr", "revenue", "ndcg", "zero_results", "latency_ms"]


class ArmDefinition(BaseModel):
    """A variant. ``profile``: the ranking profile that its searches are made with; empty: as without an experiment.
    ``model``: the version that scores them; empty or ``live``: the live one, as without an experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    weight: float = Field(gt=0, le=1, allow_inf_nan=False, description="Share of the experiment's shoppers.")
    profile: str = Field("", max_length=64)
    model: str = Field(
        "",
        max_length=64,
        description="A registered version of the kind `interest`, or `baseline`; empty or `live`: what is live.",
    )

    @field_validator("model")
    @classmethod
    def _live(cls, value: str) -> str:
        return "" if value == "live" else value


def _frozen(value: Any) -> Any:
    """JSON has lists only; a strict reading takes no list for a tuple."""
    return tuple(value) if isinstance(value, list) else value


class Definition(BaseModel):
    """An experiment on shoppers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    hypothesis: str = Field("", max_length=1_000, description="What is expected, and why; for those who read it later.")
    design: Literal["ab", "interleaving"] = Field(
        "ab", description="`interleaving`: both arms' rankings compete within one list; it takes exactly two arms."
    )
    layer: str = Field("ranking", min_length=1, max_length=64, description="Experiments of a layer share no shopper.")
    salt: str = Field("", max_length=100, description="Decides who sees which arm; empty: made from the name.")
    start: float = Field(0.0, ge=0, lt=1, description="The experiment's part of the layer's shoppers: from.")
    end: float = Field(1.0, gt=0, le=1, description="The experiment's part of the layer's shoppers: to.")
    metric: Metric = Field("conversion", description="What it is decided by.")
    smallest_effect: float = Field(0.0, ge=0, allow_inf_nan=False, description="Below it, arms count as equal.")
    planned: int = Field(10_000, ge=100, le=1_000_000_000, description="Shoppers that are planned for, in two arms.")
    arms: Annotated[tuple[ArmDefinition, ...], BeforeValidator(_frozen)] = Field(min_length=2, max_length=10)

    @model_validator(mode="after")
    def _whole(self) -> Definition:
        self.experiment()
        if self.design == "interleaving" and len(self.arms) != 2:
            raise ValueError("interleaving compares exactly two arms")
        if len({(arm.profile, arm.model) for arm in self.arms}) < len(self.arms):
            raise ValueError("arms with the same ranking profile and the same model show the same: nothing is compared")
        return self

    @property
    def models(self) -> frozenset[str]:
        """What its arms name as their model, but for the live one."""
        return frozenset(arm.model for arm in self.arms if arm.model)

    def experiment(self) -> Experiment:
        """As the assignment sees it.

        Raises:
            InvalidInput: weights that do not sum to 1, names twice, no range.
        """
        arms = tuple(Arm(one.name, one.weight) for one in self.arms)
        return Experiment(self.name, self.salt or f"experiment {self.name}", arms, self.start, self.end)


def definition_of(raw: Any, profiles: Collection[str] | None = None) -> Definition:
    """A checked definition. ``profiles``: names of the ranking profiles there are; None: not checked.

    Raises:
        InvalidInput: naming what is wrong with it.
    """
    try:
        found = Definition.model_validate(raw)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_input=False, include_url=False):
            where = ".".join(str(part) for part in item["loc"])
            problems.append(f"{where}: {item['msg']}" if where else item["msg"])
        raise InvalidInput("the experiment cannot be: " + "; ".join(problems).replace("Value error, ", "")) from None
    if profiles is not None:
        unknown = sorted({arm.profile for arm in found.arms if arm.profile} - set(profiles))
        if unknown:
            raise InvalidInput(
                f"there is no ranking profile {', '.join(unknown)}; there are: {', '.join(sorted(profiles))}"
            )
    return found
