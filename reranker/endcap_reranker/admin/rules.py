"""Business rules: what the shop demands of rankings."""

from __future__ import annotations

from typing import Any

from endcap.policy.rule import Rule
from endcap.runtime import Runtime
from endcap.stores.rules import Rules, StoredRule, UnknownRule
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Removed, Topic


class RuleAnswer(Answer):
    """A rule as stored. Times are seconds since 1970 (UTC)."""

    id: int
    rule: dict[str, Any]
    created: float
    updated: float
    by: str


class RuleList(Answer):
    """All rules, by number."""

    rules: list[RuleAnswer]


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("rules", "Business rules: boost, bury, pin, hide, caps, diversity, sponsored products.")
    store = Rules(runtime.database)

    @topic.operation("GET", "/rules", role="reader", summary="All rules.", answer=RuleList)
    def list_rules() -> RuleList:
        return RuleList(rules=[shown(one) for one in store.all()])

    @topic.operation(
        "POST", "/rules", role="operator", summary="A new rule; in force on every server about a second later.",
        body=Rule, answer=RuleAnswer, status=201,
    )  # fmt: skip
    def add_rule(body: Rule) -> RuleAnswer:
        return shown(store.add(body, caller().name))

    @topic.operation("GET", "/rules/<number>", role="reader", summary="One rule.", answer=RuleAnswer, errors=(404,))
    def get_rule(number: str) -> RuleAnswer:
        return shown(store.get(_number(number)))

    @topic.operation(
        "PUT", "/rules/<number>", role="operator", summary="Change a rule.", body=Rule, answer=RuleAnswer,
        errors=(404,),
    )  # fmt: skip
    def change_rule(number: str, body: Rule) -> RuleAnswer:
        return shown(store.replace(_number(number), body, caller().name))

    @topic.operation(
        "DELETE", "/rules/<number>", role="operator", summary="Remove a rule.", answer=Removed, errors=(404,)
    )
    def remove_rule(number: str) -> Removed:
        store.remove(_number(number))
        return Removed(removed=_number(number))

    return topic


def shown(one: StoredRule) -> RuleAnswer:
    """For answers."""
    return RuleAnswer(
        id=one.id,
        rule=one.rule.model_dump(mode="json", exclude_none=True),
        created=one.created,
        updated=one.updated,
        by=one.by,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UnknownRule(f"there is no rule {text!r:.40}: rules have numbers")
    return int(text)
