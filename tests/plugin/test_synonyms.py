"""Synonyms: how rules are written, what they make of a query, and that both engines find by them."""

import os
import time
from pathlib import Path

import pytest

from endcap.catalog.product import Product
from endcap.engines import Engine, Filter, SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import ConfigurationError, InvalidInput
from endcap.recall import Recaller
from endcap.stores.database import Database
from endcap.stores.synonyms import SynonymStore, UnknownSynonym
from endcap.synonyms import MOST_VARIANTS, LiveSynonyms, Synonyms, parse_file, parse_rule
from tests.plugin.elasticsearch_support import Make, index, make, no_drain

__all__ = ["index", "make", "no_drain"]

RULES = """
# sold under many names
tv, television, telly set   # and so on
i-pod, i pod => ipod
sofa => couch, settee
a1, b1
b1 => a1
"""
PRODUCTS = [
    Product("t1", "Television 55 inch", brand="Loewe", price=900.0),
    Product("t2", "TV wall mount", brand="Vogel", price=30.0),
    Product("t3", "Radio", "Better than any telly set.", brand="Loewe", price=60.0),
    Product("p1", "iPod nano", brand="Apple", price=90.0),
    Product("c1", "Couch Oslo", brand="Home", price=400.0),
    Product("c2", "Settee Rome", brand="Home", price=500.0),
    Product("c3", "Sofa cover", brand="Home", price=20.0),
]


def rules() -> Synonyms:
    return Synonyms(parse_file(RULES))


@pytest.mark.parametrize(
    ("typed", "text", "variants"),
    [
        ("radio", "radio", ()),
        ("TV stand", "tv stand", ("television stand", "telly set stand")),
        ("the telly set", "the telly set", ("the tv", "the television")),
        ("I-Pod case", "ipod case", ()),
        ("i pod", "ipod", ()),
        ("sofa", "couch", ("settee",)),
        ("tv sofa", "tv couch", ("television settee", "television couch", "telly set couch", "tv settee")),
        ("", "", ()),
        ("?!", "?!", ()),
        ("tv " * 30, "tv " * 30, ()),
    ],
)
def test_a_query_is_said_otherwise(typed: str, text: str, variants: tuple[str, ...]) -> None:
    made = rules().expand(typed)
    assert (made.text, made.variants) == (text, variants)


def test_cycles_end_and_many_terms_are_bounded() -> None:
    assert rules().expand("b1").text == "a1", "a replacement goes before a group, once"
    circle = Synonyms([parse_rule("a => b"), parse_rule("b => c"), parse_rule("c => a")])
    assert [circle.expand(one).text for one in "abc"] == ["b", "c", "a"]
    many = Synonyms([parse_rule(", ".join(f"w{n}" for n in range(40)))])
    assert len(many.expand("w0 w1 w2").variants) == MOST_VARIANTS


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("alone", "`a, b`"),
        ("a =>", "nothing stands behind"),
        ("=> a", "`a, b`"),
        ("a => b => c", "one =>"),
        ("a, !!", "holds no word"),
        ("a, b c d e f g h", "more than 6 words"),
        (", ".join(f"w{n}" for n in range(60)), "50 terms"),
        ("a, " + "b" * 3000, "2,000 characters"),
    ],
)
def test_what_is_no_rule_is_named(line: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse_rule(line)


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        parse_file("a, b\nalone\n")
    file = tmp_path / "synonyms.txt"
    live = LiveSynonyms(str(file))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        live.turn()
    file.write_text("\ufefftv, television\n", encoding="utf-8")
    live.turn()
    assert live.current.expand("tv").variants == ("television",)
    file.write_text("broken\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        live.turn()
    assert live.current.expand("tv").variants == ("television",), "what was in force stays"
    file.write_text("tv, telly\n")
    os.utime(file, (time.time(), time.time() + 5))
    live.turn()
    assert live.current.expand("tv").variants == ("telly",)


def test_stored_rules_are_in_force_at_the_next_look(tmp_path: Path) -> None:
    database = Database.in_folder(tmp_path)
    store = SynonymStore(database)
    live = LiveSynonyms("", store.version, lambda: [one.rule for one in store.all()])
    live.turn()
    assert not live.current
    added = store.add("TV ,  Television", "ann")
    assert (added.rule, added.by) == ("tv, television", "ann")
    with pytest.raises(InvalidInput, match="says the same"):
        store.add("tv, television")
    live.turn()
    assert live.current.expand("television").variants == ("tv",)
    store.remove(added.id)
    with pytest.raises(UnknownSynonym):
        store.remove(added.id)
    live.turn()
    assert not live.current
    database.close()


def found(engine: Engine, text: str) -> list[str]:
    return Recaller(engine, None, rules).recall(SearchRequest(text), 10).ids


def check(engine: Engine) -> None:
    engine.ensure(None, "none")
    engine.upsert([(one, None, "") for one in PRODUCTS])
    engine.refresh()
    assert set(found(engine, "tv")) == {"t1", "t2", "t3"}
    assert found(engine, "tv")[0] == "t2", "what was typed counts most"
    assert set(found(engine, "sofa")) == {"c1", "c2"}, "what is replaced is not searched for"
    assert found(engine, "i-pod nano") == ["p1"]
    assert found(engine, "television mount") == ["t2"]
    recaller = Recaller(engine, None, rules)
    plain = Recaller(engine, None)
    exact = recaller.recall(SearchRequest("telly set"), 10)
    assert exact.relaxed == ()
    assert plain.recall(SearchRequest("televisoin"), 10).relaxed == ("spelling",)
    half = plain.recall(SearchRequest("television zzzzzzzzz"), 10)
    assert (half.ids, half.relaxed) == (["t1"], ("1 of 2 words",))
    dear = SearchRequest("couch", (Filter("brand", ("Home",)), Filter("price", lte=100.0)))
    assert plain.recall(dear, 10).ids == []
    rescued = plain.recall(dear, 10, rescue=True)
    assert (rescued.ids, rescued.relaxed) == (["c1"], ("filter price dropped",))
    both = SearchRequest("couch", (Filter("brand", ("Apple",)), Filter("price", lte=1.0)))
    assert plain.recall(both, 10, rescue=True).relaxed == ("filter price dropped", "filter brand dropped")
    nothing = SearchRequest("zzzzzzzz", (Filter("price", lte=1.0),))
    rescued = plain.recall(nothing, 10, rescue=True)
    assert (rescued.ids, rescued.relaxed, rescued.request.filters) == ([], (), nothing.filters)


def test_the_embedded_engine_finds_by_them(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, "shop")
    check(engine)
    engine.close()


@pytest.mark.elasticsearch
def test_elasticsearch_finds_by_them(make: Make) -> None:
    check(make())
