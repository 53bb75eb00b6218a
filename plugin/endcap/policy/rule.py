"""What a shop owner may demand of rankings: one rule, checked in full before it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from endcap.catalog.product import PATH_SEPARATOR
from endcap.errors import InvalidInput

KINDS = (
    "boost", "bury", "pin", "hide", "out_of_stock_last", "diversity", "brand_cap", "frequency_cap", "sponsor",
)  # fmt: skip
Kind = Literal[
    "boost", "bury", "pin", "hide", "out_of_stock_last", "diversity", "brand_cap", "frequency_cap", "sponsor"
]
#: Kinds that need products to be named; the others take all where none is.
_TARGETED = frozenset({"boost", "bury", "pin", "hide", "sponsor"})
#: Kind -> the numbers that it takes, with their defaults (None: has to be given).
_NUMBERS: dict[str, dict[str, float | None]] = {
    "boost": {"amount": 1.0},
    "bury": {"amount": 1.0},
    "pin": {"position": None},
    "hide": {},
    "out_of_stock_last": {},
    "diversity": {"share": 0.3},
    "brand_cap": {"most": 2},
    "frequency_cap": {"most": 3, "hours": 24},
    "sponsor": {"bid": None, "floor": 0.5},
}


def _frozen(value: Any) -> Any:
    """JSON has lists only; a strict reading takes no list for a tuple."""
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_frozen)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_frozen)]


def spelled(path: str) -> str:
    """A category's path with its separators as documents have them."""
    return PATH_SEPARATOR.join(part.strip() for part in path.split(PATH_SEPARATOR.strip()))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Strict):
    """Which products: those that fulfil all that is given; within one list any of them."""

    products: Texts = Field(default=(), max_length=10_000, description="Product ids.")
    brands: Texts = Field(default=(), max_length=1_000)
    categories: Texts = Field(
        default=(),
        max_length=1_000,
        description="Paths from the root, `Grocery > Honey`; what lies below belongs to them.",
    )

    @property
    def empty(self) -> bool:
        """Does it name no product at all?"""
        return not (self.products or self.brands or self.categories)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.products)

    def covers(self, document: Mapping[str, Any]) -> bool:
        """Does it name the product of a stored document?"""
        if self.products and document.get("id") not in self._ids:
            return False
        if self.brands and str(document.get("brand", "")).casefold() not in {one.casefold() for one in self.brands}:
            return False
        return not self.categories or bool(
            {spelled(one) for one in self.categories} & {spelled(one) for one in document.get("category") or ()}
        )

    @field_validator("products", "brands", "categories")
    @classmethod
    def _no_blank(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not one.strip() for one in value):
            raise ValueError("must not hold blank names")
        return value


class When(_Strict):
    """In which searches: all conditions that are given must hold; within one list any of them."""

    queries: Texts = Field(default=(), max_length=1_000, description="The whole query, whatever its capitals.")
    words: Texts = Field(default=(), max_length=1_000, description="A word of the query.")
    categories: Texts = Field(
        default=(), max_length=100, description="A path that most of the found products belong to."
    )
    segments: Texts = Field(default=(), max_length=100, description="The shop's own name for a group of shoppers.")
    since: float | None = Field(default=None, description="Seconds since 1970.")
    until: float | None = Field(default=None, description="Seconds since 1970; the rule ends then.")
    hours: Numbers = Field(default=(), max_length=24, description="Hours of the day, 0 to 23, UTC.")
    weekdays: Numbers = Field(default=(), max_length=7, description="0 (Monday) to 6, UTC.")

    @cached_property
    def asked(self) -> frozenset[str]:
        """``queries`` as they are compared: in small letters, single spaces."""
        return frozenset(" ".join(one.lower().split()) for one in self.queries)

    @cached_property
    def asked_words(self) -> frozenset[str]:
        """``words`` in small letters."""
        return frozenset(one.lower() for one in self.words)

    @model_validator(mode="after")
    def _ranges(self) -> When:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number of seconds")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until must lie after since")
        if any(not 0 <= hour <= 23 for hour in self.hours):
            raise ValueError("hours are from 0 to 23")
        if any(not 0 <= day <= 6 for day in self.weekdays):
            raise ValueError("weekdays are from 0 (Monday) to 6 (Sunday)")
        for name in ("queries", "words", "segments", "categories"):
            if any(not one.strip() for one in getattr(self, name)):
                raise ValueError(f"{name} must not hold blank texts")
        if any(len(one.split()) > 1 for one in self.words):
            raise ValueError("words are single words; whole queries go into queries")
        return self


class Rule(_Strict):
    """One business rule.

    ============  ===================================================================================================
    boost, bury   ``amount`` is added to, or taken from, the score, in standard deviations of the search's scores
    pin           the product stands at ``position`` (from 1) where the search finds it
    hide          is not shown
    out_of_stock_last  what is known to be out of stock comes behind everything else
    diversity     ``share`` of a place's worth is how unlike the products above it is (MMR)
    brand_cap     at most ``most`` products of a brand among the first 24
    frequency_cap  what the shopper was shown ``most`` times within ``hours`` comes last
    sponsor       competes by ``bid`` for the sponsored places; at least ``floor`` as relevant as the best match
    ============  ===================================================================================================
    """

    name: str = Field(min_length=1, max_length=100, description="Shown in explanations.")
    kind: Kind
    target: Target = Target()
    when: When = When()
    enabled: bool = True
    priority: int = Field(0, ge=-1_000, le=1_000, description="Of two pins of one place the higher one wins.")
    amount: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    position: int | None = Field(None, ge=1, le=100)
    share: float | None = Field(None, gt=0, lt=1, allow_inf_nan=False)
    most: int | None = Field(None, ge=1, le=1_000)
    hours: float | None = Field(None, gt=0, le=24 * 90, allow_inf_nan=False)
    bid: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description="Most that is paid for a click.")
    floor: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("kind") not in _NUMBERS:
            return value
        taken = _NUMBERS[value["kind"]]
        every = {name for numbers in _NUMBERS.values() for name in numbers}
        extra = sorted(name for name in every - set(taken) if value.get(name) is not None)
        if extra:
            raise ValueError(f"a rule of kind {value['kind']} takes no {', '.join(extra)}")
        missing = sorted(name for name, default in taken.items() if default is None and value.get(name) is None)
        if missing:
            raise ValueError(f"a rule of kind {value['kind']} needs {', '.join(missing)}")
        filled = {name: default for name, default in taken.items() if value.get(name) is None}
        return {**value, **filled}

    @model_validator(mode="after")
    def _targets(self) -> Rule:
        if self.kind in _TARGETED and self.target.empty:
            raise ValueError(f"a rule of kind {self.kind} needs a target: products, brands or categories")
        if self.kind == "pin" and (len(self.target.products) != 1 or self.target.brands or self.target.categories):
            raise ValueError("a pin takes exactly one product")
        if self.kind in ("diversity", "out_of_stock_last", "brand_cap") and not self.target.empty:
            raise ValueError(f"a rule of kind {self.kind} takes no target: it is about the list as a whole")
        return self


def rule_of(stored: Any) -> Rule:
    """A checked rule.

    Raises:
        InvalidInput: naming the field and what it takes.
    """
    try:
        return Rule.model_validate(stored)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_input=False, include_url=False):
            where = ".".join(str(part) for part in item["loc"])
            problems.append(f"{where}: {item['msg']}" if where else item["msg"])
        raise InvalidInput("the rule cannot be used: " + "; ".join(problems).replace("Value error, ", "")) from None
