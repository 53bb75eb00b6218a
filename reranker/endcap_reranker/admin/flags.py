"""The queue of suspicions: who is flagged and why, and what people decide about it. It names shoppers, so the role
operator is the least."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from endcap.runtime import Runtime
from endcap.stores.flags import KINDS, STATES, Change, Flag, Suspicion, UnknownFlag
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic

Kind = Literal["shopper", "device", "product", "seller"]
State = Literal["suspected", "confirmed", "dismissed", "lapsed"]
#: What a database does not take, or a person does not see.
_NO_NUL, _NO_CONTROLS = r"^[^\x00]*$", r"^[^\x00-\x1f\x7f-\x9f]+$"
#: Numbers of flags are stored in 63 bits.
_MOST = 2**63 - 1


class FlagAnswer(Answer):
    """One flag. Times are seconds since 1970 (UTC)."""

    id: int
    kind: str
    subject: str
    state: str
    score: float = Field(description="From 0 to 1; a probability once labels have taught the detector.")
    source: str = Field(description="What suspected it: `fraud` (the nightly job), `ingest`, or a person's token.")
    reasons: list[str]
    evidence: dict[str, Any]
    created: float
    updated: float


class ChangeAnswer(Answer):
    """One change of a flag's state."""

    id: int
    time: float
    by: str
    before: str = Field(description="Empty for its first.")
    after: str
    note: str
    decision: bool = Field(description="A person's, not a detector's.")
    undoes: int | None = Field(description="The change that it took back.")


class FlagDetail(FlagAnswer):
    """A flag with its history, oldest first."""

    history: list[ChangeAnswer]


class FlagList(Answer):
    """A page of flags, the highest score first."""

    flags: list[FlagAnswer]
    total: int
    counts: dict[str, dict[str, int]] = Field(description="All flags by kind and state.")
    version: int = Field(description="Grows with every change: what is left out changed with it.")


class FlagsQuery(Strict):
    """Which flags."""

    state: State | Literal[""] = Field("suspected", description="Only in this state; empty: in any.")
    kind: Kind | Literal[""] = Field("", description="Only of this kind.")
    contains: str = Field("", max_length=200, description="Only subjects with this in their id.")
    limit: int = Field(100, ge=1, le=1_000, description="At most so many.")
    offset: int = Field(0, ge=0, le=10_000_000, description="Skip so many.")


class DecideBody(Strict):
    """A decision."""

    state: Literal["confirmed", "dismissed", "suspected"] = Field(
        description="`confirmed`: fraud; `dismissed`: genuine, its behaviour counts again; `suspected`: undecided."
    )
    note: str = Field("", max_length=1_000, pattern=_NO_NUL, description="Why, for those who read the history.")


class FlagBody(Strict):
    """A suspicion of a person."""

    kind: Kind
    subject: str = Field(
        max_length=512, pattern=_NO_CONTROLS, description="Id of the shopper, device, product or seller."
    )
    reason: str = Field(min_length=1, max_length=1_000, description="Why.")


def routes(runtime: Runtime) -> Topic:
    """The topic over a runtime."""
    topic = Topic("flags", "Suspicions of fraud. What is suspected or confirmed counts for nothing but itself.")
    flags = runtime.flags

    @topic.operation("GET", "/flags", role="operator", summary="The queue.", query=FlagsQuery, answer=FlagList)
    def list_flags(query: FlagsQuery) -> FlagList:
        found = flags.queue(query.state, query.kind, query.contains, query.limit, query.offset)
        total = flags.count(query.state, query.kind, query.contains)
        return FlagList(
            flags=[_answer(one) for one in found], total=total, counts=flags.counts(), version=flags.version()
        )

    @topic.operation(
        "GET", "/flags/<number>", role="operator", summary="One flag: evidence and history.", answer=FlagDetail,
        errors=(404,),
    )  # fmt: skip
    def get_flag(number: str) -> FlagDetail:
        found = number_of(number)
        return _detail(flags.get(found), flags.history(found))

    @topic.operation(
        "POST", "/flags", role="operator", summary="Flag somebody by hand.", body=FlagBody, answer=FlagDetail,
        status=201,
    )  # fmt: skip
    def add_flag(body: FlagBody) -> FlagDetail:
        """One that is there keeps its state."""
        by = caller().name
        flags.suspect([Suspicion(body.kind, body.subject, 1.0, [f"{body.reason} (said {by})"])], f"person: {by}")
        made = flags.find(body.kind, body.subject)
        assert made is not None
        return _detail(made, flags.history(made.id))

    @topic.operation(
        "POST", "/flags/<number>/decide", role="operator", summary="Confirm or dismiss.", body=DecideBody,
        answer=FlagDetail, errors=(404, 409),
    )  # fmt: skip
    def decide_flag(number: str, body: DecideBody) -> FlagDetail:
        found = number_of(number)
        flag = flags.decide(found, body.state, caller().name, body.note)
        return _detail(flag, flags.history(found))

    @topic.operation(
        "POST", "/flags/<number>/undo", role="operator", summary="Take back the latest decision.", answer=FlagDetail,
        errors=(404, 409),
    )  # fmt: skip
    def undo_flag(number: str) -> FlagDetail:
        found = number_of(number)
        flag = flags.undo(found, caller().name)
        return _detail(flag, flags.history(found))

    return topic


def number_of(text: str) -> int:
    """The number of a flag in a path. Raises UnknownFlag: what is no number names no flag."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) <= _MOST:
        raise UnknownFlag(f"there is no flag {text[:40]!r}")
    return int(text)


def _answer(flag: Flag) -> FlagAnswer:
    assert flag.kind in KINDS
    assert flag.state in STATES
    return FlagAnswer.model_validate(flag)


def _detail(flag: Flag, history: list[Change]) -> FlagDetail:
    changes = [ChangeAnswer.model_validate(change) for change in history]
    return FlagDetail(**_answer(flag).model_dump(), history=changes)
