"""Who may come in, and who changed what: tokens and the audit log."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from endcap.runtime import Runtime
from endcap.stores.audit import AuditLog
from endcap.stores.tokens import Role, Tokens
from endcap_reranker.admin.operation import Answer, Strict, Topic


class TokenAnswer(Answer):
    """A token, without its secret. Times are seconds since 1970 (UTC); null: never."""

    id: str
    name: str = Field(description="Whose it is; stands in the audit log.")
    role: Role
    local: bool = Field(description="Only for a server that listens on its own machine.")
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None = Field(description="To the minute.")


class TokenList(Answer):
    """All tokens, the newest first."""

    tokens: list[TokenAnswer]


class TokenBody(Strict):
    """Whose token, and for what."""

    name: str = Field(min_length=1, max_length=80, pattern=r"\S")
    role: Literal["reader", "operator", "admin"]
    days: float | None = Field(None, gt=0, le=3_660, description="Days until it expires; null: never.")


class MadeToken(Answer):
    """A new token."""

    token: str = Field(description="The token itself, which cannot be had again.")
    about: TokenAnswer


class EntryAnswer(Answer):
    """One line of the audit log."""

    sequence: int
    time: float = Field(description="Seconds since 1970 (UTC).")
    token: str = Field(description="Id of the token; empty where nobody was let in.")
    who: str
    role: str
    address: str
    action: str = Field(description="Method and route.")
    path: str
    status: int
    outcome: str = Field(description="`done`, or the short name of what went wrong.")
    parameters: dict[str, Any] = Field(description="Without secrets.")
    request_id: str


class EntryList(Answer):
    """Lines, newest first."""

    entries: list[EntryAnswer]


class EntriesQuery(Strict):
    """Which lines."""

    who: str = Field("", max_length=100, description="Only of this token, by name or id.")
    action: str = Field("", max_length=100, description="Only those whose action contains this.")
    since: float = Field(0.0, ge=0, le=1e11, description="Only from then on, seconds since 1970.")
    before: int = Field(0, ge=0, le=2**62, description="Only those numbered below; for the next page.")
    limit: int = Field(100, ge=1, le=1_000, description="At most so many.")


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("access", "Tokens, and the audit log of what was changed by them.")
    tokens, audit = Tokens(runtime.database), AuditLog(runtime.database)

    @topic.operation("GET", "/tokens", role="admin", summary="All tokens, without their secrets.", answer=TokenList)
    def list_tokens() -> TokenList:
        return TokenList(tokens=[TokenAnswer.model_validate(one) for one in tokens.all()])

    @topic.operation(
        "POST", "/tokens", role="admin", summary="Make a token.", body=TokenBody, answer=MadeToken, status=201
    )
    def create_token(body: TokenBody) -> MadeToken:
        """Only a digest is kept: the answer is the only place where the token ever stands."""
        text, made = tokens.create(body.name, body.role, body.days)
        return MadeToken(token=text, about=TokenAnswer.model_validate(made))

    @topic.operation(
        "POST", "/tokens/<token_id>/revoke", role="admin", summary="Make a token useless.", answer=TokenAnswer,
        errors=(404,),
    )  # fmt: skip
    def revoke_token(token_id: str) -> TokenAnswer:
        """At once, for every server; sessions of the console that it opened end, too."""
        return TokenAnswer.model_validate(tokens.revoke(token_id))

    @topic.operation(
        "GET", "/audit", role="admin", summary="Who changed what, when, from where.", query=EntriesQuery,
        answer=EntryList,
    )  # fmt: skip
    def list_audit(query: EntriesQuery) -> EntryList:
        """Every call that was not a mere look, refused ones included, of this API and of the console."""
        found = audit.latest(query.limit, query.before, query.who, query.action, query.since)
        return EntryList(entries=[EntryAnswer.model_validate(one) for one in found])

    return topic
