"""Exact comparison: one value, one of several, a beginning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from endcap.engines.embedded import schema as layout

from .context import Context, Query, any_of, constant, nothing
from .errors import refused, unsupported
from .fields import Field, not_indexed
from .values import as_text

#: Documents that an exact title comparison reads at most.
_MAX_VERIFIED = 5000


def equal(context: Context, field: Field, value: Any) -> Query:
    """Documents whose field has this value; on text fields: this word, as it is in the index. Scored by how rare
    it is (numbers and exact titles: 1).

    Raises:
        DslError: the value is of no use for the field's type.
    """
    if field.kind == "stored":
        raise not_indexed(field.name)
    if field.kind == "number":
        assert field.exact
        number = parse_number(value, field)
        return constant(context.term(field.exact, number))
    if field.kind == "attribute":
        assert field.exact
        return any_of([context.value(field.exact, one) for one in _variants(value)])
    text = as_text(value, "term")
    if not encodable(text):
        return nothing()
    if field.kind == "title":
        return _titles(context, [text])
    column = field.exact or field.words
    assert column
    if field.kind == "folded":
        text = fold_title(text)
    context.mark(column, word=text)
    return context.value(column, text) if field.exact else context.term(column, text)


def one_of(context: Context, field: Field, values: list[Any]) -> Query:
    """Documents whose field has one of these values; score 1."""
    if field.kind == "stored":
        raise not_indexed(field.name)
    if not values:
        return nothing()
    if field.kind == "number":
        numbers = [parse_number(value, field) for value in values]
        return constant(any_of([context.term(str(field.exact), number) for number in dict.fromkeys(numbers)]))
    if field.kind == "attribute":
        variants = {(type(one), one): one for value in values for one in _variants(value)}
        return constant(any_of([context.term(str(field.exact), one) for one in variants.values()]))
    texts = [text for value in values if encodable(text := as_text(value, "terms"))]
    if field.kind == "title":
        return _titles(context, texts)
    column = field.exact or field.words
    assert column
    if field.kind == "folded":
        texts = [fold_title(text) for text in texts]
    for text in texts[:1000]:
        context.mark(column, word=text)
    return constant(Query.term_set_query(context.schema, column, texts)) if texts else nothing()


def starting(context: Context, field: Field, beginning: str) -> Query:
    """Documents whose field has a value (on text fields: a word) that begins so; score 1.

    Raises:
        DslError: the field holds numbers.
    """
    if field.kind == "stored":
        raise not_indexed(field.name)
    if field.kind == "number":
        raise refused(
            f"Can only use prefix queries on keyword, text and wildcard fields - not on [{field.name}] which is of "
            "type [double]"
        )
    if not encodable(beginning):
        return nothing()
    if field.kind == "attribute":
        values = [one for one in context.attribute_values(str(field.exact)) if isinstance(one, str)]
        return one_of(context, field, [one for one in values if one.startswith(beginning)])
    if field.kind == "title":
        folded = context.prefix(str(field.exact), fold_title(beginning))
        return _verified(context, folded, lambda title: title.startswith(beginning))
    column = field.exact or field.words
    assert column
    if field.kind == "folded":
        beginning = fold_title(beginning)
    context.mark(column, prefix=beginning)
    return context.prefix(column, beginning)


def parse_number(value: Any, field: Field) -> float:
    """
    Raises:
        DslError: it is not a number.
    """
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise refused(f'For input string: "{str(value)[:100]}" [{field.name}]')
    return number


def encodable(text: str) -> bool:
    """Whether the index could hold it: no lone surrogates."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def fold_title(title: str) -> str:
    """A title as its sort field begins."""
    return layout.normalize(title).casefold()[: layout._MAX_TITLE_SORT]


def _variants(value: Any) -> list[str | int | float | bool]:
    """An asked value in each type that an attribute could hold it in: "5" is also 5, "true" also true."""
    text = as_text(value, "term")
    if isinstance(value, bool) or text in ("true", "false"):
        return [text, text == "true"]
    found: list[str | int | float | bool] = [text] if encodable(text) else []
    try:
        number = float(text)
    except ValueError:
        return found
    if math.isfinite(number):
        # Whole numbers are in the index as integers.
        found.append(int(number) if number.is_integer() and abs(number) < 2**53 else number)
    return found


def _titles(context: Context, titles: list[str]) -> Query:
    folded = list({fold_title(title) for title in titles})
    if not folded:
        return nothing()
    wanted = set(titles)
    return _verified(context, Query.term_set_query(context.schema, layout.TITLE_SORT, folded), wanted.__contains__)


def _verified(context: Context, candidates: Query, test: Callable[[str], bool]) -> Query:
    """Those candidates whose stored title passes: the index holds titles folded only."""
    matches = context.snapshot.matching(candidates, _MAX_VERIFIED + 1)
    if len(matches) > _MAX_VERIFIED:
        raise unsupported(f"an exact comparison of more than {_MAX_VERIFIED} titles")
    rows = [row for row, address in matches if test(context.snapshot.document(address).get("title", ""))]
    ids = [context.snapshot.ids[row] for row in rows]
    return constant(Query.term_set_query(context.schema, layout.ID, ids)) if ids else nothing()
