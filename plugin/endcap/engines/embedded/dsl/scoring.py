"""`function_score`: scores changed by weights, by the value of a number field, or by its distance from a value.

tantivy scores by words only; so all matches are scored first and changed here, as arrays. That is possible only where
the result is the whole query's score: at the top, or where only filters stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tantivy

from .context import Context, Query, boosted, everything
from .errors import illegal, parsing, unsupported
from .fields import Field, aggregatable
from .values import as_float, as_list, as_object, only

Compile = Callable[[Any, Context], Query]
#: Values (one per match, NaN where the field has none) -> factors.
Function = Callable[[np.ndarray], np.ndarray]

_FUNCTIONS = ("field_value_factor", "gauss", "exp", "linear")
_SCORE_MODES = ("multiply", "sum", "avg", "first", "max", "min")
_BOOST_MODES = ("multiply", "replace", "sum", "avg", "max", "min")
_MODIFIERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "log": np.log10,
    "log1p": lambda x: np.log10(x + 1.0),
    "log2p": lambda x: np.log10(x + 2.0),
    "ln": np.log,
    "ln1p": np.log1p,
    "ln2p": lambda x: np.log1p(x + 1.0),
    "square": np.square,
    "sqrt": np.sqrt,
    "reciprocal": lambda x: 1.0 / x,
}
_MAX_FUNCTIONS = 32


@dataclass(frozen=True, slots=True)
class Part:
    """One function: where its filter matches (everywhere if None), ``weight`` times the function of the field's value
    (1 if there is none)."""

    condition: Query | None
    field: Field | None
    function: Function | None
    weight: float


@dataclass(frozen=True, slots=True)
class Rescoring:
    """How the scores of the matches change."""

    parts: tuple[Part, ...]
    score_mode: str
    boost_mode: str
    max_boost: float
    min_score: float | None
    boost: float

    def apply(self, context: Context, addresses: list[tantivy.DocAddress], scores: np.ndarray) -> np.ndarray:
        """The new scores; float64, same shape.

        Raises:
            DslError: a function gives no usable number for some match.
        """
        factors, counted, weights = self._combined(context, addresses)
        if self.score_mode == "avg":
            factors = np.where(weights > 0, factors / np.where(weights > 0, weights, 1.0), 1.0)
        factors = np.minimum(np.where(counted, factors, 1.0), self.max_boost)
        if not np.isfinite(factors).all() or (factors < 0).any():
            raise illegal("function_score must not produce negative scores, nor NaN nor infinity", wrapped=True)
        combine: dict[str, Callable[[], np.ndarray]] = {
            "multiply": lambda: scores * factors,
            "replace": lambda: factors,
            "sum": lambda: scores + factors,
            "avg": lambda: (scores + factors) / 2.0,
            "max": lambda: np.maximum(scores, factors),
            "min": lambda: np.minimum(scores, factors),
        }
        return combine[self.boost_mode]() * self.boost

    def _combined(
        self, context: Context, addresses: list[tantivy.DocAddress]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Factors before averaging, which matches any function counted for, and the sums of weights."""
        many = len(addresses)
        rows = context.snapshot.rows_of(addresses)
        total, counted, weights = np.zeros(many), np.zeros(many, dtype=bool), np.zeros(many)
        join = {"multiply": np.multiply, "max": np.maximum, "min": np.minimum}.get(self.score_mode, np.add)
        for part in self.parts:
            where = np.ones(many, dtype=bool)
            if part.condition is not None:
                where = np.isin(rows, context.snapshot.rows_matching(part.condition))
            if self.score_mode == "first":
                where &= ~counted
            value = np.full(many, part.weight)
            if part.function is not None and part.field is not None:
                held = context.searcher.fast_field_values(str(part.field.exact), addresses)
                with np.errstate(all="ignore"):
                    value *= part.function(np.array([math.nan if one is None else one for one in held], dtype=float))
            total = np.where(where, np.where(counted, join(total, value), value), total)
            weights += np.where(where, part.weight, 0.0)
            counted |= where
        return total, counted, weights


def scored(context: Context, query: Query) -> tuple[list[tantivy.DocAddress], np.ndarray]:
    """Every match with its score; float64, shape (matches,)."""
    hits = context.searcher.search(query, limit=max(1, context.snapshot.count), count=False).hits
    addresses = [address for _, address in hits]
    scores = np.fromiter((score for score, _ in hits), dtype=float, count=len(hits))
    if context.rescoring is None or not hits:
        return addresses, scores
    changed = context.rescoring.apply(context, addresses, scores)
    if context.rescoring.min_score is None:
        return addresses, changed
    kept = np.flatnonzero(changed >= context.rescoring.min_score)
    return [addresses[at] for at in kept.tolist()], changed[kept]


