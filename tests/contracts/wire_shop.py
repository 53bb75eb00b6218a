"""Products, random queries and a plain-Python reader of the Query DSL: what the wire engines are held against."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
from hypothesis import strategies as st

from endcap.catalog.product import Product

DIMS = 4
ENCODER = "wire-encoder"

WORDS = [
    "red", "blue", "green", "shoe", "shoes", "shirt", "honey", "oats", "water", "light", "cold", "fresh", "sweet",
    "sour", "small", "large",
]  # fmt: skip
BRANDS = ["Acme", "Bee & Co", "Loom", "acme"]
COLOURS = ["Red", "Dark Blue", "red"]


def _products() -> list[Product]:
    pick = random.Random(7)
    made = []
    for number in range(60):
        words = pick.choices(WORDS, k=pick.randint(1, 5))
        attributes: dict[str, Any] = {}
        if number % 3:
            attributes["color"] = pick.choice(COLOURS)
        if number % 4:
            attributes["size"] = pick.choice([36, 38, 40.5])
        if number % 5 == 0:
            attributes["organic"] = bool(number % 2)
        made.append(
            Product(
                id=f"p{number:02d}",
                title=" ".join(words).title(),
                description=" ".join(pick.choices(WORDS, k=pick.randint(0, 8))),
                brand=pick.choice(["", *BRANDS]),
                categories=pick.choice([(), ("Food",), ("Food", "Drinks"), ("Clothing", "Shoes"), ("Clothing",)]),
                price=None if number % 10 == 9 else float(pick.choice([1.5, 2, 9.99, 20, 35.25, 100])),
                stock=float(number % 7),
                image=f"https://shop.example/{number}.jpg",
                attributes=attributes,
            )
        )
    return made


PRODUCTS = _products()
BY_ID = {one.id: one for one in PRODUCTS}
VECTORS = {
    one.id: vector / np.linalg.norm(vector)
    for one, vector in zip(PRODUCTS, np.random.default_rng(3).normal(size=(60, DIMS)).astype(np.float32), strict=True)
}


def items() -> list[tuple[Product, np.ndarray | None, str]]:
    """The shop as an engine takes it."""
    return [(one, VECTORS[one.id], f"digest-{one.id}") for one in PRODUCTS]


# --- random queries ----------------------------------------------------------------------------------------------

_text = st.lists(st.sampled_from([*WORDS, "unheard"]), min_size=1, max_size=4).map(" ".join)
_text_field = st.sampled_from(["title", "description", "brand.text", "nowhere"])
_exact = st.sampled_from(["brand", "category", "attributes.color", "id"])
_value = st.sampled_from([*BRANDS, *COLOURS, "Food", "Food > Drinks", "Clothing", "p03", "p17", "nothing"])
_number = st.sampled_from([1.5, 2, 3, 9.99, 20, 36, 50, 100])
_minimum = st.sampled_from([1, 2, "75%", "-1", "2<75%", "-25%"])


def _match(field: str, text: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"match": {field: {"query": text, **options}}}


_leaf = st.one_of(
    st.just({"match_all": {}}),
    st.just({"match_none": {}}),
    st.builds(
        _match,
        _text_field,
        _text,
        st.fixed_dictionaries({}, optional={"operator": st.sampled_from(["or", "and"]), "boost": st.just(2)}),
    ),
    st.builds(_match, _text_field, _text, st.fixed_dictionaries({"minimum_should_match": _minimum})),
    st.builds(lambda field, text: {"match_phrase": {field: text}}, _text_field, _text),
    st.builds(
        lambda fields, text, kind, operator: {
            "multi_match": {"query": text, "fields": fields, "type": kind, "operator": operator}
        },
        st.lists(st.sampled_from(["title^3", "description", "brand.text"]), min_size=1, max_size=3, unique=True),
        _text,
        st.sampled_from(["best_fields", "most_fields", "cross_fields", "phrase"]),
        st.sampled_from(["or", "and"]),
    ),
    st.builds(lambda field, value: {"term": {field: value}}, _exact, _value),
    st.builds(lambda field, values: {"terms": {field: values}}, _exact, st.lists(_value, max_size=3)),
    st.builds(lambda values: {"ids": {"values": values}}, st.lists(_value, max_size=3)),
    st.builds(lambda field, value: {"prefix": {field: value[:2]}}, _exact, _value),
    st.builds(
        lambda field, bounds: {"range": {field: bounds}},
        st.sampled_from(["price", "stock"]),
        st.dictionaries(st.sampled_from(["gte", "gt", "lte", "lt"]), _number, min_size=1, max_size=2),
    ),
    st.builds(
        lambda field: {"exists": {"field": field}}, st.sampled_from(["price", "brand", "attributes.color", "no"])
    ),
)


def _bool(must: list[Any], flt: list[Any], should: list[Any], must_not: list[Any], minimum: Any) -> dict[str, Any]:
    parts = {"must": must, "filter": flt, "should": should, "must_not": must_not}
    body: dict[str, Any] = {name: clauses for name, clauses in parts.items() if clauses}
    if minimum is not None and should:
        body["minimum_should_match"] = minimum
    return {"bool": body}


def _compound(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    few = st.lists(inner, max_size=2)
    return st.one_of(
        st.builds(_bool, few, few, st.lists(inner, max_size=3), few, st.none() | st.integers(0, 3) | _minimum),
        st.builds(lambda one: {"constant_score": {"filter": one}}, inner),
        st.builds(lambda several: {"dis_max": {"queries": several}}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda one, two: {"boosting": {"positive": one, "negative": two, "negative_boost": 0.5}}, inner, inner
        ),
    )


#: Query trees of every kind that is answered here.
QUERIES = st.recursive(_leaf, _compound, max_leaves=8)


# --- what they match ---------------------------------------------------------------------------------------------


def matched(query: dict[str, Any]) -> set[str]:
    """Ids of the products that match, found by reading every product."""
    return {one.id for one in PRODUCTS if _matches(query, one)}


def _matches(query: dict[str, Any], product: Product) -> bool:
    (name, options), *_ = query.items()
    if name == "match_all":
        return True
    if name == "match_none":
        return False
    if name == "match":
        (field, rest), *_ = options.items()
        return _words_match(_words(field, product), rest["query"].split(), rest)
    if name == "match_phrase":
        (field, text), *_ = options.items()
        return _phrase_in(_words(field, product), text.split())
    if name == "multi_match":
        return _multi_match(options, product)
    if name in ("term", "terms", "prefix"):
        (field, value), *_ = options.items()
        values = [str(one) for one in _values(field, product)]
        if name == "prefix":
            return any(one.startswith(value) for one in values)
        return any(one in values for one in (value if name == "terms" else [value]))
    if name == "ids":
        return product.id in options["values"]
    if name == "range":
        (field, bounds), *_ = options.items()
        return any(_inside(one, bounds) for one in _values(field, product))
    if name == "exists":
        return bool(_values(options["field"], product))
    if name == "constant_score":
        return _matches(options["filter"], product)
    if name == "dis_max":
        return any(_matches(one, product) for one in options["queries"])
    if name == "boosting":
        return _matches(options["positive"], product)
    assert name == "bool"
    return _bool_matches(options, product)


def _bool_matches(options: dict[str, Any], product: Product) -> bool:
    required = options.get("must", []) + options.get("filter", [])
    should = options.get("should", [])
    if not all(_matches(one, product) for one in required):
        return False
    if any(_matches(one, product) for one in options.get("must_not", [])):
        return False
    if not should:
        return True
    needed = needed_of(options["minimum_should_match"], len(should)) if "minimum_should_match" in options else 0
    if not required:
        # Lucene: a disjunction wants one of its clauses, whatever the minimum says.
        needed = max(needed, 1)
    return sum(_matches(one, product) for one in should) >= needed


def needed_of(spec: Any, clauses: int) -> int:
    """`minimum_should_match`, read a second time."""
    text = str(spec)
    if found := re.fullmatch(r"(\d+)<(.+)", text):
        return clauses if clauses <= int(found[1]) else needed_of(found[2], clauses)
    if text.endswith("%"):
        share = int(text[:-1])
        return clauses - clauses * -share // 100 if share < 0 else clauses * share // 100
    return max(clauses + int(text) if text.startswith("-") else int(text), 0)


def _multi_match(options: dict[str, Any], product: Product) -> bool:
    text = options["query"].split()
    fields = [_words(field.partition("^")[0], product) for field in options["fields"]]
    if options["type"] == "phrase":
        return any(_phrase_in(words, text) for words in fields)
    if options["type"] == "cross_fields":
        return _words_match([word for words in fields for word in words], text, options)
    return any(_words_match(words, text, options) for words in fields)


def _words_match(words: list[str], text: list[str], options: dict[str, Any]) -> bool:
    found = sum(one in words for one in text)
    if options.get("operator") == "and":
        return found == len(text)
    needed = needed_of(options.get("minimum_should_match", 1), len(text)) if len(text) > 1 else 1
    return found >= max(needed, 1)


def _phrase_in(words: list[str], text: list[str]) -> bool:
    return any(words[at : at + len(text)] == text for at in range(len(words) - len(text) + 1))


def _words(field: str, product: Product) -> list[str]:
    texts = {"title": product.title, "description": product.description, "brand.text": product.brand}
    return re.findall(r"\w+", texts.get(field, "").lower())


def _values(field: str, product: Product) -> list[Any]:
    value = product.attributes.get(field[11:]) if field.startswith("attributes.") else product.to_document().get(field)
    return [] if value is None else value if isinstance(value, list) else [value]


def _inside(value: float, bounds: dict[str, float]) -> bool:
    tests = {"gte": value.__ge__, "gt": value.__gt__, "lte": value.__le__, "lt": value.__lt__}
    # Of two bounds on the same side the last one counts.
    last = {name[0]: (name, bound) for name, bound in bounds.items()}
    return all(tests[name](float(bound)) for name, bound in last.values())