def function_score(options: Any, context: Context, compile_query: Compile) -> Query:
    """The inner query; the change of its scores goes into the context.

    Raises:
        DslError: not at the top, or with a function that is not answered here.
    """
    options = as_object(options, "function_score")
    allowed = {"query", "functions", "score_mode", "boost_mode", "max_boost", "min_score", "boost", "weight", "_name"}
    for key in options:
        if key in ("random_score", "script_score"):
            raise unsupported(f"function_score.{key}")
    only(options, allowed | set(_FUNCTIONS), "function_score")
    if not context.sole:
        raise unsupported("function_score beside or inside another query that scores")
    with context.among_others():
        query = compile_query(options["query"], context) if options.get("query") is not None else everything()
    functions = [as_object(one, "functions") for one in as_list(options.get("functions"))]
    single = {key: options[key] for key in (*_FUNCTIONS, "weight") if key in options}
    if single and functions:
        raise parsing("failed to parse [function_score] query. already found [functions] array")
    if len(functions) > _MAX_FUNCTIONS:
        raise illegal(f"at most [{_MAX_FUNCTIONS}] functions are supported")
    score_mode, boost_mode = options.get("score_mode", "multiply"), options.get("boost_mode", "multiply")
    if score_mode not in _SCORE_MODES:
        raise illegal(f"illegal score_mode in function_score query [{score_mode}]")
    if boost_mode not in _BOOST_MODES:
        raise illegal(f"illegal boost_mode in function_score query [{boost_mode}]")
    boosted(query, options)
    minimum = options.get("min_score")
    context.rescoring = Rescoring(
        parts=tuple(_part(one, context, compile_query) for one in ([single] if single else functions)),
        score_mode=score_mode,
        boost_mode=boost_mode,
        max_boost=as_float(options.get("max_boost", 3e38), "max_boost"),
        min_score=None if minimum is None else as_float(minimum, "min_score"),
        boost=as_float(options.get("boost", 1.0), "boost"),
    )
    return query


def _part(body: dict[str, Any], context: Context, compile_query: Compile) -> Part:
    for key in body:
        if key in ("random_score", "script_score"):
            raise unsupported(f"function_score.{key}")
    only(body, {"filter", "weight", *_FUNCTIONS}, "function_score")
    kinds = [kind for kind in _FUNCTIONS if kind in body]
    if len(kinds) > 1 or (not kinds and "weight" not in body):
        raise parsing("failed to parse [function_score] query. a function needs one of its kinds, or a [weight]")
    condition = None
    if body.get("filter") is not None:
        with context.unmarked(), context.among_others():
            condition = compile_query(body["filter"], context)
    weight = as_float(body.get("weight", 1.0), "weight")
    if not kinds:
        return Part(condition, None, None, weight)
    options = as_object(body[kinds[0]], kinds[0])
    if kinds[0] == "field_value_factor":
        return Part(condition, _number_field(options.get("field")), _value_factor(options), weight)
    names = [name for name in options if name != "multi_value_mode"]
    if len(names) != 1:
        raise parsing(f"[{kinds[0]}] takes exactly one field")
    return Part(condition, _number_field(names[0]), _decay(kinds[0], as_object(options[names[0]], names[0])), weight)


def _number_field(name: Any) -> Field:
    field = aggregatable(name, "function_score") if isinstance(name, str) else None
    if field is None:
        raise illegal(f"Unable to find a field mapper for field [{name}]. No 'missing' value defined.", wrapped=True)
    if field.kind != "number":
        raise unsupported(f"function_score over [{name}], which is not a number field")
    return field


def _value_factor(options: dict[str, Any]) -> Function:
    only(options, {"field", "factor", "modifier", "missing"}, "field_value_factor")
    modifier = _MODIFIERS.get(str(options.get("modifier", "none")).lower())
    if modifier is None:
        raise illegal(f"No enum constant FieldValueFactorFunction.Modifier.{options['modifier']}")
    factor = as_float(options.get("factor", 1.0), "factor")
    missing = math.nan if options.get("missing") is None else as_float(options["missing"], "missing")
    return lambda values: modifier(np.where(np.isnan(values), missing, values) * factor)


def _decay(kind: str, options: dict[str, Any]) -> Function:
    only(options, {"origin", "scale", "offset", "decay"}, kind)
    origin, scale = as_float(options.get("origin"), "origin"), as_float(options.get("scale"), "scale")
    offset, decay = as_float(options.get("offset", 0.0), "offset"), as_float(options.get("decay", 0.5), "decay")
    if scale <= 0 or offset < 0 or not 0 < decay < 1:
        raise illegal(f"[{kind}] wants scale > 0, offset >= 0 and decay between 0 and 1")

    def decayed(values: np.ndarray) -> np.ndarray:
        away = np.maximum(0.0, np.abs(values - origin) - offset)
        if kind == "gauss":
            result = np.exp(math.log(decay) * np.square(away / scale))
        elif kind == "exp":
            result = np.exp(math.log(decay) * away / scale)
        else:
            result = np.maximum(0.0, 1.0 - (1.0 - decay) * away / scale)
        # Without a value nothing is known against it.
        return np.where(np.isnan(values), 1.0, result)

    return decayed
